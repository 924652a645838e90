"""models/parsers/densepose.py: decoding against detectron2's converter written out in loops, boxes, weights, refusals.

A stand-in takes detectron2's place here; test_densepose_real.py needs the real one.
"""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.parsers.densepose import Charts, DensePose, decode, load_densepose, read_weights
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8
from tests.helpers import fake_detectron2 as fake

HEIGHT, WIDTH = 24, 12
TO_PARTS8 = torch.eye(8)[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))]


@pytest.fixture(autouse=True)
def double(monkeypatch):
    fake.install(monkeypatch)


def random_charts(count=3, coarse=2, side=7, seed=0) -> Charts:
    random = torch.Generator().manual_seed(seed)
    draw = [torch.randn(count, channels, side, side, generator=random, dtype=torch.float64)
            for channels in (coarse, 25, 25, 25)]
    return Charts(draw[0], draw[1] * 2, draw[2] * 0.6 + 0.5, draw[3] * 0.6 + 0.5)


def converted(coarse, fine, u, v, height, width):
    """One box as detectron2's resample_fine_and_coarse_segm_tensors_to_bbox and resample_uv_tensors_to_bbox have it."""
    coarse, fine, u, v = (F.interpolate(maps[None].float(), (height, width), mode="bilinear", align_corners=False)[0]
                          for maps in (coarse, fine, u, v))
    labels, uv = np.zeros((height, width), int), np.zeros((height, width, 2))
    for row in range(height):
        for column in range(width):
            if coarse[:, row, column].argmax() > 0:
                label = labels[row, column] = int(fine[:, row, column].argmax())
                if label > 0:
                    uv[row, column] = [min(max(float(maps[label, row, column]), 0), 1) for maps in (u, v)]

    return labels, uv


@pytest.mark.parametrize(("coarse", "height", "width"), [(2, 24, 12), (15, 5, 9), (2, 1, 1)])
def test_decoding_is_detectron2s(coarse, height, width):
    charts = random_charts(coarse=coarse)
    labels, probabilities, uv = decode(charts, height, width)
    for box in range(3):
        expected, pairs = converted(charts.coarse[box], charts.fine[box], charts.u[box], charts.v[box], height, width)
        np.testing.assert_array_equal(labels[box], expected)
        np.testing.assert_allclose(uv[box], pairs, atol=1e-7)
    assert height * width == 1 or (0 < (labels == 0).float().mean() < 1 and len(labels.unique()) > 5)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_a_labels_probability_is_body_times_label():
    charts = random_charts(coarse=15)
    _, probabilities, _ = decode(charts, 7, 7)  # the charts' own size: nothing is resampled
    for box, row, column in np.ndindex(3, 7, 7):
        coarse, fine = (np.exp(maps[box, :, row, column].numpy()) for maps in (charts.coarse, charts.fine))
        body = 1 - coarse[0] / coarse.sum()
        expected = fine / fine.sum() * body
        expected[0] += 1 - body
        np.testing.assert_allclose(probabilities[box, :, row, column], expected, atol=1e-5)


def parser_of(model=None, **changes) -> DensePose:
    torch.manual_seed(0)
    return DensePose(**{"model": (model or fake.TinyRCNN()).eval(), "to_parts8": TO_PARTS8, "height": HEIGHT,
                        "width": WIDTH, "short": WIDTH, "long": 1333, "boxes": "whole", "bgr": True, **changes})


def pictures(count=4):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, HEIGHT, WIDTH), dtype=np.uint8))


def test_the_whole_crop_is_the_box_and_channels_are_the_networks():
    parser = parser_of(short=30)
    result = parser.parse(pictures())
    (inputs, given), = parser.model.seen

    for entry, instance, picture in zip(inputs, given, pictures(), strict=True):
        assert (entry["height"], entry["width"], instance.image_size) == (HEIGHT, WIDTH, (60, 30))
        assert instance.pred_boxes.tensor.tolist() == [[0, 0, 30, 60]] and instance.pred_classes.tolist() == [0]
        np.testing.assert_allclose(entry["image"].mean((1, 2)), picture.flip(0).float().mean((1, 2)), rtol=0.02)

    for row, instance in enumerate(given):
        charts = instance.pred_densepose
        expected, pairs = converted(charts.coarse_segm[0], charts.fine_segm[0], charts.u[0], charts.v[0], HEIGHT, WIDTH)
        np.testing.assert_array_equal(result["native"][row], expected)
        np.testing.assert_allclose(result["uv"][row], pairs, atol=1e-6)

    assert result["native"].dtype == torch.uint8 and len(result["native"].unique()) > 3
    np.testing.assert_allclose(result["parts8"].sum(1), 1, atol=1e-5)
    plain = parser_of(bgr=False)
    plain.parse(pictures())
    torch.testing.assert_close(plain.model.seen[0][0][0]["image"], pictures()[0].float())


