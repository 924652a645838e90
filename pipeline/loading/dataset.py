"""Images, labels and warps from disk to the tensors that a network takes.

A batch is a dict of tensors on the network's device: image (B, 3, H, W) float32, normalised; pid (B,) int64, the class
0 .. J - 1 in training; camid (B,) int64; row (B,) int64, the row of the set. Of parts.h5 what is asked for: labels
(B, H/4, W/4) or labels16 (B, H/16, W/16) int64, 8 parts; probs8 (B, 8, H/4, W/4), probs4 (B, 5, H/4, W/4) and entropy
(B, H/4, W/4) float32 in [0, 1]; of crops.h5 the same, and each image is the box of it that was parsed. Of dsap.h5 dsap
(B, 24, 3, S, S) float32 and valid (B, 24, S, S) bool. And, asked for like these, uniform (B,) float32 in [0, 1): a
number drawn for each image, for what a network leaves to chance in training.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.base.body_parts import PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import Box, crop_image, decode_image, fit, nearest, read_bytes
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.caches.cache import Cache
from pipeline.caches.parts_layout import CELL
from pipeline.loading.augmentation import (
    Augmentation,
    Chance,
    draw,
    draw_occluder,
    inside,
    mean_colour,
    move,
    move_cells,
)
from pipeline.loading.collate import as_it_is, batches_or_error
from pipeline.loading.device_batch import CELLS, CHANNELS, Batch, Loaded, finished
from pipeline.loading.samplers import Batches, Draws
from pipeline.loading.sgam_crop import crop_maps

Crop = Callable[[np.ndarray, int, int], Box]
MAPS = {"probs8": "probs/parts8", "probs4": "probs/parts4", "entropy": "entropy"}  # their names in parts.h5


class Images(Dataset):
    """The rows of an index as a network's input, H x W pixels; item (draw number, row), draw number -1 for no chance.

    frame: index rows with the column `target` (int64), what `pid` of a batch is to be; raw: the folder its paths start
    from; cache: parts.h5, crops.h5 or dsap.h5 to read beside the image, or None; arrays: which of its arrays a batch
    holds. crop: of each image's probs/parts4, height and width, the box that is all the network sees of it
    (pipeline/loading/sgam_crop.py); None is the whole image, or the box that crops.h5 has. chance: what augmentation
    may do; None is nothing. An image's augmentation is drawn from the stream (seed, "augment", draw number), its
    `uniform` from (seed, "uniform", draw number): which process loads it cannot matter.
    """

    def __init__(self, frame: pd.DataFrame, *, raw: str | os.PathLike, cache: str | os.PathLike | None, height: int,
                 width: int, arrays: Sequence[str] = (), crop: Crop | None = None, chance: Chance | None = None):
        self.paths = [os.path.join(raw, path) for path in frame["path"]]
        self.keys = frame["image"].tolist()
        self.targets, self.cameras = frame["target"].to_numpy(np.int64), frame["camid"].to_numpy(np.int64)
        self.height, self.width, self.chance = height, width, chance
        self.arrays, self.crop = tuple(arrays), crop

        self.cache = None if cache is None else Cache(cache)
        self.places = None if self.cache is None else self.cache.rows(self.keys)
        self.boxes = None
        if self.cache is not None and self.places is not None and "box" in self.cache:
            self.boxes = self.cache.column("box")[self.places]
        self.pieces = self.cache is not None and self.cache.maker.get("alignment") == "csa"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, items: list[tuple[int, int]]) -> Loaded | InputError:
        """A DataLoader's batch; a bad file comes back as its error (pipeline/loading/collate.py)."""
        try:
            return self.load(items)
        except InputError as error:
            return error

    def load(self, items: Sequence[tuple[int, int]]) -> Loaded:
        """Images, each moved as it was drawn, of which `finished` (pipeline/loading/device_batch.py) makes a batch.

        InputError names the file.
        """
        rows, moves = [row for _, row in items], [self._draw(number, row) for number, row in items]
        numbers = {"pid": self.targets[rows], "camid": self.cameras[rows], "row": np.array(rows, np.int64),
                   "flip": np.array([drawn.flip for drawn in moves]),
                   "inside": np.array([inside(drawn, self.height, self.width) for drawn in moves]),
                   "erased": np.array([drawn.erased or (0, 0, 0, 0) for drawn in moves])}

        seen = [self._seen(row) for row in rows]
        if self.chance is not None and "uniform" in self.arrays:
            streams = [rng(self.chance.seed, "uniform", number) for number, _ in items]
            numbers["uniform"] = np.array([stream.random(dtype=np.float32) for stream in streams], np.float32)
        if self.chance is not None and self.chance.occlude:
            numbers["pasted"] = np.array([drawn.piece is not None for drawn in moves])
        if self.chance is not None and self.chance.fill == "image":
            numbers["fill"] = self._fill([rgb for rgb, _, _ in seen], moves)
        batch = {"image": self._images([rgb for rgb, _, _ in seen], moves)}
        if self.cache is not None and self.places is not None:
            boxes = [(box, size) for _, box, size in seen]
            batch |= self._cached(self.cache, self.places[rows].tolist(), moves, boxes)

        # Only what is large goes through shared memory: opening a segment takes as long as decoding five images.
        return numbers | {name: array if name == "side" else torch.from_numpy(array) for name, array in batch.items()}

    def _draw(self, number: int, row: int) -> Augmentation:
        if number < 0 or self.chance is None:
            return Augmentation()
        chance = self.chance
        drawn = draw(rng(chance.seed, "augment", number), height=self.height, width=self.width, flip=chance.flip,
                     pad=chance.pad, erase=chance.erase)
        if not chance.occlude:
            return drawn
        others = np.flatnonzero(self.targets != self.targets[row])
        return draw_occluder(rng(chance.seed, "occlude", number), drawn, chance=chance, others=others,
                             height=self.height, width=self.width)

    def _seen(self, row: int) -> tuple[np.ndarray, Box, tuple[int, int]]:
        """What the network is to see of an image, its box in what was parsed, and the height and width of that."""
        path = self.paths[row]
        rgb = decode_image(read_bytes(path), path)
        if self.boxes is not None:  # to the maps, which are those of the box, it is the image
            rgb = crop_image(rgb, tuple(self.boxes[row].tolist()))

        height, width = rgb.shape[:2]
        if self.crop is None or self.cache is None or self.places is None:
            return rgb, (0, 0, height, width), (height, width)

        box = self.crop(self.cache.read("probs/parts4", int(self.places[row])), height, width)
        return crop_image(rgb, box), box, (height, width)

    def _images(self, seen: Sequence[np.ndarray], moves: Sequence[Augmentation]) -> np.ndarray:
        """(B, H, W, 3) uint8."""
        images = np.zeros((len(seen), self.height, self.width, 3), np.uint8)
        for rgb, augmentation, image in zip(seen, moves, images, strict=True):
            move(fit(rgb, self.height, self.width), augmentation, image)
            if augmentation.piece is not None and augmentation.erased is not None:
                top, left, bottom, right = augmentation.erased
                y, x = augmentation.piece.place
                other = fit(self._seen(augmentation.piece.row)[0], self.height, self.width)
                image[top:bottom, left:right] = other[y:y + bottom - top, x:x + right - left]
        return images

    def _fill(self, seen: Sequence[np.ndarray], moves: Sequence[Augmentation]) -> np.ndarray:
        """(B, 3) float32: what is erased becomes the mean of its image."""
        none = np.zeros(3, np.float32)
        return np.stack([none if augmentation.erased is None else mean_colour(fit(rgb, self.height, self.width))
                         for rgb, augmentation in zip(seen, moves, strict=True)])

    def _cached(self, cache: Cache, places: Sequence[int], moves: Sequence[Augmentation],
                boxes: Sequence[tuple[Box, tuple[int, int]]]) -> dict[str, Any]:
        """What is asked for of the cache's rows `places`."""
        batch: dict[str, Any] = {}
        for name in self.arrays:
            if name in CELLS:
                batch[name] = self._labels(cache, places, moves)
            elif name == "dsap":
                batch |= _warps(cache, places)
            elif name != "uniform":
                batch[name] = self._maps(cache, name, places, moves, boxes)
        return batch

    def _labels(self, cache: Cache, places: Sequence[int], moves: Sequence[Augmentation]) -> np.ndarray:
        """(B, H, W) uint8."""
        labels = np.zeros((len(places), self.height, self.width), np.uint8)
        for number, (place, augmentation) in enumerate(zip(places, moves, strict=True)):
            move(nearest(cache.read("labels", place), self.height, self.width), augmentation, labels[number])

        if labels.max() >= len(PARTS8):
            raise InputError(f"{os.fspath(cache.path)!r}: has a label {labels.max()}, and the 8 parts end at "
                             f"{len(PARTS8) - 1}; make it again with the stage parse")
        return labels

    def _maps(self, cache: Cache, name: str, places: Sequence[int], moves: Sequence[Augmentation],
              boxes: Sequence[tuple[Box, tuple[int, int]]]) -> np.ndarray:
        """(B, K, H/4 + 1, W/4 + 1), of entropy without K: the bytes as they are cached, float32 where cells change."""
        height, width = self.height // CELL, self.width // CELL
        stored = [cache.read(MAPS[name], place) for place in places]
        if name == "entropy":
            stored = [maps[None] for maps in stored]
        same = self.crop is None and stored[0].shape[1:] == (height, width)
        frames = np.zeros((len(places), CHANNELS[name], height + 1, width + 1), np.uint8 if same else np.float32)
        if CHANNELS[name] > 1:
            frames[:, 0] = 255 if same else 1  # all background

        for maps, augmentation, (box, size), frame in zip(stored, moves, boxes, frames, strict=True):
            move_cells(maps if same else crop_maps(maps, box, image=size, height=height, width=width), augmentation,
                       frame)
        return frames[:, 0] if name == "entropy" else frames


