"""Rendered data sets: same bytes, consistent labels, names, disjoint people, occlusion as promised."""

import hashlib
import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.base.seeds import rng
from pipeline.renderer.body_mesh import build_mesh
from pipeline.renderer.dataset import Plan, render_dataset, render_shot, shots
from pipeline.renderer.person import draw_person
from pipeline.renderer.picture import Wish, render_picture
from pipeline.renderer.pose import draw_pose
from pipeline.renderer.scene import draw_look

NAME = re.compile(r"(\d{4})_c([1-6])s1_(\d{6})_00\.jpg")
SMALL = Plan(key="test-synth", kind="occluded", seed=5, height=128, width=64, train_ids=2, train_images=3, test_ids=3,
             query_images=2, gallery_images=3)
LIP_TO_EIGHT = {1: {1}, 2: {1, 2}, 4: {1}, 13: {1, 2}, 3: {4}, 14: {3, 4}, 15: {3, 4}, 18: {7, 6}, 19: {7, 6},
                9: {2, 5, 6}, 16: {5, 6, 7}, 17: {5, 6, 7}, 12: {2, 5, 6}, 8: {6, 7}, 11: {2}}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("render") / "set"
    assert render_dataset(SMALL, folder, 1) == 2 * 3 + 3 * 5
    with h5py.File(folder / "labels.h5") as file:
        labels = {name: file[name][:] for name in ("lip", "index", "uv", "visible", "joints", "occlusion")}
        labels["path"] = [path.decode() for path in file["path"][:]]
        labels["maker"] = json.loads(file.attrs["maker"])
    return folder, labels


def _digests(folder):
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_bytes_with_one_and_two_processes_and_on_a_rerun(rendered, tmp_path):
    folder, _ = rendered
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "stale").touch()
    render_dataset(SMALL, tmp_path / "set", 2)
    assert _digests(tmp_path / "set") == _digests(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]            # nothing temporary is left


def test_another_seed_or_key_gives_other_people():
    shot = shots(SMALL)[0]
    here = render_shot(SMALL, shot).image
    for other in (replace(SMALL, seed=6), replace(SMALL, key="test-other")):
        assert np.abs(render_shot(other, shot).image.astype(int) - here).mean() > 5


def test_rows_belong_to_the_pictures_on_disk(rendered):
    folder, labels = rendered
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    assert labels["path"] == files
    assert labels["maker"]["parameters"]["seed"] == 5
    for number in (0, 7, len(files) - 1):
        picture = render_shot(SMALL, next(shot for shot in shots(SMALL) if shot.path == files[number]))
        for name in ("lip", "index", "uv", "visible", "joints"):
            np.testing.assert_array_equal(labels[name][number], getattr(picture, name))
        image = read_image(folder / files[number])
        assert image.shape == (128, 64, 3)
        assert np.abs(image.astype(int) - picture.image).mean() < 8           # JPEG


def test_label_maps_agree_with_each_other(rendered):
    _, labels = rendered
    lip, index, uv = labels["lip"], labels["index"], labels["uv"]
    np.testing.assert_array_equal(lip > 0, index > 0)
    assert lip.max() < 20 and index.max() < 25
    assert not uv[index == 0].any()
    eight = DENSEPOSE24_TO_PARTS8[index]
    for label, parts in LIP_TO_EIGHT.items():
        assert set(np.unique(eight[lip == label])) <= parts, f"LIP {label}"
    left, right = (np.isin(index, ids) for ids in ((14, 12, 5, 8, 10), (13, 11, 6, 7, 9)))
    assert not (np.isin(lip, (16, 18)) & right).any() and not (np.isin(lip, (17, 19)) & left).any()


def test_visible_shares_match_the_maps(rendered):
    _, labels = rendered
    for index, visible in zip(labels["index"], labels["visible"], strict=True):
        assert ((visible >= 0) & (visible <= 1)).all()
        present = np.unique(index[index > 0]) - 1
        assert (visible[present] > 0).all()                                   # what is labelled is visible
        count = np.bincount(index.ravel(), minlength=25)[1:]
        assert (count[visible == 0] == 0).all()


def test_joints_in_sight_lie_on_the_person(rendered):
    _, labels = rendered
    shown = bagged = 0
    for index, joints in zip(labels["index"], labels["joints"], strict=True):
        for x, y, visible in joints:
            if visible:
                assert 0 <= x < 64 and 0 <= y < 128
                near = index[max(int(y) - 1, 0):int(y) + 2, max(int(x) - 1, 0):int(x) + 2]
                shown += 1
                bagged += not near.any()                                     # a bag may hide a joint
    assert shown > 100 and bagged < .05 * shown


