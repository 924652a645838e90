"""Protocol of a data set: what in its index would make metrics impossible or wrong, told before hours are spent on it.

A query is scored against the gallery without the pictures of its own person *and* camera (Market-1501's rule), and one
that then has no picture of its person left is skipped.
"""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.progress import progress
from pipeline.datasets.scan import SUFFIXES, image_files, subfolders

NAMED = 3  # of the folders that are not read
Pairs = list[tuple[str, str]]  # paths of the same picture


def check_protocol(frame: pd.DataFrame, raw: str | os.PathLike, *, listed: bool, published: bool) -> list[str]:
    """Remarks that a reader of the metrics should know. InputError for what makes metrics impossible or wrong.

    raw: the folder in which the index's paths lie; listed: a file names them one by one, so that others are left out
    on purpose; published: the set is whole, as its makers gave it out, so that people and pictures that stand where
    they should not are part of its protocol, and are remarked.
    """
    query, gallery, train = (frame[frame["split"] == split] for split in ("query", "gallery", "train"))
    remarks = [] if listed else _unread(frame, Path(raw))
    if len(query) and len(gallery):
        missing, unmatched = _unmatched(query, gallery)
        remarks += unmatched
    else:
        missing = _one_sided(query, gallery, remarks)
        remarks += [] if missing else ["neither queries nor a gallery: networks can be trained on it, not scored"]

    faults = [*_in_training_and_test(train, query, gallery), *_twice(frame, Path(raw), remarks)]
    wrong = missing or ([] if published else faults)
    if wrong:
        raise InputError(f"{os.fspath(raw)!r}: {wrong[0]}")
    return remarks + [f"{fault.partition(';')[0]}; so its makers gave it out" for fault in faults]


def _one_sided(query: pd.DataFrame, gallery: pd.DataFrame, unread: list[str]) -> list[str]:
    if not len(query) and not len(gallery):
        return []
    here, absent = (f"{len(query)} queries", "gallery") if len(query) else (f"a gallery of {len(gallery)}", "query")
    hint = f" ({unread[0]})" if unread else ""
    return [f"holds {here} and no {absent}, so that nothing could be scored{hint}; put the {absent} where the layout "
            "has it (docs/datasets.md), or take `layout: folder` to parse alone"]


