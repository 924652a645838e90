"""Every row that the papers print of their own methods is a run: none missing, none invented, no two the same."""

import csv
import json
from collections.abc import Iterator

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from pipeline.config.paper_plans import paper_tables
from pipeline.config.paper_rows import counterpart, own_variant, read_rows, read_variants, run_name, wanted_rows
from pipeline.datasets.layouts import LAYOUTS
from tests.config.conftest import ROOT
from tests.helpers.bare_params import by_data_set
from tests.helpers.compositions import PAPERS, Entry, together, wanted

pytestmark = pytest.mark.usefixtures("at_root")

# Labels under which one paper prints the same model, matched alike, in several tables.
SYNONYMS = {"esa": [{"ESA-ReID(ours)", "our"}], "sorn": [{"SORN", "SORN (ours)"}],
            "dsa": [{"DSA-reID", "DSA-reID(Only MF-Stream)", "DSA(Only MF-Stream)", "Elem-add"}]}
# Input sizes and epochs, as printed or, where they are not, as ruled.
PRINTED = {"esa": (384, 128, 70), "sgsfa": (256, 128, 120), "sgam": (384, 128, 80), "dsa": (256, 128, 320),
           "sorn": (384, 128, 80)}
JOINTS = "data/raw/occluded-dukemtmc.joints.h5"


def test_the_rows_are_those_of_the_papers_tables():
    with open(ROOT / "docs/papers/tables.csv", encoding="utf-8", newline="") as file:
        printed = {(line["paper"], line["table"], line["row"], line["setting"], line["dataset"])
                   for line in csv.DictReader(file) if line["is_own"] == "1"}
    rows = [(row.paper, row.table, row.row, row.setting, row.dataset) for row in read_rows()]
    assert set(rows) == printed and len(rows) == len(printed)
    assert len({row[:4] for row in rows}) == 80  # 79 that the tables print, and DSA's on CUHK01 out of the text


def test_every_row_has_a_result_on_its_data_set(rendered):
    counterparts = wanted("tables")["counterparts"]
    for row in read_rows():
        variant = own_variant(row, read_variants(), wanted("tables"))
        name = run_name(variant, counterparts[row.train_on], wanted("tables"))
        embed = rendered["embed"][f"{name}-on-{counterparts[row.dataset]}"]
        assert counterparts[row.dataset] in rendered["evaluate"][name]["datasets"]
        assert rendered["runs"][embed["run"]]["train_on"] == counterparts[row.train_on]
        assert rendered["runs"][embed["run"]]["image_steps"] > 0


def test_one_model_has_one_label_or_listed_synonyms():
    found: dict[tuple, set[str]] = {}
    for row in read_rows():
        found.setdefault((row.paper, row.train_on, row.variant), set()).add(row.row)
    for (paper, *_), labels in found.items():
        assert len(labels) == 1 or any(labels <= synonyms for synonyms in SYNONYMS.get(paper, [])), labels


def results(tree: Entry) -> Iterator[tuple[str, str, Entry]]:
    """(result, run, one of its embeddings) of each result, of trials the first."""
    for key, embed in tree["embed"].items():
        if key == next(other for other, entry in tree["embed"].items() if entry["result"] == embed["result"]):
            yield embed["result"], embed["run"], embed


def test_different_variants_are_different_parameters(rendered, papers):
    for tree in (rendered, *papers.values()):
        seen: dict[str, str] = {}
        for result, run, embed in results(tree):
            about = json.dumps([tree["runs"][run], tree["results"][result], embed.get("seen_by")], sort_keys=True)
            assert seen.setdefault(about, result) == result, f"{result} and {seen[about]} are one model"


def test_rows_that_differ_at_test_time_share_one_training(rendered):
    trained = {result: run for result, run, _ in results(rendered)}
    for result, run in {"sgam-2": "sgam", "sorn-no-spc-global": "sorn-no-spc", "sorn-unmasked": "sorn",
                        "sorn-no-semantic-p": "sorn-no-semantic",
                        "dsa-fused-synth-holistic": "dsa-synth-holistic"}.items():
        assert trained[result] == run


def test_every_row_is_a_run_at_its_paper_s_scale(papers):
    """Of the paper's size and epochs, trained on its training set and scored on its test set, from data/raw/<name>."""
    found = set()
    for row in read_rows():
        tree, rows = papers[row.paper], wanted(f"paper-{row.paper}")
        name, test = run_name(row.variant, row.train_on, rows), counterpart(row.paper, row.dataset, rows)
        numbers = [f"-{trial}" for trial in range(10)] if row.dataset == "cuhk01" else [""]  # averaged over ten splits
        assert {f"{test}{number}" for number in numbers} <= set(tree["evaluate"][name]["datasets"])
        for number in numbers:
            embed = tree["embed"][f"{name}-on-{test}{number}"]
            run = tree["runs"][embed["run"]]
            assert (embed["dataset"], run["train_on"]) == (f"{test}{number}", f"{row.train_on}{number}")
            started = "run:dsa-cuhk03-labeled" if row.variant == "dsa-pretrained" else "imagenet"
            assert (run["backbone"], run["init"]) == ("resnet50", started)
            height, width, epochs = PRINTED[row.paper]
            assert (run["height"], run["width"]) == (height, width)
            published = LAYOUTS[tree["datasets"][run["train_on"]]["layout"]].published
            assert run["image_steps"] == epochs * published["train"][0] if published else run["image_steps"] > 0
            for dataset in (row.train_on, row.dataset):
                key = f"{counterpart(row.paper, dataset, rows)}{number}"
                assert tree["prepare"][key]["raw"] == f"data/raw/{dataset}"
        found.add((row.paper, row.table, row.row, row.setting))
    assert len(found) == 80


