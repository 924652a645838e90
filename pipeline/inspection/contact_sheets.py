"""Contact sheets of what a cache holds: one image's maps, or many images. The same input gives the same PNG bytes."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np

from pipeline.base.body_parts import DENSEPOSE24, PARTS4, PARTS8, TAXONOMIES
from pipeline.base.images import fit, nearest
from pipeline.reporting.plots import EMPTY, FAINT, MARGIN, STYLE, Canvas, heat, part_colours

TILE = 160  # height of a map in pixels; its width follows
WIDEST = 112  # width of an image; a wider one is less high
LEAST = 96  # width of a column, for the captions' sake
GAP, LINE = 12, 14  # between tiles; height of a line of a caption
LETTER = 7  # width of a caption's letters, at most
BACKGROUND = 236  # grey of label 0
SIDES = {"right": (230, 159, 0), "left": (0, 114, 178), "front": (200, 200, 200), "back": (110, 110, 110)}
HEAD = (160, 160, 160)

Legend = Mapping[str, tuple[int, ...]]  # name -> RGB


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
    return np.concatenate([np.full((1, 3), BACKGROUND), rgb]).astype(np.uint8)[labels]


def side_colours(native: np.ndarray) -> np.ndarray:
    """DensePose-24 labels (H, W) as colours (H, W, 3) uint8: right limbs orange, left ones blue, the torso's front
    light grey, its back dark, heads between."""
    table = np.full((len(DENSEPOSE24), 3), BACKGROUND, np.uint8)
    for label, name in enumerate(DENSEPOSE24[1:], start=1):
        words = name.split()
        table[label] = HEAD if "head" in words else next(SIDES[word] for word in SIDES if word in words)
    return table[native]


def part_legend() -> Legend:
    """The colours of the 8 parts."""
    return {name: tuple(part_colours(np.array(part)).tolist()) for part, name in enumerate(PARTS8)}


def side_legend() -> Legend:
    """Those of `side_colours`."""
    return {"right limbs": SIDES["right"], "left limbs": SIDES["left"], "torso's front": SIDES["front"],
            "torso's back": SIDES["back"], "head": HEAD}


def native_legend(native: np.ndarray, taxonomy: str) -> Legend:
    """Those of the native labels that are there."""
    names = TAXONOMIES[taxonomy]
    return {names[label]: tuple(colours(np.array(label), len(names)).tolist())
            for label in np.unique(native).tolist() if label < len(names)}


def grey(values: np.ndarray) -> np.ndarray:
    """uint8 (H, W) as a grey image (H, W, 3)."""
    return np.repeat(values[..., None], 3, -1)


def framed(picture: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) as large as it goes into TILE x WIDEST, in its proportions, white below it: (TILE, w, 3)."""
    fitted = fit(picture, *_within_tile(picture))
    return np.pad(fitted, ((0, TILE - len(fitted)), (0, 0), (0, 0)), constant_values=255)


def beside(picture: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) as `framed`, and to the right of it, as large, what was drawn from its labels (h, w, 3)."""
    rows, columns = _within_tile(picture)
    left = framed(picture)
    right = np.full_like(left, 255)
    right[:rows] = nearest(drawn, rows, columns)
    return np.concatenate([left, right], 1)


def _within_tile(picture: np.ndarray) -> tuple[int, int]:
    scale = min(TILE / picture.shape[0], WIDEST / picture.shape[1])
    return max(round(picture.shape[0] * scale), 1), max(round(picture.shape[1] * scale), 1)


def visibility_bars(visibility: np.ndarray, height: int, width: int) -> np.ndarray:
    """visibility (8,) uint8 -> (height, width, 3) uint8: a bar per part in its colour, from the left as long as it is
    visible, background first."""
    part = np.arange(height) * len(PARTS8) // height  # of each row
    full = np.arange(width) < visibility[part, None] / 255 * width
    return np.where(full[..., None], part_colours(np.repeat(part[:, None], width, 1)), 255).astype(np.uint8)


def map_tiles(maps: dict[str, np.ndarray], taxonomy: str) -> list[Tile]:
    """One image's arrays of parts.h5 as tiles."""
    labels = np.minimum(maps["labels"], len(PARTS8) - 1)
    count = len(TAXONOMIES[taxonomy])
    tiles = [Tile(colours(np.minimum(maps["native"], count - 1), count), f"native\n{taxonomy}"),
             Tile(part_colours(labels), "8 parts"),
             Tile(visibility_bars(maps["visibility"], *labels.shape), "visibility"),
             Tile(heat(maps["entropy"]), "entropy")]
    if "uv" in maps:
        body = maps["native"] > 0
        tiles += [Tile(np.where(body[..., None], heat(maps["uv"][..., channel]), EMPTY).astype(np.uint8), name)
                  for channel, name in enumerate("uv")]

    tiles += [Tile(grey(values), f"p({name})\nv {seen / 255:.2f}")
              for name, values, seen in zip(PARTS8, maps["probs/parts8"], maps["visibility"], strict=True)]
    four = zip(PARTS4, maps["probs/parts4"], strict=True)
    return tiles + [Tile(grey(values), f"p4 {name}") for name, values in four]


