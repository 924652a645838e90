"""Read features.h5: one embedding a query and gallery image, and what made it."""

import json
import os
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.heaps import open_h5
from pipeline.retrieval import Matching, Side

NEEDED = {"key": 1, "pid": 1, "camid": 1, "split": 1, "features": 2, "visibility": 2, "sizes": 1}
OPTIONAL = {"occlusion": 1, "trial": 1}  # where the index has them


@dataclass(frozen=True)
class Embedded:
    """Query and gallery with their index keys, how they are compared, and the `maker` that the file carries.

    query_trial (Q,), gallery_trial (G,): which of several trials an image belongs to, where the index says so.
    """
    query: Side
    gallery: Side
    query_key: np.ndarray  # (Q,) str
    gallery_key: np.ndarray  # (G,) str
    matching: Matching
    maker: dict[str, Any]
    query_trial: np.ndarray | None = None
    gallery_trial: np.ndarray | None = None

    def trials(self) -> list["Embedded"]:
        """Each trial by itself, in ascending order; the whole where there are no trials or one."""
        if self.query_trial is None or self.gallery_trial is None:
            return [self]
        numbers = np.union1d(self.query_trial, self.gallery_trial)
        if len(numbers) == 1:
            return [self]
        return [self._rows(np.flatnonzero(self.query_trial == number), np.flatnonzero(self.gallery_trial == number))
                for number in numbers]

    def protocol(self) -> str:
        """What its figures are named by: its data set, or where that is one trial of several, named so (cuhk01-3 is
        trial 3), the name without the number."""
        name, _, number = self.maker["dataset"].rpartition("-")
        alone = self.query_trial is not None and {number} == {str(trial) for trial in self.query_trial.tolist()}
        return name if alone else self.maker["dataset"]

    def _rows(self, query: np.ndarray, gallery: np.ndarray) -> "Embedded":
        return replace(self, query=self.query.take(query), gallery=self.gallery.take(gallery),
                       query_key=self.query_key[query], gallery_key=self.gallery_key[gallery], query_trial=None,
                       gallery_trial=None)


def read_features(path: str | os.PathLike) -> Embedded:
    """Read one features file. InputError, naming file and remedy, if it is missing, truncated, of another format,
    holds a value that is not finite or lacks queries or a gallery."""
    name = repr(os.fspath(path))
    try:
        with open_h5(path) as file:
            maker = _check_layout(file, name)
            columns = {column: file[column][:] for column in NEEDED}
            columns |= {column: file[column][:] for column in OPTIONAL if column in file}
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such features file; make it with `dvc repro embed`") from error
    except InputError:
        raise
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{name}: is truncated or no HDF5 file ({' '.join(str(error).split())}); delete it and run "
                         "`dvc repro embed`") from error
    _check_types(columns, name)
    _check_values(columns, name)
    split = np.char.decode(columns["split"].astype(bytes), "utf-8")
    sides, keys, trials = {}, {}, {}
    for part in ("query", "gallery"):
        rows = np.flatnonzero(split == part)
        if not len(rows):
            raise InputError(f"{name}: holds no {part} image (its splits: {', '.join(sorted(set(split))) or 'none'}); "
                             f"check the split column of the data set's index and run `dvc repro embed`")
        # Rows are sorted by key, so that a split is one run of rows, whose slice needs no copy.
        run = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
        sides[part] = Side(columns["features"], columns["visibility"], columns["pid"], columns["camid"],
                           columns.get("occlusion")).take(run)
        keys[part] = np.char.decode(columns["key"][run].astype(bytes), "utf-8")
        trials[part] = columns["trial"][run] if "trial" in columns else None
    try:
        matching = Matching(tuple(columns["sizes"].tolist()), maker["distance"], maker["reduction"])
    except InputError as error:
        raise InputError(f"{name}: {error}; run `dvc repro embed` again") from error
    return Embedded(sides["query"], sides["gallery"], keys["query"], keys["gallery"], matching, maker,
                    trials["query"], trials["gallery"])


def _check_layout(file: h5py.File, name: str) -> dict[str, Any]:
    wrong = [column for column, axes in (NEEDED | OPTIONAL).items()
             if (column in NEEDED or column in file) and (column not in file or file[column].ndim != axes)]
    if wrong or "maker" not in file.attrs:
        raise InputError(f"{name}: is no features file ({wrong[0] if wrong else 'maker'!r} is missing or of another "
                         "shape); give a file that `dvc repro embed` made")
    maker = json.loads(file.attrs["maker"])
    absent = [key for key in ("run", "dataset", "distance", "reduction") if key not in maker]
    if absent:
        raise InputError(f"{name}: does not say its {absent[0]!r} (attribute `maker`); run `dvc repro embed` again")
    rows = {column: len(file[column]) for column in NEEDED | OPTIONAL if column in file and column != "sizes"}
    if len(set(rows.values())) > 1:
        raise InputError(f"{name}: its columns differ in length ({rows}); run `dvc repro embed` again")
    widths = (file["features"].shape[1], int(file["sizes"][:].sum()))
    if widths[0] != widths[1] or file["visibility"].shape[1] != len(file["sizes"]):
        raise InputError(f"{name}: {widths[0]} feature columns and {file['visibility'].shape[1]} visibilities do not "
                         f"fit {len(file['sizes'])} parts of {widths[1]} together; run `dvc repro embed` again")
    return maker


def _check_types(columns: dict[str, np.ndarray], name: str) -> None:
    wanted = {"key": "SO", "split": "SO", "features": "f", "visibility": "f", "occlusion": "f"}  # others: numbers
    for column, values in columns.items():
        if values.dtype.kind not in wanted.get(column, "iu"):
            raise InputError(f"{name}: the column {column!r} holds {values.dtype}; run `dvc repro embed` again")
    for column in ("key", "split"):
        try:
            np.char.decode(columns[column].astype(bytes), "utf-8")
        except ValueError as error:
            raise InputError(f"{name}: the column {column!r} is no UTF-8 text; run `dvc repro embed` again") from error
    if len(columns["sizes"]) == 0 or columns["sizes"].min() < 1:
        raise InputError(f"{name}: its parts have sizes {columns['sizes'].tolist()}, and one is at least 1; run "
                         "`dvc repro embed` again")


def _check_values(columns: dict[str, np.ndarray], name: str) -> None:
    """Block by block, because a mask of all features would take a quarter of their memory again."""
    for column in ("features", "visibility"):
        for start in range(0, len(columns[column]), 1024):
            bad = np.flatnonzero(~np.isfinite(columns[column][start:start + 1024]).all(axis=1))
            if len(bad):
                key = columns["key"][start + bad[0]]
                raise InputError(f"{name}: the {column} of {key.decode() if isinstance(key, bytes) else key!r} are not "
                                 "finite; training has probably diverged: lower optimizer.lr and train again")