def test_a_row_trains_for_itself_or_not_at_all(own, papers):
    """How many trainings each paper needs is counted from its tables by hand."""
    # {Baseline, ESA, and beside it gated and on a cache} x {Market, Duke, Drama} and {g, beside it attended, w, d} x
    # {Market, Drama}; SGSFA and the reading beside it on Occluded-Duke, P-Duke, Market and Duke, and w/o whole
    # attention; five on Occluded-Duke, Market, Duke; 3 baselines, two branches, 2 Single, joint, CSA,
    # Concatenation+fc and three other sets, and CUHK01's ten splits, each with and without CUHK03 before it; ten on
    # Occluded-Duke and the segmentation of +S, Market, Duke
    counted = {"esa": 20, "sgsfa": 9, "sgam": 7, "dsa": 32, "sorn": 13}
    shared = own["paper"].params["runs"]
    theirs = {paper: [*own[f"paper-{paper}"].params["runs"],
                      *(key for key in shared if key.removesuffix("-market1501") in (paper, f"{paper}-baseline-re"))]
              for paper in PAPERS}
    assert {paper: len(runs) for paper, runs in theirs.items()} == counted
    assert len(shared) == 6 and not any(set(shared) & set(own[f"paper-{paper}"].params["runs"]) for paper in PAPERS)
    trained = {result: run for tree in papers.values() for result, run, _ in results(tree)}
    for result, run in {"sgam-2-occluded-dukemtmc": "sgam-occluded-dukemtmc", "dsa-fused-market1501": "dsa-market1501",
                        "dsa-global-joint-market1501": "dsa-market1501", "dsa-local-joint-market1501": "dsa-market1501",
                        "sorn-2-unmasked-occluded-dukemtmc": "sorn-2-occluded-dukemtmc",
                        "sorn-no-semantic-s-occluded-dukemtmc": "sorn-no-semantic-occluded-dukemtmc",
                        "sorn-global-occluded-dukemtmc": "sorn-occluded-dukemtmc"}.items():
        assert trained[result] == run


def test_joints_of_a_real_set_lie_beside_its_folder_and_are_kept_by_name(own):
    key = "sorn-no-semantic-p-occluded-dukemtmc"
    composed = own["paper-sorn"]
    assert composed.plan["plan"]["embed_seen"][key]["seen_by"] == JOINTS
    assert composed.folders["occluded-dukemtmc-joints"] == JOINTS
    without = compose("paper-sorn", tuple(name for name in composed.folders if name != "occluded-dukemtmc-joints"))
    evaluated = (set(tree.plan["plan"]["evaluate"]) for tree in (composed, without))
    assert set.difference(*evaluated) == {key}


def test_nothing_is_trained_or_cached_without_a_result():
    """With Market-1501 alone, ESA's rows g, w and d have no test set: they are not trained either."""
    kept = ("market1501",)
    tree = together("paper-esa", kept)
    assert set(compose("paper-esa", kept).params["runs"]) == {f"esa-{name}-market1501" for name in (
        "baseline", "gated", "cache")}
    assert list(tree["datasets"]) == list(tree["caches"]) == ["market1501"]
    for paper in PAPERS:
        composed = compose(f"paper-{paper}", kept)
        plan = composed.plan["plan"]
        used = {embed["run"] for embed in by_data_set(plan).values()}
        used |= {embed["seen_by"].split("/")[2] for embed in plan["embed_seen"].values()}
        assert set(plan["train"]) <= used


@pytest.mark.parametrize("name", ["tables", *(f"paper-{paper}" for paper in PAPERS)])
def test_every_table_has_all_its_results(name):
    composed = compose(name)
    tables = composed.plan["plan"]["paper_tables"]["all"]["tables"]
    paper = name.removeprefix("paper-")
    assert {(table["paper"], table["table"]) for table in tables} == {
        (row.paper, row.table) for row in read_rows() if row.paper == paper or name == "tables"}
    evaluated = composed.plan["plan"]["evaluate"]
    for table in tables:
        printed = [(row.row, row.setting, row.dataset) for row in read_rows()
                   if (row.paper, row.table) == (table["paper"], table["table"])]
        assert [(row["row"], row["setting"], row["dataset"]) for row in table["rows"]] == printed
        for row in table["rows"]:
            data = "cuhk01-0" if row["data"] == "cuhk01" else row["data"]
            assert row["missing"] == "" and data in evaluated[row["result"]]["datasets"]
            assert all(seed in evaluated for seed in row["seeds"])
        assert any(row["full"] for row in table["rows"])


