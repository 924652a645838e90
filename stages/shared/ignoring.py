"""--ignore and --index of the commands that score features: an exclusion list, and which pictures features are of."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.datasets.index import read_index
from pipeline.retrieval.exclusions import Excluded, read_exclusions, without
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.ranking import JUNK

FEWER, IDENTITIES = "list fewer pictures", "give the identities that its pictures have"  # what to do, if nobody is left


def add_ignore_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ignore", type=Path, metavar="IGNORE.csv",
                        help="leave these pictures out: a CSV of path, reason")
    parser.add_argument("--index", help="the data set's index, or its key under data/index/: whose paths pictures have")


def given_index(name: str | None) -> pd.DataFrame | None:
    """The index of this path or key; None where none is given."""
    if name is None:
        return None
    return read_index(name if name.endswith(".csv") else paths.index(name))


def leave_out(embedded: Embedded, given: argparse.Namespace) -> tuple[Embedded, Excluded | None]:
    """The features without what `--ignore` lists, and what that was; as they are without the option."""
    if given.ignore is None:
        return embedded, None
    index = given_index(given.index)
    embedded = under_keys(embedded, index)
    places = None if index is None else dict(zip(index["image"], index["path"], strict=True))
    if places is not None and embedded.named:
        known = {*places, *places.values()}
        strange = [key for key in (*embedded.query_key.tolist(), *embedded.gallery_key.tolist()) if key not in known]
        if strange:
            raise InputError(f"{given.index!r}: has no image {strange[0]!r}, which is among the features; give the "
                             "index that they were made by")
    kept, excluded = without(embedded, read_exclusions(given.ignore), places=places)
    scorable(kept, given.ignore, FEWER)
    return kept, excluded


def scorable(embedded: Embedded, file: Path, remedy: str) -> None:
    """InputError names the file by which a side of a trial has nobody to score: a list, or the features themselves."""
    for trial in embedded.trials() or [embedded]:
        for part, side in (("query", trial.query), ("gallery", trial.gallery)):
            if not (side.pid != JUNK).any():
                raise InputError(f"{str(file)!r}: leaves no {part} image to score (those of pid {JUNK} are nobody's); "
                                 f"{remedy}")


def under_keys(embedded: Embedded, frame: pd.DataFrame | None) -> Embedded:
    """Features under the index's keys where they have its paths, in their own order."""
    if not embedded.named or frame is None:
        return embedded
    names = []
    for part, keys in (("query", embedded.query_key), ("gallery", embedded.gallery_key)):
        rows = frame[frame["split"] == part]
        known = dict(zip(rows["path"], rows["image"], strict=True))
        names.append(np.array([known.get(key, key) for key in keys.tolist()]))
    return replace(embedded, query_key=names[0], gallery_key=names[1])


def in_order(embedded: Embedded, frame: pd.DataFrame | None) -> Embedded:
    """Features under the index's keys where they have its paths, sorted by them; by rows where nothing is named."""
    if not embedded.named:
        return embedded
    embedded = under_keys(embedded, frame)
    names = (embedded.query_key, embedded.gallery_key)
    if all((keys[:-1] <= keys[1:]).all() for keys in names):  # as those of this project are
        return embedded
    return embedded.take(*(np.argsort(keys, kind="stable") for keys in names))
