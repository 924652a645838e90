"""models/parsers/densepose.py and the stage parse with the real detectron2, where installed, and random weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.parsers.densepose import load_densepose
from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_TO_PARTS8
from pipeline.base.images import read_image
from pipeline.caches.cache import Cache
from pipeline.datasets.index import write_index
from pipeline.inspection.soundness import inspect_cache
from pipeline.parsing.augmentation import flip
from stages import parse as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("densepose", reason="detectron2's DensePose is not installed")

COUNT = 6
STD = {"ann_index_lowres": 0.3, "index_uv_lowres": 0.3, "u_lowres": 5e-4, "v_lowres": 5e-4, "cls_score": 0.05}
TO_PARTS8 = torch.eye(8)[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))]
SMALL = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  DENSEPOSE_ON: true
  ROI_HEADS: {NAME: DensePoseROIHeads, IN_FEATURES: [p2, p3, p4, p5], NUM_CLASSES: 1}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_DENSEPOSE_HEAD: {NAME: DensePoseV1ConvXHead, POOLER_RESOLUTION: 14, NUM_COARSE_SEGM_CHANNELS: 2,
    CONV_HEAD_DIM: 32, NUM_STACKED_CONVS: 2, DECODER_ON: false}
INPUT: {MIN_SIZE_TEST: 16}
"""


def test_a_flip_is_that_of_detectron2_s_symmetry_table():
    """Each part's id, and u and v over the middle of its chart: the table was drawn from a mesh's vertices, so that it
    is not exact, and towards the corners, where a chart has no vertex, it says nothing."""
    from densepose.structures import DensePoseTransformData
    from iopath.common.file_io import get_cache_dir
    table = Path(get_cache_dir()) / "densepose/data/UV_symmetry_transforms.mat"  # detectron2 fetches it for training
    if not table.exists():
        pytest.skip(f"{table} is absent")
    known = DensePoseTransformData.load(str(table))

    v, u = np.indices((256, 256)).astype(np.uint8)
    middle = np.s_[64:192, 64:192]
    for part in range(1, len(DENSEPOSE24)):
        chart = (np.zeros((256, 256, 3), np.uint8), np.full((256, 256), part, np.uint8), np.stack([u, v], 2))
        _, labels, uv = (array[:, ::-1] for array in flip(chart, "densepose24"))
        assert (labels == known.point_label_symmetries[part]).all()
        for axis, name in enumerate(("U_transforms", "V_transforms")):
            theirs, ours = known.uv_symmetries[name][part - 1].numpy()[middle], uv[..., axis][middle] / 255
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95, (DENSEPOSE24[part], name)
            assert np.abs(ours - theirs).mean() < 0.05, (DENSEPOSE24[part], name)


def spread(model) -> None:
    """Draw the last layers' weights so that labels and scores differ, and u,v lie within and beyond [0, 1]."""
    for name, weights in model.named_parameters():
        layer = name.rsplit(".", 2)[-2]
        if name.endswith(".weight") and layer in STD:
            torch.nn.init.normal_(weights, std=STD[layer])
        if layer in ("u_lowres", "v_lowres") and name.endswith(".bias"):
            torch.nn.init.constant_(weights, 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A small configuration and random weights whose boxes, scores, labels, u and v vary."""
    from densepose import add_densepose_config
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    folder = tmp_path_factory.mktemp("densepose")
    (folder / "small.yaml").write_text(SMALL)
    cfg = get_cfg()
    add_densepose_config(cfg)
    cfg.merge_from_file(str(folder / "small.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    spread(model)
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder


def plain_nms(boxes, scores, threshold):
    """torchvision.ops.nms, for a torchvision whose compiled operators do not fit its torch."""
    from torchvision.ops import box_iou  # here: importing models.parsers first makes such a torchvision importable
    kept: list[int] = []
    for place in scores.argsort(descending=True).tolist():
        if not kept or box_iou(boxes[[place]], boxes[kept]).max() <= threshold:
            kept.append(place)
    return torch.tensor(kept, dtype=torch.long)


@pytest.fixture
def root(tmp_path, monkeypatch):
    from torchvision.extension import _has_ops
    if not _has_ops():
        monkeypatch.setattr("torchvision.ops.boxes.nms", plain_nms)
    index = write_set(tmp_path, COUNT, nobody=2)
    write_index(index, tmp_path / "data/index/tiny.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parser(files, **changes):
    return load_densepose(files / "weights.pth", config=files / "small.yaml", to_parts8=TO_PARTS8, height=HEIGHT,
                          width=WIDTH, **changes)


def pictures(root) -> list[np.ndarray]:
    return [read_image(path) for path in sorted((root / "raw/query").glob("*.jpg"))]


def watched(model):
    """A model that keeps what its `inference` returns."""
    kept, inference = [], model.inference
    model.inference = lambda *given, **named: kept.append(inference(*given, **named)) or kept[-1]
    return kept


def extracted(instances):
    """detectron2's own extraction of the surest instance, pasted into the frame: labels, u,v, drawing."""
    from densepose.vis.densepose_results import DensePoseResultsFineSegmentationVisualizer
    from densepose.vis.extractor import DensePoseResultExtractor
    labels, uv = np.zeros((HEIGHT, WIDTH), np.int64), np.zeros((HEIGHT, WIDTH, 2), np.float32)
    drawing = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if len(instances):
        surest = instances[int(instances.scores.argmax())] if instances.has("scores") else instances
        found, boxes = DensePoseResultExtractor()(surest)
        x, y = (int(value) for value in boxes[0][:2])
        rows, columns = min(found[0].labels.shape[0], HEIGHT - y), min(found[0].labels.shape[1], WIDTH - x)
        labels[y:y + rows, x:x + columns] = found[0].labels[:rows, :columns]
        uv[y:y + rows, x:x + columns] = found[0].uv.permute(1, 2, 0)[:rows, :columns].clamp(0, 1)
        drawer = DensePoseResultsFineSegmentationVisualizer(cmap=cv2.COLORMAP_JET, alpha=1.0)
        drawing = drawer.visualize(drawing, (found, boxes))

    return labels, uv, drawing


def drawn(native: np.ndarray) -> np.ndarray:
    levels = (native.astype(np.float32) * (255 / 24)).astype(np.uint8)
    return np.where(native[..., None] > 0, cv2.applyColorMap(levels, cv2.COLORMAP_JET), 0)


def test_the_whole_crop_is_decoded_and_drawn_the_same(files, root):
    from detectron2.structures import Boxes
    one = parser(files)
    kept = watched(one.model)
    result = one.parse(torch.from_numpy(np.stack(pictures(root))).permute(0, 3, 1, 2))

    for row, instance in enumerate(kept[0]):
        instance.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]))
        labels, uv, drawing = extracted(instance)
        np.testing.assert_array_equal(result["native"][row], labels)
        np.testing.assert_array_equal(result["uv"][row], uv)
        np.testing.assert_array_equal(drawn(result["native"][row].numpy()), drawing)
        assert len(np.unique(labels)) > 3 and ((uv > 0.01) & (uv < 0.99))[labels > 0].mean() > 0.5


