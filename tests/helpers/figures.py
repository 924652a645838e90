"""Flat figures of head, torso, arms and legs, a stand-in for a rendered set that parsers learn from."""

from pathlib import Path

import h5py
import numpy as np

from pipeline.base.images import write_image
from pipeline.parsing.rendered_set import ParsingSet

HEIGHT, WIDTH = 64, 32
# (DensePose id of the person's right limb, of the left one), rows, columns right of the middle that it fills
LIMBS = (((16, 15), (18, 28), (6, 11)), ((20, 19), (28, 36), (6, 11)), ((3, 4), (36, 41), (6, 11)),
         ((9, 10), (34, 46), (1, 7)), ((13, 14), (46, 56), (1, 7)), ((6, 5), (56, 61), (1, 8)))
COLOURS = np.random.default_rng(5).integers(30, 256, (25, 3), dtype=np.uint8)
COLOURS[0] = 0


def figure(*, shift: int = 0, raised: int = 0, mirrored: bool = False):
    """A figure seen from the front, its right limbs on the picture's left, or the mirror image: the same figure
    mirrored, whose left hand is where the right one was. `raised` moves one arm, so that sides differ."""
    middle = WIDTH // 2 + (-shift if mirrored else shift)
    labels, uv = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    across = np.arange(WIDTH) - middle + 0.5  # of the pixel centres

    def paint(part, rows, columns, u, v):
        block = np.ix_(np.arange(*rows), columns)
        labels[block], uv[(*block, 0)], uv[(*block, 1)] = part, u, v

    for side in (-1, 1):
        columns = np.flatnonzero((side * across > 0) & (np.abs(across) < 5))
        paint(23 if side < 0 else 24, (4, 16), columns, np.round((across[columns] + 5) / 10 * 255), 100)
        for pair, (top, bottom), (inner, outer) in LIMBS:
            columns = np.flatnonzero((side * across > inner) & (side * across < outer))
            up = raised if (top < 40 and inner == 6 and side == (1 if mirrored else -1)) else 0
            along = np.arange(bottom - top)[:, None] * 20
            if pair[side > 0] in (4, 5):  # DensePose's left hand and left foot run against the right ones
                along = 255 - along
            paint(pair[side > 0], (top - up, bottom - up), columns, along, np.abs(across[columns]) * 16)
    columns = np.flatnonzero(np.abs(across) < 6)
    paint(2, (16, 34), columns, 50, np.round((across[columns] + 6) / 12 * 255))
    return COLOURS[labels], labels, uv


def write_set(folder: Path, *, train: int, val: int) -> Path:
    generator = np.random.default_rng(0)
    rows = []
    for part, count in (("train", train), ("val", val)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            image, labels, uv = figure(shift=int(generator.integers(-5, 6)), raised=int(generator.integers(0, 10)))
            write_image(folder / part / f"{number:05d}.png", image)
            rows.append((f"{part}/{number:05d}.png", labels, uv))
    with h5py.File(folder / "labels.h5", "w") as file:
        paths, labels, uv = zip(*rows, strict=True)
        file["path"] = np.array(paths, dtype=h5py.string_dtype())
        file["index"], file["uv"] = np.stack(labels), np.stack(uv)
        file["occlusion"] = np.arange(len(rows)) % 2 * np.float32(0.2)
    return folder


def pictures_of(folder, part="train"):
    return ParsingSet(folder, part, taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH)