def _unmatched(query: pd.DataFrame, gallery: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The fault if no query has a picture of its person from another camera; what to say if some have none."""
    places = gallery[["pid", "camid"]].drop_duplicates()
    cameras = places.groupby("pid")["camid"].agg(set).to_dict()
    alone = [not cameras.get(pid, set()) - {camid} for pid, camid in zip(query["pid"], query["camid"], strict=True)]
    if not any(alone):
        return [], []

    first = repr(query.loc[alone, "path"].iloc[0])
    if not all(alone):
        return [], [f"{sum(alone)} of {len(query)} queries, {first} first, have no picture of their person from "
                    "another camera in the gallery; they are skipped, and each result counts them"]

    seen = sorted({*query["camid"], *gallery["camid"]})
    if not set(query["pid"]) & cameras.keys():
        why, way = "no query's person is in the gallery", "give a person the same number in both"
    elif len(seen) == 1:
        why, way = f"every query and all of the gallery are of camera {seen[0]}", "tell the cameras apart"
    else:
        why, way = "the gallery shows each query's person from the query's own camera alone", "tell the cameras apart"
    return [f"{why} ({first} is the first), and pictures of a query's own person and camera do not count, so that "
            f"nothing could be scored; {way}, or where cameras are not known give queries one and the gallery another"
            ], []


def _in_training_and_test(train: pd.DataFrame, query: pd.DataFrame, gallery: pd.DataFrame) -> list[str]:
    """The fault of people who are trained on and tested with. Person 0 of a gallery is anybody: distractors."""
    tested = pd.concat([query, gallery[(gallery["pid"] != 0) | gallery["pid"].isin(query["pid"])]])
    shared = sorted({*train["pid"]} & {*tested["pid"]})
    if not shared:
        return []

    one, two = (repr(part.loc[part["pid"] == shared[0], "path"].iloc[0]) for part in (train, tested))
    others = f" and {len(shared) - 1} more stand" if len(shared) > 1 else " stands"
    return [f"person {shared[0]}{others} in train and in test ({one} and {two}), so that a network would be scored on "
            "whom it has seen; number different people differently, or take them out of one part"]


def _twice(frame: pd.DataFrame, raw: Path, remarks: list[str]) -> list[str]:
    """Faults of pictures that are the same to the byte; what harms nobody is added to `remarks`."""
    leaked, found, removed, repeated = Pairs(), Pairs(), Pairs(), Pairs()
    for group in alike(frame, raw):
        parts = {split: part["path"].tolist() for split, part in group.groupby("split")}
        tests = [paths for split, paths in parts.items() if split != "train"]
        if "train" in parts and tests:
            leaked.append((parts["train"][0], tests[0][0]))
        if len(tests) == 2:
            labels = group.loc[group["split"] != "train", ["pid", "camid"]].drop_duplicates()
            (removed if len(labels) == 1 else found).append((parts["query"][0], parts["gallery"][0]))
        repeated += [(paths[0], paths[1]) for paths in parts.values() if len(paths) > 1]

    if removed:
        remarks.append(f"{_pictures(removed)} in query and gallery alike, of one person and camera, so that the camera "
                       "rule takes the gallery's out")
    if repeated:
        remarks.append(f"{_pictures(repeated)} twice in one split, where each counts")
    faults = [(leaked, "in train and in test, so that a network would be scored on what it has seen; take them out of "
                       "one part"),
              (found, "in query and gallery as another person's or another camera's, so that queries would find "
                      "themselves; take them out of one part, or give both the right person and camera")]
    return [f"{_pictures(pairs)} {wrong}" for pairs, wrong in faults if pairs]


def alike(frame: pd.DataFrame, raw: Path) -> list[pd.DataFrame]:
    """Rows of the same picture, to the byte. Files whose size no other one has are not read, nor are empty ones."""
    sizes = {path: _size(raw / path) for path in frame["path"]}
    shared = {size for size, count in Counter(sizes.values()).items() if size and count > 1}
    alike = [path for path, size in sizes.items() if size in shared]
    digests = {path: file_sha256(raw / path) for path in progress(alike, "compare pictures", unit="pictures")}

    picture = frame["path"].map(lambda path: digests.get(path, path))
    return [group for _, group in frame[picture.duplicated(keep=False)].groupby(picture)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r}: cannot be read ({error.strerror}); restore it or move it away"
                         ) from error


def _pictures(pairs: Pairs) -> str:
    return (f"{len(pairs)} picture{'s' * (len(pairs) > 1)} ({pairs[0][0]!r} and {pairs[0][1]!r}"
            f"{', the first of them' * (len(pairs) > 1)}) stand{'s' * (len(pairs) == 1)}")


def _unread(frame: pd.DataFrame, raw: Path) -> list[str]:
    """The folders whose pictures the layout leaves out, so that none is lost in silence."""
    holding = {PurePosixPath(path).parent for path in frame["path"]}
    above = {folder for place in holding for folder in (place, *place.parents)}
    found, waiting = [], [(raw, PurePosixPath())]
    while waiting:
        folder, place = waiting.pop()
        if place not in above:
            found += [place] * _has_images(folder)
            continue
        found += [place] * (place not in holding and bool(image_files(folder)))
        waiting += [(below, place / below.name) for below in subfolders(folder)]

    names = [repr(str(place)) if place.parts else "the folder itself" for place in sorted(found)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"pictures in {', '.join(names[:NAMED])}{more} are not read, the layout has no such place"] if names else []


def _has_images(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in SUFFIXES for _, _, files in os.walk(folder) for name in files)
