"""What chance does to a picture, and what loading processes do of it: flip and shift bytes.

One `Augmentation` is drawn per picture, from its own random stream, and then applied to it and to all that belongs to
it, so that they cannot come apart. What is erased or came from outside is blanked later, where bytes become numbers
(pipeline/finishing.py). H x W is the network's input size.
"""

from dataclasses import dataclass

import cv2
import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, of RGB in [0, 1]
STD = np.array([0.229, 0.224, 0.225], np.float32)
LEVELS = np.array([255], np.float32)  # an array, by which every device divides; of a number some take the reciprocal
CELL = 4  # maps and labels for the network have H/4 x W/4 cells

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
    down, right = (int(generator.integers(-pad, pad + 1)) for _ in range(2))
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


def inside(augmentation: Augmentation, height: int, width: int) -> tuple[int, int, int, int]:
    """Where pixels of the H x W picture are once it is moved: top, left, bottom, right."""
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

    The 0 .. 3 pixels down and right that are then left, `moved_maps` (pipeline/finishing.py) goes: where a cell lies
    after the shift, its pixels are of out's cells (i, j) to (i + 1, j + 1).
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
    """(H, W, 3) uint8 -> (3,) float32: the mean of the normalised picture."""
    return ((rgb.astype(np.float32) / LEVELS - MEAN) / STD).mean((0, 1))
