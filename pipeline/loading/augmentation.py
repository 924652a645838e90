"""Augmentation of an image and of all that belongs to it: flip, shift, erase.

One `Augmentation` is drawn per image, from its own random stream, and then applied to it and to all that belongs to
it, so that they cannot come apart. Loading processes only move bytes (numpy, one image at a time); what is arithmetic
is done later with a whole batch on the device (torch): the rest of a map's move, and the sides of warps. What is erased
or came from outside is blanked there too, where bytes become numbers (pipeline/loading/device_batch.py).

H x W is the network's input size, h x w = H/4 x W/4 its cells; B images are a batch, K maps or parts.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.base.body_parts import DENSEPOSE24_MIRROR_U, DENSEPOSE24_MIRROR_V, DENSEPOSE24_MIRRORED
from pipeline.base.erasing import draw_rectangle
from pipeline.base.images import IMAGENET_MEAN, IMAGENET_STD
from pipeline.caches.parts_layout import CELL

LEVELS = np.array([255], np.float32)  # an array, by which every device divides; of a number some take the reciprocal


@dataclass(frozen=True)
class Chance:
    """What may happen to an image: `flip` and `erase` with these probabilities, a shift by up to `pad` pixels.

    fill: what is erased becomes, `imagenet`'s mean or that of the `image`. seed: of the streams that it is drawn from.
    occlude: the probability that a piece of another person's picture stands in front, which hides from `occlude_low` to
    `occlude_high` of the image (within 0 to 1); that image is not erased besides.
    """

    seed: int
    flip: float
    pad: int
    erase: float
    fill: str
    occlude: float = 0.0
    occlude_low: float = 0.1
    occlude_high: float = 0.4


@dataclass(frozen=True)
class Piece:
    """What stands in front of an image: rows and columns, from `place` on, of the image in another `row` of the set."""

    row: int
    place: tuple[int, int]  # top, left


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one H x W image: flipped or not, moved by (down, right) pixels, one rectangle erased, or
    hidden by a piece of another image."""

    flip: bool = False
    shift: tuple[int, int] = (0, 0)
    erased: tuple[int, int, int, int] | None = None  # top, left, bottom, right
    piece: Piece | None = None  # what is in its place


def draw(generator: np.random.Generator, *, height: int, width: int, flip: float, pad: int,
         erase: float) -> Augmentation:
    """Draw a flip (probability), a random crop after padding `pad` pixels on each side, an erased rectangle."""
    flipped = bool(generator.random() < flip)
    down, right = (int(generator.integers(-pad, pad + 1)) for _ in range(2))
    erased = draw_rectangle(generator, height=height, width=width) if generator.random() < erase else None
    return Augmentation(flipped, (down, right), erased)


def draw_occluder(generator: np.random.Generator, drawn: Augmentation, *, chance: Chance, others: np.ndarray,
                  height: int, width: int) -> Augmentation:
    """The augmentation with, by chance, a piece of one of `others` (rows of the set) in front instead of an erasure."""
    if generator.random() >= chance.occlude or not len(others):
        return drawn
    box = draw_rectangle(generator, height=height, width=width, area=(chance.occlude_low, chance.occlude_high))
    if box is None:
        return drawn
    row = int(others[generator.integers(len(others))])
    top, left = (int(generator.integers(size - (last - first) + 1))
                 for size, first, last in zip((height, width), box[:2], box[2:], strict=True))
    return replace(drawn, erased=box, piece=Piece(row, (top, left)))


# Bytes of one image, in a loading process ----------------------------------------------------------


def inside(augmentation: Augmentation, height: int, width: int) -> tuple[int, int, int, int]:
    """Where pixels of the H x W image are once it is moved: top, left, bottom, right."""
    down, right = augmentation.shift
    return max(down, 0), max(right, 0), height + min(down, 0), width + min(right, 0)


def move(array: np.ndarray, augmentation: Augmentation, out: np.ndarray) -> None:
    """Flip and shift an (H, W, ...) uint8 array into `out`, of the same shape, whose other places stay as they are."""
    (down, right), (top, left, bottom, end) = augmentation.shift, inside(augmentation, *out.shape[:2])
    if augmentation.flip:
        array = cv2.flip(array, 1)
    out[top:bottom, left:end] = array[top - down:bottom - down, left - right:end - right]


def move_cells(maps: np.ndarray, augmentation: Augmentation, out: np.ndarray) -> None:
    """Flip maps (K, h, w) and shift them by whole cells into `out` (K, h + 1, w + 1), whose other places stay.

    The 0 .. 3 pixels down and right that are then left, `moved_maps` goes: where a cell lies after the shift, its
    pixels are of out's cells (i, j) to (i + 1, j + 1).
    """
    if augmentation.flip:
        maps = maps[:, :, ::-1]

    spans = []
    for shift, size in zip(augmentation.shift, maps.shape[1:], strict=True):
        first = shift // CELL + 1  # where cell 0 comes to lie
        spans.append((slice(max(first, 0), max(min(first + size, size + 1), 0)),
                      slice(max(-first, 0), max(min(size, size + 1 - first), 0))))

    (to_rows, rows), (to_columns, columns) = spans
    out[:, to_rows, to_columns] = maps[:, rows, columns]


