"""Joints (2-D) of a data set's images, and which stripes of the body they show (SORN Table III, +P)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.hdf5 import open_h5

CONFIDENT = 0.2  # a joint counts above this
COCO18 = ("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
          "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
          "right ear", "left ear")


@dataclass(frozen=True)
class Joints:
    """Joints of a file's M images, of `names` row by row.

    places (M, J, 3): x and y in pixels of the image, a pixel's centre at .5, and confidence 0..1 (a rendered set's:
    1 visible, 0 not); sizes (M, 2): height and width of each image in pixels.
    """

    path: str
    names: tuple[str, ...]
    places: np.ndarray
    sizes: np.ndarray

    def of(self, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """places (N, J, 3) and heights (N,) of these images. InputError if one of them is not in the file."""
        known = {name: row for row, name in enumerate(self.names)}
        missing = [path for path in paths if path not in known]
        if missing:
            raise InputError(f"{self.path!r}: has no joints of {missing[0]!r} and {len(missing) - 1} other images; "
                             "make it for this data set")

        rows = [known[path] for path in paths]
        return self.places[rows], self.sizes[rows, 0]

    def shares(self, paths: Mapping[str, str]) -> dict[str, np.ndarray]:
        """COCO's 18 joints (18, 3) float64 by image key, x and y as shares of the image's width and height.

        paths: image key -> path; an image that the file has none of is left out. InputError if they are not COCO's 18.
        """
        if self.places.shape[1:] != (len(COCO18), 3):
            raise InputError(f"{self.path!r}: joints are {self.places.shape}, and COCO's {len(COCO18)} are read "
                             f"({', '.join(COCO18[:3])}, ...); convert them")

        height, width = self.sizes.T[:, :, None]
        x, y, confidence = np.moveaxis(self.places.astype(np.float64), 2, 0)
        shares = dict(zip(self.names, np.stack([x / width, y / height, confidence], axis=2), strict=True))
        return {key: shares[path] for key, path in paths.items() if path in shares}


def read_joints(path: str | os.PathLike) -> Joints:
    """Read an HDF5 file as a rendered set's labels.h5: path (M,), joints (M, J, 3) and the images' size, as `size`
    (M, 2), as maps `lip` or `index` of it or as attributes `height` and `width`. InputError if it is not that."""
    name = os.fspath(path)
    try:
        with open_h5(path) as file:
            names, places = tuple(file["path"].asstr()[:].tolist()), file["joints"][:]
            sizes = _sizes(file, len(names))
        if places.ndim != 3 or places.shape[2] != 3 or places.dtype.kind not in "fiu" or len(places) != len(names) \
                or sizes.shape != (len(names), 2):
            raise ValueError(f"{len(names)} paths, joints {places.dtype} {places.shape}, sizes {sizes.shape}")
    except InputError:  # HeldError: a file in another process's hands is not damaged
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name!r}: no such file of joints; name a rendered set's labels.h5, or one like it"
                         ) from error
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{name!r}: is damaged or no file of joints ({' '.join(str(error).split())}); it holds path, "
                         "joints (M, J, 3), and size, lip, index or the attributes height and width") from error

    return Joints(name, names, places, sizes)


def _sizes(file: h5py.File, count: int) -> np.ndarray:
    if "size" in file:
        return file["size"][:]
    maps = next((name for name in ("lip", "index") if name in file), None)
    size = file[maps].shape[1:3] if maps else (file.attrs["height"], file.attrs["width"])
    return np.tile(np.asarray(size), (count, 1))


def stripes_with_joints(joints: np.ndarray, heights: np.ndarray, stripes: int) -> np.ndarray:
    """joints (N, J, 3), heights (N,) -> (N, P) float32, 1 where a confident joint lies inside the stripe, else 0.

    Stripe p of P is rows p height / P .. (p + 1) height / P.
    """
    stripe = np.floor(joints[..., 1] * stripes / heights[:, None])  # (N, J)
    counted = joints[..., 2] > CONFIDENT
    return ((stripe[..., None] == np.arange(stripes)) & counted[..., None]).any(1).astype(np.float32)
