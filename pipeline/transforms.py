"""What happens to a picture between disk and network: resize, flip, crop, erase, normalise.

A picture's labels and DSAP images move with it. One `Augmentation` is drawn per picture, from its own random stream,
and then applied to each of them, so that they cannot come apart. H x W is the network's input size.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.resizing import fit, nearest
from pipeline.taxonomy import DENSEPOSE24_FLIP, DENSEPOSE24_MIRROR_U, DENSEPOSE24_MIRROR_V

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, of RGB in [0, 1]
STD = np.array([0.229, 0.224, 0.225], np.float32)
NORMALISED = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD  # (256, 3): level -> value
BACKGROUND = 0
CELL = 4  # labels for the network have H/4 x W/4 cells

ERASE_AREA = (0.02, 0.4)  # share of the picture; random erasing's own ranges
ERASE_ASPECT = (0.3, 1 / 0.3)  # height over width
ERASE_ATTEMPTS = 100


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one H x W picture: flipped or not, moved by (down, right) pixels, one rectangle erased."""

    flip: bool = False
    shift: tuple[int, int] = (0, 0)
    erased: tuple[int, int, int, int] | None = None  # top, left, bottom, right


def draw(generator: np.random.Generator, *, height: int, width: int, flip: float, pad: int,
         erase: float) -> Augmentation:
    """Draw a flip (probability), a random crop after padding `pad` pixels on each side, an erased rectangle."""
    flipped = bool(generator.random() < flip)
    down, right = generator.integers(-pad, pad + 1, 2).tolist()
    erased = draw_rectangle(generator, height=height, width=width) if generator.random() < erase else None
    return Augmentation(flipped, (down, right), erased)