def texel_tiles(dsap: np.ndarray, valid: np.ndarray) -> list[Tile]:
    """One image's dsap (24, S, S, 3) and valid (24, S, S) as tiles; grey where nothing fell."""
    return [Tile(np.where(there[..., None] > 0, texels, EMPTY).astype(np.uint8), f"{part} {DENSEPOSE24[part]}")
            for part, (texels, there) in enumerate(zip(dsap, valid, strict=True), start=1)]


@matplotlib.rc_context(STYLE)
def sheet(sections: Sequence[tuple[str, Sequence[Tile]]], columns: int = 10, legends: Mapping[str, Legend] | None = None
          ) -> bytes:
    """PNG: the legends, each behind its name, then under each title its tiles, `columns` to a row, all TILE high and
    columns as wide as the widest; captions are broken where they are too long."""
    tiles = [tile for _, part in sections for tile in part]
    wide = max((round(TILE * tile.image.shape[1] / tile.image.shape[0]) for tile in tiles), default=TILE)
    step = max(wide, LEAST) + GAP
    captions = {tile.caption: _broken(tile.caption, (step - GAP) // LETTER) for tile in tiles}
    row = TILE + GAP + LINE * max((len(lines) for lines in captions.values()), default=1)
    heights = [30 + (-(-len(part) // columns) * row if part else row - TILE) for _, part in sections]

    width = 2 * MARGIN + columns * step
    entries = [_entries(name, legend, width) for name, legend in (legends or {}).items()]
    top = MARGIN + sum(lines for _, lines in entries) * 24 + (GAP if entries else 0)
    canvas = Canvas(width, top + MARGIN + sum(heights))
    _write_legends(canvas, entries)

    for (title, part), height in zip(sections, heights, strict=True):
        canvas.write(title, MARGIN, top, size=17, bold=True)
        if not part:
            canvas.write("none", MARGIN, top + 26, size=15, colour=FAINT)
        for number, tile in enumerate(part):
            x, y = MARGIN + number % columns * step, top + 30 + number // columns * row
            canvas.place(tile.image, x, y, (round(TILE * tile.image.shape[1] / tile.image.shape[0]), TILE))
            canvas.write("\n".join(captions[tile.caption]), x, y + TILE + 3, size=11)
        top += height

    return canvas.png()


def _broken(caption: str, letters: int) -> list[str]:
    """Its lines, broken after `letters` letters."""
    return [part for line in caption.split("\n") for part in textwrap.wrap(line, letters, break_on_hyphens=False)]


Entry = tuple[str, tuple[int, ...] | None, int, int]  # text, colour, x, line from the top of its legend


def _entries(name: str, legend: Legend, width: int) -> tuple[list[Entry], int]:
    """A legend's entries, broken into lines of the sheet's width, and how many lines they take."""
    x, line = MARGIN, 0
    entries: list[Entry] = []
    for text, colour in [(f"{name}:", None), *legend.items()]:
        needs = len(text) * 9 + (12 if colour is None else 40)
        if x + needs > width and x > MARGIN:
            x, line = MARGIN, line + 1
        entries.append((text, colour, x, line))
        x += needs

    return entries, line + 1


def _write_legends(canvas: Canvas, legends: Sequence[tuple[list[Entry], int]]) -> None:
    top = MARGIN
    for entries, lines in legends:
        for text, colour, x, line in entries:
            if colour is not None:
                canvas.place(np.array(colour, np.uint8)[None, None], x, top + 24 * line, (18, 18))
            canvas.write(text, x if colour is None else x + 24, top + 24 * line, size=15)
        top += 24 * lines
