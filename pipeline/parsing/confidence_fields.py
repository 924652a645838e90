"""Confidence fields: a .npy of C maps (C, h, w), one a joint, connection or part, as BPBreID publishes them.

Its fields are OpenPifPaf's, 17 joints (PIF) and 19 connections (PAF), or groups of them, with or without a background
before them (VlSomers/bpbreid at c0db0061: torchreid/data/masks_transforms/pifpaf_mask_transform.py says their order,
torchreid/utils/tools.py:124 reads them, torchreid/scripts/get_labels.py makes them, torchreid/data/datasets/image says
which have a background; their sizes "vary from one image to another, but are usually small (e.g. 30x15)", issue 3).

A field's cell (i, j) stands at pixel (i, j) times its stride, so that its corners are the picture's.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images import read_bytes

LEAST_CELLS = 4  # of a field's side: what is coarser fits pictures of other proportions too
SLACK = 0.25  # beyond 0 and 1: Mask R-CNN's filter resizes by bicubic interpolation, which overshoots; its loader clips
HEADER_BYTES = 4096


@dataclass(frozen=True)
class FieldsHeader:
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int  # of the numbers, bytes

    @property
    def bytes(self) -> int:
        """Of a whole file."""
        return self.start + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def read_fields_header(path: Path) -> FieldsHeader:
    """What a .npy file says of itself; nothing is unpickled. InputError names the file."""
    try:
        with open(path, "rb") as file:
            head = io.BytesIO(file.read(HEADER_BYTES))
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(head)
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error.strerror})") from error
    except Exception as error:  # numpy evaluates the header's text, which may be anything
        raise InputError(f"{str(path)!r}: is damaged or no .npy ({' '.join(str(error).split())[:80]}); make it again"
                         ) from error
    return FieldsHeader(shape, dtype, head.tell())


def no_fields(path: Path, header: FieldsHeader, count: int) -> str:
    """Why a .npy does not hold `count` fields, or ""; one more is a background."""
    if header.dtype.kind != "f":
        return f"holds {header.dtype} where confidences are floats; write them so"
    if len(header.shape) != 3 or header.shape[0] not in (count, count + 1):
        size = "x".join(str(side) for side in header.shape)
        return (f"is {size or 'one number'} where {count} fields are {count}xHxW, or {count + 1}xHxW with a background "
                "before them; name the label map of these fields")
    if (found := os.path.getsize(path)) != header.bytes:
        size = "x".join(map(str, header.shape))
        return f"has {found} bytes where {size} {header.dtype} are {header.bytes}; make it again"
    return ""


def fields_fit(field: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Whether a picture (height, width) gives fields of this size (h, w) at some stride: both sides over it are rounded
    down, or both up, or both up and one more cell, the picture's last row.

    >>> fields_fit((17, 9), (128, 64)), fields_fit((30, 15), (240, 120)), fields_fit((32, 32), (128, 64))
    (True, True, False)
    >>> fields_fit((9, 6), (128, 64)), fields_fit((3, 3), (128, 64))
    (False, False)
    """
    if min(field) < LEAST_CELLS:
        return False
    strides = [[(side / (cells + 1 - more), side / (cells - more)) for cells, side in zip(field, image, strict=True)]
               for more in (0, 1, 2)]
    return any(max(least for least, _ in sides) < min(most for _, most in sides) for sides in strides)


def read_fields(path: Path, count: int) -> np.ndarray:
    """Confidences (count, h, w) float32 in 0..1, a background before them left out. InputError names the file."""
    try:
        fields = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: is damaged or no .npy ({' '.join(str(error).split())[:80]}); make it again"
                         ) from error

    if not np.isfinite(fields).all():
        raise InputError(f"{str(path)!r}: holds {np.count_nonzero(~np.isfinite(fields))} values that are no numbers "
                         "(NaN, infinite); make it again")
    low, high = float(fields.min()), float(fields.max())
    if low < -SLACK or high > 1 + SLACK:
        raise InputError(f"{str(path)!r}: goes from {low:g} to {high:g} where confidences go from 0 to 1; scale them")
    return fields[-count:].clip(0, 1).astype(np.float32)


def fit_fields(fields: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fields (C, h, w) float32 -> (C, height, width), linear between cells, by area where they shrink; corners stay
    corners."""
    h, w = fields.shape[1:]
    if h >= height and w >= width:
        return np.stack([cv2.resize(field, (width, height), interpolation=cv2.INTER_AREA) for field in fields])
    rows, columns = np.linspace(0, h - 1, height, dtype=np.float32), np.linspace(0, w - 1, width, dtype=np.float32)
    grid = np.meshgrid(columns, rows)
    return np.stack([cv2.remap(field, *grid, interpolation=cv2.INTER_LINEAR) for field in fields])
