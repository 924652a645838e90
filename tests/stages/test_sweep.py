"""Sweep as a picture: the stage, by hand and through DVC, on made-up metrics; what is drawn is what they hold."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.loader import Experiment
from stages import sweep as stage
from tests.helpers.bare_params import Entry, bare_experiment, write_experiment
from tests.helpers.results import write_result

ROOT = Path(__file__).resolve().parents[2]
KEY, NAME = "sorn-tau-on-synth-occluded", "sweeps-toy"
VALUES = [0, 0.05, 0.15, 0.5]
RESULTS = ["sorn-tau-0", "sorn-tau-0_05", "sorn", "sorn-tau-0_5"]


def plan(**changes: object) -> Entry:
    return {"sweep": {KEY: {"paper": "sorn", "figure": "8 (a)", "what": "tau (Eq. 12)", "axis": "linear",
                            "dataset": "synth-occluded", "trained_on": "synth-occluded",
                            "printed_on": ["occluded-dukemtmc"], "best": [0.15], "values": VALUES,
                            "results": RESULTS} | changes}}


def toy(**changes: object) -> Experiment:
    return bare_experiment(NAME, plan=plan(**changes))


def metrics(rank1: float, mean: float, dataset: str = "synth-occluded") -> Entry:
    """A result's metrics as `evaluate` writes them."""
    return {dataset: {"rank1": rank1, "mAP": mean, "mINP": 1.0, "details": [
        {"queries": 120, "rank1_low": rank1 - 6, "rank1_high": rank1 + 7, "mAP_low": mean - 3, "mAP_high": mean + 2}]}}


def write_metrics(root: Path) -> None:
    for number, name in enumerate(RESULTS):
        write_result(root / paths.metrics(NAME, name), metrics(40.0 + number, 30.0), {})


def made(root: Path) -> list[tuple[str, str, str]]:
    """Value, result and rank-1 of each line of values.csv, the folder's names checked."""
    folder = root / paths.report(NAME, "sweeps", KEY)
    assert {path.name for path in folder.iterdir()} == {"figure.svg", "figure.png", "values.csv"}
    lines = csv.DictReader((folder / "values.csv").read_text().splitlines())
    return [(line["value"], line["result"], line["rank1"]) for line in lines]


EXPECTED = [("0", "sorn-tau-0", "40.00"), ("0.05", "sorn-tau-0_05", "41.00"), ("0.15", "sorn", "42.00"),
            ("0.5", "sorn-tau-0_5", "43.00")]


def test_the_values_are_those_of_the_results_and_twice_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path)
    stage.run(toy(), KEY)
    assert made(tmp_path) == EXPECTED
    folder = paths.report(NAME, "sweeps", KEY)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stage.run(toy(), KEY)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_title_says_whose_place_the_data_set_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path)
    said = {}
    for printed in (["synth-occluded"], ["partial-reid", "partial-ilids"]):
        monkeypatch.setattr(stage, "sweep_figure", lambda points, **words: said.update(words))
        monkeypatch.setattr(stage, "as_svg", lambda figure: b"")
        monkeypatch.setattr(stage, "as_png", lambda figure: b"")
        stage.run(toy(printed_on=printed), KEY)
        assert said["title"].startswith("SORN, the sweep of Fig. 8 (a)\non synth-occluded")
        assert ("in the place of partial-reid and partial-ilids" in said["title"]) == (len(printed) == 2)
        assert said["title"].endswith("trained on synth-occluded") and said["best"] == (0.15,)


def test_missing_results_and_keys_are_named_and_the_old_picture_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path)
    stage.run(toy(), KEY)
    shutil.rmtree(paths.metrics(NAME, "sorn"))
    write_result(paths.metrics(NAME, "sorn"), metrics(1.0, 1.0, "another-set"), {})
    with pytest.raises(InputError, match="the metrics of 'sorn' hold no rank1 and mAP on 'synth-occl"):
        stage.run(toy(), KEY)
    shutil.rmtree(paths.metrics(NAME, "sorn"))
    with pytest.raises(InputError, match="sorn': has no metrics; make them with `dvc repro evaluate@sorn`"):
        stage.run(toy(), KEY)
    with pytest.raises(InputError, match=f"plan.sweep: has no entry 'sorn-tua'.*there are: {KEY}"):
        stage.run(toy(), "sorn-tua")
    assert made(tmp_path) == EXPECTED


def test_dvc_makes_the_picture_and_again_when_one_result_changes(tmp_path):
    """The stage as dvc.yaml has it, in an experiment's folder, with nothing but what it names and the typed files."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    experiment = tmp_path / "experiments" / NAME
    write_experiment(tmp_path, NAME, plan=plan())
    (experiment / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["plan.yaml"], "stages": {"sweep": stages["sweep"]}}))
    for name in ("base", "config", "reporting"):
        shutil.copytree(ROOT / "pipeline" / name, tmp_path / "pipeline" / name)
    (tmp_path / "stages").mkdir()
    for file in ("pipeline/__init__.py", "stages/__init__.py", "stages/sweep.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    write_metrics(tmp_path)

    def dvc(*words: str, where: Path = experiment) -> str:
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(tmp_path),
                       "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=where, env=environment, capture_output=True,
                              text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc("init", "--no-scm", "-q", where=tmp_path)
    dvc("repro")
    assert made(tmp_path) == EXPECTED
    write_result(tmp_path / paths.metrics(NAME, "sorn"), metrics(12.0, 30.0), {})
    assert f"sweep@{KEY}" in dvc("repro")
    assert made(tmp_path)[2] == ("0.15", "sorn", "12.00")
