"""A clean tree: git is offered nothing that was made from anyone's images, whatever ran, failed or was run by hand."""

import re

import pytest
import yaml

from benchmarks.project import ROOT, Project

FOLDERS = {"stages", "pipeline", "models", "data", "tests", "profiles", "experiments", "docs", "benchmarks", "ci"}
RESULT = re.compile(r"data/results/(parsers|[^/]+/[^/]+)/[^/]+\.json")


def offered(project: Project) -> set[str]:
    """What `git add -A .` would add of data/ and scratch/ if git knew nothing of them yet."""
    project.run("git", "rm", "-rq", "--cached", "--ignore-unmatch", "data", "scratch")
    said = project.run("git", "-c", "core.quotePath=false", "add", "-An", ".").stdout
    return {name for name in re.findall(r"^add '(.*)'$", said, re.MULTILINE) if name.startswith(("data/", "scratch/"))}


def check(project: Project) -> None:
    found = offered(project)
    assert found and all(RESULT.fullmatch(name) for name in found), found
    ignoring = {path.relative_to(project.folder).as_posix() for path in project.folder.rglob(".gitignore")}
    assert ignoring == {".gitignore"}, "DVC wrote one where git does not ignore what a stage makes"


def test_the_top_has_ten_folders():
    files = Project(ROOT).run("git", "ls-files").stdout.splitlines()
    found = {name.split("/")[0] for name in files if "/" in name and not name.startswith(".")}
    assert found <= FOLDERS


def test_git_is_offered_results_alone_after_everything_was_made(house):
    check(house)


def test_git_is_offered_results_alone_after_the_last_stage_failed(house):
    """The report fails on stubs. Nothing of data/ is committed, as in a clone whose first `dvc repro` fails there."""
    with (house.folder / "pipeline/reporting/plots.py").open("a") as file:
        file.write("A_LINE = 1\n")
    said = house.run("dvc", "repro", check=False)
    assert said.returncode != 0 and "report@rendered" in said.stderr
    check(house)


def test_git_is_offered_results_alone_after_a_stage_was_run_by_hand(house):
    """A set that no lock knows, an interrupted training's checkpoint, and what a user puts or links under data/."""
    house.run("python", "-m", "stages.render", "two-set", "--experiment", "two")
    for name in ("scratch/train/0123/checkpoint.pt", "data/raw/mine/0001_c1.jpg", "data/raw/mine.joints.h5",
                 "data/results/mine/curve.csv", "data/results/features.h5", "data/cache/mine/parts.h5.tmp"):
        (house.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (house.folder / name).write_bytes(b"people")
    (house.folder / "data/raw/market1501").symlink_to("/tmp")
    check(house)


@pytest.mark.parametrize(("path", "left_out"), [
    ("data/reports/tables/tables/sorn-5/table.md", False), ("data/reports/default/rendered/tables/parser.md", False),
    ("pipeline/base/README.md", True), ("data/raw/mine/README.md", True)])
def test_dvc_keeps_what_reports_hold_and_overlooks_notes_in_rooms(path, left_out):
    said = Project(ROOT).run("dvc", "check-ignore", path, check=False)
    assert (said.returncode == 0) == left_out, said.stderr


def test_a_committed_lock_holds_its_experiments_stages_and_no_others():
    """Every figure of an experiment with a lock has its stage there; what the plan has no more is gone."""
    files = Project(ROOT).run("git", "ls-files", "dvc.lock", "experiments/*/dvc.lock").stdout.splitlines()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "dvc.lock" in files and len(files) > 10
    for name in files:
        plan = yaml.safe_load((ROOT / name).with_name("plan.yaml").read_text())["plan"]
        planned = {f"{stage}@{key}" for stage in stages for key in plan[stage]}
        assert set(yaml.safe_load((ROOT / name).read_text())["stages"]) == planned, name
