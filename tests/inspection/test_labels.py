"""Findings on an index: each counts what a loop counts, and names the pictures that one would score without."""

import doctest

import numpy as np
import pandas as pd
import pytest

from pipeline.inspection import labels as module
from pipeline.inspection.labels import Finding, labels


def index(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """(split/name, person, camera) of each image."""
    return pd.DataFrame([(name, name, pid, camid, name.split("/")[0]) for name, pid, camid in rows],
                        columns=["image", "path", "pid", "camid", "split"])


def found(frame: pd.DataFrame, raw=None) -> dict[str, Finding]:
    return {finding.name: finding for finding in labels(frame, raw)}


def test_cameras_and_queries_that_the_rule_leaves_without_a_match():
    frame = index(("query/a", 1, 1), ("query/b", 2, 1), ("query/c", 3, 3), ("gallery/a", 1, 2), ("gallery/b", 2, 1),
                  ("gallery/c", 1, 1), ("gallery/x", -1, 7), ("train/a", 9, 4))
    seen = found(frame)
    assert seen["cameras"].said == "gallery 1-2, 7; query 1, 3; train 4"
    assert seen["camera rule"].images == {"query/b", "query/c"}
    assert seen["camera rule"].said == ("2 of 3 queries are skipped: 1 whose every match is of their own camera, 1 "
                                        "whose person is not in the gallery ('query/b' first)")


def test_the_rule_s_count_is_that_of_a_loop():
    draw = np.random.default_rng(0)
    frame = index(*((f"{split}/{number:03d}", int(draw.integers(-1, 12)), int(draw.integers(0, 3)))
                    for split, count in (("query", 40), ("gallery", 40)) for number in range(count)))
    query, gallery = (frame[frame["split"] == split] for split in ("query", "gallery"))
    expected = {row.image for row in query.itertuples()
                if row.pid != -1 and not any(other.pid == row.pid and other.camid != row.camid
                                             for other in gallery.itertuples())}
    assert found(frame)["camera rule"].images == expected and expected


def test_queries_of_nobody_are_not_skipped_ones():
    frame = index(("query/a", 1, 1), ("query/b", 2, 1), ("query/x", -1, 1), ("gallery/a", 1, 2), ("gallery/b", 2, 1))
    assert found(frame)["camera rule"].said.startswith("1 of 2 queries are skipped: 1 whose every match")


def test_where_people_are_counted_from_0_that_one_is_looked_at():
    rows = [("train/a", 0, 1), ("gallery/a", 0, 1), ("query/b", 1, 1), ("gallery/b", 1, 2)]
    before, after = found(index(*rows)), found(index(*rows, ("query/a", 0, 1)))
    assert (before["train and test"].count, before["one camera"].count) == (0, 0)
    assert (after["train and test"].images, after["one camera"].images) == ({"query/a", "gallery/a"},) * 2


def test_people_in_both_parts_and_people_of_one_camera():
    frame = index(("train/a", 1, 1), ("train/b", 1, 2), ("train/c", 4, 1), ("query/a", 1, 1), ("query/b", 2, 1),
                  ("gallery/a", 1, 2), ("gallery/b", 2, 1), ("gallery/c", 3, 2), ("gallery/d", 0, 1), ("train/d", 0, 1),
                  ("gallery/e", -1, 1))
    seen = found(frame)
    assert (seen["train and test"].count, seen["train and test"].images) == (1, {"query/a", "gallery/a"})
    assert seen["one camera"].images == {"query/b", "gallery/b", "gallery/c"}
    assert seen["one camera"].said.startswith("2 people of the test and 1 of train are seen by one camera alone")
    assert found(frame[frame["split"] == "train"]).keys() == {"train and test", "one camera"}


def test_pictures_that_are_the_same_to_the_byte(tmp_path):
    frame = index(("train/a", 1, 1), ("query/a", 2, 1), ("query/b", 3, 1), ("query/c", 4, 1), ("gallery/a", 9, 1),
                  ("gallery/b", 3, 2), ("gallery/c", 4, 1), ("gallery/d", 5, 1))
    content = {"train/a": b"one", "gallery/a": b"one", "query/b": b"two", "gallery/b": b"two", "query/c": b"six",
               "gallery/c": b"six", "query/a": b"ten", "gallery/d": b"eleven"}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    seen = found(frame, tmp_path)
    assert seen["identical, train and test"].images == {"gallery/a"}
    assert seen["identical, query and gallery"].images == {"gallery/b"}
    assert seen["identical, same label"].images == {"gallery/c"}
    assert not any(name.startswith("identical") for name in found(frame))


@pytest.mark.parametrize("split", ["query", "train"])
def test_a_clean_set_has_nothing(split):
    frame = index((f"{split}/a", 1, 1), (f"{split}/b", 1, 2), ("gallery/a", 2, 1), ("gallery/b", 2, 2))
    frame = frame if split == "train" else pd.concat([frame, index(("gallery/c", 1, 3))])
    assert all(not finding.images for name, finding in found(frame).items() if name != "cameras")


def test_doctests():
    assert doctest.testmod(module).failed == 0
