"""Experiments side by side, on stubs: the default and two others, all visible to DVC whatever was composed last."""

import itertools
import json
import shutil

import pytest

from benchmarks.project import Project
from pipeline.config.yaml12 import read_yaml
from tests.helpers.stubs import opened, outputs, stale
from tests.project.conftest import ONE


def compose(project: Project, *arguments: str, check: bool = True):
    return project.run("python", "-m", "stages.compose", *arguments, check=check)


def edit(project: Project, name: str, old: str, new: str) -> None:
    path = project.folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_nothing_is_stale_whatever_was_composed_last(house):
    for name in ("one", "default", "two"):
        compose(house, name)
        assert stale(house) == set()
    assert house.run("git", "status", "--short").stdout == ""


def test_each_output_has_one_owner(house):
    locks = [house.folder / folder / "dvc.lock" for folder in (".", "experiments/one", "experiments/two")]
    made = [out["path"] for lock in locks for entry in read_yaml(lock)["stages"].values() for out in entry["outs"]]
    assert sorted(made) == outputs(house)


def test_push_and_pull_bring_every_output_of_all(house, tmp_path):
    house.run("dvc", "remote", "add", "other", str(tmp_path / "remote"))
    house.commit("remote")
    with opened(house) as repo:
        assert repo.push(remote="other") > 0
    house.run("git", "clone", "-q", str(house.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", house.programs)
    with opened(clone) as repo:
        repo.pull(remote="other")
    for name in outputs(house):
        files = [path for path in (house.folder / name, *(house.folder / name).rglob("*")) if path.is_file()]
        assert files
        for path in files:
            assert (clone.folder / path.relative_to(house.folder)).read_bytes() == path.read_bytes()
    assert stale(clone) == set()


def test_gc_deletes_nothing_that_an_experiment_has(house):
    compose(house, "one")
    with opened(house) as repo:
        repo.gc(workspace=True)
    kept = outputs(house)
    for name in kept:
        if not name.startswith("data/results/"):
            path = house.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with opened(house) as repo:
        repo.checkout()
    assert all((house.folder / name).exists() for name in kept) and stale(house) == set()


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("threads: 2", "threads: 1", {"train@one-sorn", "embed@one-sorn"}),
    ("precision: auto", "precision: float32", {"train@one-sorn"}),
    ("device: auto", "device: cpu", set()),
    ("lambda_spc: 0.25", "lambda_spc: 0.125", {"train@one-sorn"})])
def test_a_parameter_of_one_touches_nothing_of_the_others(house, old, new, expected):
    edit(house, "experiments/one/params.yaml", old, new)
    assert stale(house) == expected


def test_params_diff_prints_one_line_per_change(house):
    """DVC reads the last commit's dvc.yaml of every experiment for it; it follows no link there."""
    edit(house, "experiments/one/params.yaml", "lambda_spc: 0.25", "lambda_spc: 0.125")
    lines = [line.split() for line in house.run("dvc", "params", "diff").stdout.splitlines()]
    assert lines[1:] == [["experiments/one/params.yaml", "runs.one-sorn.model.lambda_spc", "0.25", "0.125"]]


def test_metrics_show_fits_a_screen(house):
    """A line per result and data set: rank-1, mAP and mINP. All else stands in lists, which DVC does not show."""
    lines = house.run("dvc", "metrics", "show", "data/results/one", env={"COLUMNS": "300"}).stdout.splitlines()
    assert lines[0].split() == ["Path", "mAP", "mINP", "rank1"]
    assert len(lines) == 3 and max(map(len, lines)) <= 100


def test_threads_of_a_profile_trains_no_shared_parser_again(house):
    (house.folder / "profiles/one.yaml").write_text(f"{ONE}threads: 1\n", encoding="utf-8")
    compose(house, "one")
    assert {name for name in stale(house) if "one-sorn" not in name} == set()


MARKS = "<<<<<<< HEAD\n  a: 1\n=======\n  a: 2\n>>>>>>> other\n"


@pytest.mark.parametrize(("name", "text"), [*itertools.product(
    ("dvc.lock", "experiments/one/dvc.lock", "experiments/two/plan.yaml", "experiments/one/params.yaml"), [MARKS]),
    ("experiments/one/plan.yaml", "plan: ["), ("plan.yaml", "")])
def test_a_damaged_file_is_named(house, name, text):
    """DVC stops everywhere then, and does not always say at which file."""
    path = house.folder / name
    path.write_text(path.read_text(encoding="utf-8") + text if text == MARKS else text, encoding="utf-8")
    said = compose(house, "--check", check=False)
    assert said.returncode == 2 and name in said.stderr and said.stderr.count("\n") == 1, said.stderr


def test_a_check_is_content_with_all_three(house):
    compose(house, "--check")


MINE = """
include: [small]
on: [default]
datasets: {mine: {layout: market, raw: data/raw/mine}}
"""


def test_a_job_of_dvc_s_reads_linked_data_and_copies_nothing(house, tmp_path):
    """`--temp` and `--queue` work in a folder that holds what git and DVC hold: the stage link finds the rest."""
    for number, split in enumerate(("bounding_box_train", "query", "bounding_box_test")):
        (tmp_path / "people" / split).mkdir(parents=True)
        pid = 1 if split == "bounding_box_train" else 2
        (tmp_path / "people" / split / f"{pid:04d}_c{number + 1}s1_000001_00.jpg").write_bytes(b"image %d" % number)
    (house.folder / "data/raw/mine").symlink_to(tmp_path / "people")
    (house.folder / "profiles/mine.yaml").write_text(MINE, encoding="utf-8")
    compose(house, "mine")
    target = "experiments/mine/dvc.yaml:prepare@mine"
    house.run("dvc", "repro", target)
    house.commit("mine")

    said = house.run("dvc", "exp", "run", "--temp", "--force", target, timeout=300).stdout
    assert f"mine: data/raw/mine -> {house.folder}/data/raw/mine" in said and "Ran experiment" in said, said
    assert len(list((tmp_path / "people").rglob("*.jpg"))) == 3
    assert (house.folder / "data/raw/mine").is_symlink()
    assert {name for name in stale(house) if name.endswith("@mine")} == set()

    house.run("dvc", "repro", "--force", target)
    house.run("dvc", "gc", "-w", "-f")
    assert len(list((tmp_path / "people").rglob("*.jpg"))) == 3


@pytest.mark.slow
def test_all_are_made_and_quiet(tiny, tmp_path):
    """The same with real stages: what `dvc repro -P` makes of another experiment, and that the default's stays."""
    shutil.copytree(tiny.folder, tmp_path / "real", symlinks=True)
    project = Project(tmp_path / "real", tiny.programs)
    (project.folder / "profiles/one.yaml").write_text(ONE, encoding="utf-8")
    compose(project, "one")
    said = project.run("dvc", "repro", "-P", timeout=900).stdout
    assert "Running stage 'train@" not in said and said.count("Running stage") == 4, said
    assert stale(project) == set()
    metrics = json.loads((project.folder / "data/results/one/one-sorn/synth-occluded.json").read_text(encoding="utf-8"))
    assert metrics.keys() >= {"rank1", "mAP", "mINP"}
