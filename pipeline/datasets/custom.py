"""Custom data sets, images of one's own: a folder of them, or a CSV that says person, camera and split of each."""

import csv
import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.datasets.index import SPLITS, legible
from pipeline.datasets.scan import DIGITS, Row, as_frame, images_below, inside

FILE = "images.csv"
NEEDED = ("path", "pid", "camid", "split")
WHOLE = re.compile(rf"-1|{DIGITS}", re.ASCII)


def read_folder(root: str | os.PathLike) -> pd.DataFrame:
    """Every image of a folder and of the folders below it, hidden ones left out; nothing is known of who is in them.

    Returns the index's columns, all in the gallery as person 0 (nobody in particular) of camera 0: enough to parse,
    warp and audit. InputError: no such folder, no image in it, a name that is no UTF-8 or holds a line break.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{os.fspath(root)!r}: no such folder; put the data set there or link it, or change `raw`")

    return as_frame([(f"gallery/{path}", str(path), 0, 0, "gallery") for path in images_below(root)], root)


def read_csv(root: str | os.PathLike) -> pd.DataFrame:
    """images.csv in the data set's folder, with the columns path,pid,camid,split in any order; others are left alone.

    path is relative to the folder, with slashes; pid and camid are whole numbers, pid -1 (nobody) is dropped; split is
    train, query or gallery. The same file may stand in two splits. UTF-8, separated by commas.

    Returns the index's columns; the key is split and path. InputError, with file and line: no such file, no CSV, a
    column or value missing, a number that is not whole, an unknown split, a path outside the folder or without a file,
    the same image twice in a split. The terms are those of your images.
    """
    file = Path(root) / FILE
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for line, record in _records(file):
        row = _row(file, line, record)
        if row[0] in seen:
            raise InputError(f"{os.fspath(file)!r}: lines {seen[row[0]]} and {line} both name {row[1]!r} for the split "
                             f"{row[4]!r}; remove one")
        seen[row[0]] = line
        rows.append(row)

    rows = [row for row in rows if row[2] >= 0]
    if not rows:
        raise InputError(f"{os.fspath(file)!r}: names no image of anybody; add a line path,pid,camid,split for each")

    return as_frame(rows, root)


def _records(file: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> text) of each line that is not empty."""
    name = repr(os.fspath(file))
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; the data set's folder needs a CSV of that name with the columns "
                         f"{','.join(NEEDED)}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: is no CSV in UTF-8 ({error}); save it again") from error

    header = [cell.strip() for cell in lines[0][1]] if lines else []
    for column in NEEDED:
        if header.count(column) != 1:
            raise InputError(f"{name}: the header has the column {column!r} {header.count(column)} times; its first "
                             f"line must name {','.join(NEEDED)} once each, separated by commas")

    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(f"{name}, line {number}: has {len(cells)} values where the header has {len(header)}; "
                             "complete it, or quote a value that holds a comma")

    return [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def _row(file: Path, line: int, record: dict[str, str]) -> Row:
    name = f"{os.fspath(file)!r}, line {line}"
    for column in ("pid", "camid"):
        if not WHOLE.fullmatch(record[column].strip()) or (column == "camid" and record[column].strip() == "-1"):
            raise InputError(f"{name}: {column} is {record[column]!r}; write a whole number from 0 up"
                             + (", or -1 for nobody" if column == "pid" else ""))

    split, path = record["split"].strip(), record["path"]
    if split not in SPLITS:
        raise InputError(f"{name}: split is {record['split']!r}; write one of {', '.join(SPLITS)}")
    if not legible(path):
        raise InputError(f"{name}: the path {path!r} holds a line break or a control character; rename the file")
    if not inside(path):
        raise InputError(f"{name}: the path {path!r} is empty or leads out of {os.fspath(file.parent)!r}; write it "
                         "relative to that folder, and link images there that lie elsewhere")

    path = str(PurePosixPath(path))
    try:
        there = (file.parent / path).is_file()
    except OSError:  # such as a name that is too long for the file system
        there = False

    if not there:
        raise InputError(f"{name}: there is no file {os.fspath(file.parent / path)!r}; correct the path, which starts "
                         "from the CSV's folder")

    return f"{split}/{path}", path, int(record["pid"]), int(record["camid"]), split
