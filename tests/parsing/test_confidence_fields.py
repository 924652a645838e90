"""Confidence fields as BPBreID publishes them: written here in its layouts, grouped by loops, and damaged."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.base.body_parts import PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.confidence_fields import fields_fit, fit_fields
from pipeline.parsing.engine import quantise
from pipeline.parsing.label_map import read_label_map
from pipeline.parsing.precomputed import Precomputed

HEIGHT, WIDTH = 128, 64
LAYOUTS = [  # the image, its masks: BPBreID's loaders and its script, KPR's loaders
    ("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/0002_c1s1_000451_03.npy"),
    ("query/0001_c1s1_001051_00.jpg", "query/0001_c1s1_001051_00.jpg.confidence_fields.npy"),
    ("occluded_body_images/001/001_01.tif", "occluded_body_images/001_01.npy"),
    ("occluded_body_images/001/001_01.tif", "occluded_body_images/001_01.tif.confidence_fields.npy"),
    ("whole_body_images/001/001_01.tif", "whole_body_images/001_01.jpg.confidence_fields.npy"),
    ("train/whole_body_images/1/0001_c1_f0044158.jpg", "train/whole_body_images/0001_c1_f0044158.npy"),
    ("query/0001_c1s1_001051_00.jpg", "query/0001_c1s1_001051_00.jpg.npy"),
]


def write_picture(root: Path, path: str, size=(HEIGHT, WIDTH)) -> None:
    (root / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / "raw" / path, np.zeros((*size, 3), np.uint8))


def write_fields(root: Path, name: str, fields: np.ndarray) -> Path:
    place = root / "masks" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    np.save(place, fields)
    return place


def random_fields(count=36, size=(17, 9), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, *size)).astype(np.float32)


def parser(root: Path, paths, labels="pifpaf36", **more) -> Precomputed:
    return Precomputed(root / "masks", labels=labels, raw=root / "raw", paths=paths, height=HEIGHT, width=WIDTH, **more)


def parsed(forward: Precomputed, paths) -> dict[str, np.ndarray]:
    return {name: maps.numpy() for name, maps in forward(torch.zeros(len(paths), 3, 4, 4), list(paths)).items()}


@pytest.mark.parametrize(("image", "masks"), LAYOUTS)
def test_masks_are_found_as_they_are_published(tmp_path, image, masks):
    write_picture(tmp_path, image)
    write_fields(tmp_path, masks, random_fields())
    forward = parser(tmp_path, [image])
    assert (forward.taxonomy, forward.uv, forward.strangers) == ("densepose24", False, [])
    result = parsed(forward, [image, ""])
    assert result.keys() == {"native", "parts8", "parts4"} and result["native"][0].any()
    assert not result["native"][1].any() and (result["parts8"][1, 0] == 1).all()  # padding
    kept = quantise({name: torch.from_numpy(maps) for name, maps in result.items()})
    assert kept["valid"].all()


def part_of(name: str) -> str:
    """By its words: a joint belongs to the part that begins there."""
    ends = name.replace("left_", "").replace("right_", "").split("_to_")
    if any(word in ends for word in ("nose", "eye", "ear")):
        return "head"
    return {("shoulder",): "upper-arm", ("elbow",): "lower-arm", ("wrist",): "lower-arm", ("hip",): "torso",
            ("knee",): "lower-leg", ("ankle",): "foot", ("ankle", "knee"): "lower-leg", ("knee", "hip"): "upper-leg",
            ("hip", "hip"): "torso", ("shoulder", "hip"): "torso", ("shoulder", "shoulder"): "torso",
            ("shoulder", "elbow"): "upper-arm", ("elbow", "wrist"): "lower-arm"}[tuple(ends)]


def side_of(name: str) -> str:
    return "" if part_of(name) in ("head", "torso") else name.split("_")[0]


def test_a_part_is_the_highest_of_its_fields_and_background_what_none_claims(tmp_path):
    path, names = "a.jpg", read_label_map("pifpaf36").names
    fields = random_fields(size=(HEIGHT, WIDTH)) * np.random.default_rng(1).uniform(0, 1, (1, HEIGHT, WIDTH))
    write_picture(tmp_path, path)
    write_fields(tmp_path, "a.npy", fields.astype(np.float32))
    result = parsed(parser(tmp_path, [path]), [path])["parts8"][0]
    for row, column in [(0, 0), (5, 60), (77, 31), (127, 63)]:
        best: dict[tuple[str, str], float] = {("background", ""): 1 - fields[:, row, column].max()}
        for field, name in enumerate(names):
            key = part_of(name), side_of(name)
            best[key] = max(best.get(key, 0), fields[field, row, column])
        for part, wanted in enumerate(PARTS8):
            share = sum(value for (name, _), value in best.items() if name == wanted) / sum(best.values())
            np.testing.assert_allclose(result[part, row, column], share, atol=1e-5)


def test_a_cell_stands_at_its_stride_and_corners_at_corners():
    fields = np.zeros((1, 17, 9), np.float32)
    fields[0, 5, 3], fields[0, 16, 8] = 1, 1
    fitted = fit_fields(fields, 129, 65)[0]
    assert fitted[40, 24] == 1 and fitted[128, 64] == 1 and fitted[44, 24] == 0.5 and fitted[40, 32] == 0
    shrunk = fit_fields(np.arange(64, dtype=np.float32).reshape(1, 8, 8), 4, 4)[0]
    np.testing.assert_allclose(shrunk[0, 0], np.mean([0, 1, 8, 9]))


@pytest.mark.parametrize(("labels", "count"), [("pifpaf8", 8), ("pifpaf5", 5)])
@pytest.mark.parametrize("background", [False, True])
def test_groups_and_a_background_before_them(tmp_path, labels, count, background):
    """Head, arms, torso, legs, feet, one below the other."""
    rows = {8: [0, 1, 1, 1, 2, 2, 3, 3], 5: [0, 1, 1, 2, 3]}[count]
    fields = np.zeros((count, 17, 9), np.float32)
    for field, (band, name) in enumerate(zip(rows, read_label_map(labels).names, strict=True)):
        columns = slice(0, 3) if "right" in name else slice(6, 9) if "left" in name else slice(3, 6)
        if "arms" in name:
            columns = slice(0, 3)
        fields[field, band * 4:band * 4 + 4, columns] = 1
    write_picture(tmp_path, "a.jpg")
    write_fields(tmp_path, "a.npy", np.concatenate([np.ones((1, 17, 9), np.float32), fields]) if background else fields)
    native = parsed(parser(tmp_path, ["a.jpg"], labels), ["a.jpg"])["native"][0]
    lip = {"face": (12, 32), "upper-clothes": (44, 32), "right-arm": (44, 4)}
    lip |= {"right-leg": (76, 4), "left-leg": (76, 60), "right-shoe": (108, 4), "left-shoe": (108, 60)} if count == 8 \
        else {}
    from pipeline.base.body_parts import LIP20
    for name, place in lip.items():
        here = place if count == 8 or name != "face" else (12, 32)
        assert LIP20[native[here]] == name
    assert native[125, 32] == 0


def test_any_field_of_a_picture_s_proportions_fits():
    for height, width in [(128, 64), (240, 120), (173, 81), (64, 64)]:
        for stride in (4, 8, 16):
            for rounded in (lambda side, by: -(-side // by), lambda side, by: (side - 1) // by + 1,
                            lambda side, by: side // by, lambda side, by: -(-side // by) + 1):
                assert fields_fit((rounded(height, stride), rounded(width, stride)), (height, width))
    for field in ((17, 17), (9, 17), (17, 5), (30, 9), (1, 1)):
        assert not fields_fit(field, (128, 64))


BAD = {
    r"fields of 17x17, which are not the proportions of 128x64, those of 'b\.jpg'": random_fields(size=(17, 17)),
    r"is 17x17x9 where 36 fields are 36xHxW, or 37xHxW .*name the label map": random_fields(17),
    r"is 17x9x36 where": random_fields().transpose(1, 2, 0),
    r"is 17x9 where": random_fields()[0],
    r"holds uint8 where confidences are floats": (random_fields() * 255).astype(np.uint8),
    r"holds object where confidences are floats": np.array([None, 1], object),
}


@pytest.mark.parametrize(("words", "values"), BAD.items())
def test_what_a_header_shows_is_refused_before_anything_is_read(tmp_path, words, values):
    for path in ("a.jpg", "b.jpg"):
        write_picture(tmp_path, path)
    write_fields(tmp_path, "a.npy", random_fields())
    write_fields(tmp_path, "b.npy", values)
    said = rf"1 of 2 parses (are not their images'|cannot be read).*b\.npy' .*{words}"
    with pytest.raises(InputError, match=said) as caught:
        parser(tmp_path, ["a.jpg", "b.jpg"])
    assert "\n" not in str(caught.value) and "`scale`" not in str(caught.value)


@pytest.mark.parametrize(("data", "words"), [
    (b"", "damaged or no .npy"), (b"\x93NUMPY\1\0", "damaged or no .npy"),
    (pickle.dumps([1, 2]), "damaged or no .npy"), ("cut", r"has \d+ bytes where 36x17x9 float32 are \d+")])
def test_damaged_files_are_refused(tmp_path, data, words):
    write_picture(tmp_path, "a.jpg")
    place = write_fields(tmp_path, "a.npy", random_fields())
    place.write_bytes(place.read_bytes()[:-100] if data == "cut" else data)
    with pytest.raises(InputError, match=rf"a\.npy'.*{words}") as caught:
        parser(tmp_path, ["a.jpg"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "words"), [
    (lambda fields: fields * 255, r"goes from .* to 2\d\d\.\d* where confidences go from 0 to 1; scale them"),
    (lambda fields: np.where(fields > 0.9, np.nan, fields), r"holds \d+ values that are no numbers"),
    (lambda fields: fields - 1, "goes from -0.99.* where")])
def test_values_that_are_no_confidences_are_refused(tmp_path, change, words):
    write_picture(tmp_path, "a.jpg")
    write_fields(tmp_path, "a.npy", change(random_fields()).astype(np.float32))
    with pytest.raises(InputError, match=rf"a\.npy': {words}"):
        parsed(parser(tmp_path, ["a.jpg"]), ["a.jpg"])


def test_what_a_bicubic_filter_overshoots_is_clipped(tmp_path):
    write_picture(tmp_path, "a.jpg")
    write_fields(tmp_path, "a.npy", np.full((36, 17, 9), 1.1, np.float32))
    over = parsed(parser(tmp_path, ["a.jpg"]), ["a.jpg"])["parts8"]
    write_fields(tmp_path, "a.npy", np.ones((36, 17, 9), np.float32))
    np.testing.assert_array_equal(parsed(parser(tmp_path, ["a.jpg"]), ["a.jpg"])["parts8"], over)


def test_missing_masks_and_those_of_other_pictures_are_counted(tmp_path):
    for path in ("q/a.jpg", "q/b.jpg"):
        write_picture(tmp_path, path)
    write_fields(tmp_path, "q/a.npy", random_fields())
    write_fields(tmp_path, "q/c.npy", random_fields())
    with pytest.raises(InputError, match=r"holds no parse of 'q/b\.jpg' \(1 of 2 are missing; looked for .*b\.npy'"):
        parser(tmp_path, ["q/a.jpg", "q/b.jpg"])
    assert "1 of its names are of no image in the index, the first" in parser(tmp_path, ["q/a.jpg"]).remark()
    write_fields(tmp_path, "q/a.jpg.npy", random_fields())
    with pytest.raises(InputError, match=r"a\.npy': and .*a\.jpg\.npy' could both be the parse of 'q/a\.jpg'"):
        parser(tmp_path, ["q/a.jpg"])


def test_two_people_s_pictures_of_one_name_need_masks_of_their_own(tmp_path):
    paths = ["w/001/01.tif", "w/002/01.tif"]
    for path in paths:
        write_picture(tmp_path, path)
    write_fields(tmp_path, "w/01.npy", random_fields())
    with pytest.raises(InputError, match=r"01\.npy': could be the parse of 'w/001/01\.tif' and of 'w/002/01\.tif'"):
        parser(tmp_path, paths)
