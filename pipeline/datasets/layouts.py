"""Layouts of data sets on disk -> index rows: those that `layout` may name, and what was published about them."""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.hdf5 import HeldError, open_h5
from pipeline.datasets.cuhk import read_cuhk01, read_cuhk03_detected, read_cuhk03_labeled
from pipeline.datasets.custom import read_csv, read_folder
from pipeline.datasets.index import SPLITS
from pipeline.datasets.market_like import (
    read_drama,
    read_duke,
    read_market,
    read_market1501,
    read_msmt17,
    read_msmt17_noval,
    read_occluded_duke,
    read_occluded_duke_lists,
)
from pipeline.datasets.occluded_partial import (
    read_occluded_reid,
    read_p_duke,
    read_partial_ilids,
    read_partial_ilids_uncropped,
    read_partial_reid_occluded,
    read_partial_reid_partial,
)
from pipeline.datasets.protocol import check_protocol

DUKE = ("DukeMTMC, from which this data set was cut, was withdrawn by its authors in 2019 over the privacy of the "
        "people in it; use it only where you may, and do not pass it on")
DRAMA = "Drama-ReID was never released: figures made here are those of the data set that you put at its place"
TRIALS = 10  # splits of CUHK01


@dataclass(frozen=True)
class Layout:
    """How a folder is read; `published` (images, people) of each split, empty where there is none; what to be told.

    listed: a file of the user's names the images one by one; known: who is in them, so that queries can be scored.
    """
    read: Callable[[str | os.PathLike], pd.DataFrame]
    published: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notice: str = ""
    listed: bool = False
    known: bool = True


def pick_layout(name: str) -> Layout:
    """The layout of this name. InputError lists the choices."""
    if name not in LAYOUTS:
        choices = [f"{known[:-1]}0 to {TRIALS - 1}" if known.startswith("cuhk01") else known for known in LAYOUTS
                   if not known.startswith("cuhk01") or known.endswith("-0")]
        raise InputError(f"unknown layout {name!r}; a layout is one of {', '.join(choices)}")
    return LAYOUTS[name]


def remarks(layout: Layout, frame: pd.DataFrame) -> list[str]:
    """What a user should hear about the rows read: the layout's notice, and each split whose counts differ."""
    return ([layout.notice] if layout.notice else []) + _other_counts(layout, frame)


def _other_counts(layout: Layout, frame: pd.DataFrame) -> list[str]:
    lines = []
    for split in SPLITS if layout.published else ():
        part = frame[frame["split"] == split]
        counts, published = (len(part), part["pid"].nunique()), layout.published.get(split, (0, 0))
        if counts != published:
            lines.append(f"{split}: {counts[0]} images of {counts[1]} people are here, published are {published[0]} of "
                         f"{published[1]}; results will not compare")

    return lines


def check_layout(layout: Layout, frame: pd.DataFrame, raw: str | os.PathLike) -> list[str]:
    """`remarks` and those on the protocol. InputError for what would make metrics impossible or wrong."""
    if not layout.known:
        return remarks(layout, frame)
    published = bool(layout.published) and not _other_counts(layout, frame)
    return remarks(layout, frame) + check_protocol(frame, raw, listed=layout.listed, published=published)


def add_occlusion(frame: pd.DataFrame, root: str | os.PathLike) -> pd.DataFrame:
    """Add the `occlusion` column (0-1) from the labels.h5 of a rendered set; `frame` as it is where there is none."""
    path = Path(root) / "labels.h5"
    if not path.is_file():
        return frame

    try:
        with open_h5(path) as file:
            known = dict(zip(file["path"].asstr()[:], file["occlusion"][:].tolist(), strict=True))
        return frame.assign(occlusion=[float(known[name]) for name in frame["path"]])
    except HeldError:
        raise
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{os.fspath(path)!r}: does not belong to the images beside it ({error}); render the set "
                         "again with `dvc repro render`") from error


def _counts(*, query: tuple[int, int], gallery: tuple[int, int],
            train: tuple[int, int] = (0, 0)) -> dict[str, tuple[int, int]]:
    return {"train": train, "query": query, "gallery": gallery}


def _cuhk01(name: str, test_people: int, shots: int) -> dict[str, Layout]:
    """One layout per split: cuhk01-0 .. cuhk01-9."""
    train, tested = 971 - test_people, test_people
    counts = _counts(train=(4 * train, train), query=(2 * tested, tested), gallery=(shots * tested, tested))
    return {f"{name}-{trial}": Layout(functools.partial(read_cuhk01, trial=trial, test_people=test_people, shots=shots),
                                      counts) for trial in range(TRIALS)}


# Published (images, people). Market-1501's gallery counts the distractors (id 0) as one person.
LAYOUTS: dict[str, Layout] = {
    "market": Layout(read_market),
    "csv": Layout(read_csv, listed=True),
    "folder": Layout(read_folder, known=False),
    "market1501": Layout(read_market1501, _counts(train=(12936, 751), query=(3368, 750), gallery=(15913, 751))),
    "duke": Layout(read_duke, _counts(train=(16522, 702), query=(2228, 702), gallery=(17661, 1110)), DUKE),
    "occluded-duke": Layout(read_occluded_duke, _counts(train=(15618, 702), query=(2210, 519), gallery=(17661, 1110)),
                            DUKE),
    "occluded-duke-lists": Layout(read_occluded_duke_lists,
                                  _counts(train=(15618, 702), query=(2210, 519), gallery=(17661, 1110)), DUKE),
    "p-duke": Layout(read_p_duke, _counts(train=(12927, 665), query=(2163, 634), gallery=(9053, 634)), DUKE),
    "occluded-reid": Layout(read_occluded_reid, _counts(query=(1000, 200), gallery=(1000, 200))),
    "partial-reid-partial": Layout(read_partial_reid_partial, _counts(query=(300, 60), gallery=(300, 60))),
    "partial-reid-occluded": Layout(read_partial_reid_occluded, _counts(query=(300, 60), gallery=(300, 60))),
    "partial-ilids": Layout(read_partial_ilids, _counts(query=(119, 119), gallery=(119, 119))),
    "partial-ilids-uncropped": Layout(read_partial_ilids_uncropped, _counts(query=(119, 119), gallery=(119, 119))),
    "cuhk03-labeled": Layout(read_cuhk03_labeled, _counts(train=(7368, 767), query=(1400, 700), gallery=(5328, 700))),
    "cuhk03-detected": Layout(read_cuhk03_detected, _counts(train=(7365, 767), query=(1400, 700), gallery=(5332, 700))),
    **_cuhk01("cuhk01", 486, 1),
    **_cuhk01("cuhk01-multi", 486, 2),
    **_cuhk01("cuhk01-100", 100, 1),
    **_cuhk01("cuhk01-100-multi", 100, 2),
    "msmt17": Layout(read_msmt17, _counts(train=(32621, 1041), query=(11659, 3060), gallery=(82161, 3060))),
    "msmt17-noval": Layout(read_msmt17_noval,
                           _counts(train=(30248, 1041), query=(11659, 3060), gallery=(82161, 3060))),
    "drama-reid": Layout(read_drama, notice=DRAMA),
}
