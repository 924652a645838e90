"""Features files as whoever scores, compares or looks at them opens them: this project's and others', in one form."""

import os
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.retrieval.external_features import read_external
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.matching import Side

OURS = (".h5", ".hdf5")


def open_features(path: str | os.PathLike, *, distance: str | None = None, reduction: str | None = None) -> Embedded:
    """A features.h5, or an .npz or .mat file of others', which are compared by `distance` (cosine) and `reduction`
    (mean). InputError names a file that cannot be read, or that says itself how it is compared and is told otherwise.
    """
    if Path(path).suffix.lower() not in OURS:
        return read_external(path, distance=distance or "cosine", reduction=reduction or "mean")
    if distance or reduction:
        raise InputError(f"{os.fspath(path)!r}: says itself how its features are compared; leave --distance and "
                         "--reduction out")
    return read_features(path)


def lengths(side: Side) -> np.ndarray:
    """Euclidean length of each image's feature, (N,) float64, whatever its scale."""
    found = np.zeros(len(side))
    for start in range(0, len(side), 1024):
        block = side.features[start:start + 1024].astype(np.float64)
        peaks = abs(block).max(axis=1, initial=0)  # squares of very large and small numbers are none
        units = np.divide(block, peaks[:, None], out=np.zeros_like(block), where=peaks[:, None] > 0)
        found[start:start + 1024] = peaks * np.linalg.norm(units, axis=1)
    return found


def zeros(embedded: Embedded, path: str | os.PathLike) -> list[str]:
    """A sentence on each side that has features of zeros, which are as far from everybody; none where there are none.

    They are scored all the same: a figure says how a network does with all of its queries.
    """
    said = []
    for part, side, keys in (("query", embedded.query, embedded.query_key),
                             ("gallery", embedded.gallery, embedded.gallery_key)):
        rows = np.flatnonzero(lengths(side) == 0)
        if len(rows):
            said.append(f"{os.fspath(path)!r}: {len(rows)} {part} feature{'s' * (len(rows) > 1)}, of "
                        f"{str(keys[rows[0]])!r} first, {'are' if len(rows) > 1 else 'is'} of length 0 and as far from "
                        "everybody; they are scored as they stand, compute them again or list them in --ignore")
    return said
