"""What DVC promises a user: only what is stale runs again, and changes can be compared."""

import functools
import json
import operator
import re

import pytest

from benchmarks.project import new_project

CHANGE = "runs.sorn.optimizer.lr=1e-5"  # DVC writes it as 1e-05, which YAML 1.1 reads as a string
AGAIN = ["train@sorn", "embed@sorn", "evaluate@sorn", "neighbours@rendered-sorn", "report@rendered"]


@pytest.fixture
def restored(tiny):
    """The tiny project, put back as it was committed."""
    yield tiny
    tiny.run("git", "checkout", "-q", ".")
    tiny.run("dvc", "checkout", "-q")


def test_a_second_repro_has_nothing_to_do(tiny):
    assert "Data and pipelines are up to date." in tiny.run("dvc", "repro").stdout


def test_an_experiment_runs_what_its_change_makes_stale_and_can_be_compared(restored):
    said = restored.run("dvc", "exp", "run", "--name", "slow", "-S", CHANGE, timeout=600).stdout
    assert sorted(re.findall(r"Running stage '([^']+)'", said)) == sorted(AGAIN)
    assert restored.run("dvc", "exp", "list", "--name-only").stdout.split() == ["slow"]
    record = json.loads((restored.folder / "data/runs/sorn/train.json").read_text())
    assert record["parameters"]["optimizer"]["lr"] == 1e-5

    lines = restored.run("dvc", "params", "diff", "HEAD").stdout.splitlines()
    assert len(lines) == 2 and lines[1].split() == ["params.yaml", "runs.sorn.optimizer.lr", "0.001", "1e-05"], lines
    metrics = json.loads(restored.run("dvc", "metrics", "diff", "--all", "--json").stdout)
    assert {"old", "new"} <= metrics["data/results/default/sorn/synth-occluded.json"]["mAP"].keys()
    restored.run("dvc", "plots", "diff", "-o", "plots", "HEAD")
    assert "vega" in (restored.folder / "plots" / "index.html").read_text().lower()


# As a person writes them after `dvc exp run -S`, and what the stage is to read.
NOTATIONS = {"runs.sorn.optimizer.lr": ("1e-5", 1e-5), "runs.dsa.optimizer.lr": ("5e-5", 5e-5),
             "runs.esa.optimizer.lr": ("1.0e-5", 1e-5), "runs.sgam.optimizer.lr": ("0.00001", 1e-5),
             "runs.sorn.image_steps": ("1e5", 100_000)}


def test_numbers_of_any_notation_reach_a_stage_through_exp_run(tmp_path, programs):
    """On a stage that only reads its parameters."""
    project = new_project(tmp_path, programs=programs)
    (tmp_path / "read/dvc.yaml").parent.mkdir()
    (tmp_path / "read/dvc.yaml").write_text(
        "stages: {read: {cmd: python read/read.py, wdir: .., params: [runs], outs: [read/runs.json]}}\n")
    (tmp_path / "read/read.py").write_text(
        "import dataclasses, json\nfrom pipeline.config.loader import load_experiment\n"
        "runs = {key: dataclasses.asdict(run) for key, run in load_experiment().params.runs.items()}\n"
        "json.dump(runs, open('read/runs.json', 'w'))\n")
    project.commit("a stage that reads")
    changes = [part for key, (text, _) in NOTATIONS.items() for part in ("-S", f"{key}={text}")]
    project.run("dvc", "exp", "run", *changes, "read/dvc.yaml", timeout=600)

    runs = json.loads((tmp_path / "read/runs.json").read_text())
    for key, (_, number) in NOTATIONS.items():
        found = functools.reduce(operator.getitem, key.split(".")[1:], runs)
        assert found == number and type(found) is type(number), key


@pytest.mark.slow
def test_queued_experiments_run(restored):
    restored.run("dvc", "exp", "run", "--queue", "--name", "tau", "-S", "results.sorn.match.tau=0.5")
    restored.run("dvc", "queue", "start", "-j", "1")
    restored.run("dvc", "queue", "logs", "tau", "-f", timeout=600)
    assert "tau" in restored.run("dvc", "exp", "list", "--name-only").stdout.split()