def test_a_batch_is_its_pictures_one_by_one():
    together = parser_of().parse(pictures())
    for row in range(4):
        alone = parser_of().parse(pictures()[row:row + 1])
        for name in ("native", "parts8", "uv"):
            torch.testing.assert_close(together[name][row], alone[name][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width", "short", "long"), [
    (128, 64, 800, 1333), (256, 128, 800, 2000), (64, 64, 100, 1333), (20, 90, 30, 100), (128, 64, 64, 1333)])
def test_the_networks_input_is_resized_as_detectron2_does(height, width, short, long):
    """As ResizeShortestEdge.get_output_shape computes it."""
    scale = short / min(height, width)
    new = (short, scale * width) if height < width else (scale * height, short)
    if max(new) > long:
        new = tuple(side * long / max(new) for side in new)
    parser = parser_of(height=height, width=width, short=short, long=long)
    assert parser.input == tuple(int(side + 0.5) for side in new)


def test_the_surest_detection_is_pasted_and_nobody_is_background():
    model = fake.TinyRCNN()
    model.found = [([[2.7, 3.2, 9.9, 20.4], [0, 0, 12, 24]], [0.9, 0.6]), ([], []),
                   ([[0, 0, 5, 5], [7.5, 11.0, 12.0, 24.0]], [0.5, 0.8]), ([[4.2, 6.0, 4.6, 6.3]], [0.7])]
    parser = parser_of(model, boxes="detect")
    result = parser.parse(pictures())

    for row, (chosen, x, y, w, h) in {0: (0, 2, 3, 7, 17), 2: (1, 7, 11, 4, 13), 3: (0, 4, 6, 1, 1)}.items():
        with torch.no_grad():
            boxes = torch.tensor(model.found[row][0])
            charts = model.charts(pictures()[row].flip(0).float(), boxes)
        inside, pairs = converted(charts.coarse_segm[chosen], charts.fine_segm[chosen], charts.u[chosen],
                                  charts.v[chosen], h, w)
        expected, uv = np.zeros((HEIGHT, WIDTH), int), np.zeros((HEIGHT, WIDTH, 2))
        expected[y:y + h, x:x + w], uv[y:y + h, x:x + w] = inside, pairs
        np.testing.assert_array_equal(result["native"][row], expected)
        np.testing.assert_allclose(result["uv"][row], uv, atol=1e-6)
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[y:y + h, x:x + w] = False
        assert (result["parts8"][row, 0].numpy()[outside] == 1).all()

    assert not result["native"][1].any() and (result["parts8"][1, 0] == 1).all() and not result["uv"][1].any()
    np.testing.assert_allclose(result["parts8"].sum(1), 1, atol=1e-5)


def test_a_box_that_reaches_out_of_the_frame_is_cut():
    model = fake.TinyRCNN()
    model.found = [([[10.5, 20.0, 12.0, 24.9]], [0.9]), ([[12.0, 24.0, 12.0, 24.0]], [0.9])]
    result = parser_of(model, boxes="detect").parse(pictures(2))
    assert not result["native"][:, :20].any() and not result["native"][1].any()


CONFIG = "MODEL:\n  DENSEPOSE_ON: true\nINPUT:\n  MIN_SIZE_TEST: 12\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "model.yaml").write_text(CONFIG)
    torch.manual_seed(3)
    state = fake.TinyRCNN().state_dict()
    numbers = {name: value.numpy() for name, value in state.items()}
    old = {"proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4)), "pixel_mean": np.zeros((3, 1, 1))}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": numbers | old, "__author__": "Detectron2 Model Zoo"}, 2))
    torch.save({"model": state, "iteration": 3}, tmp_path / "train.pth")
    torch.save(state, tmp_path / "bare.pth")
    return tmp_path


