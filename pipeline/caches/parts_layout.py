"""Layout of parts.h5 and crops.h5: the arrays' and columns' names, shapes and types. docs/caches.md explains them."""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from pipeline.base.body_parts import PARTS4, PARTS8
from pipeline.base.hdf5 import text
from pipeline.caches.cache import SHA256, STATUS_BYTES

READING = 2  # of a maker: how parses made elsewhere are matched with images; 1 took other images' parses
CELL = 4  # probabilities and entropy are means over CELL x CELL pixels
STEP = 5  # of 255: they are kept as multiples of it, 51 levels (docs/caches.md: a tenth of a parser's own noise)


def parts_arrays(height: int, width: int, *, uv: bool) -> dict[str, tuple[int, ...]]:
    """The per-image arrays of parts.h5 and their shapes, all uint8."""
    cells = (height // CELL, width // CELL)
    return {"native": (height, width), "labels": (height, width), **({"uv": (height, width, 2)} if uv else {}),
            "probs/parts8": (len(PARTS8), *cells), "probs/parts4": (len(PARTS4), *cells), "entropy": cells}


def parts_columns(keys: Sequence[str], *, box: bool = False) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """The small columns of parts.h5: type and shape of one row's value. box: with that of crops.h5, in pixels."""
    status = h5py.string_dtype("utf-8", STATUS_BYTES)
    return {"key": (text(keys), ()), "image_sha256": (SHA256, ()), "status": (status, ()),
            "visibility": (np.uint8, (len(PARTS8),)), **({"box": (np.int32, (4,))} if box else {})}
