"""What DVC promises a user: only what is stale runs again, and changes can be compared."""

import json
import re

import pytest

CHANGE = "runs.sorn.optimizer.lr=1e-5"  # DVC writes it as 1e-05, which YAML 1.1 reads as a string
AGAIN = ["train@sorn", "embed@sorn-on-synth-occluded", "evaluate@sorn", "report@rendered"]


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
    assert re.findall(r"Running stage '([^']+)'", said) == AGAIN
    assert restored.run("dvc", "exp", "list", "--name-only").stdout.split() == ["slow"]
    record = json.loads((restored.folder / "data/runs/sorn/train.json").read_text())
    assert record["parameters"]["optimizer"]["lr"] == 1e-5

    lines = restored.run("dvc", "params", "diff", "HEAD").stdout.splitlines()
    assert len(lines) == 2 and lines[1].split() == ["params.yaml", "runs.sorn.optimizer.lr", "0.001", "1e-05"], lines
    metrics = json.loads(restored.run("dvc", "metrics", "diff", "--all", "--json").stdout)
    assert {"old", "new"} <= metrics["data/results/default/sorn/synth-occluded.json"]["mAP"].keys()
    restored.run("dvc", "plots", "diff", "-o", "plots", "HEAD")
    assert "vega" in (restored.folder / "plots" / "index.html").read_text().lower()


@pytest.mark.slow
def test_queued_experiments_run(restored):
    restored.run("dvc", "exp", "run", "--queue", "--name", "tau", "-S", "results.sorn.match.tau=0.5")
    restored.run("dvc", "queue", "start", "-j", "1")
    restored.run("dvc", "queue", "logs", "tau", "-f", timeout=600)
    assert "tau" in restored.run("dvc", "exp", "list", "--name-only").stdout.split()