def load(files, weights, **changes):
    return load_densepose(files / weights, config=files / "model.yaml", to_parts8=TO_PARTS8, height=HEIGHT, width=WIDTH,
                          **changes)


@pytest.mark.parametrize("weights", ["zoo.pkl", "train.pth", "bare.pth"])
def test_weights_come_from_pickles_and_state_dicts(files, weights):
    parser = load(files, weights)
    torch.manual_seed(3)  # as `files` was, and the model that is built is not
    assert torch.equal(parser.model.head.weight, fake.TinyRCNN().head.weight) and not parser.model.training
    assert (parser.input, parser.bgr, parser.boxes) == ((24, 12), True, "whole")
    assert load(files, weights, short=48).input == (96, 48)
    assert "MIN_SIZE_TEST': 12" in parser.config and "cuda" in parser.config  # the device is no part of what was made
    for row in parser.parse(pictures())["native"]:
        assert row.any()


def test_weights_that_do_not_fit_are_refused(files):
    def write(name, **changes):
        (files / name).write_bytes(pickle.dumps({**good, **changes}))

    good = pickle.loads((files / "zoo.pkl").read_bytes())
    write("less.pkl", model={"head.weight": good["model"]["head.weight"]})
    write("more.pkl", model={**good["model"], "extra.weight": np.ones(2)})
    write("empty.pkl", model={})
    write("texts.pkl", model={"head.weight": "none"})
    write("backbone.pkl", matching_heuristics=True)
    files.joinpath("list.pkl").write_bytes(pickle.dumps([1, 2]))
    files.joinpath("call.pkl").write_bytes(b"cos\nsystem\n(S'touch trap'\ntR.")
    torch.save({"model": DensePose}, files / "class.pth")
    files.joinpath("cut.pth").write_bytes((files / "train.pth").read_bytes()[:500])
    cases = {"less.pkl": "missing or of another shape.*head.bias", "more.pkl": "1 unknown.*extra.weight",
             "list.pkl": "no trained DensePose", "empty.pkl": "no trained DensePose", "texts.pkl": "are no weights",
             "backbone.pkl": "no trained DensePose", "call.pkl": "is refused.*os.system", "none.pkl": "cannot be read",
             "class.pth": "cannot be read as weights", "cut.pth": "cannot be read as weights",
             "none.pth": "cannot be read as weights"}
    for name, words in cases.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{words}") as caught:
            load(files, name)
        assert "\n" not in str(caught.value)


def test_other_configurations_are_refused(files):
    for content, words in ((CONFIG.replace("true", "false"), "no chart model"), ("MODEL:\n  NONE: 1\n", "Non-existent"),
                           ("a: [", "no configuration"),
                           (CONFIG + "X: !!python/object/apply:os.system [true]", "no configuration"),
                           ("MODEL:\n  ROI_DENSEPOSE_HEAD:\n    CSE:\n      EMBEDDERS: [smpl]\n", "no chart model")):
        (files / "model.yaml").write_text(content)
        with pytest.raises(ValueError, match=rf"model\.yaml: .*{words}") as caught:
            load(files, "zoo.pkl")
        assert "\n" not in str(caught.value)

    with pytest.raises(ValueError, match="unknown boxes 'none'; they are whole"):
        parser_of(boxes="none")
    with pytest.raises(ValueError, match="8x8.*24x12"):
        parser_of().parse(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_without_detectron2_one_sentence_says_how(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "densepose", None)
    with pytest.raises(ValueError, match=r"not installed .*pip install .*facebookresearch/detectron2") as caught:
        load(files, "zoo.pkl")
    assert "\n" not in str(caught.value)


def test_tensors_of_a_pickle_are_what_numpy_wrote(files):
    state = read_weights(files / "zoo.pkl")
    assert state.keys() == {"head.weight", "head.bias", "pixel_mean",
                            "proposal_generator.anchor_generator.cell_anchors.0"}
    assert all(isinstance(value, torch.Tensor) for value in state.values())
