"""Labels of a data set: what in its index moves metrics, picture by picture.

`prepare` refuses what makes metrics wrong; this tells what is odd in a set that is scored all the same, published ones
among them, and which pictures it is about, so that one can score without them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.datasets.protocol import alike

JUNK, DISTRACTORS = -1, 0  # identities of what the detector got wrong, and of anybody


@dataclass(frozen=True)
class Finding:
    """One line of the page: its `name`, how many pictures, people or queries it is about, what is said of them, and
    the keys of the queries and gallery images that one would score without."""
    name: str
    count: int
    said: str
    images: frozenset[str] = frozenset()


def labels(frame: pd.DataFrame, raw: str | os.PathLike | None) -> list[Finding]:
    """All findings of an index's rows, in the order of the page. raw: the folder of its pictures, where it is known."""
    tested = frame[frame["split"] != "train"]
    found = [cameras(frame), own_camera(tested)] if len(tested) else []
    found += [] if raw is None else identical(frame, Path(raw))
    return [*found, seen_in_training(frame), one_camera(frame)]


def cameras(frame: pd.DataFrame) -> Finding:
    """The cameras of each split."""
    told = "; ".join(f"{split} {_numbers(sorted(set(part['camid'])))}" for split, part in frame.groupby("split"))
    return Finding("cameras", frame["camid"].nunique(), told)


def own_camera(tested: pd.DataFrame) -> Finding:
    """Queries of somebody whom the gallery shows from their own camera alone, or not at all: they are skipped."""
    query, gallery = (tested[tested["split"] == split] for split in ("query", "gallery"))
    query = query[query["pid"] != JUNK]  # nobody's are not asked at all
    places = gallery.groupby("pid")["camid"].agg(set).to_dict()
    left = [places.get(pid, set()) - {camid} for pid, camid in zip(query["pid"], query["camid"], strict=True)]
    skipped = query[np.array([not cameras for cameras in left], bool)]
    absent = int((~skipped["pid"].isin(list(places))).sum())
    said = (f"{len(skipped)} of {len(query)} queries are skipped: {len(skipped) - absent} whose every match is of "
            f"their own camera, {absent} whose person is not in the gallery{_first(skipped['path'])}")
    return Finding("camera rule", len(skipped), said, frozenset(skipped["image"]))


def identical(frame: pd.DataFrame, raw: Path) -> list[Finding]:
    """Pictures that are the same to the byte: in training and test, and as a query and in the gallery."""
    trained: list[str] = []
    found: list[str] = []
    removed: list[str] = []
    for group in alike(frame, raw):
        splits = set(group["split"])
        test = group[group["split"] != "train"]
        if "train" in splits and len(test):
            trained += test["image"].tolist()
        if {"query", "gallery"} <= splits:
            same = len(test[["pid", "camid"]].drop_duplicates()) == 1
            (removed if same else found).extend(test.loc[test["split"] == "gallery", "image"])

    paths = frame.set_index("image")["path"]
    shown = [(trained, "pictures of the test are in train too, byte for byte"),
             (found, "gallery pictures are queries too, as another person's or camera's"),
             (removed, "gallery pictures are queries too, of one person and camera; the camera rule takes them out")]
    names = ("identical, train and test", "identical, query and gallery", "identical, same label")
    return [Finding(name, len(keys), f"{len(keys)} {said}{_first(paths[keys])}", frozenset(keys))
            for name, (keys, said) in zip(names, shown, strict=True)]


def seen_in_training(frame: pd.DataFrame) -> Finding:
    """People who are trained on and tested with."""
    train, tested = frame[frame["split"] == "train"], frame[frame["split"] != "train"]
    both = (set(train["pid"]) & set(tested["pid"])) - nobody(frame)
    rows = tested[tested["pid"].isin(both)]
    return Finding("train and test", len(both), f"{len(both)} people are in train and in test{_first(rows['path'])}",
                   frozenset(rows["image"]))


def nobody(frame: pd.DataFrame) -> set[int]:
    """The identities that are no person: -1, and 0 where no query asks for it, as those of Market-1501 do not; where
    people are counted from 0, it is one of them."""
    asked = frame.loc[frame["split"] == "query", "pid"]
    return {JUNK} if (asked == DISTRACTORS).any() else {JUNK, DISTRACTORS}


def one_camera(frame: pd.DataFrame) -> Finding:
    """People whom one camera alone has seen, where there are several: nothing is learned or asked across cameras."""
    people = frame[~frame["pid"].isin(nobody(frame))]
    tests = people["split"] != "train"
    counts = people.groupby([tests, "pid"])["camid"].nunique()
    alone = {test: set(counts[test][counts[test] == 1].index) if test in counts.index.get_level_values(0) else set()
             for test in (False, True)}
    rows = people[tests & people["pid"].isin(alone[True])]
    said = (f"{len(alone[True])} people of the test and {len(alone[False])} of train are seen by one camera alone"
            f"{_first(rows['path'])}")
    return Finding("one camera", len(alone[True]) + len(alone[False]), said, frozenset(rows["image"]))


def _first(paths: pd.Series) -> str:
    return f" ({paths.iloc[0]!r} first)" if len(paths) else ""


def _numbers(values: Sequence[int]) -> str:
    """Ascending whole numbers, runs as a range.

    >>> _numbers([1, 2, 3, 5]), _numbers([0])
    ('1-3, 5', '0')
    """
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
