"""models/parsers/bodypix.py on a tiny network of the same shape; the published one where ../shared is there."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.parsers.bodypix import OUTPUTS, PARTS, BodyPix, load_bodypix
from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_FLIP, DENSEPOSE24_TO_PARTS8
from pipeline.base.images import fit, read_image
from tests.helpers.tiny_bodypix import COLOURS, tiny_bodypix

HEIGHT, WIDTH = 128, 64
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
TO_PARTS8 = torch.eye(8)[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))]


def load(path: Path, **more) -> BodyPix:
    return load_bodypix(path, **{"to_parts8": TO_PARTS8, "height": HEIGHT, "width": WIDTH, **more})


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return tiny_bodypix(tmp_path_factory.mktemp("bodypix") / "tiny.onnx")


def coloured(count: int = 3, *, block: int = 32) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures (count, 3, 128, 64) of blocks in the tiny network's colours, and the label of each pixel."""
    colours = np.array([(0, 0, 0), *COLOURS], np.uint8)
    labels = np.array([0, *(list(PARTS.values())[part] for part in COLOURS.values())], np.uint8)
    choice = np.random.default_rng(0).integers(0, len(colours), (count, HEIGHT // block, WIDTH // block))
    choice = choice.repeat(block, 1).repeat(block, 2)
    return torch.from_numpy(colours[choice]).permute(0, 3, 1, 2), labels[choice]


def test_the_parts_are_denseposes_one_for_one_and_left_is_left():
    """By their names, but for arms, whose fronts and backs DensePose's labels have the other way round."""
    assert sorted(PARTS.values()) == list(range(1, 25))
    for part, label in PARTS.items():
        words = set(part.replace("face", "head").split())
        if "arm" in words:
            words = {{"front": "back", "back": "front"}.get(word, word) for word in words}
        assert words == set(DENSEPOSE24[label].split()), part
        mirrored = " ".join({"left": "right", "right": "left"}.get(word, word) for word in part.split())
        assert DENSEPOSE24_FLIP[label] == PARTS[mirrored]


@pytest.mark.parametrize("more", [{}, {"border": 0.0}, {"border": 0.25, "side": 385}, {"side": 193}])
def test_labels_lie_where_the_colours_are(path, more):
    """Within six pixels of an edge, where cells of stride 8 and both resizings blur; whatever border and size."""
    pictures, expected = coloured()
    result = load(path, **more).parse(pictures)
    edge = np.zeros(expected.shape, bool)
    edge[:, 1:] |= expected[:, 1:] != expected[:, :-1]
    edge[:, :, 1:] |= expected[:, :, 1:] != expected[:, :, :-1]
    near = F.max_pool2d(torch.from_numpy(edge)[:, None].float(), 13, 1, 6)[:, 0] > 0
    assert near.float().mean() < 0.6
    np.testing.assert_array_equal(result["native"][~near].numpy(), expected[~near.numpy()])

    parts8 = result["parts8"]
    torch.testing.assert_close(parts8.sum(1), torch.ones(3, HEIGHT, WIDTH))
    np.testing.assert_array_equal(parts8.argmax(1)[~near].numpy(), DENSEPOSE24_TO_PARTS8[expected[~near.numpy()]])
    assert parts8.max(1)[0][~near].min() > 0.9


def test_a_part_s_probability_is_the_persons_times_its_own(tmp_path, path):
    """Of one colour everywhere, by hand: person 10 (r + g + b) + 15 times a tenth, softmax of the 24."""
    parser = load(tiny_bodypix(tmp_path / "unsure.onnx", person=0.1))
    grey = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, HEIGHT, WIDTH)
    person = 1 / (1 + np.exp(-(0.1 * -1 + 0.15)))
    logits = np.full(24, -30.0)
    for colour, part in COLOURS.items():
        logits[part] = 10 * ((np.array(colour) / 127.5 - 1) * (1, -1, -1)).sum()
    shares = np.exp(logits) / np.exp(logits).sum()
    expected = np.zeros(8)
    for label, share in zip(PARTS.values(), shares, strict=True):
        expected[DENSEPOSE24_TO_PARTS8[label]] += share * person
    expected[0] = 1 - person
    result = parser.parse(grey)
    np.testing.assert_allclose(result["parts8"][0, :, 60, 30].numpy(), expected, atol=1e-5)
    assert (result["native"] == 24).all()  # a left face, as somebody is there at all


def test_a_batch_is_its_pictures_and_padding_of_dilated_convolutions_is_the_same_size(path, tmp_path):
    pictures, _ = coloured(5)
    parser = load(path)
    together = parser.parse(pictures)
    for row in range(5):
        alone = parser.parse(pictures[row:row + 1])
        assert all(torch.equal(together[name][row], alone[name][0]) for name in together)

    kernel = np.random.default_rng(1).normal(size=(3, 1, 3, 3)).astype(np.float32)
    mended = load(tiny_bodypix(tmp_path / "kernel.onnx", kernel=kernel))
    pixels = mended._inputs(pictures)
    small = torch.from_numpy(pixels).permute(0, 3, 1, 2)[:, :, ::8, ::8]
    features = F.conv2d(small, torch.from_numpy(kernel), padding=2, dilation=2, groups=3)
    person = features.sum(1) * 10 + 15
    heads = mended.session.run(list(OUTPUTS), {"input": pixels})
    np.testing.assert_allclose(heads[0][..., 0], person.numpy(), atol=1e-3)


def test_the_networks_input_keeps_proportions_and_repeats_the_edge(path):
    assert load(path).input == (257, 129) and load(path, side=193).input == (193, 97)
    assert load(path, height=64, width=128).input == (129, 257)
    pixels = load(path, border=0.25)._inputs(torch.arange(0, 64, dtype=torch.uint8).mul(4).expand(1, 3, HEIGHT, WIDTH))
    assert pixels.shape == (1, 257, 129, 3) and pixels.dtype == np.float32
    assert np.ptp(pixels[0, 5, :20]) == 0 and pixels.min() == -1  # a sixth of the width is border


def test_other_files_are_one_sentence(path, tmp_path):
    data = path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[:-200])
    (tmp_path / "text.onnx").write_text("no network " * 30)
    (tmp_path / "empty.onnx").write_bytes(b"")
    tiny_bodypix(tmp_path / "nan.onnx", kernel=np.full((3, 1, 3, 3), np.nan, np.float32))
    tiny_bodypix(tmp_path / "renamed.onnx", rename={"segments": "logits"})
    tiny_bodypix(tmp_path / "resnet.onnx", group=1)
    tiny_bodypix(tmp_path / "parts.onnx", parts=23)
    for name, words in (("cut", "is damaged or no ONNX file"), ("text", "is damaged or no ONNX file"),
                        ("empty", "is another network"), ("none", "no such file"),
                        ("nan", "its weights 'dilated' are cut or hold values that are no numbers"),
                        ("renamed", r"is another network than BodyPix: .*logits \(1\).* segments \(1\)"),
                        ("parts", r"is another network than BodyPix: .*part_heatmaps \(23\).*part_heatmaps \(24\)"),
                        ("resnet", "has no depthwise convolution")):
        with pytest.raises(ValueError, match=rf"{name}\.onnx: {words}") as caught:
            load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"`side`.* is 256 .*16 n \+ 1.*choose 241 or 257"):
        load(path, side=256)
    with pytest.raises(ValueError, match="8x8.*128x64"):
        load(path).parse(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_its_packages_one_sentence_says_how(path, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{package} is not installed .*pip install -r requirements-parsers\.txt"):
        load(path)


def shared(name: str) -> Path:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is absent")
    return SHARED / name


def test_its_parts_lie_where_denseposes_own_parse_has_them():
    """Seven people of a photograph with DensePose's own labels: whose left, which side of the torso and of arms."""
    weights, demo = shared("bodypix/MobileNetV1-x050-stride8.onnx"), shared("densepose_demo")
    photograph = read_image(demo / "demo_im.jpg")
    truth, person = (read_image(demo / f"demo_im_{name}.png")[..., 2] for name in ("IUV", "INDS"))
    table = np.zeros((25, 25), int)
    for number in range(1, person.max() + 1):
        rows, columns = np.nonzero(person == number)
        if len(rows) < 800:
            continue
        box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        height, width = truth[box].shape
        parser = load(weights, height=height, width=width)
        native = parser.parse(torch.from_numpy(photograph[box].copy()).permute(2, 0, 1)[None])["native"][0].numpy()
        both = (person[box] == number) & (native > 0) & (truth[box] > 0)
        np.add.at(table, (native[both], truth[box][both]), 1)

    def share(one: str, other: str, kind: str) -> float:
        """Of pixels of that kind, in both, that BodyPix calls `one`: those that DensePose does not call `other`."""
        found, wrong = ([label for label, name in enumerate(DENSEPOSE24) if word in name and kind in name]
                        for word in (one, other))
        counts = table[np.ix_(found, found)].sum(), table[np.ix_(found, wrong)].sum()
        assert sum(counts) > 300
        return counts[0] / sum(counts)

    for one, other, kind, least in (  # 0.94 0.79, 1.00 0.99, 0.98 0.91, 0.96 0.73, 0.87 and 0.99 were measured
            ("left", "right", "", 0.9), ("right", "left", "", 0.75), ("left", "right", "arm", 0.95),
            ("right", "left", "arm", 0.95), ("front", "back", "torso", 0.95), ("back", "front", "torso", 0.85),
            ("back", "front", "upper arm", 0.9), ("front", "back", "upper arm", 0.65),
            ("back", "front", "lower arm", 0.8), ("front", "back", "upper leg", 0.95)):
        assert share(one, other, kind) > least, (one, kind)


def test_the_published_network_agrees_with_itself_on_mirrored_crops():
    """On 40 crops of real people, 0.65 and 0.88 were measured: mIoU of the 8 parts, and the share of limbs, hands, feet
    and halves of the head that are left in a picture where they are right in its mirror image."""
    weights, folder = shared("bodypix/MobileNetV1-x050-stride8.onnx"), shared("market1501_dev/query")
    names = sorted(folder.glob("*.jpg"))[::27][:40]
    crops = torch.from_numpy(np.stack([fit(read_image(name), HEIGHT, WIDTH) for name in names])).permute(0, 3, 1, 2)
    parser = load(weights)
    native = parser.parse(crops)["native"].numpy()
    raw = parser.parse(crops.flip(3))["native"].flip(2).numpy()
    mirrored = DENSEPOSE24_FLIP[raw]

    one, other = DENSEPOSE24_TO_PARTS8[native], DENSEPOSE24_TO_PARTS8[mirrored]
    ious = [((one == part) & (other == part)).sum() / ((one == part) | (other == part)).sum() for part in range(8)]
    assert np.mean(ious) > 0.62

    sided = np.arange(25) != DENSEPOSE24_FLIP
    both = sided[native] & sided[mirrored] & (one == other)
    left = np.array(["left" in name for name in DENSEPOSE24])
    assert both.mean() > 0.2 and (left[native] == left[mirrored])[both].mean() > 0.84
