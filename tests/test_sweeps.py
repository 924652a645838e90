"""The papers' sweeps: what each value trains, and the picture of their results."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from pipeline.errors import InputError
from pipeline.params import PLACES
from pipeline.params_file import load_params
from pipeline.sweeps import DRAWN, Point, as_csv, as_png, as_svg, point, sweep_figure
from stages import compose
from stages.code import UNLISTED
from stages.tables import read_sweeps

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("esa", "sgsfa", "sgam", "sorn")
RESULT = "default-sorn-tau-0_5"

# (paper, figure) -> best, and values that must stand there, in the papers' own sentences
PRINTED = {
    ("esa", "5"): ([0.1], {0.01, 0.1}),       # "when lambda is small (for example 0.01)"; "best lambda ... is 0.1"
    ("esa", "6"): ([], {0.1, 0.9}),           # "we increase tau from 0.1 to 0.9"
    ("sgsfa", "6"): ([0.8], {0, 0.2, 0.8, 1}),  # "from 0 to 0.2"; "0.8 is best choice"; "when lambda is 1", "is 0"
    ("sgam", "6"): ([0.2], {0, 0.2, 1}),      # "When lambda = 0.2"; "using only global features or local features"
    ("sorn", "8 (a)"): ([0.15], {0.15}),      # "When tau = 0.15"
    ("sorn", "8 (b)"): ([3], {3}),            # "when the number of patches is set to 3"
    ("sorn", "8 (c)"): ([3], {1, 2, 3, 4}),   # "change N from 1 to 4. When the value of N is set to 3"
}


@pytest.fixture(scope="module", autouse=True)
def project():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def trees(project):
    return {paper: compose.compose(f"sweeps-{paper}") for paper in PAPERS}


def flat(tree, name=""):
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for part, inner in tree.items() for key, value in flat(inner, f"{name}.{part}").items()}


def test_the_sweeps_are_those_of_the_papers():
    found = {(sweep.paper, sweep.figure): sweep for sweep in read_sweeps()}
    assert found.keys() == PRINTED.keys()
    for key, (best, values) in PRINTED.items():
        sweep = found[key]
        assert sweep.best == best and values <= set(sweep.values) and set(sweep.printed) <= values
        assert sweep.values == sorted(set(sweep.values)) and {sweep.own, *best} <= set(sweep.values)


def test_each_value_changes_its_field_alone_and_the_own_one_nothing(trees):
    """Run and matching of each value, compared key by key with the full model's."""
    count = 0
    for sweep in read_sweeps():
        tree = trees[sweep.paper]
        for key, entry in tree["sweeps"].items():
            if not key.startswith(f"default-{sweep.name}-on-"):
                continue
            full = settings(tree, entry, entry["results"][entry["values"].index(sweep.own)])
            assert full["run"] == f"default-{sweep.paper}" + (
                "" if entry["trained_on"] == "default-synth-occluded" else "-synth-holistic")
            assert full[f"about.{sweep.field}"] == sweep.own
            for value, result in zip(entry["values"], entry["results"], strict=True):
                found = settings(tree, entry, result)
                changed = {name for name in found if found[name] != full[name]} - {"run"}
                allowed = {f"about.{sweep.field}"} | {f"about{name}" for name in flat(sweep.at.get(value, {}))}
                assert found[f"about.{sweep.field}"] == value
                assert changed == (set() if value == sweep.own else allowed), (result, changed)
                # a training per value, but for what acts at test time alone: SORN's tau
                assert (found["run"] == full["run"]) == (value == sweep.own or sweep.name == "sorn-tau")
                count += 1
    assert count == 6 + 9 + 6 + 7 + 2 * (7 + 5 + 4)


def settings(tree, entry, result):
    pair = tree["embed"][f"{result}-on-{entry['dataset'].removeprefix('default-')}"]
    run = tree["runs"][pair["run"]]
    assert (pair["dataset"], run["train_on"]) == (entry["dataset"], entry["trained_on"])
    return flat({**run, "match": pair["match"]}, "about") | {"run": pair["run"]}


def test_sgam_s_ends_are_matched_by_what_was_trained(trees):
    embed = trees["sgam"]["embed"]
    assert embed["default-sgam-lambda-0-on-synth-occluded"]["match"]["features"] == "local"
    assert embed["default-sgam-lambda-1-on-synth-occluded"]["match"]["features"] == "global"


def test_no_name_holds_a_dot(trees):
    """In DVC's names of parameters a dot starts a level: `runs.default-esa-lambda-0.01` would track nothing."""
    for tree in trees.values():
        assert not [key for section in ("runs", "embed", "evaluate", "sweeps") for key in tree[section] if "." in key]


