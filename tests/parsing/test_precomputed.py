"""Parses made elsewhere: written by hand, as the tools write them, and damaged; real ones where they lie beside."""

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, LIP20_TO_PARTS4, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.engine import quantise
from pipeline.parsing.precomputed import (
    Precomputed,
    fit_uv,
    label_shares,
    paste,
    read_detections,
    read_iuv,
    read_label_png,
    source_sha256,
)
from tests.helpers.rendered_people import people

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
HEIGHT, WIDTH = 128, 64
PATHS = [f"query/{number:04d}.jpg" for number in range(3)]
PALETTE = list(np.random.default_rng(0).integers(0, 256, 768))


def random_labels(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, count, (height // 2, width // 2)).repeat(2, 0).repeat(2, 1).astype(np.uint8)


def write_labels(root: Path, maps: list[np.ndarray], mode: str = "P") -> Path:
    (root / "labels/query").mkdir(parents=True, exist_ok=True)
    for path, labels in zip(PATHS, maps, strict=True):
        image = Image.fromarray(labels)
        if mode == "P":
            image.putpalette(PALETTE)
        image.save((root / "labels" / path).with_suffix(".png"))
    return root / "labels"


def write_iuv(root: Path, maps: list[np.ndarray], suffix: str = "_IUV") -> Path:
    """I, U, V through OpenCV, as DensePose's tools do."""
    (root / "iuv/query").mkdir(parents=True, exist_ok=True)
    for path, iuv in zip(PATHS, maps, strict=True):
        place = root / "iuv" / path
        cv2.imwrite(str(place.with_name(f"{place.stem}{suffix}.png")), iuv)
    return root / "iuv"


def detection(image_id, box: tuple[float, float], iuv: np.ndarray, score: float = 0.9) -> dict:
    """One entry as DensePose writes it: the PNG's red is I."""
    data = io.BytesIO()
    Image.fromarray(iuv).save(data, "PNG")
    return {"image_id": image_id, "category_id": 1, "score": score, "bbox": [*box, iuv.shape[1], iuv.shape[0]],
            "uv_shape": [3, *iuv.shape[:2]], "uv_data": base64.b64encode(data.getvalue()).decode()}


def write_json(path: Path, entries) -> Path:
    path.write_text(json.dumps(entries))
    return path


def parser(source: Path, labels: str, raw: Path = Path("none"), height: int = HEIGHT, width: int = WIDTH, **more):
    return Precomputed(source, labels=labels, raw=raw, paths=PATHS, height=height, width=width, **more)


def parsed(forward: Precomputed, paths=PATHS) -> dict[str, np.ndarray]:
    return {name: maps.numpy() for name, maps in forward(torch.zeros(len(paths), 3, 4, 4), list(paths)).items()}


@pytest.mark.parametrize("mode", ["P", "L"])
def test_label_pngs_at_the_caches_size(tmp_path, mode):
    maps = [random_labels(18, HEIGHT, WIDTH, seed) for seed in range(3)]
    forward = parser(write_labels(tmp_path, maps, mode), "atr18")
    result = parsed(forward, [*PATHS, ""])
    assert (forward.taxonomy, forward.uv) == ("lip20", False) and result.keys() == {"native", "parts8", "parts4"}
    for row, labels in enumerate(maps):
        expected = forward.map.native(labels)
        np.testing.assert_array_equal(result["native"][row], expected)
        np.testing.assert_array_equal(result["parts8"][row].argmax(0), parts8_from_native(expected, "lip20"))
        np.testing.assert_array_equal(result["parts4"][row].argmax(0), LIP20_TO_PARTS4[expected])
    assert set(np.unique(result["parts8"])) == {0, 1} and not result["native"][3].any()
    assert (result["parts8"][3, 0] == 1).all()


def test_a_larger_map_shrinks_by_area_and_a_smaller_one_grows_to_the_nearest(tmp_path):
    maps = [random_labels(7, HEIGHT * 2, WIDTH * 2, seed) for seed in range(3)]
    small = parsed(parser(write_labels(tmp_path, maps), "pascal7", height=HEIGHT // 2, width=WIDTH // 2))
    for row, labels in enumerate(maps):
        cells = labels.reshape(HEIGHT // 2, 4, WIDTH // 2, 4).swapaxes(1, 2).reshape(-1, 16)
        shares = np.stack([(cells == label).mean(1) for label in range(7)]).reshape(7, HEIGHT // 2, WIDTH // 2)
        np.testing.assert_allclose(small["parts8"][row, :7], shares, atol=1e-6)  # PASCAL's order is the parts'
        assert not small["parts8"][row, 7].any()
    big = parsed(parser(tmp_path / "labels", "pascal7", height=HEIGHT * 4, width=WIDTH * 4))
    for row, labels in enumerate(maps):
        np.testing.assert_array_equal(big["parts8"][row].argmax(0), labels.repeat(2, 0).repeat(2, 1))


def iuv_of(person) -> np.ndarray:
    return np.concatenate([person.index[..., None], person.uv], -1)


@pytest.mark.parametrize(("labels", "suffix"), [("iuv", "_IUV"), ("iuv", ""), ("iuv-rgb", "")])
def test_iuv_pngs_give_back_the_renderers_maps(tmp_path, labels, suffix):
    maps = [iuv_of(person) for person in people(3)]
    source = write_iuv(tmp_path, [iuv[..., ::-1] for iuv in maps] if labels == "iuv-rgb" else maps, suffix)
    forward = parser(source, labels)
    result = parsed(forward)
    assert (forward.taxonomy, forward.uv) == ("densepose24", True)
    for row, person in enumerate(people(3)):
        np.testing.assert_array_equal(result["native"][row], person.index)
        np.testing.assert_allclose(result["uv"][row] * 255, person.uv, atol=1e-3)
        np.testing.assert_array_equal(result["parts8"][row].argmax(0), DENSEPOSE24_TO_PARTS8[person.index])
    kept = quantise({name: torch.from_numpy(maps) for name, maps in result.items()})
    assert kept["valid"].all() and np.array_equal(kept["uv"], np.stack([person.uv for person in people(3)]))


def test_the_wrong_order_of_channels_is_noticed(tmp_path):
    source = write_iuv(tmp_path, [iuv_of(person) for person in people(3)])
    with pytest.raises(InputError, match=r"0000_IUV\.png.*read as iuv-rgb.*try iuv"):
        parsed(parser(source, "iuv-rgb"))


def test_shrunken_uv_is_the_mean_of_its_own_label():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (12, 8)).astype(np.uint8)
    uv = random.integers(0, 256, (12, 8, 2)).astype(np.uint8) * (labels > 0)[..., None]
    fitted = label_shares(labels, 25, 3, 4).argmax(0)
    result = fit_uv(labels, uv, fitted)
    for row, column in np.ndindex(3, 4):
        cell = slice(row * 4, row * 4 + 4), slice(column * 2, column * 2 + 2)
        label = fitted[row, column]
        assert (labels[cell] == label).sum() == max((labels[cell] == other).sum() for other in range(4))
        expected = uv[cell][labels[cell] == label].mean(0) / 255 if label else (0, 0)
        np.testing.assert_allclose(result[row, column], expected, atol=1e-6)


def test_json_results_are_laid_where_their_box_is(tmp_path):
    for path in PATHS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_image(tmp_path / path, np.zeros((40, 20, 3), np.uint8))
    piece = np.stack([random_labels(25, 20, 10), *(random_labels(256, 20, 10, seed) for seed in (1, 2))], -1)
    piece[piece[..., 0] == 0] = 0
    other = np.full((4, 4, 3), 9, np.uint8)
    source = write_json(tmp_path / "results.json", [
        detection("query/0000.jpg", (3.8, 7.2), piece), detection("query/0000.jpg", (0, 0), other, 0.7),
        detection(1, (15.5, 30.9), piece), detection("0002", (0, 0), other, 0.3),
        detection("elsewhere", (0, 0), other)])
    result = parsed(parser(source, "json", tmp_path, height=40, width=20))
    expected = np.zeros((3, 40, 20, 3), np.uint8)
    expected[0, 7:27, 3:13] = piece
    expected[1, 30:40, 15:20] = piece[:10, :5]
    np.testing.assert_array_equal(result["native"], expected[..., 0])
    np.testing.assert_allclose(result["uv"] * 255, expected[..., 1:], atol=1e-3)
    assert not result["native"][2].any()  # below min_score
    sure = parsed(parser(source, "json", tmp_path, height=40, width=20, min_score=0.2))
    assert (sure["native"][2][:4, :4] == 9).all()
    half = parsed(parser(source, "json", tmp_path, height=20, width=10))
    np.testing.assert_array_equal(half["native"][0], label_shares(expected[0, ..., 0], 25, 20, 10).argmax(0))


def test_boxes_out_of_the_frame_are_cut():
    iuv = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    for x in range(-4, 7):
        for y in range(-4, 7):
            canvas = np.zeros((5, 4, 3), np.uint8)
            paste(canvas, iuv, x, y)
            for row, column in np.ndindex(5, 4):
                inside = 0 <= row - y < 3 and 0 <= column - x < 3
                assert (canvas[row, column] == (iuv[row - y, column - x] if inside else 0)).all()


def test_what_is_missing_is_told_at_once(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    (source / "query/0001.png").unlink()
    with pytest.raises(InputError, match=r"no parse of 'query/0001.jpg' \(1 of 3 are missing; looked for .*0001\.png"):
        parser(source, "lip20")
    results = write_json(tmp_path / "results.json", [detection("other", (0, 0), np.zeros((2, 2, 3), np.uint8))])
    with pytest.raises(InputError, match=r"results\.json.*none of its image_ids.*such as 'query/0000.jpg'"):
        parser(results, "json")
    with pytest.raises(InputError, match="unknown label map 'lip'.*atr18"):
        parser(source, "lip")


def test_labels_that_are_none_are_refused(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    place = source / "query/0001.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place)
    with pytest.raises(InputError, match=r"0001\.png.*holds colours \(RGB\), not labels"):
        parsed(parser(source, "lip20"))
    Image.fromarray(np.full((8, 8), 20, np.uint8)).save(place)
    with pytest.raises(InputError, match=r"0001\.png': holds the label 20 where 'lip20' knows 20"):
        parsed(parser(source, "lip20"))
    for data, words in ((b"", "is empty"), (b"PNG", "damaged or no PNG"),
                        (place.read_bytes()[:40], "damaged or no PNG")):
        place.write_bytes(data)
        with pytest.raises(InputError, match=rf"0001\.png.*{words}"):
            parsed(parser(source, "lip20"))


@pytest.mark.parametrize("entry", [
    {}, 7, None, {"image_id": 1}, {"image_id": 1, "bbox": [0], "score": 1, "uv_shape": [3, 2, 2], "uv_data": ""},
    {"bbox": [float("inf"), 0, 2, 2]}, {"bbox": [float("nan"), 0, 2, 2]}, {"bbox": "left"}, {"score": "high"},
    {"score": float("nan")}, {"uv_shape": [3, 2, 3]}, {"uv_shape": 4}, {"uv_data": "@@@"}, {"uv_data": "aGVsbG8="},
    {"uv_data": None}])
def test_detections_that_are_none_are_refused(tmp_path, entry):
    good = detection(1, (0, 0), np.zeros((2, 2, 3), np.uint8))
    bad = {**good, **entry} if isinstance(entry, dict) and entry and "image_id" not in entry else entry
    path = write_json(tmp_path / "r.json", [good, bad])
    with pytest.raises(InputError, match=r"r\.json.*detection 1 is not as DensePose writes it") as caught:
        read_detections(path, 0.5)
    assert "\n" not in str(caught.value)


def test_a_detection_whose_png_is_damaged_names_the_file(tmp_path):
    entry = detection("query/0000.jpg", (0, 0), random_labels(25, 20, 20)[..., None].repeat(3, -1))
    data = base64.b64decode(entry["uv_data"])
    entry["uv_data"] = base64.b64encode(data[:40] + bytes(20)).decode()
    with pytest.raises(InputError, match=r"r\.json"):
        parsed(parser(write_json(tmp_path / "r.json", [entry]), "json"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["image_id", "bbox", "score", "uv_shape", "uv_data"]), inner, max_size=5),
    max_leaves=12).map(lambda tree: json.dumps(tree).encode()))
def test_any_json_gives_detections_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(data)
    try:
        assert read_detections(path, 0.5) == {}  # only an empty list holds none
    except InputError as error:
        assert "fuzz.json" in str(error) and "\n" not in str(error)


def _png(labels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(labels).save(data, "PNG")
    return data.getvalue()


GREY, COLOUR = _png(random_labels(20, 16, 16)), _png(random_labels(20, 16, 16)[..., None].repeat(3, -1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 200), st.integers(0, 255)), max_size=4), st.integers(0, 200), st.booleans())
def test_damaged_pngs_give_labels_or_one_sentence(tmp_path_factory, changes, cut, grey):
    data = bytearray(GREY if grey else COLOUR)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(data[:len(data) - cut])
    try:
        labels = read_label_png(path) if grey else read_iuv(path, red_first=True)[0]
        assert labels.dtype == np.uint8 and labels.ndim == 2
    except InputError as error:
        assert "fuzz.png" in str(error) and "\n" not in str(error)


def test_a_sources_hash_is_that_of_names_and_contents(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    before = source_sha256(source)
    assert before == source_sha256(str(source)) and before != source_sha256(source / "query/0000.png")
    data = (source / "query/0001.png").read_bytes()
    (source / "query/0001.png").rename(source / "query/0009.png")
    assert source_sha256(source) != before
    (source / "query/0009.png").rename(source / "query/0001.png")
    assert source_sha256(source) == before
    (source / "query/0001.png").write_bytes(data + b"x")
    assert source_sha256(source) != before
    with pytest.raises(InputError, match="none.*cannot be read"):
        source_sha256(tmp_path / "none")


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} does not lie beside the project")
    return SHARED / name


def test_real_schp_parses_agree_with_each_other(tmp_path):
    """One photo parsed with LIP's, ATR's and PASCAL's labels: three maps of one person, through three label maps."""
    folder = shared("schp_demo")
    heads = {}
    for labels, name in (("lip20", "lip"), ("atr18", "atr"), ("pascal7", "pascal")):
        (tmp_path / labels).mkdir()
        (tmp_path / labels / "demo.png").write_bytes((folder / f"demo_{name}.png").read_bytes())
        forward = Precomputed(tmp_path / labels, labels=labels, raw=folder, paths=["demo.jpg"], height=160, width=240)
        heads[labels] = parsed(forward, ["demo.jpg"])["parts8"][0]
    for one, other in (("lip20", "atr18"), ("lip20", "pascal7")):
        for part in (1, 2) if other == "atr18" else (1,):
            a, b = heads[one][part] > 0.5, heads[other][part] > 0.5
            assert (a & b).sum() / (a | b).sum() > 0.8, (one, other, part)


def test_real_cihp_labels_are_read(tmp_path):
    folder = shared("cihp_sample")
    paths = sorted(file.name for file in (folder / "images").glob("*.jpg"))
    forward = Precomputed(folder / "labels", labels="cihp20", raw=folder / "images", paths=paths, height=128, width=96)
    result = parsed(forward, paths)
    kept = quantise({name: torch.from_numpy(maps) for name, maps in result.items()})
    assert kept["valid"].all() and (result["native"] > 0).any((1, 2)).all() and result["native"].max() < 20
    for row, path in enumerate(paths):
        found = np.array(Image.open((folder / "labels" / path).with_suffix(".png"))) > 0
        assert abs(found.mean() - 1 + result["parts8"][row, 0].mean()) < 0.01


def test_real_densepose_results_are_read():
    folder = shared("densepose_demo")
    labels, uv = read_iuv(folder / "demo_im_IUV.png", red_first=False)
    assert set(np.unique(labels)) == set(range(25)) and uv[labels > 0].max() == 255 and not uv[labels == 0].any()
    with pytest.raises(InputError, match="holds the part 255"):
        read_iuv(folder / "demo_im_IUV.png", red_first=True)
    best = read_detections(folder / "example_results.json", 0.0)
    assert best.keys() == {"785", "872", "885"}
    scores = [(str(entry["image_id"]), entry["score"])
              for entry in json.loads((folder / "example_results.json").read_text())]
    assert {name: found.score for name, found in best.items()} == {
        name: max(score for other, score in scores if other == name) for name, _ in scores}
    source = Precomputed(folder / "example_results.json", labels="json", raw=Path("none"),
                         paths=["COCO_val2014_000000000785.jpg", "000000000001.jpg"], height=480, width=640)
    result = parsed(source, ["COCO_val2014_000000000785.jpg", "000000000001.jpg"])  # pictures absent: that size is kept
    shares = (result["native"] > 0).mean((1, 2))
    assert shares[0] == pytest.approx(0.303 * 215 * 342 / (480 * 640), rel=0.01) and shares[1] == 0
    columns = np.flatnonzero((result["native"][0] > 0).any(0))
    assert columns[0] >= 278 and columns[-1] < 278 + 215
