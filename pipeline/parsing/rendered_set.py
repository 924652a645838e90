"""Rendered parsing set (images and labels.h5) as a parser's samples, and what any set of them has to give."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.base.body_parts import TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.hdf5 import HeldError, open_h5
from pipeline.base.images import fit, nearest, read_image
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.parsing.augmentation import UNKNOWN, Sample, erase, maybe_flip, vary
from pipeline.parsing.surveillance import surveil

HIDDEN = 0.1
LABEL_ARRAYS = {"densepose24": "index", "lip20": "lip"}
AUGMENTATIONS: dict[str, Callable[[Sample, str, np.random.Generator], Sample]] = {
    "flip": maybe_flip, "all": vary, "erase": erase, "surveillance": surveil}


class LabelledSet(Protocol):
    """Images with labels: a `ParsingSet`, or the `Photographs` of pipeline/parsing/photograph_set.py.

    paths: the images' names; hidden: the share of the person that is hidden, where that is known.
    """

    taxonomy: str
    uv: bool
    paths: list[str]
    hidden: np.ndarray | None

    def __len__(self) -> int: ...

    def sample(self, place: int) -> Sample: ...

    def sha256(self) -> str: ...


class ParsingSet:
    """The images of one part (train | val) of a folder, with their labels.

    `taxonomy` names the labels, `uv` asks for u,v too; everything is resized to height x width. InputError where
    labels.h5 is missing, damaged, lacks an array or has no image of that part.
    """

    def __init__(self, folder: Path, part: str, *, taxonomy: str, uv: bool, height: int, width: int) -> None:
        self.folder, self.taxonomy, self.uv = Path(folder), taxonomy, uv
        self.height, self.width = height, width
        self.file: h5py.File | None = None
        try:
            paths = [path.decode() for path in self._array("path")[:]]
            self.rows = [row for row, path in enumerate(paths) if path.startswith(f"{part}/")]
            self.paths = [paths[row] for row in self.rows]
            self.hidden: np.ndarray | None = self._array("occlusion")[:][self.rows]  # share of the person
        except InputError:
            raise
        except Exception as error:  # what h5py raises on damaged files is of many kinds
            raise InputError(f"{self.folder / 'labels.h5'}: cannot be read as a rendered set's labels ({error}); "
                             "render the set again") from error

        if not self.rows:
            raise InputError(f"{self.folder / 'labels.h5'}: has no images under {part}/; render it again as a set "
                             "of kind `parsing`")

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"file": None}  # a handle cannot go to another process

    def _array(self, name: str) -> h5py.Dataset:
        path = self.folder / "labels.h5"
        try:
            if self.file is None:
                self.file = open_h5(path)
            return self.file[name]
        except HeldError:
            raise
        except Exception as error:
            raise InputError(f"{path}: cannot be read as a rendered set's labels ({error}); render the set again"
                             ) from error

    def sample(self, place: int) -> Sample:
        """Image number `place` of this part."""
        row = self.rows[place]
        image = read_image(self.folder / self.paths[place])
        try:
            labels = self._array(LABEL_ARRAYS[self.taxonomy])[row]
            uv = self._array("uv")[row] if self.uv else np.zeros((*labels.shape, 2), np.uint8)
            if labels.ndim != 2 or uv.shape != (*labels.shape, 2) or {labels.dtype, uv.dtype} != {np.dtype("u1")}:
                raise ValueError(f"labels are {labels.dtype} {labels.shape}, u,v {uv.dtype} {uv.shape}")
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self.folder / 'labels.h5'}: row {row} cannot be read ({error}); render the set again"
                             ) from error

        if labels.max() >= len(TAXONOMIES[self.taxonomy]):
            raise InputError(f"{self.folder / 'labels.h5'}: row {row} has label {labels.max()}, and {self.taxonomy} "
                             f"ends at {len(TAXONOMIES[self.taxonomy]) - 1}; render the set again")

        if image.shape[:2] != labels.shape:
            raise InputError(f"{self.folder / 'labels.h5'}: row {row} is {labels.shape[0]}x{labels.shape[1]} where "
                             f"{self.paths[place]!r} is {image.shape[0]}x{image.shape[1]}; render the set again")

        size = self.height, self.width
        return fit(image, *size), nearest(labels, *size), nearest(uv, *size)

    def sha256(self) -> str:
        """Of labels.h5 and of this part's images."""
        digest = hashlib.sha256(file_sha256(self.folder / "labels.h5").encode())
        for path in progress(self.paths, "hash", unit="images"):
            digest.update(f"{path} {file_sha256(self.folder / path)}\n".encode())
        return digest.hexdigest()


def label_shares(labelled: LabelledSet, most: int = 500) -> np.ndarray:
    """Each native label's share of the pixels, float64, over the first so many images."""
    counts = np.zeros(UNKNOWN + 1)
    for place in range(min(most, len(labelled))):
        counts += np.bincount(labelled.sample(place)[1].ravel(), minlength=len(counts))
    counts = counts[:len(TAXONOMIES[labelled.taxonomy])]
    return counts / counts.sum()


class Shuffled(Dataset):
    """The endless training sequence: item i is always the same augmented image, so that training can go on from
    any place and with any number of loading processes."""

    def __init__(self, labelled: LabelledSet, *, seed: int, augment: str) -> None:
        self.labelled, self.seed, self.vary = labelled, seed, AUGMENTATIONS[augment]
        self.order: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    def __getitem__(self, item: int) -> dict[str, Tensor] | InputError:
        """A bad file comes back as its error (pipeline/loading/collate.py)."""
        epoch, place = divmod(item, len(self.labelled))
        if self.order[0] != epoch:
            self.order = (epoch, rng(self.seed, "parser", "order", epoch).permutation(len(self.labelled)))

        row = int(self.order[1][place])
        try:
            sample = self.labelled.sample(row)
        except InputError as error:
            return error

        sample = self.vary(sample, self.labelled.taxonomy, rng(self.seed, "parser", "augment", item))
        return as_tensors(sample) | {"row": torch.tensor(row)}


class InOrder(Dataset):
    """The images as they are, one after another; `hidden`: a tenth of the person or more is."""

    def __init__(self, labelled: LabelledSet) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        hidden = self.labelled.hidden
        return as_tensors(self.labelled.sample(item)) | {
            "hidden": torch.tensor(hidden is not None and hidden[item] >= HIDDEN)}


def as_tensors(sample: Sample) -> dict[str, Tensor]:
    """image (3,H,W), labels (H,W), uv (2,H,W), all uint8."""
    image, labels, uv = sample
    arrays = {"image": image.transpose(2, 0, 1), "labels": labels, "uv": uv.transpose(2, 0, 1)}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
