"""DensePose: detectron2's DensePose R-CNN, and its newer chart models, on crops of people.

    parser = load_densepose("model_final_162be9.pkl", config="densepose_rcnn_R_50_FPN_s1x.yaml", height=256, width=128)

Güler et al. 2018; Neverova et al. 2019 for the models with confidences. A crop is already a person, so by default the
whole crop is the box and no detector can miss anyone; `boxes="detect"` runs the detector first. Decoding follows
detectron2's converters: a pixel is the best of the 25 fine labels where the coarse labels say body, and u,v are that
label's. detectron2 is imported only when a parser is loaded.

B images of H x W, N boxes, K coarse labels, h x w a chart head's map.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parsers.unpickling import read_pickle

LABELS = 25  # of DensePose's charts, with background
# detectron2 keeps these out of newer state dicts and makes them from its configuration.
_MADE = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors")
_INSTALL = ("detectron2 and its DensePose are not installed ({}); with torch installed run `pip install "
            '--no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"` and the same with '
            "`#subdirectory=projects/DensePose` behind the address")


@dataclass(frozen=True)
class Charts:
    """What a chart head says of N boxes, at its own resolution.

    coarse (N, K, h, w) and fine (N, 25, h, w) scores, u and v (N, 25, h, w).
    """

    coarse: Tensor
    fine: Tensor
    u: Tensor
    v: Tensor

    def __getitem__(self, row: int) -> "Charts":
        return Charts(*(maps[row:row + 1] for maps in (self.coarse, self.fine, self.u, self.v)))


class DensePose:
    """Called as models/parsers/torchvision_parsers.py's `Parser.parse`.

    model: detectron2's GeneralizedRCNN with a chart head, in evaluation mode; to_parts8: (8, 25) ones and zeros;
    height, width: pixels of the images and of what is returned; short, long: the network's input is the image with
    its short side at `short`, but its long one not above `long`; boxes: whole | detect; bgr: the order of channels the
    network was trained with; config: its configuration as text.
    """

    taxonomy, uv = "densepose24", True

    def __init__(self, *, model: Any, to_parts8: Tensor, height: int, width: int, short: int, long: int, boxes: str,
                 bgr: bool, config: str = "") -> None:
        if boxes not in ("whole", "detect"):
            raise ValueError(f"unknown boxes {boxes!r}; they are whole (the crop) or detect (detection first)")
        self.model, self.to_parts8 = model, to_parts8.float()
        self.height, self.width, self.boxes, self.bgr, self.config = height, width, boxes, bgr, config

        scale = min(short / min(height, width), long / max(height, width))
        self.input = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    @torch.inference_mode()
    def parse(self, images: Tensor) -> dict[str, Tensor]:
        """images (B,3,H,W) uint8 RGB at the parser's size -> `native` (B,H,W) uint8 DensePose-24, `parts8` (B,8,H,W)
        probabilities, `uv` (B,H,W,2) in [0,1], 0 on background. Where nobody is detected all is background.

        A label's probability is that of being body by the coarse scores, times its own by the fine ones.
        """
        if tuple(images.shape[-2:]) != (self.height, self.width):
            raise ValueError(f"the images are {images.shape[-2]}x{images.shape[-1]} and the parser's input is "
                             f"{self.height}x{self.width}; resize the images")

        inputs = self._inputs(images)
        labels, probabilities, uv = self._whole(inputs) if self.boxes == "whole" else self._detected(inputs)
        to_parts8 = self.to_parts8.to(probabilities)
        parts8 = torch.einsum("gc,bchw->bghw", to_parts8, probabilities)  # (B, 25, H, W) -> (B, 8, H, W)
        return {"native": labels.to(torch.uint8), "parts8": parts8, "uv": uv}

    def _inputs(self, images: Tensor) -> list[dict[str, Any]]:
        """As detectron2's models take them: one dict per image, floats 0..255 in the network's channel order."""
        pixels = images.flip(1) if self.bgr else images
        if self.input != (self.height, self.width):
            pixels = F.interpolate(pixels.float(), self.input, mode="bilinear", antialias=True)
        return [{"image": image, "height": self.height, "width": self.width} for image in pixels.float()]

    def _whole(self, inputs: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
        """One box per image, the crop itself -> labels (B, H, W), probabilities (B, 25, H, W), u,v (B, H, W, 2)."""
        from detectron2.structures import Boxes, Instances

        height, width = self.input
        device = inputs[0]["image"].device
        crops = [Instances(self.input, pred_boxes=Boxes(torch.tensor([[0.0, 0.0, width, height]], device=device)),
                           pred_classes=torch.zeros(1, dtype=torch.long, device=device)) for _ in inputs]
        results = self.model.inference(inputs, detected_instances=crops, do_postprocess=False)

        heads = [_charts(result.pred_densepose) for result in results]
        maps = zip(*((c.coarse, c.fine, c.u, c.v) for c in heads), strict=True)
        return decode(Charts(*(torch.cat(column) for column in maps)), self.height, self.width)

    def _detected(self, inputs: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
        """The surest detection of each image -> the same as `_whole`."""
        results = self.model.inference(inputs)
        return _stack([self._best(result["instances"], inputs[0]["image"].device) for result in results])

    def _best(self, detections: Any, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The surest detection of one image, pasted into the frame."""
        labels = torch.zeros(1, self.height, self.width, dtype=torch.long, device=device)
        probabilities = torch.zeros(1, LABELS, self.height, self.width, device=device)
        probabilities[:, 0] = 1
        uv = torch.zeros(1, self.height, self.width, 2, device=device)
        if not len(detections) or not detections.has("pred_densepose"):
            return labels, probabilities, uv

        best = int(detections.scores.argmax())
        box = detections.pred_boxes.tensor[best]
        # detectron2's make_int_box: corner and extent, each cut to whole pixels
        x, y, w, h = (int(value) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
        inside = decode(_charts(detections.pred_densepose)[best], max(h, 1), max(w, 1))

        rows, columns = slice(y, min(y + max(h, 1), self.height)), slice(x, min(x + max(w, 1), self.width))
        kept = (slice(0, rows.stop - y), slice(0, columns.stop - x))
        labels[:, rows, columns] = inside[0][:, *kept]
        probabilities[:, :, rows, columns] = inside[1][:, :, *kept]
        uv[:, rows, columns] = inside[2][:, *kept]
        return labels, probabilities, uv


def _stack(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    labels, probabilities, uv = zip(*parts, strict=True)
    return torch.cat(labels), torch.cat(probabilities), torch.cat(uv)


def _charts(output: Any) -> Charts:
    """detectron2's DensePoseChartPredictorOutput, with or without confidences."""
    return Charts(output.coarse_segm, output.fine_segm, output.u, output.v)


def decode(charts: Charts, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """N boxes' charts at height x width: labels (N,H,W) int64, probabilities (N,25,H,W), u,v (N,H,W,2) in [0,1].

    Labels and u,v are those of detectron2's `resample_fine_and_coarse_segm_tensors_to_bbox` and
    `resample_uv_tensors_to_bbox`, u,v clamped as it does where it stores bytes.
    """
    coarse, fine, u, v = (F.interpolate(maps.float(), (height, width), mode="bilinear", align_corners=False)
                          for maps in (charts.coarse, charts.fine, charts.u, charts.v))  # (N, ., h, w) -> (N, ., H, W)
    labels = fine.argmax(1) * (coarse.argmax(1) > 0)  # (N, 25, H, W), (N, K, H, W) -> (N, H, W)

    body = 1 - coarse.softmax(1)[:, :1]
    probabilities = fine.softmax(1) * body
    probabilities[:, :1] += 1 - body

    uv = torch.cat([maps.gather(1, labels[:, None]) for maps in (u, v)], 1).clamp(0, 1) * (labels > 0)[:, None]
    return labels, probabilities, uv.permute(0, 2, 3, 1).contiguous()


def load_densepose(weights: str | os.PathLike, *, config: str | os.PathLike, to_parts8: Tensor, height: int, width: int,
                   boxes: str = "whole", short: int = 0, min_score: float = 0.5, device: str = "cpu") -> DensePose:
    """A parser from detectron2's configuration file (a .yaml of projects/DensePose/configs, `_BASE_` beside it) and
    weights: a model-zoo .pkl, or a .pth state dict.

    short: the network's short side in pixels, 0 the configuration's MIN_SIZE_TEST (800); min_score: the least score of
    a detection. ValueError names the file and the remedy where one does not fit, or how detectron2 is installed.
    """
    try:
        from densepose import add_densepose_config
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model
    except ImportError as error:
        raise ValueError(_INSTALL.format(error)) from error

    cfg = get_cfg()
    add_densepose_config(cfg)
    text = _merge(cfg, os.fspath(config), min_score)
    cfg.MODEL.DEVICE = device

    model = build_model(cfg)
    load_weights(model, weights)
    return DensePose(model=model.eval(), to_parts8=to_parts8, height=height, width=width,
                     short=short or cfg.INPUT.MIN_SIZE_TEST, long=cfg.INPUT.MAX_SIZE_TEST, boxes=boxes,
                     bgr=cfg.INPUT.FORMAT == "BGR", config=text)


def _merge(cfg: Any, config: str, min_score: float) -> str:
    """Take in the configuration's file, read as plain YAML, its weights left out: nothing is downloaded. As text."""
    try:
        cfg.merge_from_file(config, allow_unsafe=False)
        charts = cfg.MODEL.DENSEPOSE_ON and not cfg.MODEL.ROI_DENSEPOSE_HEAD.CSE.EMBEDDERS
    except Exception as error:  # yacs, YAML and detectron2 each raise their own
        raise ValueError(f"{config}: is no configuration of DensePose ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:160]}); name a .yaml of detectron2's "
                         "projects/DensePose/configs") from error

    if not charts:
        raise ValueError(f"{config}: configures no chart model (DENSEPOSE_ON, no CSE); name one of "
                         "projects/DensePose/configs/densepose_rcnn_*.yaml")
    cfg.MODEL.WEIGHTS, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = "", min_score
    return cfg.dump()


def load_weights(model: Any, path: str | os.PathLike) -> None:
    """Weights by name; ValueError if one is missing, unknown or of another shape."""
    state = read_weights(path)
    expected = model.state_dict()

    missing = [name for name, value in expected.items()
               if not name.startswith(_MADE) and (name not in state or state[name].shape != value.shape)]
    unknown = [name for name in state if name not in expected and not name.startswith(_MADE)]
    if missing or unknown:
        raise ValueError(f"{os.fspath(path)}: does not fit its configuration ({len(missing)} weights are missing or of "
                         f"another shape, {len(unknown)} unknown, the first {(missing or unknown)[0]!r}); name the "
                         "configuration it was trained with")
    model.load_state_dict({name: value for name, value in state.items() if name in expected}, strict=False)


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a .pkl (numpy arrays and plain containers only) or a .pth (tensors only): name -> tensor."""
    name = os.fspath(path)
    if name.endswith(".pkl"):
        content = read_pickle(path)
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds on damaged files
            raise ValueError(f"{name}: cannot be read as weights ({type(error).__name__}); name a .pkl of the model "
                             "zoo or a .pth state dict") from error

    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or content.get("matching_heuristics"):
        raise ValueError(f"{name}: holds no trained DensePose (a dict `model` of weights by detectron2's names); name "
                         "a model_final_*.pkl of DensePose's model zoo, or a .pth state dict")

    tensors = {key: torch.as_tensor(value) for key, value in state.items()
               if hasattr(value, "shape") and isinstance(key, str)}
    if len(tensors) < len(state):
        raise ValueError(f"{name}: holds things that are no weights under `model`; name a model_final_*.pkl of "
                         "DensePose's model zoo, or a .pth state dict")
    return tensors
