"""Two-dimensional joints of a data set's pictures, and which stripes of the body they show (SORN Table III, +P)."""

import os
from collections.abc import Sequence

import numpy as np

from pipeline.errors import InputError
from pipeline.heaps import open_h5

CONFIDENT = 0.2  # a joint counts above this


def read_joints(path: str | os.PathLike, pictures: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, J, 3), x and y in pixels of the picture and confidence, and the pictures' heights (N,).

    The file is HDF5 as a rendered set's labels.h5: path (M,), joints (M, J, 3), and size (M, 2), height and width, or
    maps `index` of the pictures' size. InputError if it cannot be read or lacks a picture.
    """
    name = repr(os.fspath(path))
    try:
        with open_h5(path) as file:
            known = {found.decode(): row for row, found in enumerate(file["path"][:])}
            joints = file["joints"][:]
            heights = file["size"][:, 0] if "size" in file else np.full(len(known), file["index"].shape[1])
            if joints.ndim != 3 or joints.shape[2] != 3 or joints.dtype.kind not in "fiu" \
                    or {len(joints), len(heights)} != {len(known)}:
                raise ValueError(f"{len(known)} paths, joints {joints.dtype} {joints.shape}, {len(heights)} heights")
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{name}: cannot be read as a file of joints ({error}); it holds path, joints and size") \
            from error
    missing = [picture for picture in pictures if picture not in known]
    if missing:
        raise InputError(f"{name}: has no joints of {missing[0]!r} and {len(missing) - 1} other pictures; make it for "
                         "this data set")
    rows = [known[picture] for picture in pictures]
    return joints[rows], heights[rows]


def stripes_with_joints(joints: np.ndarray, heights: np.ndarray, stripes: int) -> np.ndarray:
    """joints (N, J, 3), heights (N,) -> (N, P) float32, 1 where a confident joint lies inside the stripe, else 0.

    Stripe p of P is rows p height / P .. (p + 1) height / P.
    """
    stripe = np.floor(joints[..., 1] * stripes / heights[:, None])  # (N, J)
    counted = joints[..., 2] > CONFIDENT
    return ((stripe[..., None] == np.arange(stripes)) & counted[..., None]).any(1).astype(np.float32)
