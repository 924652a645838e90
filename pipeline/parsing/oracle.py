"""Oracle: a rendered set's own labels in a parser's place, to show what perfect parsing would give."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.base.errors import InputError
from pipeline.base.hdf5 import open_h5
from pipeline.base.images import nearest


class Oracle:
    """Looks images up in labels.h5 by their path; called like any parser (pipeline/parsing/engine.py: Forward).

    Where the size differs, labels and u,v are those of the nearest pixel. InputError names the file and the remedy
    where it is missing, damaged or lacks an image.
    """

    def __init__(self, path: str | os.PathLike, *, height: int, width: int) -> None:
        self.path, self.height, self.width = Path(path), height, width
        try:
            self._file = open_h5(path)
            names = self._file["path"].asstr()[()]
            self._index, self._uv = self._file["index"], self._file["uv"]
            shapes = (len(names), *self._index.shape[1:3]), (*self._index.shape, 2)
            if (self._index.shape, self._uv.shape) != shapes or {self._index.dtype, self._uv.dtype} != {np.dtype("u1")}:
                raise ValueError(f"{len(names)} paths, index {self._index.shape}, uv {self._uv.shape}")
        except InputError:  # HeldError: a file in another process's hands is not damaged
            raise
        except FileNotFoundError as error:
            raise InputError(f"{str(path)!r}: no such labels; the oracle parses rendered sets only, made by the stage "
                             "render") from error
        except Exception as error:  # what h5py raises on damaged files is of many kinds
            raise InputError(f"{str(path)!r}: is damaged or holds no labels ({' '.join(str(error).split())}); make it "
                             "again with the stage render") from error

        self._rows = {name: row for row, name in enumerate(names)}

    def __call__(self, images: Tensor, paths: list[str]) -> dict[str, Tensor]:
        native = np.zeros((len(paths), self.height, self.width), np.uint8)
        uv = np.zeros((len(paths), self.height, self.width, 2), np.uint8)
        for place, path in enumerate(paths):
            if path:  # else padding
                native[place], uv[place] = self._labels(path)

        parts = torch.from_numpy(DENSEPOSE24_TO_PARTS8[native]).to(images.device)
        one_hot = torch.stack([parts == part for part in range(len(PARTS8))], 1).float()
        return {"native": torch.from_numpy(native), "parts8": one_hot,
                "uv": torch.from_numpy(uv).to(images.device).float() / 255}

    def _labels(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        if path not in self._rows:
            raise InputError(f"{str(self.path)!r}: holds no labels for {path!r}; render the data set again")

        try:
            native, uv = self._index[self._rows[path]], self._uv[self._rows[path]]
            if native.max(initial=0) >= len(DENSEPOSE24_TO_PARTS8):
                raise ValueError(f"{path!r} has the label {native.max()}")
        except Exception as error:
            raise InputError(f"{str(self.path)!r}: is damaged ({error}); make it again with the stage render"
                             ) from error

        return nearest(native, self.height, self.width), nearest(uv, self.height, self.width)
