"""Images, labels and warps from disk to the tensors that a network takes.

A batch is a dict of tensors: image (B, 3, H, W) float32, normalised; pid (B,) int64, the class 0 .. J - 1 in training;
camid (B,) int64; row (B,) int64, the row of the set. Of parts.h5 what is asked for: labels (B, H/4, W/4) int64, 8
parts; probs8 (B, 8, H/4, W/4), probs4 (B, 5, H/4, W/4) and entropy (B, H/4, W/4) float32 in [0, 1]. Of dsap.h5 dsap
(B, 24, 3, S, S) float32 and valid (B, 24, S, S) bool.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.caches import Cache
from pipeline.collating import Item, batches_or_error, collate
from pipeline.cropping import Box, crop_image, crop_maps
from pipeline.errors import InputError
from pipeline.images import decode_image, read_bytes
from pipeline.sampling import Batches, Draws
from pipeline.seeds import rng
from pipeline.transforms import (
    CELL,
    Augmentation,
    draw,
    dsap_for_network,
    image_for_network,
    labels_for_network,
    maps_for_network,
)

Crop = Callable[[np.ndarray, int, int], Box]
MAPS = {"probs8": "probs/parts8", "probs4": "probs/parts4", "entropy": "entropy"}  # their names in parts.h5


class Pictures(Dataset):
    """The rows of an index as a network's input, H x W pixels; item (draw number, row), draw number -1 for no chance.

    frame: index rows with the column `target` (int64), what `pid` of a batch is to be; raw: the folder its paths start
    from; cache: parts.h5 or dsap.h5 to read beside the image, or None; arrays: which of its arrays a batch holds. crop:
    of each picture's probs/parts4, height and width, the box that is all the network sees of it (pipeline/cropping.py);
    None is the whole picture. flip, erase: probabilities; pad: pixels; fill: what is erased becomes, imagenet or image.
    The augmentation of a picture is drawn from the stream (seed, "augment", draw number): which process loads it
    cannot matter.
    """

    def __init__(self, frame: pd.DataFrame, *, raw: str | os.PathLike, cache: str | os.PathLike | None, height: int,
                 width: int, arrays: Sequence[str] = (), crop: Crop | None = None, seed: int = 0, flip: float = 0.0,
                 pad: int = 0, erase: float = 0.0, fill: str = "imagenet"):
        self.paths, self.keys = frame["path"].tolist(), frame["image"].tolist()
        self.targets, self.cameras = frame["target"].to_numpy(np.int64), frame["camid"].to_numpy(np.int64)
        self.raw, self.height, self.width, self.seed = Path(raw), height, width, seed
        self.flip, self.pad, self.erase = flip, pad, erase
        self.arrays, self.crop, self.fill = tuple(arrays), crop, fill
        self.cache = None if cache is None else Cache(cache)
        self.places = None if self.cache is None else self.cache.rows(self.keys)
        self.pieces = self.cache is not None and self.cache.maker.get("alignment") == "csa"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> Item | InputError:
        """A bad file comes back as its error (pipeline/collating.py)."""
        try:
            return self.load(*item)
        except InputError as error:
            return error

    def load(self, number: int, row: int) -> Item:
        """One picture, augmented by its draw. InputError names the file."""
        augmentation = Augmentation() if number < 0 else draw(
            rng(self.seed, "augment", number), height=self.height, width=self.width, flip=self.flip, pad=self.pad,
            erase=self.erase)
        path = self.raw / self.paths[row]
        rgb = decode_image(read_bytes(path), path)
        size, box = rgb.shape[:2], self._box(row, rgb)
        if box is not None:
            rgb = crop_image(rgb, box)
        item = {"image": image_for_network(rgb, height=self.height, width=self.width, augmentation=augmentation,
                                           fill=self.fill),
                "pid": self.targets[row], "camid": self.cameras[row], "row": np.int64(row)}
        return item | self._cached(row, augmentation, box or (0, 0, *size), size)

    def _box(self, row: int, rgb: np.ndarray) -> Box | None:
        if self.crop is None or self.cache is None or self.places is None:
            return None
        return self.crop(self.cache.read("probs/parts4", int(self.places[row])), rgb.shape[0], rgb.shape[1])

    def _cached(self, row: int, augmentation: Augmentation, box: Box, size: tuple[int, int]) -> Item:
        """What `arrays` names, of the box of a picture of `size`."""
        if self.cache is None or self.places is None:
            return {}
        place, found = int(self.places[row]), {}
        for name in self.arrays:
            if name == "labels":
                labels = labels_for_network(self.cache.read("labels", place), height=self.height, width=self.width,
                                            augmentation=augmentation)
                found["labels"] = labels.astype(np.int64)
            elif name == "dsap":
                found["dsap"], found["valid"] = dsap_for_network(
                    self.cache.read("dsap", place), self.cache.read("valid", place), flip=augmentation.flip,
                    pieces=self.pieces)
            else:
                maps = self.cache.read(MAPS[name], place)
                maps = crop_maps(maps[None] if maps.ndim == 2 else maps, box, image=size, height=self.height // CELL,
                                 width=self.width // CELL)
                maps = maps_for_network(maps, augmentation=augmentation)
                found[name] = maps[0] if name == "entropy" else maps
        return found


def training_rows(index: pd.DataFrame, *, max_ids: int = 0) -> pd.DataFrame:
    """The training images of an index with `target`, classes 0 .. J - 1 in order of identity.

    Images without identity (pid -1) are left out; max_ids > 0 keeps the first so many identities.
    InputError if nothing is left.
    """
    frame = index[(index["split"] == "train") & (index["pid"] >= 0)]
    if max_ids > 0:
        frame = frame[frame["pid"].isin(np.unique(frame["pid"])[:max_ids])]
    if frame.empty:
        raise InputError("the data set has no training images; train on another, or give its train folder images")
    frame = frame.reset_index(drop=True)
    return frame.assign(target=np.unique(frame["pid"], return_inverse=True)[1].astype(np.int64))


def embedding_rows(index: pd.DataFrame) -> pd.DataFrame:
    """The query and gallery images of an index, `target` being their pid. InputError if there are none."""
    frame = index[index["split"].isin(["query", "gallery"]) & (index["pid"] >= 0)].reset_index(drop=True)
    if frame.empty:
        raise InputError("the data set has no query and gallery images; evaluate on another")
    return frame.assign(target=frame["pid"].astype(np.int64))


def images_sha256(frame: pd.DataFrame, raw: str | os.PathLike, cache: str | os.PathLike | None) -> str:
    """One SHA-256 over keys and bytes of all images, which also finds a missing or empty file before training does.

    InputError where `cache` holds the SHA-256 of its images and one differs: it was made from other images, even
    if their keys agree.
    """
    cached = None
    if cache is not None and "image_sha256" in (reader := Cache(cache)):
        cached = reader.column("image_sha256")[reader.rows(frame["image"])]
    total = hashlib.sha256()
    for place, (key, path) in enumerate(zip(frame["image"], frame["path"], strict=True)):
        digest = hashlib.sha256(read_bytes(Path(raw) / path)).hexdigest()
        if cached is not None and cached[place] != digest:
            raise InputError(f"{os.fspath(cache or '')!r}: was made from another image than '{Path(raw) / path}' for "
                             f"the key {key!r} (SHA-256 {cached[place][:12]}.. and {digest[:12]}..): it is "
                             "another data set's, or the image changed; make the cache again")
        total.update(f"{key} {digest}\n".encode())
    return total.hexdigest()


def training_batches(pictures: Pictures, batches: Batches, *, start: int, stop: int, workers: int,
                     share: slice = slice(None), pin_memory: bool = False) -> Iterator[dict[str, Tensor]]:
    """The batches of steps start .. stop - 1, of each the rows in `share`; the number of workers changes nothing."""
    return _loaded(pictures, Draws(batches, start=start, stop=stop, share=share), workers, pin_memory)


def ordered_batches(pictures: Pictures, *, batch: int, workers: int, pin_memory: bool = False
                    ) -> Iterator[dict[str, Tensor]]:
    """All pictures in order, in batches of exactly `batch` rows: the last one repeats its last picture.

    With equal sizes, a picture's features cannot depend on how many others there are.
    """
    last = len(pictures) - 1
    plan = [[(-1, min(row, last)) for row in range(first, first + batch)] for first in range(0, last + 1, batch)]
    return _loaded(pictures, plan, workers, pin_memory)


def _loaded(pictures: Pictures, plan: Draws | list, workers: int, pin_memory: bool) -> Iterator[dict[str, Tensor]]:
    yield from batches_or_error(DataLoader(pictures, batch_sampler=plan, num_workers=workers, collate_fn=collate,
                                           pin_memory=pin_memory))