def mean_colour(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3,) float32: the mean of the normalised image."""
    return ((rgb.astype(np.float32) / LEVELS - IMAGENET_MEAN) / IMAGENET_STD).mean((0, 1))


# A batch, on the device ----------------------------------------------------------------------------


def moved_maps(frames: Tensor, left_to_go: Tensor, erased: Tensor) -> Tensor:
    """Maps (B, K, h + 1, w + 1) of `move_cells` that go (B, 2) 0 .. 3 pixels down and right -> (B, K, h, w) float32.

    Each cell is the mean of its pixels, which come from up to four cells. Background comes first among probabilities
    (K > 1) and is certain where pixels are erased (B, 4); a single map (entropy, (B, h + 1, w + 1)) is 0 there. Bytes
    (uint8, of 255) are summed in whole numbers and divided once; float32 in [0, 1] is summed as it is.
    """
    if frames.ndim == 3:
        return moved_maps(frames[:, None], left_to_go, erased)[:, 0]

    certain, kind = (255, torch.int16) if frames.dtype == torch.uint8 else (1, torch.float32)  # 16 x 255 < 2^15
    maps, (height, width) = frames.to(kind), (size - 1 for size in frames.shape[2:])
    top, left, bottom, right = erased[:, :, None, None].unbind(1)  # (B, 1, 1) each
    rows, columns = left_to_go[:, :, None, None].unbind(1)

    # Of each line, how many pixels of a cell are its own and its neighbour's: all of them, and those not erased.
    own, others, own_seen, others_seen = (count[:, None, None].to(kind)
                                          for count in _counts(columns, left, right, width))
    kept = own * maps[..., 1:] + others * maps[..., :-1]  # (B, K, h + 1, w)
    spoilt = own_seen * maps[..., 1:] + others_seen * maps[..., :-1]
    if frames.shape[1] > 1:
        spoilt[:, 0] += certain * (CELL - own_seen - others_seen)[:, 0]

    own, others, own_seen, others_seen = (count[:, None, :, None].to(kind)
                                          for count in _counts(rows, top, bottom, height))
    total = own_seen * kept[:, :, 1:] + others_seen * kept[:, :, :-1]  # (B, K, h, w)
    total += (own - own_seen) * spoilt[:, :, 1:] + (others - others_seen) * spoilt[:, :, :-1]
    return total.float().div_(torch.tensor([CELL**2 * certain], dtype=torch.float32, device=total.device))


def _counts(to_go: Tensor, first: Tensor, stop: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis, (B, cells) each: a cell's pixels that are its own after the move, the neighbour's before it, and
    those of either that are not erased. to_go 0 .. 3 and the erased pixels first .. stop - 1: (B, 1, 1) each.
    """
    pixel = torch.arange(CELL, device=to_go.device)
    seen = CELL * torch.arange(cells, device=to_go.device)[:, None] + pixel  # (cells, 4)
    seen = (seen < first) | (seen >= stop)  # (B, cells, 4)
    own = (to_go <= pixel).expand_as(seen)
    return own.sum(2), (~own).sum(2), (own & seen).sum(2), (~own & seen).sum(2)


def flip_parts(parts: Tensor, flip: Tensor) -> Tensor:
    """DSAP images (B, 24, U, V, ...) of images -> those of the mirrored images where `flip` (B,).

    They come from whole images: cropping and erasing leave them alone (DSA 4.2). Left and right parts change places;
    the torso is mirrored along V (columns), hands, feet and head along U (rows); the charts of left and right arms and
    legs mirror each other already.
    """
    parts = _sides_changed(parts, flip)
    for axis, mirrored in ((2, DENSEPOSE24_MIRROR_V), (1, DENSEPOSE24_MIRROR_U)):
        for part in mirrored:
            image = parts[:, part - 1]  # (B, U, V, ...)
            parts[:, part - 1] = torch.where(_over(flip, image), image.flip(axis), image)
    return parts


def flip_pieces(pieces: Tensor, flip: Tensor) -> Tensor:
    """Pieces (B, 24, rows, columns, ...) cut from images, one per part -> those of the mirrored ones where `flip`."""
    pieces = _sides_changed(pieces, flip)
    return torch.where(_over(flip, pieces), pieces.flip(3), pieces)


def _sides_changed(parts: Tensor, flip: Tensor) -> Tensor:
    mirrored = torch.tensor(DENSEPOSE24_MIRRORED.tolist(), device=parts.device)
    own = torch.arange(len(mirrored), device=parts.device)
    source = torch.where(flip[:, None], mirrored, own)  # (B, 24)
    return parts[torch.arange(len(parts), device=parts.device)[:, None], source]


def _over(flags: Tensor, values: Tensor) -> Tensor:
    """(B,) to be broadcast over (B, ...)."""
    return flags.view(-1, *[1] * (values.ndim - 1))
