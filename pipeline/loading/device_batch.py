"""Batch on the device: from the bytes that were loaded to the numbers that networks take, all images at once.

Loading processes only move bytes (pipeline/loading/dataset.py): what is arithmetic is done here, where a GPU makes it
free. H x W is the network's input size, cells are 4 x 4 of its pixels, B images are a batch.

What was drawn for each image comes along: flip (B,) bool; inside (B, 4) and erased (B, 4), boxes in pixels (top,
left, bottom, right), where the moved image is and what of it to erase (four zeros for nothing); where what is erased
does not become ImageNet's mean, fill (B, 3) float32; where something may stand in front, pasted (B,) bool: what is in
the box to erase are its pixels, which stay, and only what belongs to the person behind it goes.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from pipeline.base.body_parts import PARTS8, SURFACE_PARTS
from pipeline.base.images import IMAGENET_MEAN, IMAGENET_STD
from pipeline.caches.parts_layout import CELL
from pipeline.loading.augmentation import LEVELS, flip_parts, flip_pieces, moved_maps

CHANNELS = {"probs8": 8, "probs4": 5, "entropy": 1}  # K of the maps that a batch may hold
CELLS = {"labels": CELL, "labels16": 16}  # of the labels that it may hold: pixels of a cell's side
BYTES_SUMMED = 0x01010101  # times a number of four bytes: the highest byte becomes the sum of them

Loaded = dict[str, Any]  # arrays or tensors
Batch = dict[str, Tensor]


def finished(loaded: Loaded, device: torch.device, *, pieces: bool = False) -> Batch:
    """A loaded batch as networks take it, on the device. pieces: its warps are pieces of the image (CSA).

    image (B, H, W, 3) uint8 -> (B, 3, H, W) float32, ImageNet's mean and deviation taken out, 0 (ImageNet's mean)
    outside of the image. labels and labels16 (B, H, W) uint8 -> (B, H/4, W/4) and (B, H/16, W/16) int64. Maps
    (B, K, H/4 + 1, W/4 + 1) uint8 or float32 -> (B, K, H/4, W/4) float32. Of warps the T texels alone that something
    fell on, texels (T, 3) uint8 and their places (T,) int64 among (B, 24, S, S), side S -> dsap (B, 24, 3, S, S)
    float32, 0 elsewhere, and valid (B, 24, S, S) bool.
    """
    side = loaded.get("side", 0)
    batch = {name: torch.as_tensor(array).to(device, non_blocking=True) for name, array in loaded.items()
             if name != "side"}
    flip, whole, erased = (batch.pop(name) for name in ("flip", "inside", "erased"))  # (B,), (B, 4), (B, 4)
    height, width = batch["image"].shape[1:3]
    gone = _within(erased, height, width)  # (B, H, W)
    blank = gone | ~_within(whole, height, width)

    emptied, filled = blank, gone  # (B, H, W) each, of the image itself
    if "pasted" in batch:
        front = gone & batch.pop("pasted")[:, None, None]
        emptied, filled = blank & ~front, gone & ~front
    image = normalise(batch["image"]).masked_fill_(emptied[:, None], 0)  # (B, H, W, 3) -> (B, 3, H, W)
    if "fill" in batch:
        image = torch.where(filled[:, None], batch.pop("fill")[:, :, None, None], image)
    batch["image"] = image

    for name in CELLS.keys() & batch.keys():  # (B, H, W) -> (B, H/4, W/4) or (B, H/16, W/16)
        batch[name] = area_majority(batch[name].masked_fill_(blank, 0), CELLS[name])

    shift = torch.stack([whole[:, 0] + whole[:, 2] - height, whole[:, 1] + whole[:, 3] - width], 1)  # (B, 2)
    for name in CHANNELS.keys() & batch.keys():
        batch[name] = moved_maps(batch[name], shift % CELL, erased)

    if side:
        batch |= _warps(batch.pop("texels"), batch.pop("places"), flip, side, pieces)
    return batch


def normalise(rgb: Tensor) -> Tensor:
    """uint8 RGB (..., H, W, 3) -> float32 (..., 3, H, W), ImageNet's mean and deviation taken out; in memory channels
    stay last, as convolutions want them."""
    planes = rgb.movedim(-1, -3)
    levels, mean, std = (torch.from_numpy(values).to(rgb.device)[:, None, None]
                         for values in (LEVELS, IMAGENET_MEAN, IMAGENET_STD))
    return planes.float().div_(levels).sub_(mean).div_(std)


def _within(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, 4) top, left, bottom, right -> (B, H, W) bool."""
    y, x = (torch.arange(size, device=boxes.device) for size in (height, width))
    top, left, bottom, right = boxes[..., None].unbind(1)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]


def area_majority(labels: Tensor, cell: int) -> Tensor:
    """(B, H, W) uint8 labels of the 8 parts -> (B, H/cell, W/cell) int64: a cell's most frequent one, the smaller of
    equals. cell: pixels of its side, a multiple of 4.
    """
    height, width = labels.shape[1:]
    if height % cell or width % cell:
        raise ValueError(f"labels of {height} x {width} pixels do not divide into cells of {cell} x {cell}")

    last, blocks = len(PARTS8) - 1, cell // CELL
    best = torch.zeros(len(labels), height // cell, width // cell, dtype=torch.int32, device=labels.device)
    for part in range(last + 1):
        here = (labels == part).view(torch.uint8)
        lines = here[:, 0::CELL] + here[:, 1::CELL] + here[:, 2::CELL] + here[:, 3::CELL]  # (B, H/4, W)
        count = lines.view(torch.int32) * BYTES_SUMMED >> 24  # (B, H/4, W/4)
        if blocks > 1:
            count = count.unflatten(2, (-1, blocks)).unflatten(1, (-1, blocks)).sum((2, 4), dtype=torch.int32)
        best = torch.maximum(best, count * (last + 1) + last - part)  # of equals the smaller part is the larger number
    return (last - best % (last + 1)).long()


def _warps(texels: Tensor, places: Tensor, flip: Tensor, side: int, pieces: bool) -> Batch:
    """T texels (T, 3) uint8 at places (T,) of (B, 24, S, S) -> dsap and valid; of flipped images where `flip` (B,)."""
    area, count = side * side, SURFACE_PARTS * side * side
    image, place = places // count, places % count
    place = torch.where(flip[image], mirrored_places(side, pieces).to(places.device)[place], place)
    part, texel = image * SURFACE_PARTS + place // area, place % area

    levels, mean, std = (torch.from_numpy(values).to(texels.device) for values in (LEVELS, IMAGENET_MEAN, IMAGENET_STD))
    values = texels.float().div_(levels).sub_(mean).div_(std)  # as `normalise`, (T, 3)
    channel = area * torch.arange(3, device=places.device)
    dsap = values.new_zeros(len(flip) * count * 3)
    dsap.scatter_(0, ((3 * area * part + texel)[:, None] + channel).flatten(), values.flatten())
    valid = torch.zeros(len(flip) * count, dtype=torch.bool, device=places.device)
    valid[area * part + texel] = True
    return {"dsap": dsap.view(-1, SURFACE_PARTS, 3, side, side), "valid": valid.view(-1, SURFACE_PARTS, side, side)}


@functools.lru_cache(maxsize=8)
def mirrored_places(side: int, pieces: bool) -> Tensor:
    """(24 S S,) int64: where each texel of (24, S, S) comes to lie when its image is flipped; its own inverse."""
    own = torch.arange(SURFACE_PARTS * side * side).view(1, SURFACE_PARTS, side, side)
    return (flip_pieces if pieces else flip_parts)(own, torch.tensor([True])).flatten()
