"""Every row that the papers print of their own methods is a run: none missing, none invented, no two the same."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.datasets import LAYOUTS
from stages import compose
from stages.tables import counterpart, read_rows, run_name

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("esa", "sgsfa", "sgam", "dsa", "sorn")
# Labels under which one paper prints the same model, matched alike, in several tables.
SYNONYMS = {"esa": [{"ESA-ReID(ours)", "our"}], "sorn": [{"SORN", "SORN (ours)"}],
            "dsa": [{"DSA-reID", "DSA-reID(Only MF-Stream)", "DSA(Only MF-Stream)", "Elem-add"}]}


SECTIONS = ("render", "datasets", "parsers", "caches", "warps", "runs", "embed", "evaluate", "report", "sweeps",
            "tables", "tables_page")
# Input sizes and epochs, as printed or, where they are not, as ruled.
PRINTED = {"esa": (384, 128, 70), "sgsfa": (256, 128, 120), "sgam": (384, 128, 80), "dsa": (256, 128, 320),
           "sorn": (384, 128, 80)}
JOINTS = "data/raw/occluded-dukemtmc.joints.h5"


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory):
    """A copy of the profiles, with a folder for each real data set."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(ROOT / "profiles", "profiles")
        for entry in yaml.safe_load(Path("profiles/real.yaml").read_text())["datasets"].values():
            Path(entry["raw"]).mkdir(parents=True, exist_ok=True)
        Path(JOINTS).touch()
        yield


@pytest.fixture(scope="module")
def trees(project):
    return {paper: compose.compose(f"tables-{paper}") for paper in PAPERS}


@pytest.fixture(scope="module")
def real_trees(project):
    return {paper: compose.compose(f"paper-{paper}") for paper in PAPERS}


def wanted(profile="tables"):
    return compose._load(profile)["rows"]


def test_the_rows_are_those_of_the_papers_tables():
    with open(ROOT / "docs/papers/tables.csv", encoding="utf-8", newline="") as file:
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


def test_every_row_is_a_run_at_its_paper_s_scale(real_trees):
    """Of the paper's size and epochs, trained on its training set and scored on its test set, from data/raw/<name>."""
    found = set()
    for row in read_rows():
        tree, rows = real_trees[row.paper], wanted("real")
        name, test = run_name(row.variant, row.train_on, rows), counterpart(row.paper, row.dataset, rows)
        numbers = [f"-{trial}" for trial in range(10)] if row.dataset == "cuhk01" else [""]  # averaged over ten splits
        keys = [f"paper-{name}{number}-on-{test}{number}" for number in numbers]
        assert set(keys) <= set(tree["evaluate"][f"paper-{name}"]["features"])
        for number, pair in zip(numbers, (tree["embed"][key] for key in keys), strict=True):
            run = tree["runs"][pair["run"]]
            assert (pair["dataset"], run["train_on"]) == (f"paper-{test}{number}", f"paper-{row.train_on}{number}")
            assert (run["backbone"], run["init"]) == ("resnet50", "imagenet")
            height, width, epochs = PRINTED[row.paper]
            assert (run["height"], run["width"]) == (height, width)
            published = LAYOUTS[tree["datasets"][run["train_on"]]["layout"]].published
            assert run["image_steps"] == epochs * published["train"][0] if published else run["image_steps"] > 0
            for dataset in (row.train_on, row.dataset):
                key = f"paper-{counterpart(row.paper, dataset, rows)}{number}"
                assert tree["datasets"][key]["raw"] == f"data/raw/{dataset}"
        found.add((row.paper, row.table, row.row, row.setting))
    assert len(found) == 79


def test_partial_reid_s_probes_are_those_the_paper_uses(real_trees):
    layouts = {paper: {tree["datasets"][pair["dataset"]]["layout"] for pair in tree["embed"].values()
                       if "partial-reid" in pair["dataset"]} for paper, tree in real_trees.items()}
    both = {"partial-reid-occluded", "partial-reid-partial"}
    assert layouts == {"esa": {"partial-reid-partial"}, "sgam": {"partial-reid-partial"}, "sorn": both, "sgsfa": both,
                       "dsa": set()}


def test_a_row_trains_for_itself_or_not_at_all(real_trees):
    """How many trainings each paper needs is counted from its tables by hand."""
    # {Baseline, ESA} x {Market, Duke, Drama} and {g, w, d} x {Market, Drama}; two on Occluded-Duke, P-Duke, Market,
    # Duke; five on Occluded-Duke, Market, Duke; 3 baselines, two branches, 2 Single, joint, CSA, Concatenation+fc and
    # three other sets, and CUHK01's ten splits; ten on Occluded-Duke and the segmentation of +S, Market, Duke
    assert {paper: len(tree["runs"]) for paper, tree in real_trees.items()} == {
        "esa": 12, "sgsfa": 5, "sgam": 7, "dsa": 22, "sorn": 13}
    for key, run in {"sgam-2-occluded-dukemtmc": "sgam-occluded-dukemtmc", "dsa-fused": "dsa",
                     "dsa-global-joint": "dsa", "dsa-local-joint": "dsa",
                     "sorn-2-unmasked-occluded-dukemtmc": "sorn-2-occluded-dukemtmc",
                     "sorn-no-semantic-s-occluded-dukemtmc": "sorn-no-semantic-occluded-dukemtmc",
                     "sorn-global-occluded-dukemtmc": "sorn-occluded-dukemtmc"}.items():
        tree = real_trees[key.split("-")[0]]
        assert {tree["embed"][name]["run"] for name in tree["evaluate"][f"paper-{key}"]["features"]} == {f"paper-{run}"}


def test_joints_of_a_real_set_lie_beside_its_folder(real_trees):
    key = "paper-sorn-no-semantic-p-occluded-dukemtmc"
    assert real_trees["sorn"]["embed"][f"{key}-on-occluded-dukemtmc"]["visible_by"] == JOINTS
    Path(JOINTS).unlink()
    without = compose.compose("paper-sorn")
    Path(JOINTS).touch()
    assert set(real_trees["sorn"]["evaluate"]) - set(without["evaluate"]) == {key}


def test_nothing_is_trained_or_cached_without_a_result(project, monkeypatch, tmp_path):
    """With Market-1501 alone, ESA's rows g, w and d have no test set: they are not trained either."""
    shutil.copytree("profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    Path("data/raw/market1501").mkdir(parents=True)
    tree = compose.compose("paper-esa")
    assert list(tree["runs"]) == ["paper-esa-baseline", "paper-esa"] and list(tree["datasets"]) == ["paper-market1501"]
    assert list(compose.compose("paper-sgsfa")["caches"]) == ["paper-market1501"]


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")
                                           if path.stem not in ("recipes", "parser")))
def test_a_selection_stays_under_a_hundred_stages(project, profile):
    tree = compose.compose(profile)
    # CUHK01's ten splits have five stages each
    assert sum(len(tree[section]) for section in SECTIONS) < (120 if profile == "paper-dsa" else 100)


def test_every_table_has_all_its_results_at_the_papers_scale(real_trees):
    keys = {key: entry for tree in real_trees.values() for key, entry in tree["tables"].items()}
    assert len(keys) == 25
    for key, entry in keys.items():
        used = {f"metrics/paper/{row['result']}.json" for row in entry["rows"].values()}
        assert used == {path for path in entry["reads"] if path.startswith("metrics/")}, key
        assert {row["missing"] for row in entry["rows"].values()} == {""}, key
    assert compose.compose("paper")["tables"] == {}, "a table would lack what the profile leaves out"