def _warps(cache: Cache, places: Sequence[int]) -> dict[str, Any]:
    """Of the texels of (B, 24, S, S) those that something fell on: texels (T, 3) uint8, places (T,) int64; side S."""
    texels, found = [], []
    for number, place in enumerate(places):
        dsap, valid = cache.read("dsap", place), cache.read("valid", place)
        seen = np.flatnonzero(valid != 0)  # of bytes themselves, and without `take`, both take three times as long
        texels.append(dsap.reshape(-1, 3).take(seen, 0))
        found.append(seen + number * valid.size)
    return {"texels": np.concatenate(texels), "places": np.concatenate(found), "side": valid.shape[-1]}


def training_rows(index: pd.DataFrame, *, max_ids: int) -> pd.DataFrame:
    """The training images of an index with `target`, classes 0 .. J - 1 in order of identity.

    Images without identity (pid -1) are left out; max_ids > 0 keeps the first so many identities, 0 all.
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
    if their keys agree; and where an image could not be parsed: its masks are empty.
    """
    cached = None
    if cache is not None:
        reader = Cache(cache)
        rows = reader.rows(frame["image"])
        cached = reader.column("image_sha256")[rows] if "image_sha256" in reader else None
        for place, status in enumerate(reader.column("status")[rows] if "status" in reader else ()):
            if status.startswith("failed"):
                raise InputError(f"{os.fspath(cache)!r}: holds no parse of {frame['image'].iloc[place]!r} ({status}); "
                                 "mend the image and run the stage parse again")

    digests = []
    named = progress(zip(frame["image"], frame["path"], strict=True), "hash", total=len(frame), unit="images")
    for place, (key, path) in enumerate(named):
        digest = hashlib.sha256(read_bytes(Path(raw) / path)).hexdigest()
        if cached is not None and cached[place] != digest:
            raise InputError(f"{os.fspath(cache or '')!r}: was made from another image than '{Path(raw) / path}' for "
                             f"the key {key!r} (SHA-256 {cached[place][:12]}.. and {digest[:12]}..): it is "
                             "another data set's, or the image changed; make the cache again")
        digests.append(digest)
    return keyed_sha256(frame["image"], digests)


