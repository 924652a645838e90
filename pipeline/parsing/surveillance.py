"""Augmentation that makes pictures of people look like surveillance crops; labels and u,v move along.

A detector's box around the person is drawn, off-centre and now and then through the body, 0.9 to 6 times as high as
wide; something may stand in front; the box is resized to 40 to 200 pixels of height, loses what a small camera loses
there, and is fitted into the network's input with its proportions kept, the edge repeated beside it.
"""

from typing import Protocol

import cv2
import numpy as np

from pipeline.base.images import fit, nearest
from pipeline.parsing.augmentation import UNKNOWN, Sample, degrade, hide, light, maybe_flip

HEIGHTS = (40, 200)  # of a crop, in pixels
CLEAR = 64  # pixels of height below which a crop has lost enough by its size
ASPECTS = (0.9, 6.0)  # height over width
# Which part of the person the box takes, how often, and how much higher than wide it is in the middle
WHOLE, ABOVE, BELOW = 0.62, 0.28, 0.10
TALL, WIDE = 2.3, 1.5
LEFT = 0.4  # the least share of the body that occluders leave

Frame = tuple[float, float, float, float]  # top, left, bottom, right in pixels; may leave the picture


class Pictures(Protocol):
    """Pictures of people, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Sample: ...


def surveil(sample: Sample, taxonomy: str, generator: np.random.Generator, *, size: tuple[int, int] | None = None,
            others: Pictures = ()) -> Sample:
    """One surveillance crop out of a picture, at `size` (height, width) or the picture's own.

    others: pictures of other people, pieces of which may stand in front.
    """
    sample = maybe_flip(sample, taxonomy, generator)
    height, width = size or sample[1].shape
    frame = draw_frame(sample[1], generator)
    sample = cut(sample, frame, generator)
    sample = cover(sample, others, generator)

    image, labels, uv = sample
    rows = int(np.exp(generator.uniform(*np.log(HEIGHTS))).round())
    columns = max(round(rows * labels.shape[1] / labels.shape[0]), 8)
    image = light(fit(image, rows, columns), generator)
    if rows >= CLEAR:
        image = degrade(shake(image, generator), generator)
    return letterbox((image, labels, uv), height, width)


def draw_frame(labels: np.ndarray, generator: np.random.Generator) -> Frame:
    """A detector's box around the person of a label map (h, w): whole, or cut through above or below."""
    rows, columns = (np.flatnonzero((labels > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        rows, columns = np.arange(labels.shape[0]), np.arange(labels.shape[1])
    top, bottom, middle = float(rows[0]), float(rows[-1] + 1), (columns[0] + columns[-1] + 1) / 2
    tall = bottom - top

    kind, aspect = generator.choice(3, p=(WHOLE, ABOVE, BELOW)), TALL
    if kind == 0:
        top, bottom = top - tall * generator.uniform(-0.04, 0.15), bottom + tall * generator.uniform(-0.06, 0.12)
    elif kind == 1:
        top, bottom = top - tall * generator.uniform(-0.02, 0.1), top + tall * generator.uniform(0.35, 0.9)
        aspect = WIDE
    else:
        top, bottom = top + tall * generator.uniform(0.1, 0.6), bottom + tall * generator.uniform(-0.04, 0.1)
        aspect = WIDE

    aspect = float(np.clip(aspect * np.exp(generator.normal(0, 0.35)), *ASPECTS))
    wide = (bottom - top) / aspect
    middle += wide * generator.uniform(-0.18, 0.18)
    return top, middle - wide / 2, bottom, middle + wide / 2


def cut(sample: Sample, frame: Frame, generator: np.random.Generator) -> Sample:
    """What a frame shows, at the picture's scale, turned within 6 degrees and squeezed within 10 %. Beyond the picture
    its edge is repeated, in labels and u,v too: a body that it cuts goes on."""
    top, left, bottom, right = frame
    squeeze, angle = np.exp(generator.uniform(-0.1, 0.1)), np.deg2rad(generator.uniform(-6, 6))
    height, width = max(round(bottom - top), 8), max(round((right - left) * squeeze), 4)
    matrix = np.array([[np.cos(angle) * squeeze, -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([left + right - 1, top + bottom - 1]) / 2
    matrix = np.column_stack([matrix, np.array([width - 1, height - 1]) / 2 - matrix @ middle])

    def warp(array: np.ndarray, flags: int) -> np.ndarray:
        return cv2.warpAffine(np.ascontiguousarray(array), matrix, (width, height), flags=flags,
                              borderMode=cv2.BORDER_REPLICATE)

    image, labels, uv = sample
    together = warp(np.dstack([labels, uv]), cv2.INTER_NEAREST)  # by itself each may round elsewhere to the nearest
    return warp(image, cv2.INTER_LINEAR), together[..., 0], together[..., 1:]


def cover(sample: Sample, others: Pictures, generator: np.random.Generator) -> Sample:
    """Something in front of the person, sometimes: a rectangle, a piece of another picture, another person. It is
    background, and leaves at least LEFT of the body."""
    for chance in (0.4, 0.15):
        if generator.random() >= chance:
            continue
        kind = generator.choice(3) if len(others) else 0
        if kind == 0:
            covered = hide(sample, generator)
        else:
            other = others[int(generator.integers(len(others)))]
            covered = (piece_in_front if kind == 1 else person_in_front)(sample, other, generator)
        if (covered[1] > 0).sum() >= LEFT * (sample[1] > 0).sum():
            sample = covered

    return sample


def piece_in_front(sample: Sample, other: Sample, generator: np.random.Generator) -> Sample:
    """A rectangle out of another picture, its corners rounded or not, anywhere."""
    height, width = sample[1].shape
    size = np.maximum(generator.uniform(0.15, 0.6, 2) * (height, width), 2).astype(int)
    size = np.minimum(size, other[1].shape)
    start = [int(generator.integers(0, whole - side + 1)) for whole, side in zip(other[1].shape, size, strict=True)]
    piece = other[0][start[0]:start[0] + size[0], start[1]:start[1] + size[1]]
    shape = np.zeros(size, np.uint8)
    if generator.random() < 0.5:
        cv2.ellipse(shape, tuple(int(side / 2) for side in size[::-1]), tuple(int(side / 2) for side in size[::-1]),
                    0, 0, 360, 1, -1)
    else:
        shape[:] = 1

    place = generator.uniform(-0.3, 1, 2) * (height, width)
    return _paste(sample, piece, shape > 0, int(place[0]), int(place[1]))


def person_in_front(sample: Sample, other: Sample, generator: np.random.Generator) -> Sample:
    """Another person, cut out of their picture, beside the middle."""
    rows, columns = (np.flatnonzero((other[1] > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return sample
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    height, width = sample[1].shape
    scale = height * generator.uniform(0.6, 1.1) / (rows[-1] + 1 - rows[0])
    size = [max(int(side * scale), 2) for side in other[1][box].shape]
    piece, shape = fit(other[0][box], *size), nearest(np.ascontiguousarray(other[1][box]), *size) > 0

    side = generator.choice((-1, 1))
    middle = width / 2 + side * generator.uniform(0.3, 0.6) * max(width, size[1])
    top = height * generator.uniform(0, 0.5)
    return _paste(sample, piece, shape, int(top), int(middle - size[1] / 2))


def _paste(sample: Sample, piece: np.ndarray, shape: np.ndarray, top: int, left: int) -> Sample:
    """`piece` (h, w, 3) where `shape` (h, w) bool is, its upper left corner at (top, left), as background."""
    height, width = sample[1].shape
    rows, columns = slice(max(top, 0), min(top + shape.shape[0], height)), slice(max(left, 0),
                                                                                  min(left + shape.shape[1], width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return sample
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    image, labels, uv = (array.copy() for array in sample)
    front = shape[inside]
    image[rows, columns][front] = piece[inside][front]
    labels[rows, columns][front] = 0
    uv[rows, columns][front] = 0
    return image, labels, uv


def shake(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Motion blur along a line of 3 to 5 pixels, sometimes."""
    if generator.random() >= 0.15:
        return image
    length, angle = int(generator.integers(3, 6)), generator.uniform(0, np.pi)
    kernel = np.zeros((5, 5), np.float32)
    for step in np.linspace(-(length - 1) / 2, (length - 1) / 2, 2 * length):
        kernel[round(2 + step * np.sin(angle)), round(2 + step * np.cos(angle))] = 1
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def letterbox(sample: Sample, height: int, width: int) -> Sample:
    """A crop in the middle of height x width with its proportions kept, its edge repeated around it; labels there are
    UNKNOWN."""
    image, labels, uv = sample
    rows, columns = labels.shape
    scale = min(height / rows, width / columns)
    size = min(max(round(rows * scale), 1), height), min(max(round(columns * scale), 1), width)
    above, before = (height - size[0]) // 2, (width - size[1]) // 2
    border = (above, height - size[0] - above, before, width - size[1] - before)

    image = cv2.copyMakeBorder(fit(image, *size), *border, cv2.BORDER_REPLICATE)
    labels = cv2.copyMakeBorder(nearest(labels, *size), *border, cv2.BORDER_CONSTANT, value=UNKNOWN)
    uv = cv2.copyMakeBorder(nearest(uv, *size), *border, cv2.BORDER_CONSTANT, value=0)
    return image, labels, uv
