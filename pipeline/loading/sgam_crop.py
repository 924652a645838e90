"""Crop box of SGAM: where an image shows its person, and that part of it (SGAM 3.1).

Probabilities are parts.h5's `probs/parts4` of one image, (5, h, w) uint8, p x 255: background, head, upper body,
lower body, shoes, each cell the mean over its patch of the image. The image itself has height x width pixels, any
size: a cell is height / h x width / w of them. A row of a failed parse is all 0 and shows nothing.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images import Box

REGIONS = 4
MARGIN = 20  # a box grows on every side by one 20th of its height or width, 5 %
SMALLEST = 16  # pixels; an image is not cropped to less
PROBABILITIES = (np.arange(256) / 255).astype(np.float32)  # of a byte

Parsed = tuple[np.ndarray, int, int]  # an image's probabilities, height and width
Visible = Callable[[np.ndarray, int], np.ndarray]  # means (4,) over a frame of so many pixels -> (4,) bool: S_i > t_i


def means(probabilities: np.ndarray) -> np.ndarray:
    """(4,) float64 in [0, 1]: each region's mean probability over the frame, S_i of SGAM Eq. (2) per pixel."""
    return probabilities[1:].mean((1, 2), dtype=np.float64) / 255


def shown(probabilities: np.ndarray) -> np.ndarray:
    """(4, h, w) bool: the cells where a region is likelier than the other regions and the background."""
    return probabilities.argmax(0) == np.arange(1, 1 + REGIONS)[:, None, None]


def automatic_crop(probabilities: np.ndarray, height: int, width: int, *, visible: Visible) -> Box:
    """The box to which SGAM crops an image of height x width pixels; visible: the network's (models/sgam.py)."""
    return crop_box(probabilities, visible(means(probabilities), height * width), height=height, width=width)


def crop_box(probabilities: np.ndarray, visible: np.ndarray, *, height: int, width: int) -> Box:
    """The box around the cells where a visible region is the likeliest, 5 % larger on each side, within the image.

    visible (4,) bool: S_i > t_i. Rounded outwards to whole pixels. The whole image where no such cell is, or where
    a side of the box has less than 16 pixels.
    """
    cells = shown(probabilities)[visible].any(0)
    if not cells.any():
        return 0, 0, height, width

    top, bottom = _grown(np.flatnonzero(cells.any(1)), cells.shape[0], height)
    left, right = _grown(np.flatnonzero(cells.any(0)), cells.shape[1], width)

    if min(bottom - top, right - left) < SMALLEST:
        return 0, 0, height, width
    return top, left, bottom, right


def _grown(lines: np.ndarray, cells: int, pixels: int) -> tuple[int, int]:
    """First and last of some rows (or columns) of cells -> the pixels they cover and the margin, in whole numbers."""
    first, stop = int(lines[0]), int(lines[-1]) + 1
    start = (MARGIN * first - (stop - first)) * pixels // (MARGIN * cells)
    end = -(-(MARGIN * stop + (stop - first)) * pixels // (MARGIN * cells))
    return max(start, 0), min(end, pixels)


def crop_maps(probabilities: np.ndarray, box: Box, *, image: tuple[int, int], height: int, width: int) -> np.ndarray:
    """The box of the maps at another size: (K, h, w) uint8 -> (K, height, width) float32 in [0, 1].

    image: height and width of the image that the box is counted in. Each new cell is the exact mean of what it
    covers (a cell's value holds for all of its patch), so means over the frame are those of the box, and what summed
    to one over the maps still does.
    """
    if box == (0, 0, *image) and _unchanged(image, probabilities.shape[1:], (height, width)):
        return PROBABILITIES.take(probabilities)

    top, left, bottom, right = box
    rows = _shares(top, bottom, image[0], probabilities.shape[1], height)
    columns = _shares(left, right, image[1], probabilities.shape[2], width)
    return (rows @ (probabilities / 255) @ columns.T).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _unchanged(image: tuple[int, int], cells: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether the whole image's cells come out of `crop_maps` at this size as they are, in floating point too."""
    return all(np.array_equal(_shares(0, pixels, pixels, cell, count), np.eye(count))
               for pixels, cell, count in zip(image, cells, size, strict=True))


def _shares(start: int, stop: int, pixels: int, cells: int, count: int) -> np.ndarray:
    """(count, cells): the share of each old cell in each of `count` new ones between two pixels; rows sum to 1."""
    new = start + (stop - start) * np.arange(count + 1) / count
    old = pixels * np.arange(cells + 1) / cells
    common = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    return common.clip(min=0) * (count / (stop - start))


def training_medians(images: Callable[[], Iterable[Parsed]], *, visible_by: Callable[[np.ndarray], Visible]
                     ) -> tuple[np.ndarray, np.ndarray]:
    """Medians (4,) of the regions' mean probabilities over a training set: in the whole frame, in the cropped one.

    images: called twice, gives each training image's probabilities, height and width, in any order; of an image
    only its means and which regions it shows are kept. visible_by: the first medians -> `automatic_crop`'s `visible`,
    by which images are cropped for the second. A region's median is over the images (or boxes) in which it is the
    likeliest somewhere; 0 if there is none. InputError for an empty set.
    """
    whole = frame_medians(maps for maps, _, _ in images())
    visible = visible_by(whole)
    return whole, _medians(_cropped(image, visible) for image in images())


def frame_medians(images: Iterable[np.ndarray]) -> np.ndarray:
    """Medians (4,) likewise, of maps (5, h, w) uint8 as they are: of whole images, or of crops parsed again."""
    return _medians((means(maps), shown(maps).max((1, 2))) for maps in images)


def _cropped(image: Parsed, visible: Visible) -> tuple[np.ndarray, np.ndarray]:
    """(4,) means over the image's box, (4,) bool: whether the region is the likeliest in a cell the box touches."""
    maps, height, width = image
    top, left, bottom, right = automatic_crop(maps, height, width, visible=visible)

    rows = _shares(top, bottom, height, maps.shape[1], 1)[0]
    columns = _shares(left, right, width, maps.shape[2], 1)[0]
    return rows @ (maps[1:] / 255) @ columns, shown(maps)[:, rows > 0][:, :, columns > 0].max((1, 2))


def _medians(regions: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of (means (4,), counted (4,) bool) -> (4,) medians over the counted ones."""
    pairs = list(regions)
    if not pairs:
        raise InputError("SGAM's medians need training images and there are none; train on another data set")

    values, counted = (np.stack(column) for column in zip(*pairs, strict=True))  # (N, 4) each
    return np.array([np.median(values[counted[:, i], i]) if counted[:, i].any() else 0.0 for i in range(REGIONS)])