def keyed_sha256(keys: Iterable[str], digests: Iterable[str]) -> str:
    """One SHA-256 over images' keys and their own SHA-256s."""
    total = hashlib.sha256()
    for key, digest in zip(keys, digests, strict=True):
        total.update(f"{key} {digest}\n".encode())
    return total.hexdigest()


def training_batches(images: Images, batches: Batches, *, start: int, stop: int, workers: int, device: torch.device,
                     share: slice = slice(None)) -> Iterator[Batch]:
    """The batches of steps start .. stop - 1, of each the rows in `share`; the number of workers changes nothing."""
    return _loaded(images, Draws(batches, start=start, stop=stop, share=share), workers, device)


def ordered_batches(images: Images, *, batch: int, workers: int, device: torch.device) -> Iterator[Batch]:
    """All images in order, in batches of exactly `batch` rows: the last one repeats its last image.

    With equal sizes, an image's features cannot depend on how many others there are.
    """
    last = len(images) - 1
    plan = [[(-1, min(row, last)) for row in range(first, first + batch)] for first in range(0, last + 1, batch)]
    return _loaded(images, plan, workers, device)


def _loaded(images: Images, plan: Draws | list, workers: int, device: torch.device) -> Iterator[Batch]:
    loader = DataLoader(images, batch_sampler=plan, num_workers=workers, collate_fn=as_it_is,
                        pin_memory=device.type == "cuda")
    for batch in batches_or_error(loader):
        yield finished(batch, device, pieces=images.pieces)
