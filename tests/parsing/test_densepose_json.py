"""DensePose's JSON: whose a detection is, where it lies, and everything that is refused."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.densepose_json import match_pictures, read_detections
from pipeline.parsing.precomputed import Precomputed, label_shares
from tests.parsing.test_precomputed import parsed, random_labels, write_pictures
from tests.parsing.test_published_parses import shared

PATHS = [f"query/{number:04d}.jpg" for number in range(3)]
SIZE = (40, 20)


def png(values: np.ndarray, mode: str | None = None) -> bytes:
    data = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(data, "PNG")
    return data.getvalue()


def detection(name, box: tuple[float, float], iuv: np.ndarray, score: float = 0.9, **more) -> dict:
    """One entry as DensePose writes it: the PNG's red is I."""
    return {"image_id": name, "category_id": 1, "score": score, "bbox": [*box, iuv.shape[1], iuv.shape[0]],
            "uv_shape": [3, *iuv.shape[:2]], "uv_data": base64.b64encode(png(iuv)).decode(), **more}


def person(part: int, height: int = 4, width: int = 3) -> np.ndarray:
    return np.full((height, width, 3), (part, 100, 50), np.uint8)


def write_json(root: Path, entries, *, size: tuple[int, int] = SIZE, paths=PATHS) -> Path:
    write_pictures(root, [size] * len(paths), paths)
    (root / "results.json").write_text(json.dumps(entries))
    return root / "results.json"


def parser(source: Path, height: int = SIZE[0], width: int = SIZE[1], paths=PATHS, **more) -> Precomputed:
    raw = source.parent / "raw"
    return Precomputed(source, labels="json", raw=raw, paths=paths, height=height, width=width, **more)


def parts(root: Path, entries, paths=PATHS, **more) -> list[int]:
    """The part that each image has, of detections that have one each."""
    found = parsed(parser(write_json(root, entries, paths=paths), paths=paths, **more), paths)["native"]
    return [int(native.max()) for native in found]


def test_results_are_laid_where_their_box_is(tmp_path):
    piece = np.stack([random_labels(25, 20, 10), *(random_labels(256, 20, 10, seed) for seed in (1, 2))], -1)
    piece[piece[..., 0] == 0] = 0
    source = write_json(tmp_path, [
        detection("query/0000.jpg", (3.8, 7.2), piece), detection("query/0000.jpg", (0, 0), person(9), 0.7),
        detection("query/0001.jpg", (10, 20), piece), detection("0002", (0, 0), person(9), 0.3),
        detection("elsewhere", (0, 0), person(9))])
    forward = parser(source)
    result = parsed(forward, PATHS)
    expected = np.zeros((3, 40, 20, 3), np.uint8)
    expected[0, 7:27, 3:13] = piece
    expected[1, 20:40, 10:20] = piece
    np.testing.assert_array_equal(result["native"], expected[..., 0])
    np.testing.assert_allclose(result["uv"] * 255, expected[..., 1:], atol=1e-3)
    assert not result["native"][2].any()  # below min_score
    assert "1 of 3 images have no detection of score 0.5 or more" in forward.remark()
    assert "1 of its names are of no image in the index, the first 'elsewhere'" in forward.remark()
    assert (parsed(parser(source, min_score=0.2), PATHS)["native"][2][:4, :3] == 9).all()
    half = parsed(parser(source, 20, 10), PATHS)
    np.testing.assert_array_equal(half["native"][0], label_shares(expected[0, ..., 0], 25, 20, 10).argmax(0))