def test_a_table_says_what_it_lacks_and_how_to_get_it():
    composed = compose("paper-sorn", ("market1501", "partial-reid"))
    rows = [row for table in composed.plan["plan"]["paper_tables"]["all"]["tables"] for row in table["rows"]]
    missing = {row["dataset"]: row["missing"] for row in rows}
    assert missing["market1501"] == ""
    assert missing["occluded-dukemtmc"] == ("put occluded-dukemtmc in data/raw/occluded-dukemtmc and compose with it")


@pytest.mark.parametrize(("results", "missing"), [
    ({}, "make sorn-market1501: the profile"),
    ({"sorn-market1501": {"partial-ilids"}}, "make sorn-market1501 on partial-reid: the profile"),
    ({"sorn-market1501": {"partial-reid"}}, "")])
def test_a_row_that_is_not_made_says_whether_its_training_is_missing_or_its_set(results, missing):
    tables = paper_tables(wanted_rows({"papers": ["sorn"]}), results=results, datasets={"market1501", "partial-reid"},
                          folders={})
    (row,) = [row for table in tables for row in table["rows"]
              if (table["table"], row["dataset"]) == ("V", "partial-reid")]
    assert row["missing"].startswith(missing) and bool(row["missing"]) == bool(missing)


def test_a_profile_of_some_runs_has_the_tables_that_they_stand_in():
    made = compose("partial").plan["plan"]["paper_tables"]["all"]
    tables = made["tables"]
    assert set(made["networks"].values()) == {"mobilenetv2_100 at 128 x 64"}
    assert set(made["networks"]) == {f"{name}-real-market" for name in ("esa-baseline", "esa", "sgsfa", "sgam", "sorn")}
    assert [(table["paper"], table["table"]) for table in tables] == [
        ("esa", "2"), ("esa", "4"), ("sgsfa", "3"), ("sgam", "2"), ("sorn", "V")]
    missing = {(row["row"], row["dataset"]): row["missing"] for row in tables[1]["rows"]}
    assert missing["our", "partial-reid"] == ""
    assert missing["g", "partial-reid"] == ("make esa-g-real-market: the profile, or what was kept when it was "
                                            "composed, leaves it out")
    assert {row["name"] for table in tables for row in table.get("beside", ())} == {
        "on real-partial-reid", "on real-partial-reid-occluded", "on real-partial-ilids-uncropped"}, "no other readings"
    rest = [row for table in compose("partial-rows").plan["plan"]["paper_tables"]["all"]["tables"]
            for row in table["rows"] if row["dataset"].startswith("partial")]
    assert len(rest) == 17 and not any(row["missing"] for row in rest), "ESA's 2 and 4, SGSFA's 3, SGAM's 2, SORN's V"


def test_what_shows_a_row_s_run_that_is_not_trained_is_left_out_with_it(project):
    """ESA's row g has no test set where Market-1501 alone is kept: its picture is left out, a mistyped one named."""
    figure = ("figures: {a: {kind: entropy, title: a, shows: [esa-%s-market1501], names: [a], count: 1, "
              "dataset: market1501}}\n")
    text = "include: [paper-recipes]\non: [paper]\nrows: {papers: [esa]}\n"
    (project / "profiles/mine.yaml").write_text(text + figure % "g")
    assert list(compose("mine").plan["plan"]["figure_maps"]) == ["a"]
    assert compose("mine", ("market1501",)).plan["plan"]["figure_maps"] == {}
    (project / "profiles/mine.yaml").write_text(text + figure % "gg")
    with pytest.raises(InputError, match="figures.a.shows: 'esa-gg-market1501' is no run"):
        compose("mine", ("market1501",))


def test_seeds_of_rows_whose_tables_are_left_out_are_no_error():
    """Without Partial-iLIDS and the occluded probes only SGAM's table has a row."""
    made = compose("partial-seeds", ("real-market", "real-partial-reid")).plan["plan"]["paper_tables"]["all"]
    assert [table["paper"] for table in made["tables"]] == ["sgam"]


def test_a_run_that_is_left_out_where_it_stands_is_left_out_of_what_stands_on_it():
    """Profile partial gives SGSFA sets of its own; where none is kept, nobody asks for the papers' others."""
    assert compose("partial-seeds", ("real-market",)).params["runs"] == {}


def test_larger_networks_read_the_masks_of_the_shipped_parser():
    """It has 128 x 64 pixels and refuses a cache of another size, so that a profile that names it keeps to that."""
    composed = compose("partial-large")
    read = {key: entry["cache"] for key, entry in composed.plan["plan"]["train"].items()}
    assert read["sgam-large-real-market"] == read["sorn-large-real-market"] == "real-market"
    assert composed.params["caches"] == {}
    trained = [composed.params["runs"][key] for key in read]
    assert len(trained) == 4 and all((entry["height"], entry["width"]) == (256, 128) for entry in trained)
