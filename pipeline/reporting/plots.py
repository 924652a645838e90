"""Plots of a report as PNG and SVG bytes, the same for the same input. Sizes are pixels."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.base.body_parts import DENSEPOSE24, PARTS8

PART_COLOURS = np.array([[236, 236, 236], [230, 159, 0], [0, 114, 178], [204, 121, 167], [86, 180, 233], [0, 158, 115],
                         [240, 228, 66], [213, 94, 0]], np.uint8)  # Okabe and Ito's, told apart by the colour-blind
RIGHT, WRONG, QUERY = "#1a8f3c", "#c62828", "#667085"
SHOWING, HIDDEN = "#1d4ed8", "#facc15"  # stripes of a query, SORN Fig. 2's blue and yellow
EMPTY = 225  # grey of texels that were never written
INK, FAINT = "#1f2933", "#667085"
DPI = 100
CROP = (128, 256)  # width, height of a person's image
GAP, MARGIN, FRAME, BORDER = 20, 12, 6, 5
STYLE: Any = {"font.family": "DejaVu Sans", "svg.hashsalt": "semalign", "text.parse_math": False,
              "axes.spines.top": False, "axes.spines.right": False, "text.color": INK, "axes.labelcolor": INK}


@dataclass(frozen=True)
class ListedImage:
    """One place in a rank list: `image` (H, W, 3) uint8, its file `name`, `pid`, and whether it is right (gallery).

    pid, right: None where nobody knows; stripes: of each equal stripe, from the top, whether it counts as visible.
    """
    image: np.ndarray
    name: str
    pid: int | None
    right: bool | None = None
    stripes: tuple[bool, ...] = ()


class Canvas:
    """A white sheet on which images and text are placed in pixels from the top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def place(self, image: np.ndarray, x: int, y: int, size: tuple[int, int] = CROP, frame: str | None = None) -> None:
        """An image (H, W, 3) uint8 scaled to `size` (width, height), with a frame around it if a colour is given."""
        width, height = size
        if frame:
            colour = (np.array(to_rgb(frame)) * 255).round().astype(np.uint8)
            self.pixels[y - FRAME:y + height + FRAME, x - FRAME:x + width + FRAME] = colour
        self.pixels[y:y + height, x:x + width] = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)

    def outline(self, stripes: Sequence[bool], x: int, y: int) -> None:
        """Borders inside a person's image around its equal stripes: SHOWING where visible, HIDDEN where not."""
        for number, visible in enumerate(stripes):
            top, bottom = (y + edge * CROP[1] // len(stripes) for edge in (number, number + 1))
            stripe = self.pixels[top:bottom, x:x + CROP[0]]
            inside = stripe[BORDER:-BORDER, BORDER:-BORDER].copy()
            stripe[:] = (np.array(to_rgb(SHOWING if visible else HIDDEN)) * 255).round().astype(np.uint8)
            stripe[BORDER:-BORDER, BORDER:-BORDER] = inside

    def write(self, text: str, x: float, y: float, size: int = 18, colour: str = INK, align: str = "left",
              bold: bool = False) -> None:
        """Text whose top stands at y, `size` pixels high."""
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size * 72 / DPI, color=colour, ha=align,
                         va="top", fontweight="bold" if bold else "normal", linespacing=1.15)

    def png(self) -> bytes:
        self.figure.figimage(self.pixels)
        data = io.BytesIO()
        FigureCanvasAgg(self.figure).print_figure(data, format="png", dpi=DPI, metadata={"Software": None})
        return data.getvalue()


def part_colours(labels: np.ndarray) -> np.ndarray:
    """Labels of the 8 parts (H, W) as colours (H, W, 3) uint8."""
    return PART_COLOURS[labels]


def heat(values: np.ndarray) -> np.ndarray:
    """uint8 (H, W), 0 certain to 255 undecided, as colours (H, W, 3) uint8 from black over red to light yellow."""
    return (matplotlib.colormaps["magma"](values)[..., :3] * 255).round().astype(np.uint8)


