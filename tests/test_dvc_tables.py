"""What `dvc repro` of one table runs: what its rows need, and nothing else."""

import json
import re

import pytest

from benchmarks.project import new_project

HOLISTIC, PARTIAL = "default-synth-holistic", "default-synth-partial"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return new_project(tmp_path_factory.mktemp("tables"), profile="tables-sorn")


def needed(project, target):
    """What `dvc repro TARGET` makes where nothing is made yet: the target and all that it stands on."""
    return set(re.findall(r'"([a-z_]+@[^"]+)"', project.run("dvc", "dag", "--dot", target).stdout))


def test_a_table_s_target_plans_what_its_rows_need_and_nothing_else(project):
    run = "default-sorn-synth-holistic"  # scored on the sets of Tables V and VI in one stage
    expected = {"render@default-parsing", f"render@{HOLISTIC}", f"render@{PARTIAL}", f"prepare@{HOLISTIC}",
                f"prepare@{PARTIAL}", "train_parser@default-lraspp", f"parse@{HOLISTIC}", f"train@{run}",
                f"embed@{run}-on-synth-holistic", f"embed@{run}-on-synth-partial", f"evaluate@{run}"}
    assert needed(project, "table@default-sorn-6") == expected | {"table@default-sorn-6"}


def test_a_table_is_made_once_and_again_when_its_results_change(project):
    for folder, text in (("metrics", json.dumps({HOLISTIC: figures(80.0), "_made": [{
            "init": "none", "seed": 0, "image_steps": 8000, "train_on": HOLISTIC}]})),
            ("curves", f"run,dataset,rank,cmc\nr,{HOLISTIC},1,0.8\nr,{HOLISTIC},3,0.9\n")):
        (project.folder / folder / "default").mkdir(parents=True)
        ending = "json" if folder == "metrics" else "csv"
        (project.folder / folder / "default" / f"default-sorn-synth-holistic.{ending}").write_text(text)
    command = ("dvc", "repro", "-s", "table@default-sorn-6", "tables_page@default-tables")
    project.run(*command)
    assert "80.00" in (project.folder / "reports/tables/default-sorn-6/table.md").read_text()
    assert "80.00" in (project.folder / "reports/default-tables/index.html").read_text()
    assert "Running stage" not in project.run(*command).stdout
    path = project.folder / "metrics/default/default-sorn-synth-holistic.json"
    path.write_text(path.read_text().replace("80.0", "70.0"))
    assert set(re.findall(r"Running stage '([^']+)'", project.run(*command).stdout)) == {
        "table@default-sorn-6", "tables_page@default-tables"}
    assert "70.00" in (project.folder / "reports/default-tables/index.html").read_text()


def figures(rank1):
    return {"rank1": rank1, "rank5": 90.0, "rank10": 95.0, "mAP": 50.0, "details": [{}]}