def test_names_cameras_and_people(rendered):
    _, labels = rendered
    seen = {"bounding_box_train": set(), "query": set(), "bounding_box_test": set()}
    for path in labels["path"]:
        folder, name = path.split("/")
        match = NAME.fullmatch(name)
        assert match, name
        seen[folder].add((int(match[1]), int(match[2])))
    people = {folder: {pid for pid, _ in pairs} for folder, pairs in seen.items()}
    assert people["query"] == people["bounding_box_test"] == {3, 4, 5}
    assert not people["bounding_box_train"] & people["query"]
    assert not seen["query"] & seen["bounding_box_test"]                     # no person twice under one camera


@pytest.mark.parametrize("kind", ["holistic", "occluded", "partial"])
def test_no_person_shares_a_camera_between_query_and_gallery(kind):
    plan = replace(SMALL, kind=kind, test_ids=20, query_images=5, gallery_images=7)
    pairs = {part: {tuple(NAME.fullmatch(shot.path.split("/")[1]).groups()[:2]) for shot in shots(plan)
                    if shot.path.startswith(folder)} for part, folder in (("q", "query"), ("g", "bounding_box_test"))}
    assert not pairs["q"] & pairs["g"]
    if kind == "partial":
        assert {camera for _, camera in pairs["q"]} == {"1"} and {camera for _, camera in pairs["g"]} == {"2"}
    assert len({shot.path for shot in shots(plan)}) == len(shots(plan))


def test_every_occluded_query_is_hidden_as_promised():
    plan = replace(SMALL, key="test-hidden", test_ids=20, query_images=1)
    shares = [render_shot(plan, shot).occlusion for shot in shots(plan) if shot.path.startswith("query")]
    assert len(shares) == 20
    assert min(shares) >= .25 and max(shares) <= .60
    assert np.std(shares) > .03


def test_partial_queries_show_part_of_a_person_and_the_gallery_all_of_it():
    plan = replace(SMALL, key="test-partial", kind="partial", train_ids=0, train_images=0, test_ids=8, query_images=1,
                   gallery_images=1)
    shares = {part: np.array([render_shot(plan, shot).occlusion for shot in shots(plan) if shot.path.startswith(part)])
              for part in ("query", "bounding")}
    assert shares["query"].min() > .1 and shares["query"].mean() > .3
    assert shares["bounding"].max() < .2


def _picture(hidden, style="test", number=0):
    person, look = draw_person(rng(8, "person")), draw_look(rng(8, "look"))
    wish = Wish(hidden=hidden, style=style, crop="box", fault=0.0)
    return render_picture(person, look, wish, rng(8, "picture", number), 128, 64)


def test_an_occluder_takes_labels_and_visibility_away():
    """The same picture with and without its occluder: labels can only disappear, shares can only fall."""
    for number in range(6):
        clear, hidden = _picture(None, number=number), _picture((.5, .6), number=number)
        same = hidden.index == clear.index
        assert (same | (hidden.index == 0) | (clear.index == 0)).mean() > .99        # ties on the occluder's edge
        assert (hidden.visible <= clear.visible + 1e-6).all()
        assert hidden.occlusion > .45 and clear.occlusion < .05
        gone = (hidden.visible == 0) & (clear.visible > 0)
        assert not np.isin(hidden.index, np.flatnonzero(gone) + 1).any()
        lost = (clear.index > 0).sum() - (hidden.index > 0).sum()
        assert lost / (clear.index > 0).sum() == pytest.approx(hidden.occlusion, abs=.06)


def test_larger_pictures_show_the_same_scene():
    """At 256 x 128 the same stream gives the same person in the same place."""
    person, look = draw_person(rng(8, "person")), draw_look(rng(8, "look"))
    wish = Wish(hidden=None, style="test", crop="box", fault=1.0)
    small, large = (render_picture(person, look, wish, rng(8, "size"), height, height // 2) for height in (128, 256))
    assert (large.index[::2, ::2] == small.index).mean() > .95
    np.testing.assert_allclose(large.joints[:, :2], 2 * small.joints[:, :2], atol=1e-3)
    np.testing.assert_allclose(large.occlusion, small.occlusion, atol=.01)


def test_the_feet_stand_on_the_ground_and_the_head_is_on_top():
    for number in range(10):
        draw = rng(4, "stand", number)
        person = replace(draw_person(draw), hat="none", hair_style="bald")
        mesh = build_mesh(person, draw_pose(draw))
        assert mesh.points[:, 1].min() == pytest.approx(0, abs=1e-9)
        assert .88 * person.height < mesh.points[:, 1].max() < 1.05 * person.height
        assert mesh.joints[0, 1] > mesh.joints[1, 1] > mesh.joints[[8, 11], 1].max() > mesh.joints[[10, 13], 1].min()


@pytest.mark.parametrize(("change", "words"), [({"kind": "night"}, "holistic, occluded, partial, parsing"),
                                               ({"test_ids": 0}, "test_ids"), ({"train_ids": 0}, "train_ids"),
                                               ({"query_images": 0}, "query_images"), ({"width": 3}, "too small")])
def test_an_impossible_plan_is_one_sentence(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        render_dataset(replace(SMALL, **change), tmp_path / "set", 1)
    assert not list(tmp_path.iterdir())
