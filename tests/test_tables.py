"""Every row that the papers print of their own methods is a run: none missing, none invented, no two the same."""

import csv
import json
from pathlib import Path

import pytest

from stages import compose
from stages.tables import read_rows, run_name

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("esa", "sgsfa", "sgam", "dsa", "sorn")
# Labels under which one paper prints the same model, matched alike, in several tables.
SYNONYMS = {"esa": [{"ESA-ReID(ours)", "our"}], "sorn": [{"SORN", "SORN (ours)"}],
            "dsa": [{"DSA-reID", "DSA-reID(Only MF-Stream)", "DSA(Only MF-Stream)", "Elem-add"}]}


@pytest.fixture(scope="module", autouse=True)
def project():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def trees(project):
    return {paper: compose.compose(f"tables-{paper}") for paper in PAPERS}


def wanted():
    return compose._load("tables")["rows"]


def test_the_rows_are_those_of_the_papers_tables():
    with open("docs/papers/tables.csv", encoding="utf-8", newline="") as file:
        printed = {(line["paper"], line["table"], line["row"], line["setting"], line["dataset"])
                   for line in csv.DictReader(file) if line["is_own"] == "1"}
    rows = [(row.paper, row.table, row.row, row.setting, row.dataset) for row in read_rows()]
    assert set(rows) == printed and len(rows) == len(printed)
    assert len({row[:4] for row in rows}) == 79


def test_every_row_has_a_result_on_its_data_set(trees):
    counterparts = wanted()["counterparts"]
    for row in read_rows():
        tree = trees[row.paper]
        name = run_name(row.variant, counterparts[row.train_on], wanted())
        pair = tree["embed"][f"default-{name}-on-{counterparts[row.dataset]}"]
        assert f"default-{name}-on-{counterparts[row.dataset]}" in tree["evaluate"][f"default-{name}"]["features"]
        assert tree["runs"][pair["run"]]["train_on"] == f"default-{counterparts[row.train_on]}"
        assert tree["runs"][pair["run"]]["image_steps"] > 0


def test_one_model_has_one_label_or_listed_synonyms():
    found: dict[tuple, set[str]] = {}
    for row in read_rows():
        found.setdefault((row.paper, row.train_on, row.variant), set()).add(row.row)
    for (paper, *_), labels in found.items():
        assert len(labels) == 1 or any(labels <= synonyms for synonyms in SYNONYMS.get(paper, [])), labels


def test_different_variants_are_different_parameters(trees):
    for tree in trees.values():
        seen: dict[str, str] = {}
        for key, evaluation in tree["evaluate"].items():
            pair = tree["embed"][evaluation["features"][0]]
            run = {name: value for name, value in tree["runs"][pair["run"]].items()}
            told = "" if pair["visible_by"] == pair["reads"] else pair["visible_by"]
            about = json.dumps([run, pair["match"], told], sort_keys=True)
            assert seen.setdefault(about, key) == key, f"{key} and {seen[about]} are one model"


def test_rows_that_differ_at_test_time_share_one_training(trees):
    trained = {tree_key: pair["run"] for tree in trees.values()
               for tree_key, evaluation in tree["evaluate"].items()
               for pair in [tree["embed"][evaluation["features"][0]]]}
    for key, run in {"default-sgam-2": "default-sgam", "default-sorn-no-spc-global": "default-sorn-no-spc",
                     "default-sorn-unmasked": "default-sorn", "default-sorn-no-semantic-p": "default-sorn-no-semantic",
                     "default-dsa-fused-synth-holistic": "default-dsa-synth-holistic"}.items():
        assert trained[key] == run


def test_a_selection_stays_under_a_hundred_stages(trees):
    for tree in trees.values():
        assert sum(len(tree[section]) for section in (
            "render", "datasets", "parsers", "caches", "warps", "runs", "embed", "evaluate", "report", "tables",
            "tables_page")) < 100
