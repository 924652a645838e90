"""Letterbox: images in their own proportions inside a parser's input, and the parser's maps back on whole images.

A parser's input has one size and images have many. Stretched, a wide crop's people become thin and a parser that has
seen people of ordinary proportions fails on them; kept, what is left of the input repeats the image's edges.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.images import Box, fit


def place_of(rows: int, columns: int, height: int, width: int) -> Box:
    """Where an image of rows x columns stands in height x width: as large as it goes, in the middle, in whole pixels.

    >>> place_of(256, 128, 128, 64), place_of(50, 50, 128, 64), place_of(300, 100, 128, 64)
    ((0, 0, 128, 64), (32, 0, 96, 64), (0, 10, 128, 53))
    """
    scale = min(height / rows, width / columns)
    tall, wide = max(1, int(rows * scale + 0.5)), max(1, int(columns * scale + 0.5))
    top, left = (height - tall) // 2, (width - wide) // 2
    return top, left, top + tall, left + wide


def letterbox(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Box]:
    """(rows, columns, 3) uint8 -> (height, width, 3), its edges repeated around it, and the image's place in it.

    An image of the input's proportions becomes what `fit` makes of it.
    """
    place = top, left, bottom, right = place_of(image.shape[0], image.shape[1], height, width)
    inner = fit(image, bottom - top, right - left)
    if inner.shape[:2] == (height, width):
        return inner, place
    return cv2.copyMakeBorder(inner, top, height - bottom, left, width - right, cv2.BORDER_REPLICATE), place


@torch.inference_mode()
def on_whole_images(output: dict[str, Tensor], places: Sequence[Box]) -> dict[str, Tensor]:
    """A parser's maps of letterboxed images -> maps of the images alone, each at the same H x W as before.

    output: as the engine's `Forward` gives it; places: the image's in each row but those that pad the batch.
    Probabilities are interpolated between pixels, so that they go on summing to one; labels and u,v are the nearest
    pixel's, so that they stay together. A row whose place is all of it is left as it is; where all are, so is `output`.
    """
    height, width = output["native"].shape[1:3]
    moved = [row for row, place in enumerate(places) if place != (0, 0, height, width)]
    if not moved:
        return output

    result = {name: maps.clone() for name, maps in output.items()}
    for row in moved:
        top, left, bottom, right = places[row]
        rows = nearest_rows(bottom - top, height, output["native"].device) + top
        columns = nearest_rows(right - left, width, output["native"].device) + left
        for name, maps in output.items():
            if name.startswith("parts"):
                inside = maps[row:row + 1, :, top:bottom, left:right]
                result[name][row] = F.interpolate(inside, (height, width), mode="bilinear", align_corners=False)[0]
            else:
                result[name][row] = maps[row][rows[:, None].to(maps.device), columns.to(maps.device)]

    return result


def nearest_rows(count: int, size: int, device: torch.device) -> Tensor:
    """Which of `count` rows lies under the middle of each of `size`, (size,) int64: OpenCV's INTER_NEAREST_EXACT.

    >>> nearest_rows(2, 6, torch.device("cpu")).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return (2 * torch.arange(size, device=device) + 1) * count // (2 * size)
