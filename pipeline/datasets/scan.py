"""Scan of a data set's folder for its images: folders inside a download, names in a folder, rows of an index."""

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.datasets.index import COLUMNS, legible

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
DEPTH = 2  # how many folders a download may have put around what is looked for
DIGITS = r"\d{1,18}"  # a whole number that an index can hold
PART = "docs/datasets.md says how part of a data set is used"

Row = tuple[str, str, int, int, str]  # image, path, pid, camid, split


def locate(root: str | os.PathLike, fits: Callable[[Path], bool], expected: str) -> Path:
    """The folder for which `fits` holds: `root` or, if it is not, one up to DEPTH folders below it.

    expected: what should be there, for the error. InputError: no such folder, none below it fits, or two do equally.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{os.fspath(root)!r}: no such folder; put the data set there or link it, or change `raw`")

    level = [root]
    for _ in range(DEPTH + 1):
        fitting = [folder for folder in level if fits(folder)]
        if len(fitting) > 1:
            raise InputError(f"{os.fspath(root)!r}: both {os.fspath(fitting[0])!r} and {os.fspath(fitting[1])!r} could "
                             "be meant; set `raw` to one of them")
        if fitting:
            return fitting[0]
        level = [below for folder in level for below in subfolders(folder)]

    raise InputError(f"{os.fspath(root)!r}: holds {expected}")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and macOS's `__MACOSX` left out."""
    return sorted(Path(entry.path) for entry in _entries(folder)
                  if not entry.name.startswith((".", "__MACOSX")) and _is_folder(entry))


def named(folder: Path, names: Iterable[str]) -> Path | None:
    """The subfolder that bears the first possible of some `names`, upper and lower case being one; None without."""
    there: dict[str, list[Path]] = {}
    for below in subfolders(folder):
        there.setdefault(below.name.lower(), []).append(below)

    for name in names:
        same = there.get(name.lower(), [])
        if len(same) > 1:
            raise InputError(f"{os.fspath(folder)!r}: both {same[0].name!r} and {same[1].name!r} could be meant; "
                             "move one away")
        if same:
            return same[0]

    return None


def image_files(folder: Path) -> list[str]:
    """Sorted names of the image files of a folder, those too that no index can hold."""
    return sorted(entry.name for entry in _entries(folder)
                  if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith(".")
                  and not _is_folder(entry))


def image_names(folder: Path) -> list[str]:
    """Sorted names of the image files of a folder. InputError for a name that is no UTF-8 or holds a line break."""
    names = image_files(folder)
    for name in names:
        _check_name(folder, name)
    return names


def images_below(folder: Path) -> list[PurePosixPath]:
    """Sorted paths, relative to `folder`, of its images and of those in the folders below it, at any depth.

    Links are followed, but for those into a folder that they lie in. InputError as `image_names`.
    """
    paths = []
    waiting = [(folder, PurePosixPath(), frozenset([folder.resolve()]))]
    while waiting:
        below, place, above = waiting.pop()
        paths += [place / name for name in image_files(below)]
        for lower in subfolders(below):
            if (real := lower.resolve()) not in above:
                waiting.append((lower, place / lower.name, above | {real}))

    for path in paths:
        _check_name(folder, str(path))
    return sorted(paths)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"{os.fspath(folder)!r}: cannot be listed ({error.strerror}); make it readable") from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()  # a link that leads nowhere is none
    except OSError as error:
        why = "is a link that leads to itself; remove it" if error.errno == errno.ELOOP else \
            f"cannot be looked at ({error.strerror}); make it readable or move it away"
        raise InputError(f"{entry.path!r}: {why}") from error


def _check_name(folder: Path, name: str) -> None:
    if not legible(name):
        raise InputError(f"{os.fspath(folder / name)!r}: the name holds bytes that are no UTF-8 or a control "
                         "character; rename it")


def inside(path: str) -> bool:
    """Whether a relative path, written with slashes, stays in its folder: `a/b.jpg`, not `/a`, `../a` or `a/../../b`.

    >>> inside("query/1.jpg"), inside("../1.jpg"), inside("/query/1.jpg"), inside("")
    (True, False, False, False)
    """
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a list file with their numbers from 1, blank ones left out. InputError if it is missing or no UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{os.fspath(path)!r}: no such list; put it there, it comes with the data set") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r}: cannot be read as UTF-8 text ({error}); download it again") from error

    lines = enumerate(text.split("\n"), 1)  # splitlines() would part names at U+2028 too
    return [(number, line.strip(" \t\r")) for number, line in lines if line.strip()]


def as_frame(rows: Iterable[Row], root: str | os.PathLike) -> pd.DataFrame:
    """Rows -> the index's columns. InputError if there are none."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if frame.empty:
        raise InputError(f"{os.fspath(root)!r}: its folders hold no image "
                         f"({', '.join(sorted(SUFFIXES))}); unpack the data set there, or change `raw`")
    return frame
