"""Missing parts: rendered people with parts taken away, shares against loops, the verdict at its borders, the table."""

import doctest
import json
import math

import numpy as np
import pytest

from benchmarks.good_parse import table
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8, TAXONOMIES
from pipeline.base.hdf5 import open_h5
from pipeline.inspection import missing_parts
from pipeline.inspection.audit import areas_of
from pipeline.inspection.missing_parts import (
    FAULTS,
    GROUPS,
    PEOPLE,
    TABLE,
    fault_shares,
    faults,
    good_parse,
    part_shares,
    proportion_classes,
    verdict,
    worse,
)
from pipeline.renderer.dataset import Plan, render_dataset
from tests.helpers.rendered_people import people

COUNT = 12
LEAST = good_parse("densepose24")["least"]


def judged(labels: list[np.ndarray]) -> dict[str, np.ndarray]:
    unknown = np.full(len(labels), np.nan)
    return faults(np.stack([*map(areas_of, labels)]), unknown, unknown, LEAST)


@pytest.fixture(scope="module")
def truth() -> list[np.ndarray]:
    return [DENSEPOSE24_TO_PARTS8[person.index] for person in people(COUNT)]


def test_shares_are_of_the_persons_pixels(truth):
    shares = part_shares(np.stack([*map(areas_of, truth)]))
    for number, labels in enumerate(truth):
        person = sum(int(label > 0) for label in labels.ravel())
        assert shares["person"][number] == pytest.approx(person / labels.size)
        for group, parts in GROUPS.items():
            pixels = sum(PARTS8[label] in parts for label in labels.ravel())
            assert shares[group][number] == pytest.approx(pixels / person)


@pytest.mark.parametrize("group", GROUPS)
def test_a_part_that_is_taken_away_is_missed_and_no_other(truth, group):
    whole = judged(truth)
    assert not any(whole[name].any() for name in whole if name not in ("not_upright", "sides_exchanged"))
    parts = [PARTS8.index(part) for part in GROUPS[group]]
    found = judged([np.where(np.isin(labels, parts), 0, labels) for labels in truth])
    assert found[f"no_{group}"].all()
    assert not any(found[f"no_{other}"].any() for other in GROUPS if other != group)


def test_a_part_may_be_small(truth):
    """Halved, none of these heads is missing; a tenth of one is."""
    def thinned(labels: np.ndarray, keep: int) -> np.ndarray:
        head = np.argwhere(labels == PARTS8.index("head"))
        changed = labels.copy()
        changed[tuple(np.delete(head, np.s_[::keep], 0).T)] = 0
        return changed

    assert not judged([thinned(labels, 2) for labels in truth])["no_head"].any()
    assert judged([thinned(labels, 10) for labels in truth])["no_head"].all()


def test_nobody_lacks_everything_and_scraps_are_hardly_a_person(truth):
    found = judged([np.zeros_like(truth[0]), np.where(np.indices(truth[0].shape).sum(0) % 6, 0, truth[0]), truth[0]])
    assert found["no_person"].tolist() == [1, 0, 0] and found["hardly_person"].tolist() == [0, 1, 0]
    assert found["no_head"].tolist() == [1, 0, 0]  # of scraps the shares are still a person's
    unknown = faults(np.full((1, 8), np.nan), np.full(1, np.nan), np.ones(1), LEAST)
    assert np.isnan(unknown["no_head"][0]) and unknown["sides_exchanged"][0] == 0
    assert fault_shares(unknown)["no_head"] == {"judged": 0, "share": None}


def test_lips_arms_are_not_judged():
    """A sleeve is torso there, so that whole people have none."""
    least = good_parse("lip20")["least"]
    assert least["arms"] == 0 and min(least[group] for group in GROUPS if group != "arms") > 0
    areas = np.stack([areas_of(np.full((8, 4), PARTS8.index("head"), np.uint8))])
    found = faults(areas, np.full(1, np.nan), np.full(1, np.nan), least)
    assert np.isnan(found["no_arms"][0]) and found["no_legs"][0] == 1


def shares(count: int, **having: float) -> dict[str, dict]:
    return {name: {"judged": count, "share": having.get(name, 0.0)} for name in FAULTS}