def test_a_number_is_nobodys_name(tmp_path):
    """Ends of names repeat: these are 01, 01, 02, 02, and the numbers are COCO's 1 to 4."""
    paths = ["0002_c1s1_000451_01.jpg", "0007_c2s3_070952_01.jpg", "0010_c1s2_000001_02.jpg",
             "0011_c1s2_000002_02.jpg"]
    entries = [detection(number, (1, 1), person(number + 1)) for number in (1, 2, 3, 4)]
    with pytest.raises(InputError, match=r"results\.json': 4 of 4 detections call their picture by a number "
                                         r"\(the first 1\).*\"images\"") as caught:
        parts(tmp_path, entries, paths)
    assert "\n" not in str(caught.value)
    for number in (785, 785.0):
        with pytest.raises(InputError, match="by a number"):
            parts(tmp_path, [detection(number, (1, 1), person(2))], ["000000000785.jpg", "785.jpg"])

    images = [{"id": number, "file_name": path} for number, path in zip((4, 3, 2, 1), paths, strict=True)]
    assert parts(tmp_path, {"images": images, "annotations": entries, "categories": []}, paths) == [5, 4, 3, 2]
    with pytest.raises(InputError, match="1 of 4 detections call their picture by a number"):
        parts(tmp_path, {"images": images[:3], "annotations": entries}, paths)
    for other in ({"id": 4, "file_name": "else.jpg"}, {"id": True, "file_name": "x.jpg"}, {"id": 9}, 7,
                  {"id": [1], "file_name": "x.jpg"}, {"id": 8, "file_name": 3}):
        with pytest.raises(InputError, match=r"results\.json': image 4"):
            parts(tmp_path, {"images": [*images, other], "annotations": entries}, paths)


def test_a_file_name_says_whose_a_detection_is(tmp_path):
    entries = [detection(number, (1, 1), person(number + 5), file_name=f"/data/crops/{path}")
               for number, path in enumerate(reversed(PATHS))]
    assert parts(tmp_path, entries) == [7, 6, 5]


MEANT = [  # a name, the picture that it means among PICTURES, or why none
    ("query/0001.jpg", "query/0001.jpg"), ("query/0001", "query/0001.jpg"), ("gallery/0001.jpg", "gallery/0001.jpg"),
    ("/home/me/data/query/0001.jpg", "query/0001.jpg"), ("C:\\data\\query\\0001.jpg", "query/0001.jpg"),
    ("./query/0001.jpg", "query/0001.jpg"), ("0002.jpg", "query/0002.jpg"), ("0002", "query/0002.jpg"),
    ("cam/one/0003.jpg", "deep/cam/one/0003.jpg"), ("one/0003.jpg", "deep/cam/one/0003.jpg"),
    ("/abs/deep/cam/one/0003.jpg", "deep/cam/one/0003.jpg"), ("/abs/two/0003.jpg", "none"),
    ("a.png", "a.png"), ("a.jpg", "a.jpg"), ("/abs/a.jpg", "a.jpg"), ("/abs/query/top.jpg", "query/top.jpg"),
    ("0001.jpg", "several"), ("0001", "several"), ("0003.jpg", "several"), ("a", "several"), ("top.jpg", "several"),
    ("train/0001.jpg", "none"), ("0004.jpg", "none"), ("001.jpg", "none"), ("y/0002.jpg", "none"),
    ("query/0001.png", "none"), ("Query/0001.jpg", "none"), ("1", "none"), ("2.jpg", "none")]
PICTURES = ["query/0001.jpg", "gallery/0001.jpg", "query/0002.jpg", "deep/cam/one/0003.jpg", "deep/cam/two/0003.jpg",
            "a.png", "a.jpg", "top.jpg", "query/top.jpg"]


@pytest.mark.parametrize(("name", "meant"), MEANT)
def test_a_name_means_one_picture_or_none(tmp_path, name, meant):
    def match(names):
        return match_pictures(names, PICTURES, raw=tmp_path / "raw", source=Path("r.json"))

    if meant == "several":
        with pytest.raises(InputError, match=rf"r\.json': '{name}' is the name of '.*{name}.*' and of '.*{name}.*"):
            match([name])
    else:
        assert match([name]) == ({} if meant == "none" else {name: meant})