def test_detections_are_decoded_drawn_or_missed_the_same(files, root):
    """With a threshold that all pictures' surest detections pass, and with one that three of six do not."""
    surest = check_detections(files, root, min_score=0.05)
    assert all(surest)
    again = check_detections(files, root, min_score=sum(sorted(surest)[2:4]) / 2)
    assert again == [score if score > sorted(surest)[2] else None for score in surest]


def check_detections(files, root, *, min_score) -> list[float | None]:
    """The surest score of each picture, None where nobody was found."""
    one = parser(files, boxes="detect", min_score=min_score)
    kept, scores = watched(one.model), []
    result = one.parse(torch.from_numpy(np.stack(pictures(root))).permute(0, 3, 1, 2))

    for row, found in enumerate(kept[0]):
        labels, uv, drawing = extracted(found["instances"])
        scores.append(float(found["instances"].scores.max()) if len(found["instances"]) else None)
        np.testing.assert_array_equal(result["native"][row], labels)
        np.testing.assert_array_equal(result["uv"][row], uv)
        np.testing.assert_array_equal(drawn(result["native"][row].numpy()), drawing)

    return scores


@pytest.mark.parametrize("boxes", ["whole", "detect"])
def test_the_stage_writes_what_detectron2_says_of_each_picture(files, root, boxes):
    """The stage parses batches of four; here each picture goes to detectron2 alone."""
    from detectron2.structures import Boxes, Instances
    settings = {"parser": "densepose", "height": HEIGHT, "width": WIDTH, "batch": 4, "threads": 1, "boxes": boxes,
                "input_height": 0, "input_width": 0, "min_score": 0.05}
    plan = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw", "source": str(files / "weights.pth"),
            "description": str(files / "small.yaml")}
    stage.run(bare_experiment(params={"external": {"tiny": settings}}, plan={"parse_described": {"tiny": plan}}),
              "tiny")
    path = Path("data/cache/tiny/parts.h5")
    assert inspect_cache(path, None).sound
    cache, model = Cache(path), parser(files).model
    assert cache.maker["boxes"] == boxes and cache.maker["exact"] is True
    whole = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]])),
                      pred_classes=torch.zeros(1, dtype=torch.long))
    equal = 0
    for row, picture in enumerate(pictures(root)):
        inputs = [{"image": torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy()).float(), "height": HEIGHT,
                   "width": WIDTH}]
        with torch.inference_mode():
            instances = (model.inference(inputs, detected_instances=[whole], do_postprocess=False)[0]
                         if boxes == "whole" else
                         parser(files, boxes="detect", min_score=0.05).model.inference(inputs)[0]["instances"])
        labels, uv, _ = extracted(instances)
        same = cache.read("native", row) == labels
        equal += same.mean() / COUNT
        assert np.abs(cache.read("uv", row) / 255 - uv)[same].max() < 0.01

    assert equal > 0.999
    cache.close()
