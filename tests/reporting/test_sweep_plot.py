"""The plot of a sweep: what is drawn is what the results hold."""

import csv
import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from pipeline.base.errors import InputError
from pipeline.reporting.sweep_plot import DRAWN, Point, as_csv, as_png, as_svg, point, sweep_figure


def sections(rank1, mean, dataset="synth-occluded"):
    """A result's metrics as `read_metrics` gives them."""
    metrics = {"rank1": rank1, "mAP": mean, "queries": 120, "rank1_low": rank1 - 6, "rank1_high": rank1 + 7,
               "mAP_low": mean - 3, "mAP_high": mean + 2}
    return {dataset: (metrics, {})}


def points(values=(0.001, 0.1, 1.0)):
    return [point(value, f"r{number}", sections(40.0 + number, 30.5 - number), "synth-occluded")
            for number, value in enumerate(values)]


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_the_picture_shows_the_figures_their_intervals_and_the_papers_best(axis):
    """What is drawn is read back from the picture's own lines."""
    figure = sweep_figure(points(), title="a title", what="lambda", axis=axis, best=[0.1])
    axes, = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    for name, expected in (("rank-1", [40, 41, 42]), ("mAP", [30.5, 29.5, 28.5])):
        np.testing.assert_array_equal(lines[name].get_data(), [[0.001, 0.1, 1.0], expected])
    best = lines["the paper's best, 0.1"]
    assert list(best.get_xdata()) == [0.1, 0.1] and best.is_dashed()
    for bars, (name, colour, *_), low, high in zip(axes.collections, DRAWN.values(), (34, 27.5), (47, 32.5),
                                                   strict=True):
        sign = 1 if name == "rank-1" else -1
        np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()],
                                   [[low + sign * number, high + sign * number] for number in range(3)])
        assert to_hex(bars.get_color()[0]) == colour
    assert axes.get_xscale() == axis and axes.get_xlim()[0] < 0.001 < 1.0 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= 49


def test_where_the_paper_names_no_best_none_is_marked_and_it_is_said():
    figure = sweep_figure(points(), title="a title", what="tau", axis="linear", best=[])
    assert [line.get_label() for line in figure.axes[0].lines] == ["rank-1", "mAP"]
    assert figure.texts[0].get_text().endswith("The paper names no best value.")


def test_all_text_lies_inside_the_picture():
    title = "ESA-ReID, the sweep of Fig. 5\non synth-partial, in the place of partial-reid and partial-ilids\ntrained"
    figure = sweep_figure(points(), title=title, what="tau (Eq. 12), share of foreground from which on a stripe is "
                          "visible", axis="log", best=[0.1])
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    for text in (axes._left_title, axes.xaxis.label, axes.yaxis.label, axes.get_legend(), *figure.texts):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text


def test_the_same_points_give_the_same_bytes():
    def drawn():
        return sweep_figure(points(), title="a title", what="tau", axis="linear", best=[0.1])
    assert as_svg(drawn()) == as_svg(drawn()) and as_png(drawn()) == as_png(drawn())


def test_the_csv_holds_the_figures_of_the_metrics():
    lines = list(csv.DictReader(io.StringIO(as_csv(points()))))
    assert [line["value"] for line in lines] == ["0.001", "0.1", "1"]
    assert lines[1] == {"value": "0.1", "result": "r1", "rank1": "41.00", "rank1_low": "35.00", "rank1_high": "48.00",
                        "mAP": "29.50", "mAP_low": "26.50", "mAP_high": "31.50", "queries": "120"}


def test_a_result_without_intervals_has_no_bars():
    """As one of before, whose intervals were over queries."""
    bare = {"d": ({"rank1": 30.0, "mAP": 20.0, "queries": 5}, {})}
    given = [point(0.1, "r", bare, "d"), point(0.2, "s", sections(41.0, 29.5, "d"), "d")]
    assert as_csv(given).splitlines()[1] == "0.1,r,30.00,,,20.00,,,5"
    figure = sweep_figure(given, title="a title", what="tau", axis="linear", best=[])
    drawn = [path for bars in figure.axes[0].collections for path in bars.get_segments() if len(path)]
    assert [path[0, 0] for path in drawn] == [0.2, 0.2] and figure.axes[0].get_ylim()[1] == 50


@pytest.mark.parametrize("wrong", [{}, sections(1, 1, "other"), {"d": ({"rank1": 1.0, "queries": 1}, {})}])
def test_metrics_without_the_figures_are_refused_by_name(wrong):
    with pytest.raises(InputError, match="the metrics of 'a-run' hold no rank1 and mAP on 'd'"):
        point(0.1, "a-run", wrong, "d")


def test_bars_that_do_not_hold_the_figure_are_drawn_as_they_are():
    """A bootstrap interval need not contain the figure; matplotlib's errorbar refuses such ones."""
    odd = Point(1.0, "r", {"rank1": 50.0, "rank1_low": 51.0, "rank1_high": 60.0, "mAP": 1.0, "mAP_low": 0.0,
                           "mAP_high": 0.5}, 9)
    bars = sweep_figure([odd], title="", what="", axis="linear", best=[]).axes[0].collections[0]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [51, 60])
