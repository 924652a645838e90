"""From the bytes that were loaded to the numbers that networks take, a whole batch at once, on the network's device.

Loading processes only move bytes (pipeline/loading.py): what is arithmetic is done here, where a GPU makes it free.
H x W is the network's input size, cells are 4 x 4 of its pixels, B pictures are a batch.

What was drawn for each picture comes along: flip (B,) bool; inside (B, 4) and erased (B, 4), boxes in pixels (top,
left, bottom, right), where the moved picture is and what of it to erase (four zeros for nothing); where what is erased
does not become ImageNet's mean, fill (B, 3) float32.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.taxonomy import DENSEPOSE24_FLIP, DENSEPOSE24_MIRROR_U, DENSEPOSE24_MIRROR_V, PARTS8
from pipeline.transforms import CELL, LEVELS, MEAN, STD

MAPS = ("probs8", "probs4", "entropy")
MIRRORED = [int(part) - 1 for part in DENSEPOSE24_FLIP[1:]]  # the part whose mirror image each becomes, from 0
BYTES_SUMMED = 0x01010101  # times a number of four bytes: the highest byte becomes the sum of them

Loaded = dict[str, Any]  # arrays or tensors
Batch = dict[str, Tensor]


def finished(loaded: Loaded, device: torch.device, *, pieces: bool = False) -> Batch:
    """A loaded batch as networks take it, on the device. pieces: its warps are pieces of the picture (CSA).

    image (B, H, W, 3) uint8 -> (B, 3, H, W) float32, ImageNet's mean and deviation taken out, 0 (ImageNet's mean)
    outside of the picture. labels (B, H, W) uint8 -> (B, H/4, W/4) int64. Maps (B, K, H/4 + 1, W/4 + 1) float32 ->
    (B, K, H/4, W/4). dsap (B, 24, S, S, 3), valid (B, 24, S, S), uint8 -> (B, 24, 3, S, S) float32, 0 where not valid,
    and bool.
    """
    batch = {name: torch.as_tensor(array).to(device, non_blocking=True) for name, array in loaded.items()}
    flip, whole, erased = (batch.pop(name) for name in ("flip", "inside", "erased"))
    height, width = batch["image"].shape[1:3]
    gone = _within(erased, height, width)
    blank = gone | ~_within(whole, height, width)
    image = normalise(batch["image"]).masked_fill_(blank[:, None], 0)
    if "fill" in batch:
        image = torch.where(gone[:, None], batch.pop("fill")[:, :, None, None], image)
    batch["image"] = image
    if "labels" in batch:
        batch["labels"] = area_majority(batch["labels"].masked_fill_(blank, 0))
    shift = torch.stack([whole[:, 0] + whole[:, 2] - height, whole[:, 1] + whole[:, 3] - width], 1)
    still = ~flip & (shift == 0).all(1) & (erased == 0).all(1)
    for name in set(MAPS) & set(batch):
        batch[name] = moved_maps(batch[name], shift % CELL, erased, still)
    if "dsap" in batch:
        flipped = flip_pieces if pieces else flip_parts
        batch |= _warps(flipped(batch["dsap"], flip), flipped(batch["valid"], flip))
    return batch


def normalise(rgb: Tensor) -> Tensor:
    """uint8 RGB (..., H, W, 3) -> float32 (..., 3, H, W), ImageNet's mean and deviation taken out."""
    planes = rgb.movedim(-1, -3)
    if rgb.device.type == "cpu":  # on GPUs images stay channels_last, as they came
        planes = planes.contiguous()
    levels, mean, std = (torch.from_numpy(values).to(rgb.device)[:, None, None] for values in (LEVELS, MEAN, STD))
    return planes.float().div_(levels).sub_(mean).div_(std)


