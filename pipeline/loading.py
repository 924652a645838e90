"""Images, labels and warps from disk to the tensors that a network takes.

A batch is a dict of tensors on the network's device: image (B, 3, H, W) float32, normalised; pid (B,) int64, the class
0 .. J - 1 in training; camid (B,) int64; row (B,) int64, the row of the set. Of parts.h5 what is asked for: labels
(B, H/4, W/4) int64, 8 parts; probs8 (B, 8, H/4, W/4), probs4 (B, 5, H/4, W/4) and entropy (B, H/4, W/4) float32 in
[0, 1]. Of dsap.h5 dsap (B, 24, 3, S, S) float32 and valid (B, 24, S, S) bool.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.caches import Cache
from pipeline.collating import as_it_is, batches_or_error
from pipeline.cropping import Box, crop_image, crop_maps
from pipeline.errors import InputError
from pipeline.finishing import Batch, Loaded, finished
from pipeline.images import decode_image, read_bytes
from pipeline.resizing import fit, nearest
from pipeline.sampling import Batches, Draws
from pipeline.seeds import rng
from pipeline.taxonomy import PARTS8
from pipeline.transforms import CELL, Augmentation, draw, inside, mean_colour, move, move_cells

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
        self.paths = [os.path.join(raw, path) for path in frame["path"]]
        self.keys = frame["image"].tolist()
        self.targets, self.cameras = frame["target"].to_numpy(np.int64), frame["camid"].to_numpy(np.int64)
        self.height, self.width, self.seed = height, width, seed
        self.flip, self.pad, self.erase = flip, pad, erase
        self.arrays, self.crop, self.fill = tuple(arrays), crop, fill
        self.cache = None if cache is None else Cache(cache)
        self.places = None if self.cache is None else self.cache.rows(self.keys)
        self.pieces = self.cache is not None and self.cache.maker.get("alignment") == "csa"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, items: list[tuple[int, int]]) -> Loaded | InputError:
        """A DataLoader's batch; a bad file comes back as its error (pipeline/collating.py)."""
        try:
            return self.load(items)
        except InputError as error:
            return error

    def load(self, items: Sequence[tuple[int, int]]) -> Loaded:
        """Pictures, each moved as it was drawn, of which pipeline/finishing.py's `finished` makes a network's batch.

        InputError names the file.
        """
        rows, drawn = [row for _, row in items], [self._draw(number) for number, _ in items]
        numbers = {"pid": self.targets[rows], "camid": self.cameras[rows], "row": np.array(rows, np.int64),
                   "flip": np.array([each.flip for each in drawn]),
                   "inside": np.array([inside(each, self.height, self.width) for each in drawn]),
                   "erased": np.array([each.erased or (0, 0, 0, 0) for each in drawn])}
        pictures = [self._picture(row) for row in rows]
        if self.fill == "image":
            numbers["fill"] = self._fill([rgb for rgb, _, _ in pictures], drawn)
        batch = {"image": self._images([rgb for rgb, _, _ in pictures], drawn)}
        if self.cache is not None and self.places is not None:
            places = self.places[rows].tolist()
            for name in self.arrays:
                if name == "labels":
                    batch["labels"] = self._labels(self.cache, places, drawn)
                elif name == "dsap":
                    batch |= {array: np.stack([self.cache.read(array, place) for place in places])
                              for array in ("dsap", "valid")}
                else:
                    boxes = [(box, size) for _, box, size in pictures]
                    batch[name] = self._maps(self.cache, name, places, drawn, boxes)
        # Only what is large goes through shared memory: opening a segment takes as long as decoding five pictures.
        return numbers | {name: torch.from_numpy(array) for name, array in batch.items()}

    def _draw(self, number: int) -> Augmentation:
        return Augmentation() if number < 0 else draw(
            rng(self.seed, "augment", number), height=self.height, width=self.width, flip=self.flip, pad=self.pad,
            erase=self.erase)

    def _picture(self, row: int) -> tuple[np.ndarray, Box, tuple[int, int]]:
        """What the network is to see of a picture, its box in the file's picture, and that one's height and width."""
        path = self.paths[row]
        rgb = decode_image(read_bytes(path), path)
        height, width = rgb.shape[:2]
        if self.crop is None or self.cache is None or self.places is None:
            return rgb, (0, 0, height, width), (height, width)
        box = self.crop(self.cache.read("probs/parts4", int(self.places[row])), height, width)
        return crop_image(rgb, box), box, (height, width)

    def _images(self, pictures: Sequence[np.ndarray], drawn: Sequence[Augmentation]) -> np.ndarray:
        """(B, H, W, 3) uint8."""
        images = np.zeros((len(pictures), self.height, self.width, 3), np.uint8)
        for rgb, augmentation, image in zip(pictures, drawn, images, strict=True):
            move(fit(rgb, self.height, self.width), augmentation, image)
        return images

    def _fill(self, pictures: Sequence[np.ndarray], drawn: Sequence[Augmentation]) -> np.ndarray:
        """(B, 3) float32: what is erased becomes the mean of its picture."""
        none = np.zeros(3, np.float32)
        return np.stack([none if augmentation.erased is None else mean_colour(fit(rgb, self.height, self.width))
                         for rgb, augmentation in zip(pictures, drawn, strict=True)])

    def _labels(self, cache: Cache, places: Sequence[int], drawn: Sequence[Augmentation]) -> np.ndarray:
        """(B, H, W) uint8."""
        labels = np.zeros((len(places), self.height, self.width), np.uint8)
        for number, (place, augmentation) in enumerate(zip(places, drawn, strict=True)):
            move(nearest(cache.read("labels", place), self.height, self.width), augmentation, labels[number])
        if labels.max() >= len(PARTS8):
            raise InputError(f"{os.fspath(cache.path)!r}: has a label {labels.max()}, and the 8 parts end at "
                             f"{len(PARTS8) - 1}; make it again with the stage parse")
        return labels

    def _maps(self, cache: Cache, name: str, places: Sequence[int], drawn: Sequence[Augmentation],
              boxes: Sequence[tuple[Box, tuple[int, int]]]) -> np.ndarray:
        """(B, K, H/4 + 1, W/4 + 1) float32, of entropy without K."""
        height, width = self.height // CELL, self.width // CELL
        count = {"probs8": 8, "probs4": 5, "entropy": 1}[name]
        frames = np.zeros((len(places), count, height + 1, width + 1), np.float32)
        frames[:, 0] = count > 1  # all background
        for number, (place, augmentation, (box, size)) in enumerate(zip(places, drawn, boxes, strict=True)):
            maps = cache.read(MAPS[name], place)
            maps = crop_maps(maps[None] if maps.ndim == 2 else maps, box, image=size, height=height, width=width)
            move_cells(maps, augmentation, frames[number])
        return frames[:, 0] if name == "entropy" else frames


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
                     device: torch.device, share: slice = slice(None)) -> Iterator[Batch]:
    """The batches of steps start .. stop - 1, of each the rows in `share`; the number of workers changes nothing."""
    return _loaded(pictures, Draws(batches, start=start, stop=stop, share=share), workers, device)


def ordered_batches(pictures: Pictures, *, batch: int, workers: int, device: torch.device) -> Iterator[Batch]:
    """All pictures in order, in batches of exactly `batch` rows: the last one repeats its last picture.

    With equal sizes, a picture's features cannot depend on how many others there are.
    """
    last = len(pictures) - 1
    plan = [[(-1, min(row, last)) for row in range(first, first + batch)] for first in range(0, last + 1, batch)]
    return _loaded(pictures, plan, workers, device)


def _loaded(pictures: Pictures, plan: Draws | list, workers: int, device: torch.device) -> Iterator[Batch]:
    loader = DataLoader(pictures, batch_sampler=plan, num_workers=workers, collate_fn=as_it_is,
                        pin_memory=device.type == "cuda")
    for batch in batches_or_error(loader):
        yield finished(batch, device, pieces=pictures.pieces)