def test_names_below_the_images_folder_are_what_they_say(tmp_path):
    """Even where a longer end would fit another picture; through a link too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "raw").symlink_to(tmp_path / "real")
    pictures = ["top.jpg", "raw/top.jpg", "real/top.jpg"]
    for folder in ("raw", "real"):
        name = str(tmp_path / folder / "top.jpg")
        assert match_pictures([name], pictures, raw=tmp_path / "raw", source=Path("r")) == {name: "top.jpg"}


def test_two_names_of_one_picture_are_refused(tmp_path):
    """A JSON of several folders, whose names end alike, with pictures of one of them."""
    entries = [detection(f"/data/{folder}/0001.jpg", (0, 0), person(2)) for folder in ("set1", "set2")]
    with pytest.raises(InputError, match=r"'/data/set1/0001.jpg' and '/data/set2/0001.jpg' both fit .* '0001.jpg'"):
        parts(tmp_path, entries, ["0001.jpg"])


def test_a_file_in_two_rows_of_the_index_has_one_parse(tmp_path):
    source = write_json(tmp_path, [detection("0001.jpg", (0, 0), person(4))])
    assert parsed(parser(source, paths=[PATHS[1], PATHS[1]]), [PATHS[1]])["native"].max() == 4


@pytest.mark.parametrize("box", [(-1, 0), (0, -1), (18, 0), (0, 37), (0, 400), (-300.5, 0)])
@pytest.mark.parametrize("score", [0.9, 0.1])
def test_boxes_that_leave_the_frame_are_refused(tmp_path, box, score):
    """A less sure one too: it was made on another picture, or on one of another size."""
    entries = [detection(PATHS[0], (3, 5), person(2)), detection(PATHS[1], (3, 5), person(2)),
               detection(PATHS[1], box, person(2), score)]
    with pytest.raises(InputError, match=r"1 of 3 parses are not .*detection 2 fills rows .* of a picture of 40x20 "
                                         r"where 'query/0001.jpg' is 40x20"):
        parts(tmp_path, entries)


def test_boxes_that_touch_the_frame_are_inside(tmp_path):
    """17.9 is 17, as detectron2 cuts boxes to pixels, and 17 + 3 columns are the 20 there are."""
    for box in ((17.9, 36.2), (0, 0), (-0.4, -0.9)):
        assert parts(tmp_path, [detection(PATHS[0], box, person(2))])[0] == 2


def test_a_picture_enlarged_for_the_tool_is_refused_or_declared(tmp_path):
    iuv = np.full((200, 80, 3), (2, 100, 50), np.uint8)
    source = write_json(tmp_path, [detection("a.jpg", (24, 28), iuv)], size=(128, 64), paths=["a.jpg"])
    with pytest.raises(InputError, match=r"1 of 1 .*rows 28 to 228 and columns 24 to 104 of a picture of 128x64"):
        parser(source, paths=["a.jpg"])
    expected = np.zeros((128, 64), np.uint8)
    expected[14:114, 12:52] = 2
    result = parsed(parser(source, 128, 64, paths=["a.jpg"], scale=2), ["a.jpg"])
    np.testing.assert_array_equal(result["native"][0], expected)
    np.testing.assert_allclose(result["uv"][0] * 255, np.where(expected[..., None], (100, 50), 0), atol=1e-3)
    with pytest.raises(InputError, match=r"it is 1\.5\)"):
        parser(source, paths=["a.jpg"], scale=1.5)


def test_what_is_of_no_image_at_all_is_told_at_once(tmp_path):
    source = write_json(tmp_path, [detection("other", (0, 0), person(2))])
    with pytest.raises(InputError, match=r"results\.json.*none of its 1 names.*such as 'query/0000.jpg'"):
        parser(source)


def test_nobody_is_in_a_padded_row(tmp_path):
    source = write_json(tmp_path, [detection(PATHS[0], (0, 0), person(2))])
    result = parsed(parser(source), [PATHS[0], ""])
    assert result["native"][0].any() and not result["native"][1].any() and (result["parts8"][1, 0] == 1).all()


@pytest.mark.parametrize("entry", [
    {}, 7, None, [], {"image_id": "a"},
    {"image_id": "a", "bbox": [0], "score": 1, "uv_shape": [3, 2, 2], "uv_data": ""},
    {"bbox": [float("inf"), 0, 2, 2]}, {"bbox": [float("nan"), 0, 2, 2]}, {"bbox": "left"}, {"bbox": [0, 0]},
    {"bbox": [0, 0, 4, 4]}, {"bbox": [0, 0, 2, 3]}, {"bbox": [0, 0, float("nan"), 2]}, {"score": "high"},
    {"score": float("nan")}, {"uv_shape": [3, 2, 3]}, {"uv_shape": 4}, {"uv_data": "@@@"}, {"uv_data": "aGVsbG8="},
    {"uv_data": None}, {"file_name": 3}, {"file_name": ""}, {"file_name": None},
    {"uv_data": base64.b64encode(png(np.full((2, 2), 2, np.uint8))).decode()},
    {"uv_data": base64.b64encode(png(np.full((2, 2), 2, np.uint8), "P")).decode()},
    {"uv_data": base64.b64encode(png(np.full((2, 2), 2, np.uint16))).decode()},
    {"uv_data": base64.b64encode(png(np.full((2, 2, 4), 2, np.uint8))).decode()}])
def test_detections_that_are_none_are_refused(tmp_path, entry):
    good = detection("a", (0, 0), np.zeros((2, 2, 3), np.uint8))
    bad = {**good, **entry} if isinstance(entry, dict) and entry and "image_id" not in entry else entry
    path = write_json(tmp_path, [good, bad])
    with pytest.raises(InputError, match=r"results\.json.*detection 1 is not as DensePose writes it") as caught:
        read_detections(path)
    assert "\n" not in str(caught.value)


def test_a_detection_whose_png_is_damaged_names_the_file(tmp_path):
    entry = detection("query/0000.jpg", (0, 0), random_labels(25, 20, 20)[..., None].repeat(3, -1))
    data = base64.b64decode(entry["uv_data"])
    entry["uv_data"] = base64.b64encode(data[:40] + bytes(20)).decode()
    with pytest.raises(InputError, match=r"results\.json"):
        parsed(parser(write_json(tmp_path, [entry])), PATHS)


TREES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["image_id", "bbox", "score", "uv_shape", "uv_data", "images", "annotations", "id",
                         "file_name"]), inner, max_size=5), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | TREES.map(lambda tree: json.dumps(tree).encode())
       | st.fixed_dictionaries({"images": TREES, "annotations": TREES}).map(lambda tree: json.dumps(tree).encode()))
def test_any_json_gives_detections_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(data)
    try:
        assert read_detections(path) == {}  # only an empty list holds none
    except InputError as error:
        assert "fuzz.json" in str(error) and "\n" not in str(error)


def test_real_results_are_read(tmp_path):
    """COCO's pictures 785, 872 and 885 at their own sizes, grey here: no box leaves its frame, and each has its own."""
    results = json.loads((shared("densepose_demo") / "example_results.json").read_text())
    sizes = {785: (425, 640), 872: (640, 621), 885: (427, 640)}
    paths = [f"COCO_val2014_{number:012d}.jpg" for number in sizes]
    (tmp_path / "raw").mkdir()
    for path, size in zip(paths, sizes.values(), strict=True):
        write_image(tmp_path / "raw" / path, np.full((*size, 3), 128, np.uint8))
    source = tmp_path / "results.json"
    source.write_text(json.dumps(results))
    with pytest.raises(InputError, match="21 of 21 detections call their picture by a number"):
        parser(source, paths=paths)

    images = [{"id": number, "file_name": path} for number, path in zip(sizes, paths, strict=True)]
    source.write_text(json.dumps({"images": images, "annotations": results}))
    for path, size, number in zip(paths, sizes.values(), sizes, strict=True):
        native = parsed(parser(source, *size, paths=paths), [path])["native"][0]
        best = max((entry for entry in results if entry["image_id"] == number), key=lambda entry: entry["score"])
        x, y, width, height = (int(value) for value in best["bbox"])
        iuv = np.array(Image.open(io.BytesIO(base64.b64decode(best["uv_data"]))))
        np.testing.assert_array_equal(native[y:y + height, x:x + width], iuv[..., 0])
        assert (native > 0).sum() == (iuv[..., 0] > 0).sum()
    (tmp_path / "raw" / paths[0]).unlink()
    write_image(tmp_path / "raw" / paths[0], np.full((212, 320, 3), 128, np.uint8))
    with pytest.raises(InputError, match="1 of 3 parses are not their images.*fills rows 42 to 384"):
        parser(source, paths=paths)
    assert torch.is_tensor(parser(source, paths=paths[1:])(torch.zeros(1, 3, 4, 4), paths[1:2])["native"])