def draw_rectangle(generator: np.random.Generator, *, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Random erasing's rectangle (Zhong et al. 2017, Algorithm 1): (top, left, bottom, right), or None if none fits.

    Its area is uniform in 0.02-0.4 of the picture, its height over width uniform in 0.3-3.33.
    """
    for _ in range(ERASE_ATTEMPTS):
        area = generator.uniform(*ERASE_AREA) * height * width
        aspect = generator.uniform(*ERASE_ASPECT)
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < h < height and 0 < w < width:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return top, left, top + h, left + w
    return None


def move(array: np.ndarray, augmentation: Augmentation, fill: float) -> np.ndarray:
    """Flip, shift and erase an (..., H, W) array; what came from outside and what is erased becomes `fill`.

    The result is contiguous.
    """
    if augmentation.flip:
        array = array[..., ::-1]
    (down, right), (height, width) = augmentation.shift, array.shape[-2:]
    moved = np.full(array.shape, fill, array.dtype)
    moved[..., max(down, 0):height + min(down, 0), max(right, 0):width + min(right, 0)] = \
        array[..., max(-down, 0):height - max(down, 0), max(-right, 0):width - max(right, 0)]
    if augmentation.erased is not None:
        top, left, bottom, end = augmentation.erased
        moved[..., top:bottom, left:end] = fill
    return moved


def normalise(rgb: np.ndarray) -> np.ndarray:
    """uint8 RGB (..., 3) -> float32, ImageNet's mean and deviation taken out."""
    return cv2.LUT(rgb.reshape(-1, rgb.shape[-2], 3), NORMALISED[None]).reshape(rgb.shape)


def image_for_network(rgb: np.ndarray, *, height: int, width: int, augmentation: Augmentation,
                      fill: str = "imagenet") -> np.ndarray:
    """(h, w, 3) uint8 -> (3, H, W) float32, normalised; padded pixels are 0, ImageNet's mean, and erased ones are that
    or, with fill image, the mean of the picture."""
    pixels = normalise(fit(rgb, height, width))
    moved = move(pixels.transpose(2, 0, 1), augmentation, 0)
    if fill == "image" and augmentation.erased is not None:
        top, left, bottom, right = augmentation.erased
        moved[:, top:bottom, left:right] = pixels.mean((0, 1))[:, None, None]
    return moved


def labels_for_network(labels: np.ndarray, *, height: int, width: int, augmentation: Augmentation,
                       exchange: np.ndarray | None = None) -> np.ndarray:
    """(h, w) labels of the whole picture -> (H/4, W/4) uint8, each cell's most frequent one after augmentation.

    exchange: what flipping makes of a label (taxonomy's *_FLIP), None where labels have no left and right.
    """
    whole = nearest(labels, height, width)
    if augmentation.flip and exchange is not None:
        whole = exchange[whole]
    return area_majority(move(whole, augmentation, BACKGROUND), CELL)


def maps_for_network(maps: np.ndarray, *, augmentation: Augmentation) -> np.ndarray:
    """(K, H/4, W/4) float32 -> the same after augmentation, each cell the mean of its pixels.

    Probabilities have background first: it is certain where pixels come from outside or are erased. A single map
    (entropy) is 0 there. Flipping exchanges no map: parts have no left and right.
    """
    if augmentation == Augmentation():
        return maps
    background = np.zeros((len(maps), 1, 1), np.float32)
    background[0] = len(maps) > 1
    pixels = _moved_pixels(maps, augmentation, background)
    # Row by row, as numpy's mean over a contiguous map's cells adds them: last bits of trained weights hang on it.
    rows = [functools.reduce(np.add, itertools.islice(pixels, CELL)) for _ in range(CELL)]
    return functools.reduce(np.add, rows) / np.float32(CELL * CELL)


def _moved_pixels(maps: np.ndarray, augmentation: Augmentation, background: np.ndarray) -> Iterator[np.ndarray]:
    """Of each of a cell's CELL x CELL pixels, row by row: what they are in all cells, (K, H/4, W/4), once moved."""
    (down, right), (_, rows, columns) = augmentation.shift, maps.shape
    margin = max(abs(down), abs(right)) // CELL + 1
    padded = np.empty((len(maps), rows + 2 * margin, columns + 2 * margin), np.float32)
    padded[:] = background
    padded[:, margin:-margin, margin:-margin] = maps[:, :, ::-1] if augmentation.flip else maps
    for y in range(CELL):
        for x in range(CELL):
            top, left = margin + (y - down) // CELL, margin + (x - right) // CELL
            pixel = padded[:, top:top + rows, left:left + columns]
            if augmentation.erased is not None:
                pixel = pixel.copy()
                first, start, last, end = (-(-(edge - place) // CELL) for edge, place in
                                           zip(augmentation.erased, (y, x, y, x), strict=True))
                pixel[:, first:last, start:end] = background
            yield pixel


def area_majority(labels: np.ndarray, cell: int) -> np.ndarray:
    """(H, W) -> (H / cell, W / cell) uint8: the most frequent label of each cell, the smaller one of equals."""
    height, width = labels.shape
    if height % cell or width % cell:
        raise ValueError(f"labels of {height} x {width} pixels do not divide into cells of {cell} x {cell}")
    kinds = int(labels.max()) + 1
    counts = np.bincount((_cells(height, width, cell) * kinds + labels).ravel(),
                         minlength=height * width // cell**2 * kinds)
    return counts.reshape(height // cell, width // cell, kinds).argmax(2).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _cells(height: int, width: int, cell: int) -> np.ndarray:
    """(height, width) int64: each pixel's cell, counted row by row."""
    return np.arange(height)[:, None] // cell * (width // cell) + np.arange(width) // cell


def dsap_for_network(dsap: np.ndarray, valid: np.ndarray, *, flip: bool, pieces: bool = False
                     ) -> tuple[np.ndarray, np.ndarray]:
    """dsap (24, S, S, 3) uint8, valid (24, S, S) -> (24, 3, S, S) float32, 0 where not valid, and valid as bool.

    DSAP images come from the whole picture: cropping and erasing leave them alone (DSA 4.2), flipping moves them.
    pieces: they are pieces of the picture (CSA), which flipping mirrors as they are.
    """
    valid = valid.astype(bool)
    if flip:
        dsap, valid = (flip_pieces(dsap), flip_pieces(valid)) if pieces else (flip_parts(dsap), flip_parts(valid))
    values = np.empty((len(dsap), 3, *dsap.shape[1:3]), np.float32)
    np.multiply(normalise(dsap).transpose(0, 3, 1, 2), valid[:, None], out=values)
    return values, np.ascontiguousarray(valid)


def flip_parts(parts: np.ndarray) -> np.ndarray:
    """DSAP images (24, U, V, ...) of a picture -> those of the mirrored picture.

    Left and right parts change places; the torso is mirrored along V and the head along U (rows); limb charts of the
    two sides mirror each other already.
    """
    flipped = parts[DENSEPOSE24_FLIP[1:].astype(np.int64) - 1]
    for part in DENSEPOSE24_MIRROR_V:
        flipped[part - 1] = flipped[part - 1, :, ::-1].copy()
    for part in DENSEPOSE24_MIRROR_U:
        flipped[part - 1] = flipped[part - 1, ::-1].copy()
    return flipped


def flip_pieces(pieces: np.ndarray) -> np.ndarray:
    """Pieces (24, rows, columns, ...) cut from a picture, one a part -> those of the mirrored picture."""
    return pieces[DENSEPOSE24_FLIP[1:].astype(np.int64) - 1][:, :, ::-1]
