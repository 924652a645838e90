"""Index: one CSV per data set, one line per image. Everything downstream knows images by its `image` key."""

import os
import unicodedata

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import write_text

COLUMNS = ["image", "path", "pid", "camid", "split"]
OPTIONAL = ["trial", "occlusion"]
SPLITS = ["train", "query", "gallery"]
LARGEST = 2**63 - 1  # of int64


def legible(name: str) -> bool:
    """Whether a name can stand in an index: any text that UTF-8 has, without line breaks and control characters.

    Bytes that are no UTF-8 are lone surrogates in Python's names of files.
    """
    return name.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


def write_index(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write an index, sorted by key, the same bytes on every machine. InputError if it is empty or a key repeats."""
    check_index(frame, path)
    columns = COLUMNS + [name for name in OPTIONAL if name in frame]
    text = frame.sort_values("image")[columns].to_csv(index=False, lineterminator="\n", float_format="%.4f")
    write_text(path, text)


def read_index(path: str | os.PathLike) -> pd.DataFrame:
    """Read an index: `image`, `path`, `split` are strings, `pid`, `camid` integers, `trial`, `occlusion` optional.

    InputError names the file and what is wrong: missing, a column absent or unknown, a key twice, an unknown split.
    """
    try:
        frame = pd.read_csv(path, dtype={"image": str, "path": str, "split": str}, keep_default_na=False,
                            encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{os.fspath(path)!r}: no such index; make it with `dvc repro prepare`") from error
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{os.fspath(path)!r}: is no readable index CSV ({reason}); make it again with "
                         "`dvc repro prepare`") from error

    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what stands before the first named column for names
        raise InputError(f"{os.fspath(path)!r}: a line has more values than the header has columns; make it again with "
                         "`dvc repro prepare`")

    check_index(frame, path)
    return frame.reset_index(drop=True)


def check_index(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """InputError if `frame` is no valid index; `path` only names it."""
    name = repr(os.fspath(path))
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise InputError(f"{name}: the index lacks the column {missing[0]!r}; an index has the columns {COLUMNS}")
    if frame.empty:
        raise InputError(f"{name}: the data set has no images; check that its raw folder holds the layout named for it")

    for column in ("pid", "camid", "trial"):
        if column in frame and (not pd.api.types.is_integer_dtype(frame[column]) or frame[column].max() > LARGEST):
            raise InputError(f"{name}: column {column!r} must hold whole numbers only, up to {LARGEST}")

    if "occlusion" in frame and not (pd.api.types.is_numeric_dtype(frame["occlusion"])
                                     and frame["occlusion"].between(0, 1).all()):
        raise InputError(f"{name}: column 'occlusion' must hold numbers within 0..1 only")

    unknown = set(frame["split"]) - set(SPLITS)
    if unknown:
        raise InputError(f"{name}: unknown split {min(map(str, unknown))!r}; a split is one of {SPLITS}")

    for column in ("image", "path"):
        odd = [value for value in frame[column] if not (isinstance(value, str) and value and legible(value))]
        if odd:
            raise InputError(f"{name}: the {column} {odd[0]!r} is empty or holds a line break, a control character or "
                             "bytes that are no UTF-8; rename the file and prepare the index again")

    twice = frame.loc[frame["image"].duplicated(), "image"]
    if len(twice):
        paths = frame.loc[frame["image"] == twice.iloc[0], "path"].tolist()
        raise InputError(f"{name}: two images have the key {twice.iloc[0]!r} ({paths[0]!r} and {paths[1]!r}); "
                         "rename one")
