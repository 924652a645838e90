"""Contact sheets of what a cache holds: one image's maps, or many images. The same input gives the same PNG bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np

from pipeline.base.body_parts import DENSEPOSE24, PARTS4, PARTS8, TAXONOMIES
from pipeline.reporting.plots import EMPTY, FAINT, MARGIN, STYLE, Canvas, heat, part_colours

TILE = 160  # height of a map in pixels; its width follows
GAP, TEXT = 12, 34  # between tiles, under them


@dataclass(frozen=True)
class Tile:
    """An image (H, W, 3) uint8 with a caption of one or two lines."""

    image: np.ndarray
    caption: str


def colours(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels (H, W) < count as colours (H, W, 3) uint8: light grey for background, hues around the circle else."""
    hues = np.arange(count - 1) * 180 * 7 // (count - 1) % 180  # neighbours in number far apart in hue
    hsv = np.stack([hues, np.full(count - 1, 170), 235 - np.arange(count - 1) % 3 * 50], -1).astype(np.uint8)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return np.concatenate([[[236, 236, 236]], rgb]).astype(np.uint8)[labels]


def side_colours(native: np.ndarray) -> np.ndarray:
    """DensePose-24 labels (H, W) as colours (H, W, 3) uint8: right limbs orange, left ones blue, the torso's front
    light grey, its back dark, heads between."""
    shades = {"right": (230, 159, 0), "left": (0, 114, 178), "front": (200, 200, 200), "back": (110, 110, 110)}
    table = np.full((len(DENSEPOSE24), 3), 236, np.uint8)
    for label, name in enumerate(DENSEPOSE24[1:], start=1):
        words = name.split()
        table[label] = (160, 160, 160) if "head" in words else next(shades[word] for word in shades if word in words)
    return table[native]


def grey(values: np.ndarray) -> np.ndarray:
    """uint8 (H, W) as a grey image (H, W, 3)."""
    return np.repeat(values[..., None], 3, -1)


def map_tiles(maps: dict[str, np.ndarray], taxonomy: str) -> list[Tile]:
    """One image's arrays of parts.h5 as tiles."""
    tiles = [Tile(part_colours(np.minimum(maps["labels"], len(PARTS8) - 1)), "labels"),
             Tile(colours(np.minimum(maps["native"], len(TAXONOMIES[taxonomy]) - 1), len(TAXONOMIES[taxonomy])),
                  f"native\n{taxonomy}"), Tile(heat(maps["entropy"]), "entropy")]
    if "uv" in maps:
        body = maps["native"] > 0
        tiles += [Tile(np.where(body[..., None], heat(maps["uv"][..., channel]), EMPTY).astype(np.uint8), name)
                  for channel, name in enumerate("uv")]

    tiles += [Tile(grey(values), f"p({name})\nv {seen / 255:.2f}")
              for name, values, seen in zip(PARTS8, maps["probs/parts8"], maps["visibility"], strict=True)]
    four = zip(PARTS4, maps["probs/parts4"], strict=True)
    return tiles + [Tile(grey(values), f"p4({name})") for name, values in four]


def texel_tiles(dsap: np.ndarray, valid: np.ndarray) -> list[Tile]:
    """One image's dsap (24, S, S, 3) and valid (24, S, S) as tiles; grey where nothing fell."""
    return [Tile(np.where(there[..., None] > 0, texels, EMPTY).astype(np.uint8), f"{part} {DENSEPOSE24[part]}")
            for part, (texels, there) in enumerate(zip(dsap, valid, strict=True), start=1)]


@matplotlib.rc_context(STYLE)
def sheet(sections: Sequence[tuple[str, Sequence[Tile]]], columns: int = 10) -> bytes:
    """PNG: under each title its tiles, `columns` to a row, all TILE high and as wide as the widest."""
    tiles = [tile for _, part in sections for tile in part]
    wide = max((round(TILE * tile.image.shape[1] / tile.image.shape[0]) for tile in tiles), default=TILE)
    step, row = max(wide, 96) + GAP, TILE + TEXT + GAP
    heights = [30 + (-(-len(part) // columns) * row if part else TEXT) for _, part in sections]
    canvas = Canvas(2 * MARGIN + columns * step, 2 * MARGIN + sum(heights))

    top = MARGIN
    for (title, part), height in zip(sections, heights, strict=True):
        canvas.write(title, MARGIN, top, size=17, bold=True)
        if not part:
            canvas.write("none", MARGIN, top + 26, size=15, colour=FAINT)
        for number, tile in enumerate(part):
            x, y = MARGIN + number % columns * step, top + 30 + number // columns * row
            canvas.place(tile.image, x, y, (round(TILE * tile.image.shape[1] / tile.image.shape[0]), TILE))
            canvas.write(tile.caption, x, y + TILE + 3, size=11)
        top += height

    return canvas.png()
