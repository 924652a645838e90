"""What DVC promises a user: only what is stale runs again, and changes can be compared."""

import json
import re

import pytest
import yaml


@pytest.fixture
def edited(tiny):
    """The tiny project with one leaf of one run changed, and changed back afterwards."""
    path = tiny.folder / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("lambda_spc: 0.5", "lambda_spc: 0.25"))
    yield tiny
    path.write_text(before)
    tiny.run("dvc", "repro")  # from DVC's run cache


def test_a_second_repro_has_nothing_to_do(tiny):
    assert "Data and pipelines are up to date." in tiny.run("dvc", "repro").stdout


def test_a_run_s_parameter_runs_that_run_again_and_the_report(edited):
    diff = json.loads(edited.run("dvc", "params", "diff", "--json").stdout)
    assert list(diff["params.yaml"]) == ["runs.default-sorn.model.lambda_spc"]
    change = diff["params.yaml"]["runs.default-sorn.model.lambda_spc"]
    assert (change["old"], change["new"]) == (0.5, 0.25)
    ran = re.findall(r"Running stage '([^']+)'", edited.run("dvc", "repro").stdout)
    assert ran == ["train@default-sorn", "embed@default-sorn-on-synth-occluded", "evaluate@default-sorn",
                   "report@default-rendered"]


def test_an_experiment_changes_metrics_and_plots(tiny):
    tiny.run("dvc", "exp", "run", "--name", "no-spc", "-S", "runs.default-sorn.model.lambda_spc=0.0", timeout=300)
    metrics = json.loads(tiny.run("dvc", "metrics", "diff", "--all", "--json").stdout)
    figures = metrics["metrics/default/default-sorn.json"]
    assert {"old", "new"} <= figures["default-synth-occluded.mAP"].keys()
    tiny.run("dvc", "plots", "diff", "-o", "plots", "HEAD")
    assert "vega" in (tiny.folder / "plots" / "index.html").read_text().lower()
    names = tiny.run("dvc", "exp", "list", "--name-only").stdout.split()
    assert names == ["no-spc"]
    tiny.run("git", "checkout", "-q", ".")
    tiny.run("dvc", "checkout", "-q")


@pytest.mark.slow
def test_queued_experiments_run(tiny):
    tiny.run("dvc", "exp", "run", "--queue", "--name", "tau", "-S",
             "embed.default-sorn-on-synth-occluded.match.tau=0.5")
    tiny.run("dvc", "queue", "start", "-j", "1")
    tiny.run("dvc", "queue", "logs", "tau", "-f", timeout=600)
    assert "tau" in tiny.run("dvc", "exp", "list", "--name-only").stdout.split()


def test_a_renderless_selection_leaves_no_stage_without_its_scale(tiny):
    stages = yaml.safe_load((tiny.folder / "dvc.lock").read_text())["stages"]
    assert {name for name in stages if "@default-" not in name} == {"code"}  # the same code at every scale