def test_a_verdict_names_what_is_worse_by_more_than_margin_and_chance():
    good = shares(1000, no_feet=0.04)
    assert verdict(shares(2000, no_feet=0.04), good, "whole") == "like a good parse of whole people"
    assert worse(shares(2000, no_head=0.019, no_feet=0.059), good) == []  # within the margin
    assert worse(shares(100000, no_head=0.021), shares(100000)) == ["no_head"]
    assert worse(shares(10, no_head=0.1), good) == ["no_head"]  # one of ten where none of a thousand has it
    assert worse(shares(20, no_feet=0.15), good) == []  # three of twenty where 4 % have it: chance
    assert worse(shares(2000, no_feet=0.0), good) == []  # better is not worse
    assert verdict(shares(2000, no_head=0.07, no_legs=0.5), good, "partial") == (
        "worse than a good parse of partial people: 7.0% without a head where a good parse has 0.0%; 50.0% without "
        "legs where a good parse has 0.0%")
    unjudged = shares(50) | {"no_arms": {"judged": 0, "share": None}}
    assert worse(unjudged, good) == worse(shares(50, no_arms=1.0), unjudged) == []
    assert verdict(fault_shares({name: np.zeros(0) for name in FAULTS}), good, "whole") == "none: no crop was parsed"


def test_classes_of_height_over_width_meet_and_take_whom_they_can():
    found = proportion_classes(np.array([0.5, 1, 1.49, 1.5, 2, 2.5, 3.5, 9, np.nan]))
    assert {name: np.flatnonzero(members).tolist() for name, members in found.items()} == {
        "below 1": [0], "1 to 1.5": [1, 2], "1.5 to 2.5": [3, 4], "2.5 to 3.5": [5], "from 3.5": [6, 7]}
    assert proportion_classes(np.full(3, np.nan)) == {}
    assert doctest.testmod(missing_parts).failed == 0


def test_the_table_is_of_exact_labels(tmp_path):
    """What benchmarks/good_parse.py makes of small sets, against loops."""
    for kind, name in (("holistic", "whole"), ("occluded", "occluded"), ("partial", "partial")):
        render_dataset(Plan(key=f"table-{kind}", kind=kind, seed=0, height=64, width=32, train_ids=1, train_images=1,
                            test_ids=4, query_images=2, gallery_images=4), tmp_path / PEOPLE[name], 1)
    made = table(tmp_path)
    with open_h5(tmp_path / PEOPLE["whole"] / "labels.h5") as file:
        labels, joints, hidden = DENSEPOSE24_TO_PARTS8[file["index"][:]], file["joints"][:], file["occlusion"][:]
    chosen = [number for number in range(len(labels)) if hidden[number] == 0
              and all(0 <= x < 32 and 0 <= y < 64 for x, y, _ in joints[number])]
    assert 5 < len(chosen) == made["densepose24"]["images of least"] < len(labels)
    heads = [(labels[number] == 1).sum() / (labels[number] > 0).sum() for number in chosen]
    torsos = [(labels[number] == 2).sum() / (labels[number] > 0).sum() for number in chosen]
    least = made["densepose24"]["least"]
    assert least["head"] == pytest.approx(np.percentile(heads, 1) / 2, abs=1e-4)
    assert least["torso"] == pytest.approx(np.percentile(torsos, 1), abs=1e-4)

    with open_h5(tmp_path / PEOPLE["partial"] / "labels.h5") as file:
        cut = DENSEPOSE24_TO_PARTS8[file["index"][:]]
    without = [(image == 7).sum() / max((image > 0).sum(), 1) < least["feet"] for image in cut]
    assert made["densepose24"]["partial"]["no_feet"] == {"judged": len(cut), "share": round(np.mean(without), 4)}
    assert made["lip20"]["whole"]["sides_exchanged"] == {"judged": 0, "share": None}


def test_the_committed_table_says_what_it_was_made_of():
    held = json.loads(TABLE.read_text())
    assert set(held["sets"]) == set(PEOPLE.values()) and held["made by"] == "python -m benchmarks.good_parse"
    for taxonomy in TAXONOMIES:
        for kind, name in PEOPLE.items():
            parameters = json.loads(held["sets"][name])["parameters"]
            images = (parameters["train_ids"] * parameters["train_images"] + parameters["test_ids"]
                      * (parameters["query_images"] + parameters["gallery_images"]))
            assert held[taxonomy][kind].keys() == FAULTS.keys()
            assert all(0 <= entry["judged"] <= images for entry in held[taxonomy][kind].values())
            assert held[taxonomy][kind]["no_head"]["judged"] == images
            assert not math.isnan(held[taxonomy]["least"]["head"])


@pytest.mark.slow
def test_the_committed_table_is_what_the_default_sets_give(tmp_path):
    held = json.loads(TABLE.read_text())
    for name, maker in held["sets"].items():
        render_dataset(Plan(**json.loads(maker)["parameters"]), tmp_path / name, 2)
    made = table(tmp_path)
    assert all(made[taxonomy] == held[taxonomy] for taxonomy in TAXONOMIES)
