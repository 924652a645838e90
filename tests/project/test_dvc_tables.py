"""The papers' tables as a stage: what they stand on, and that they are made again when a result changes."""

import re
from pathlib import Path

import pytest

from benchmarks.project import Project, new_project
from pipeline.config import paths
from pipeline.config.loader import load_plan
from tests.helpers.results import write_result

NAME = "sorn-tables"
PROFILE = """
include: [synthetic]
on: [default]
rows: {papers: [sorn]}
"""
FOLDER = paths.experiment_folder(NAME)
STAGE = f"{FOLDER}/dvc.yaml:paper_tables@all"
PROVENANCE = {"init": "none", "seed": 0, "image_steps": 8000, "train_on": "synth-holistic"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, programs) -> Project:
    return new_project(tmp_path_factory.mktemp("tables"), profiles={NAME: PROFILE}, programs=programs)


def test_the_tables_stand_on_what_their_rows_need_and_nothing_else(project):
    said = project.run("dvc", "dag", "--dot", STAGE).stdout
    needed = {name.split(":")[-1] for name in re.findall(r'"([^"]*@[^"]+)"', said)}
    plan = load_plan(project.folder / FOLDER / "plan.yaml")
    rows = {row.result for table in plan.paper_tables["all"].tables for row in table.rows if row.result}
    assert rows and rows <= {name.split("@")[1] for name in needed if name.startswith("evaluate@")}
    assert {"render@parsing", "train_parser_from@lraspp", "paper_tables@all"} <= needed
    assert not {name for name in needed if re.search(r"@(esa|sgam|dsa|sgsfa)", name)}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_tables_are_made_once_and_again_when_a_result_changes(project):
    evaluated = load_plan(project.folder / FOLDER / "plan.yaml").evaluate
    for name, plan in evaluated.items():
        entry = {"rank1": 80.0, "mAP": 50.0, "mINP": 30.0, "details": [{"rank5": 90.0, "rank10": 95.0}]}
        write_result(project.folder / paths.metrics(NAME, name), dict.fromkeys(plan.datasets, entry), PROVENANCE)
        write(project.folder / paths.curve(NAME, name), "run,dataset,rank,cmc\n" + "".join(
            f"{name},{dataset},{rank},0.{80 + rank}\n" for dataset in plan.datasets for rank in range(1, 20)))

    page = project.folder / paths.report(NAME, "tables") / "index.html"
    project.run("dvc", "repro", "-s", STAGE)
    assert "80.00" in page.read_text() and "71.25" not in page.read_text()
    assert "Running stage" not in project.run("dvc", "repro", "-s", STAGE).stdout

    name, plan = next(iter(evaluated.items()))
    changed = project.folder / paths.metrics(NAME, name) / f"{plan.datasets[0]}.json"
    changed.write_text(changed.read_text().replace("80.0", "71.25"))
    project.run("dvc", "repro", "-s", STAGE)
    assert "71.25" in page.read_text()
