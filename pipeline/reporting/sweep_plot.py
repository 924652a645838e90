"""Sweep plot and CSV from a sweep's results: rank-1 and mAP against the value, with their intervals."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from pipeline.base.errors import InputError
from pipeline.reporting.plots import DPI, FAINT, INK, STYLE

# metric: name, colour, marker, line style; told apart without colour too
DRAWN = {"rank1": ("rank-1", "#0072b2", "o", "-"), "mAP": ("mAP", "#d55e00", "s", "--")}
APART = 3  # points between the two bars at one value
COLUMNS = ["value", "result", *(name + end for name in DRAWN for end in ("", "_low", "_high")), "queries"]


@dataclass(frozen=True)
class Point:
    """One value's result. `metrics`: rank1 and mAP in percent, with _low and _high, the ends of the 95 % interval, NaN
    where there is none."""
    value: float
    result: str
    metrics: Mapping[str, float]
    queries: int


def point(value: float, result: str, sections: Mapping[str, tuple[Mapping[str, Any], Any]], dataset: str) -> Point:
    """From what `results.read_metrics` gives. InputError if it lacks the data set or one of the metrics."""
    try:
        section, _ = sections[dataset]
        metrics = {name: float(section[name]) for name in DRAWN}
        metrics |= {name + end: float(section.get(name + end, nan)) for name in DRAWN for end in ("_low", "_high")}
        return Point(value, result, metrics, int(section["queries"]))
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"the metrics of {result!r} hold no rank1 and mAP on {dataset!r} ({error}); "
                         f"run `dvc repro evaluate@{result}` again") from error


def as_csv(points: Sequence[Point]) -> str:
    """A line per value, metrics in percent."""
    text = io.StringIO()
    lines = ([f"{at.value:g}", at.result, *(_cell(at.metrics[name]) for name in COLUMNS[2:-1]), at.queries]
             for at in points)
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
    return text.getvalue()


def _cell(percent: float) -> str:
    return "" if isnan(percent) else f"{percent:.2f}"


@matplotlib.rc_context(STYLE)
def sweep_figure(points: Sequence[Point], *, title: str, what: str, axis: str, best: Sequence[float]) -> Figure:
    """Percent against the values, `axis` linear or log. A dashed line stands at each of the paper's `best` values."""
    figure = Figure(figsize=(6.4, 4.2), dpi=DPI)
    axes = figure.add_subplot()
    axes.set_xscale(axis)
    values = [at.value for at in points]
    axes.update_datalim([(value, 0.0) for value in values])  # what is drawn aside of its place does not count

    for number, (name, (label, colour, marker, line)) in enumerate(DRAWN.items()):
        aside = axes.transData + ScaledTranslation((number - 0.5) * APART / 72, 0, figure.dpi_scale_trans)
        low, high = ([at.metrics[name + end] for at in points] for end in ("_low", "_high"))
        axes.vlines(values, low, high, color=colour, linewidth=1.2, alpha=0.6, transform=aside)
        axes.plot(values, [at.metrics[name] for at in points], color=colour, marker=marker, linestyle=line,
                  markersize=5, linewidth=1.6, label=label, transform=aside)

    for place, value in enumerate(best):
        axes.axvline(value, color=INK, linestyle=(0, (5, 4)), linewidth=1.4, zorder=0.9,
                     label=f"the paper's best, {', '.join(f'{other:g}' for other in best)}" if place == 0 else None)

    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set(xlabel=what, ylabel="percent", ylim=(0, _top(points)))
    axes.grid(axis="y", color="#dde3ea", linewidth=0.6)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=9, ncols=3)
    unmarked = "" if best else " The paper names no best value."
    figure.text(0.99, 0.01, "Bars: 95 % bootstrap over identities." + unmarked, fontsize=8, color=FAINT, ha="right")
    figure.tight_layout(rect=(0, 0.01, 1, 1))
    return figure


def _top(points: Sequence[Point]) -> float:
    """A little above the highest point or bar, in tens, at most 100."""
    highest = max(end for at in points for end in at.metrics.values() if not isnan(end))
    return min(100.0, 10.0 * (highest // 10 + 1))


@matplotlib.rc_context(STYLE)
def as_svg(figure: Figure) -> bytes:
    data = io.BytesIO()
    FigureCanvasSVG(figure).print_figure(data, format="svg", facecolor="white",
                                         metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return data.getvalue()


@matplotlib.rc_context(STYLE)
def as_png(figure: Figure) -> bytes:
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png", dpi=2 * DPI, metadata={"Software": None})
    return data.getvalue()