def _within(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, 4) top, left, bottom, right -> (B, H, W) bool."""
    y, x = (torch.arange(size, device=boxes.device) for size in (height, width))
    top, left, bottom, right = boxes[..., None].unbind(1)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]


def area_majority(labels: Tensor) -> Tensor:
    """(B, H, W) uint8 labels of the 8 parts -> (B, H/4, W/4) int64: a cell's most frequent one, the smaller of equals.
    """
    height, width = labels.shape[1:]
    if height % CELL or width % CELL:
        raise ValueError(f"labels of {height} x {width} pixels do not divide into cells of {CELL} x {CELL}")
    last = len(PARTS8) - 1
    best = torch.zeros(len(labels), height // CELL, width // CELL, dtype=torch.int32, device=labels.device)
    for part in range(last + 1):
        here = (labels == part).view(torch.uint8)
        lines = here[:, 0::CELL] + here[:, 1::CELL] + here[:, 2::CELL] + here[:, 3::CELL]
        count = lines.view(torch.int32) * BYTES_SUMMED >> 24
        best = torch.maximum(best, count * (last + 1) + last - part)  # of equals the smaller part is the larger number
    return (last - best % (last + 1)).long()


def moved_maps(frames: Tensor, left_to_go: Tensor, erased: Tensor, still: Tensor) -> Tensor:
    """Maps (B, K, h + 1, w + 1) of `move_cells` that go (B, 2) 0 .. 3 pixels down and right -> (B, K, h, w).

    Each cell is the mean of its pixels, which come from up to four cells. Background comes first among probabilities
    (K > 1) and is certain where pixels are erased; a single map (entropy, (B, h + 1, w + 1)) is 0 there. Pictures that
    stand still (B,) keep their maps: a mean of equal numbers may be another one in the last bit.
    """
    if frames.ndim == 3:
        return moved_maps(frames[:, None], left_to_go, erased, still)[:, 0]
    background = torch.zeros(frames.shape[1], 1, 1, device=frames.device)
    background[0] = frames.shape[1] > 1
    y, x = (CELL * torch.arange(size - 1, device=frames.device) for size in frames.shape[2:])
    top, left, bottom, right = erased[:, :, None].unbind(1)
    rows, columns = left_to_go[:, :, None, None, None].unbind(1)
    # A line's pixels first, then lines: last bits of trained weights hang on the order of sums.
    seen, spoilt = [], []
    for pixel in range(CELL):
        line = torch.where(columns <= pixel, frames[..., 1:], frames[..., :-1])
        seen.append(line)
        spoilt.append(torch.where(((x + pixel >= left) & (x + pixel < right))[:, None, None], background, line))
    kept, blanked, lines = _sum(seen), _sum(spoilt), []
    for pixel in range(CELL):
        gone = ((y + pixel >= top) & (y + pixel < bottom))[:, None, :, None]
        above, below = (torch.where(gone, blanked[:, :, first:last], kept[:, :, first:last])
                        for first, last in ((0, -1), (1, None)))
        lines.append(torch.where(rows <= pixel, below, above))
    return torch.where(still[:, None, None, None], frames[:, :, 1:, 1:], _sum(lines) / CELL**2)


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total


def _warps(dsap: Tensor, valid: Tensor) -> Batch:
    return {"dsap": normalise(dsap).mul_(valid[:, :, None].float()), "valid": valid.bool()}


def flip_parts(parts: Tensor, flip: Tensor) -> Tensor:
    """DSAP images (B, 24, U, V, ...) of pictures -> those of the mirrored pictures where `flip` (B,).

    They come from whole pictures: cropping and erasing leave them alone (DSA 4.2). Left and right parts change places;
    the torso is mirrored along V and the head along U (rows); limb charts of the two sides mirror each other already.
    """
    parts = _sides_changed(parts, flip)
    for axis, mirrored in ((2, DENSEPOSE24_MIRROR_V), (1, DENSEPOSE24_MIRROR_U)):
        for part in mirrored:
            image = parts[:, part - 1]
            parts[:, part - 1] = torch.where(_over(flip, image), image.flip(axis), image)
    return parts


def flip_pieces(pieces: Tensor, flip: Tensor) -> Tensor:
    """Pieces (B, 24, rows, columns, ...) cut from pictures, one a part -> those of the mirrored ones where `flip`."""
    pieces = _sides_changed(pieces, flip)
    return torch.where(_over(flip, pieces), pieces.flip(3), pieces)


def _sides_changed(parts: Tensor, flip: Tensor) -> Tensor:
    own = torch.arange(len(MIRRORED), device=parts.device)
    source = torch.where(flip[:, None], torch.tensor(MIRRORED, device=parts.device), own)
    return parts[torch.arange(len(parts), device=parts.device)[:, None], source]


def _over(flags: Tensor, values: Tensor) -> Tensor:
    """(B,) to be broadcast over (B, ...)."""
    return flags.view(-1, *[1] * (values.ndim - 1))
