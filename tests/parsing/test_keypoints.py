"""Key points: KPR's files and COCO's, read and drawn; a person of known proportions, other people, and bad files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.base.body_parts import PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.keypoint_fields import draw_fields, stature
from pipeline.parsing.keypoint_json import COCO17, outside, read_people, read_target
from pipeline.parsing.precomputed import Precomputed

HEIGHT, WIDTH = 128, 64
# Somebody 120 pixels tall who faces the camera: their left is the picture's right.
STANDING = np.array([
    [32, 14, 1], [34, 12, 1], [30, 12, 1], [36, 13, 1], [28, 13, 1], [42, 26, 1], [22, 26, 1], [47, 48, 1], [17, 48, 1],
    [48, 65, 1], [16, 65, 1], [38, 60, 1], [26, 60, 1], [38, 89, 1], [26, 89, 1], [38, 118, 1], [26, 118, 1]], float)
LAYOUTS = [
    ("query/0001_c1s1_001051_00.jpg", "query/0001_c1s1_001051_00.jpg_keypoints.json"),
    ("occluded_body_images/001/001_01.tif", "occluded_body_images/001_01.tif_keypoints.json"),
    ("occluded_body_images/001_001.jpg", "occluded_body_images/001_001.jpg.predictions.json"),
    ("images/1470_016236.jpg", "images/1470_016236.json"),
]


def person(points=STANDING, flat=False, **more) -> dict:
    return {"keypoints": points.ravel().tolist() if flat else points.tolist()} | more


def write(root: Path, tree, name="points/a.jpg_keypoints.json") -> Path:
    place = root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(tree))
    return place


def write_picture(root: Path, path: str, size=(HEIGHT, WIDTH)) -> None:
    (root / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / "raw" / path, np.zeros((*size, 3), np.uint8))


def parser(root: Path, paths, **more) -> Precomputed:
    return Precomputed(root / "points", labels="keypoints", raw=root / "raw", paths=paths, height=HEIGHT, width=WIDTH,
                       **{"min_score": 0.2, **more})


def parts(forward: Precomputed, path: str) -> np.ndarray:
    return forward(torch.zeros(1, 3, 4, 4), [path])["parts8"][0].numpy().argmax(0)


def test_the_target_is_marked_or_first_and_may_stand_alone(tmp_path):
    other = STANDING + [3, 2, 0]
    for tree, others in (([person(is_target=True), person(other, is_target=False)], 1),
                         ([person(other, is_target=False), person(flat=True, is_target=True)], 1),
                         ([person(other), person(is_target=True)], 1), ([person(is_target=1), person(other)], 1),
                         ([person(), person(other)], 1), (person(flat=True), 0)):
        target, found = read_target(write(tmp_path, tree))
        np.testing.assert_array_equal(target, STANDING)
        assert len(found) == others and all(np.array_equal(points, other) for points in found)
    assert read_target(write(tmp_path, [])) == (None, [])


@pytest.mark.parametrize(("tree", "words"), [
    ([person(is_target=False)], "marks 0 of 1 people as the target"),
    ([person(is_target=True)] * 2, "marks 2 of 2 people as the target"),
    ([person(STANDING[:5])], r"person 0 is not as KPR writes it \(.*keypoints are 5x3"),
    ([person(), {"points": 3}], r"person 1 is not as KPR writes it \(KeyError: 'keypoints'"),
    ([person(is_target="yes")], "is_target is 'yes'"), (["someone"], "person 0 is not as KPR"),
    ([person(STANDING * [1, 1, 7])], r"confidences go from 7 to 7"), ("no", "is no list of people"),
    ([person(STANDING + [np.nan, 0, 0])], "or some are no numbers")])
def test_other_files_are_one_sentence(tmp_path, tree, words):
    with pytest.raises(InputError, match=rf"a\.jpg_keypoints\.json': .*{words}") as caught:
        read_target(write(tmp_path, tree))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, data):
    place = write(tmp_path, [])
    place.write_bytes(data)
    for read in (read_target, read_people):
        with pytest.raises(InputError, match="a.jpg_keypoints.json'"):
            read(place)


def test_coco_s_results_and_annotations_by_their_pictures_name(tmp_path):
    results = [{"image_id": "q/a.jpg", **person(flat=True), "score": 2.5}, {"image_id": "b.jpg", **person(flat=True)},
               {"image_id": "q/a.jpg", **person(STANDING + 1 - [0, 0, 1], flat=True), "score": 1}]
    found = read_people(write(tmp_path, results))
    assert [(name, [one.score for one in people]) for name, people in found.items()] == [("q/a.jpg", [2.5, 1]),
                                                                                         ("b.jpg", [1])]
    np.testing.assert_array_equal(found["b.jpg"][0].points, STANDING)

    flags = STANDING.copy()
    flags[:, 2] = [2, 1, 0] * 5 + [2, 2]
    tree = {"images": [{"id": 7, "file_name": "q/a.jpg"}],
            "annotations": [{"image_id": 7, **person(flags, flat=True)}, {"image_id": 7, "bbox": [0, 0, 1, 1]}]}
    points = read_people(write(tmp_path, tree))["q/a.jpg"][0].points
    np.testing.assert_array_equal(points[:, 2], flags[:, 2] == 2)

    for wrong, words in (([{"image_id": 7, **person(flat=True)}], "its picture is 7, no name; write image_id as"),
                         ([{"image_id": "a.jpg", "keypoints": [1.0] * 50}], "person 0 is not as COCO has it"),
                         ({"images": [{}], "annotations": []}, "image 0 has no id and file_name"),
                         ({"images": [{"id": 7, "file_name": name} for name in ("a.jpg", "b.jpg")], "annotations": []},
                          "gives the id 7 to two images, 'a.jpg' and 'b.jpg'; number them apart"),
                         ({"people": []}, "is no list of people")):
        with pytest.raises(InputError, match=words):
            read_people(write(tmp_path, wrong))


def test_height_is_what_the_least_foreshortened_bone_implies():
    seen = np.ones(17, bool)
    lengths = {(5, 11): .288, (13, 11): .245, (15, 13): .246, (5, 7): .186, (7, 9): .146, (5, 6): .259, (11, 12): .191}
    implied = [np.linalg.norm(STANDING[a, :2] - STANDING[b, :2]) / share for (a, b), share in lengths.items()]
    assert stature(STANDING, seen) == pytest.approx(max(implied)) and 115 < stature(STANDING, seen) < 125
    bent = STANDING.copy()
    bent[15:, 1] = 95  # shins towards the camera
    assert stature(bent, seen) == stature(STANDING, seen)
    assert stature(STANDING, np.arange(17) == 3) == 0


def test_a_field_is_one_on_the_line_and_half_at_the_limb_s_half_width():
    fields = draw_fields(STANDING + [0.5, 0.5, 0], HEIGHT, WIDTH)
    tall = stature(STANDING, np.ones(17, bool))
    shin = fields[17]  # left ankle to left knee: upright, at x 38.5
    assert shin[100, 38] == 1
    for away in (1, 3, 6):
        assert shin[100, 38 + away] == pytest.approx(0.5 ** ((away / (0.035 * tall)) ** 2), abs=1e-5)
    assert draw_fields(STANDING * [1, 1, 0.3], HEIGHT, WIDTH, least=0.5).max() == 0
    hidden = STANDING.copy()
    hidden[13, 2] = 0  # a knee: its field and the two that end there
    assert [not field.any() for field in draw_fields(hidden, HEIGHT, WIDTH)] == [
        number in (13, 17, 18) for number in range(36)]


@pytest.mark.parametrize(("image", "points"), LAYOUTS)
def test_a_person_has_their_parts_where_the_points_are(tmp_path, image, points):
    write_picture(tmp_path, image)
    write(tmp_path, [person(is_target=True)], f"points/{points}")
    labels = parts(parser(tmp_path, [image]), image)
    for name, (x, y) in {"head": (32, 12), "torso": (32, 45), "upper-arm": (46, 38), "lower-arm": (48, 60),
                         "upper-leg": (38, 76), "lower-leg": (26, 104), "foot": (38, 119)}.items():
        assert PARTS8[labels[y, x]] == name, name
    assert not labels[:, [0, 63]].any() and not labels[:3].any() and 0.15 < (labels > 0).mean() < 0.4


def test_other_people_are_background_and_nobody_is_nobody(tmp_path):
    write_picture(tmp_path, "a.jpg")
    away = STANDING + [25, 0, 0]
    write(tmp_path, [person()])
    alone = parts(parser(tmp_path, ["a.jpg"]), "a.jpg")
    write(tmp_path, [person(), person(away)])
    both = parts(parser(tmp_path, ["a.jpg"]), "a.jpg")
    assert both[26, 36] == alone[26, 36] == PARTS8.index("torso")
    assert alone[60, 49] and not both[60, 49]  # a forearm where the other one's hip is
    assert not both[(alone == 0)].any()
    write(tmp_path, [])
    assert not parts(parser(tmp_path, ["a.jpg"]), "a.jpg").any()


def test_points_of_a_larger_picture_need_their_scale(tmp_path):
    write_picture(tmp_path, "a.jpg")
    write(tmp_path, [person()])
    wanted = parts(parser(tmp_path, ["a.jpg"]), "a.jpg")
    write(tmp_path, [person(STANDING * [2, 2, 1])])
    with pytest.raises(InputError, match=r"1 of 1 parses are not their images'.*left wrist lies at x 96, y 130 of a "
                                         r"picture of 128x64|left .* of a picture of 128x64.*`scale`"):
        parser(tmp_path, ["a.jpg"])
    np.testing.assert_array_equal(parts(parser(tmp_path, ["a.jpg"], scale=2), "a.jpg"), wanted)


def test_shares_of_a_picture_are_no_pixels_and_people_that_end_high_are_said(tmp_path):
    write_picture(tmp_path, "a.jpg")
    write(tmp_path, [person(STANDING / [WIDTH, HEIGHT, 1])])
    with pytest.raises(InputError, match="no coordinate is beyond 0.9.*, in pictures of 128x64 and the like: they are "
                                         "shares, and pixels are read; multiply them"):
        parser(tmp_path, ["a.jpg"])
    write(tmp_path, [person(STANDING / [2, 2, 1])])
    assert "half of its people end above 46% of their picture's height: if it was larger or smaller when they were " \
           "estimated, say by `scale` how much" in parser(tmp_path, ["a.jpg"]).remark()
    write(tmp_path, [person()])
    assert parser(tmp_path, ["a.jpg"]).remark() == ""


def test_a_point_may_lie_a_little_outside():
    points = STANDING.copy()
    points[9, :2] = 70, 65
    assert outside(points, HEIGHT, WIDTH) == ""
    points[9, 0] = 71
    assert outside(points, HEIGHT, WIDTH) == "left wrist lies at x 71, y 65 of a picture of 128x64"
    points[9, 2] = 0
    assert outside(points, HEIGHT, WIDTH) == "" and COCO17[9] == "left wrist"


def test_missing_files_and_files_of_other_pictures_are_counted(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_picture(tmp_path, name)
    write(tmp_path, [person()])
    write(tmp_path, [person()], "points/c.jpg_keypoints.json")
    with pytest.raises(InputError, match=r"holds no parse of 'b\.jpg' \(1 of 2 are missing"):
        parser(tmp_path, ["a.jpg", "b.jpg"])
    assert "1 of its names are of no image in the index" in parser(tmp_path, ["a.jpg"]).remark()
