"""Data sets on disk -> index rows: one function a layout, each saying what folders it expects and its source."""

import os
import re
from pathlib import Path

import h5py
import pandas as pd

from pipeline.errors import InputError
from pipeline.index import COLUMNS

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
MARKET_FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
MARKET_NAME = re.compile(r"(-1|\d+)_c(\d+)")


def read_market(root: str | os.PathLike) -> pd.DataFrame:
    """Market-1501's layout: bounding_box_train/, query/, bounding_box_test/ with files like 0002_c1s1_000451_03.jpg.

    The number before `_c` is the person (-1: junk detections, dropped; 0: distractors, kept), the one after it the
    camera. Any of the three folders may be missing, not all. Files with other endings are left alone.

    Source: Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015; for academic research only.

    Returns the index's columns. InputError: no such folder, none of the three inside, or a name that does not parse.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{os.fspath(root)!r}: no such folder; put the data set there or link it, or change `raw`")
    found = [folder for folder in MARKET_FOLDERS if (root / folder).is_dir()]
    if not found:
        raise InputError(f"{os.fspath(root)!r}: holds none of {', '.join(MARKET_FOLDERS)}; the layout is Market-1501's")
    rows = [row for folder in found for row in _market_rows(root, folder)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame[frame["pid"] >= 0].reset_index(drop=True)


def _market_rows(root: Path, folder: str) -> list[tuple[str, str, int, int, str]]:
    split = MARKET_FOLDERS[folder]
    return [(f"{split}/{name}", f"{folder}/{name}", *_market_name(root / folder, name), split)
            for name in image_names(root / folder)]


def _market_name(folder: Path, name: str) -> tuple[int, int]:
    match = MARKET_NAME.match(name)
    if not match:
        raise InputError(f"{os.fspath(folder / name)!r}: the name does not say person and camera; rename it like "
                         "0002_c1s1_000451_03.jpg or move it away")
    return int(match[1]), int(match[2])


def image_names(folder: Path) -> list[str]:
    """Sorted names of the image files of a folder. InputError for a name that is no UTF-8 or holds a line break."""
    names = sorted(entry.name for entry in os.scandir(folder)
                   if Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith("."))
    for name in names:
        if not name.isprintable():
            raise InputError(f"{os.fspath(folder / name)!r}: the name holds bytes that are no UTF-8 or a control "
                             "character; rename the file")
    return names


def add_occlusion(frame: pd.DataFrame, root: str | os.PathLike) -> pd.DataFrame:
    """Add the `occlusion` column (0-1) from the labels.h5 of a rendered set; `frame` as it is where there is none."""
    path = Path(root) / "labels.h5"
    if not path.is_file():
        return frame
    try:
        with h5py.File(path, "r") as file:
            known = dict(zip(file["path"].asstr()[:], file["occlusion"][:].tolist(), strict=True))
        return frame.assign(occlusion=[known[name] for name in frame["path"]])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r}: does not belong to the images beside it ({error}); render the set "
                         "again with `dvc repro render`") from error


LAYOUTS = {"market": read_market}