def parse_figure(samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> bytes:
    """PNG: a column for each (image (H, W, 3), labels (H, W) of 8 parts, entropy (h, w) uint8), with a legend."""
    images, labels, entropies = zip(*samples, strict=True)
    rows = [("image", images), ("parts", [*map(part_colours, labels)]), ("entropy", [*map(heat, entropies)])]
    return grid_figure(rows, parts=True, heated="entropy: 0 to that of 8 equal parts")


@matplotlib.rc_context(STYLE)
def grid_figure(rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, columns: Sequence[str] = (), parts: bool = False,
                heated: str = "") -> bytes:
    """PNG: rows of (name, images (H, W, 3) uint8, enlarged without smoothing), under the columns' names if given.

    parts: a legend of the 8 parts' colours below; heated: what the heat map's two ends mean, below that.
    """
    names, top = 140 if any(name for name, _ in rows) else MARGIN, MARGIN + 34 * bool(columns)
    bottom = top + len(rows) * (CROP[1] + GAP)
    sheet = Canvas(names + max(len(images) for _, images in rows) * (CROP[0] + GAP) + MARGIN,
                   bottom + 60 * parts + 30 * bool(heated))

    for place, name in enumerate(columns):
        sheet.write(name, names + place * (CROP[0] + GAP) + CROP[0] / 2, MARGIN, size=17, align="center")

    for row, (name, images) in enumerate(rows):
        y = top + row * (CROP[1] + GAP)
        sheet.write("\n".join(textwrap.wrap(name, 10)), MARGIN, y + CROP[1] // 2 - 10, size=20)
        for place, image in enumerate(images):
            sheet.place(image, names + place * (CROP[0] + GAP), y)

    if parts:
        _part_legend(sheet, bottom)
    if heated:
        sheet.place(heat(np.arange(256, dtype=np.uint8)[None]), MARGIN, bottom + 60 * parts, (160, 20))
        sheet.write(heated, MARGIN + 172, bottom + 60 * parts, size=17)
    return sheet.png()


def _part_legend(sheet: Canvas, top: int) -> None:
    """The 8 parts' colours in two lines."""
    step = (sheet.width - 2 * MARGIN) // 4
    for part, name in enumerate(PARTS8):
        x, y = MARGIN + part % 4 * step, top + part // 4 * 30
        sheet.place(PART_COLOURS[part][None, None], x, y, (20, 20))
        sheet.write(name, x + 28, y, size=17)


@matplotlib.rc_context(STYLE)
def dsap_figure(image: np.ndarray, parts: np.ndarray, valid: np.ndarray) -> bytes:
    """PNG: an image (H, W, 3) and its 24 part images (24, S, S, 3), six to a row; grey where not `valid` (24, S, S)."""
    side, line = 96, 54
    left = MARGIN + CROP[0] + 2 * GAP
    sheet = Canvas(left + 6 * (side + GAP), 4 * (side + line) + 2 * MARGIN)
    sheet.place(image, MARGIN, MARGIN)

    texels = np.where(valid[..., None] > 0, parts, np.uint8(EMPTY))  # (24, S, S, 3)
    for part, texel in enumerate(texels):
        x, y = left + part % 6 * (side + GAP), MARGIN + part // 6 * (side + line)
        sheet.place(texel, x, y, (side, side))
        sheet.write("\n".join(textwrap.wrap(DENSEPOSE24[part + 1], 14)), x, y + side + 4, size=13, colour=FAINT)
    return sheet.png()


@matplotlib.rc_context(STYLE)
def rank_figure(lists: Sequence[tuple[ListedImage, Sequence[ListedImage]]], *, names: Sequence[str] = ()) -> bytes:
    """PNG: a line for each query and its gallery images, nearest first; green frame: the same person, red: another,
    grey: not known. names: of the lines, at their left; none without."""
    columns = 1 + max(len(nearest) for _, nearest in lists)
    step, line, left = CROP[0] + GAP, CROP[1] + 96, 150 * bool(names)
    sheet = Canvas(left + columns * step + 2 * MARGIN + GAP, len(lists) * line + MARGIN + 30)
    for column in range(columns):
        sheet.write(str(column) if column else "query", left + _column(column) + CROP[0] / 2, 6, align="center",
                    colour=FAINT)
    
    for row, (query, nearest) in enumerate(lists):
        if names:
            sheet.write("\n".join(textwrap.wrap(names[row], 13)), MARGIN, 36 + row * line + CROP[1] // 2 - 30, size=17)
        for column, listed in enumerate((query, *nearest)):
            x, y = left + _column(column), 36 + row * line
            sheet.place(listed.image, x, y, frame=QUERY if listed.right is None else RIGHT if listed.right else WRONG)
            sheet.outline(listed.stripes, x, y)

            if listed.pid is not None:
                sheet.write(f"person {listed.pid}", x, y + CROP[1] + 10, size=16, bold=True)
            sheet.write("\n".join(_lines(listed.name)), x, y + CROP[1] + 32, size=13, colour=FAINT)
    return sheet.png()


def _column(number: int) -> int:
    """Left end of a rank list's column; the query stands a little apart."""
    return MARGIN + number * (CROP[0] + GAP) + (GAP if number else 0)


def _lines(name: str) -> list[str]:
    """A file name in up to three lines that fit under an image, cut behind underscores where it has them."""
    lines = textwrap.wrap(name.replace("_", "_ "), 16)
    lines = [line.replace("_ ", "_") for line in lines]
    return lines if len(lines) <= 3 else [*lines[:2], "..." + name[-12:]]


@matplotlib.rc_context(STYLE)
def cmc_figure(curves: pd.DataFrame, labels: Mapping[str, str]) -> bytes:
    """SVG: CMC curves of one data set, columns run, rank, cmc (0..1); `labels` names the runs in drawing order."""
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.add_subplot()
    for number, (run, label) in enumerate(labels.items()):
        curve = curves[curves["run"] == run]
        axes.plot(curve["rank"], 100 * curve["cmc"], label=label, linewidth=1.6,
                  linestyle=("-", "--", "-.", ":")[number // 10 % 4])

    axes.set(xlabel="rank", ylabel="queries matched by this rank (%)", xlim=(1, curves["rank"].max()), ylim=(0, 100))
    axes.grid(color="#dde3ea", linewidth=0.6)
    axes.legend(frameon=False, loc="lower right", fontsize=9, ncols=1 + len(labels) // 10)
    figure.tight_layout()

    data = io.BytesIO()
    FigureCanvasSVG(figure).print_figure(data, format="svg", facecolor="white",
                                         metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return data.getvalue()