def test_a_sweep_without_all_its_results_is_left_out(project):
    scale, entry = "default", {"results": ["a", "b"], "dataset": "d", "trained_on": "d", "values": [1, 2]}
    assert dict(compose._sweeps(scale, {"s": entry}, {"default-a-on-d": {}})) == {}
    found = dict(compose._sweeps(scale, {"s": entry}, {"default-a-on-d": {}, "default-b-on-d": {}}))
    assert found["default-s"]["reads"] == ["metrics/default/default-a.json"] + ["metrics/default/default-b.json"] * 8
    with pytest.raises(InputError, match="takes 9 files and not 10, the last 'metrics/default/default-a.json'"):
        dict(compose._sweeps(scale, {"s": entry | {"results": ["a"] * 10}}, {"default-a-on-d": {}}))


def test_the_stage_depends_on_as_many_files_as_compose_names():
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["sweep"]["do"]["deps"]
    assert [dep for dep in deps if "reads" in dep] == [f"${{item.reads[{place}]}}" for place in range(PLACES["sweep"])]


def test_files_of_other_results_are_refused(trees, tmp_path):
    tree = trees["sgsfa"]
    path = tmp_path / "params.yaml"
    text = compose.as_text(tree, "sweeps-sgsfa")
    path.write_text(text)
    load_params(path)
    path.write_text(text.replace("metrics/default/default-sgsfa-lambda-0_2.json", "metrics/default/default-sorn.json"))
    with pytest.raises(InputError, match=r"sweeps.default-sgsfa-lambda-on-synth-occluded.reads\[1\]: .*default-sorn"):
        load_params(path)


def metrics(rank1, mean, dataset="default-synth-occluded"):
    return {"_made": [{}], dataset: {
        "rank1": rank1, "mAP": mean, "queries": 120,
        "details": [{"rank1_low": rank1 - 6, "rank1_high": rank1 + 7, "mAP_low": mean - 3, "mAP_high": mean + 2}]}}


def points(values=(0.001, 0.1, 1.0)):
    return [point(value, f"r{number}", metrics(40.0 + number, 30.5 - number), "default-synth-occluded")
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


@pytest.mark.parametrize("wrong", [{}, metrics(1, 1, "other"), {"d": {"rank1": 1.0, "mAP": 1.0, "queries": 1}}])
def test_metrics_without_the_figures_are_refused_by_name(wrong):
    with pytest.raises(InputError, match="the metrics of 'a-run' hold no rank1 and mAP with intervals on 'd'"):
        point(0.1, "a-run", wrong, "d")


def test_bars_that_do_not_hold_the_figure_are_drawn_as_they_are():
    """A bootstrap interval need not contain the figure; matplotlib's errorbar refuses such ones."""
    odd = Point(1.0, "r", {"rank1": 50.0, "rank1_low": 51.0, "rank1_high": 60.0, "mAP": 1.0, "mAP_low": 0.0,
                           "mAP_high": 0.5}, 9)
    bars = sweep_figure([odd], title="", what="", axis="linear", best=[]).axes[0].collections[0]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [51, 60])


def test_dvc_makes_the_picture_and_again_when_one_result_changes(trees, tmp_path):
    """The stage as dvc.yaml has it, on made-up metrics, with nothing but the files of its list."""
    key = "default-sorn-tau-on-synth-occluded"
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["sweep"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"sweep": stage}}))
    tree = trees["sorn"] | {"sweeps": {key: trees["sorn"]["sweeps"][key]}}
    (tmp_path / "params.yaml").write_text(compose.as_text(tree, "sweeps-sorn"))
    [listing] = [name for name in stage["do"]["deps"] if name.startswith("code/")]
    files = [line.split("  ")[1] for line in (ROOT / listing).read_text().splitlines()]
    for file in [*files, listing, *UNLISTED]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    files = [tmp_path / name for name in tree["sweeps"][key]["reads"]]
    files[0].parent.mkdir(parents=True)
    for number, file in enumerate(files):
        file.write_text(json.dumps(metrics(40.0 + min(number, 6), 30.0)))

    def dvc(*words):
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(tmp_path),
                       "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc("init", "--no-scm", "-q")
    dvc("repro")
    made = tmp_path / "reports/sweeps" / key
    assert {path.name for path in made.iterdir()} == {"figure.svg", "figure.png", "values.csv"}
    lines = list(csv.DictReader((made / "values.csv").read_text().splitlines()))
    assert [(line["value"], line["rank1"]) for line in lines] == [
        ("0", "40.00"), ("0.05", "41.00"), ("0.1", "42.00"), ("0.15", "43.00"), ("0.2", "44.00"), ("0.3", "45.00"),
        ("0.5", "46.00")]
    (tmp_path / f"metrics/default/{RESULT}.json").write_text(json.dumps(metrics(12.0, 30.0)))
    assert f"sweep@{key}" in dvc("repro")
    assert ",12.00," in (made / "values.csv").read_text()


