"""Every row that the papers print of their own methods is a run: none missing, none invented, no two the same."""

import csv
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import Composed, compose
from pipeline.config.paper_rows import counterpart, own_variant, read_rows, read_variants, run_name, wanted_rows
from pipeline.config.profiles import load_profile
from pipeline.datasets.layouts import LAYOUTS
from tests.config.conftest import ROOT
from tests.helpers.bare_params import by_data_set

PAPERS = ("esa", "sgsfa", "sgam", "dsa", "sorn")
# Labels under which one paper prints the same model, matched alike, in several tables.
SYNONYMS = {"esa": [{"ESA-ReID(ours)", "our"}], "sorn": [{"SORN", "SORN (ours)"}],
            "dsa": [{"DSA-reID", "DSA-reID(Only MF-Stream)", "DSA(Only MF-Stream)", "Elem-add"}]}
# Input sizes and epochs, as printed or, where they are not, as ruled.
PRINTED = {"esa": (384, 128, 70), "sgsfa": (256, 128, 120), "sgam": (384, 128, 80), "dsa": (256, 128, 320),
           "sorn": (384, 128, 80)}
JOINTS = "data/raw/occluded-dukemtmc.joints.h5"
Entry = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def at_root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def together(name: str, kept: tuple[str, ...] | None = None) -> Entry:
    """An experiment with those that it stands on: what an entry needs is in one of them."""
    return merged(compose(name, kept))


def merged(composed: Composed) -> Entry:
    tree: Entry = {}
    for base in composed.bases.values():
        for section, entries in merged(base).items():
            tree.setdefault(section, {}).update(entries)
    plan = composed.plan["plan"]
    own = composed.params | plan | {"embed": by_data_set(plan)}
    for section, entries in own.items():
        if isinstance(entries, dict):
            tree.setdefault(section, {}).update(entries)
    return tree


@pytest.fixture(scope="module")
def rendered(at_root) -> Entry:
    return together("tables")


@pytest.fixture(scope="module")
def papers(at_root) -> dict[str, Entry]:
    return {paper: together(f"paper-{paper}") for paper in PAPERS}


@pytest.fixture(scope="module")
def own(at_root) -> dict[str, Composed]:
    return {name: compose(name) for name in ("paper", *(f"paper-{paper}" for paper in PAPERS))}


def wanted(profile: str) -> Entry:
    return wanted_rows(load_profile(profile)["rows"])


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


def test_sgsfa_s_older_reading_is_made_wherever_its_row_is(rendered, papers):
    """SGSFA's older reading: trained and scored on the sets of the full model's rows, each of its switches turned."""
    for tree, scale in ((rendered, "tables"), (papers["sgsfa"], "paper-sgsfa")):
        pairs = set()
        for row in read_rows():
            if row.variant == "sgsfa":
                rows = wanted(scale)
                train, test = (counterpart("sgsfa", name, rows) for name in (row.train_on, row.dataset))
                names = [run_name(variant, train, rows) for variant in ("sgsfa", "sgsfa-all")]
                paper, other = (tree["runs"][tree["embed"][f"{name}-on-{test}"]["run"]] for name in names)
                switches = {"classified": "spatial", "triplet": "semantic", "regions": "sampled"}
                assert paper["model"] == other["model"] | switches and not switches.keys() & other["model"].keys()
                assert {**paper, "model": {}} == {**other, "model": {}}
                assert all(test in tree["evaluate"][name]["datasets"] for name in names)
                pairs.add(tuple(names))
        assert len(pairs) == (2 if scale == "tables" else 4)


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


# DSA Tables 2-5, as ruled: erasing, label smoothing, weights ID : triplet on a feature (f and z are one without the
# DSAG-Stream), the head, that stream's input and fusion, what is matched.
BASELINE = ("1.5 on f : 1.5", "conv5", "none", "all")
FULL = ("0.5 on f + 1 on z : 1.5", "global and local", "dsap, add", "f")
DSA_ROWS = {
    ("2", "DSA-reID"): (0.5, 0.1, *FULL),
    ("3", "Baseline"): (0.0, 0.0, *BASELINE),
    ("3", "Baseline (RE)"): (0.5, 0.0, *BASELINE),
    ("3", "Baseline (RE+LS)"): (0.5, 0.1, *BASELINE),
    ("3", "Baseline (Two branches)"): (0.5, 0.1, "1.5 on f : 1.5", "global and local", "none", "f"),
    ("3", "DSA-Global(Single)"): (0.5, 0.1, FULL[0], "global", "dsap, add", "z"),
    ("3", "DSA-Local(Single)"): (0.5, 0.1, FULL[0], "local", "dsap, add", "z"),
    ("3", "DSA-Global(Joint)"): (0.5, 0.1, *FULL[:3], "z_global"),
    ("3", "DSA-Local(Joint)"): (0.5, 0.1, *FULL[:3], "z_local"),
    ("3", "DSA(Two streams fused)"): (0.5, 0.1, *FULL[:3], "z"),
    ("3", "DSA-reID(Only MF-Stream)"): (0.5, 0.1, *FULL),
    ("4", "Baseline (RE+LS)"): (0.5, 0.1, *BASELINE),
    ("4", "CSA(Only MF-Stream)"): (0.5, 0.1, *FULL[:2], "csa, add", "f"),
    ("4", "DSA(Only MF-Stream)"): (0.5, 0.1, *FULL),
    ("5", "Concatenation+fc"): (0.5, 0.1, *FULL[:2], "dsap, concat", "f"),
    ("5", "Elem-add"): (0.5, 0.1, *FULL),
}
# Pairs of Table 3's, 4's and 5's rows, and the one thing that the paper names between them.
DSA_STEPS = [
    ("Baseline", "Baseline (RE)", {"augment.erase"}),
    ("Baseline (RE)", "Baseline (RE+LS)", {"model.label_smoothing"}),
    ("Baseline (RE+LS)", "Baseline (Two branches)", {"head"}),
    ("Baseline (Two branches)", "DSA-reID(Only MF-Stream)", {"model.use_dsag"}),
    ("DSA-reID(Only MF-Stream)", "DSA(Two streams fused)", {"match.features"}),
    ("DSA(Two streams fused)", "DSA-Global(Joint)", {"match.features"}),
    ("DSA(Two streams fused)", "DSA-Local(Joint)", {"match.features"}),
    ("DSA(Two streams fused)", "DSA-Global(Single)", {"model.use_local"}),
    ("DSA(Two streams fused)", "DSA-Local(Single)", {"model.use_global"}),
    ("DSA(Only MF-Stream)", "CSA(Only MF-Stream)", {"alignment"}),
    ("Elem-add", "Concatenation+fc", {"model.fusion"}),
]


def dsa_rows(tree: Entry, profile: str) -> dict[tuple[str, str], Entry]:
    """(table, row) -> what it is trained and matched with: run, match and warp. Table 2's are Market-1501's row."""
    rows, found = wanted(profile), {}
    for row in read_rows():
        if row.paper == "dsa" and row.dataset == "market1501":
            train, test = (counterpart("dsa", name, rows) for name in (row.train_on, row.dataset))
            name = run_name(row.variant, train, rows)
            run = tree["runs"][tree["embed"][f"{name}-on-{test}"]["run"]]
            warp = tree["warps"][run["cache"]] if run["cache"] != "none" else {"alignment": "none"}
            found[row.table, row.row] = run | {"match": tree["results"][name]["match"], "alignment": warp["alignment"]}
    return found


def as_ruled(row: Entry) -> tuple:
    """A line of DSA_ROWS."""
    model, warps, matched = row["model"], row["alignment"], row["match"]["features"]
    first = (row["augment"]["erase"], model["label_smoothing"])
    if model["name"] == "baseline":
        assert not model["normalise"]
        return (*first, f"{model['id_weight']:g} on f : {model['triplet_weight']:g}", "conv5", warps, matched)

    head = " and ".join(name for name in ("global", "local") if model[f"use_{name}"])
    on_f, on_z = model["id_weight"], model["fused_id_weight"]
    identity = f"{on_f:g} on f + {on_z:g} on z" if model["use_dsag"] else f"{on_f + on_z:g} on f"
    stream = f"{warps}, {model['fusion']}" if model["use_dsag"] else warps
    return (*first, f"{identity} : {model['triplet_weight']:g}", head, stream, matched)


def differences(one: Entry, other: Entry) -> set[str]:
    """The parameters in which two rows differ. A head of another kind counts once, with what it alone has (its own
    parameters, and ID losses whose sum is the same); without the DSAG-Stream there are no warps."""
    flat = [{f"{section}.{name}": value for section in ("augment", "optimizer", "model", "match")
             for name, value in row[section].items()}
            | {name: value for name, value in row.items() if not isinstance(value, dict) and name != "cache"}
            for row in (one, other)]
    found = {name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name)}
    if "model.name" in found:
        found -= {f"model.{name}" for name in ("name", *(one["model"].keys() ^ other["model"].keys()))}
        weights = [row["model"]["id_weight"] + row["model"].get("fused_id_weight", 0) for row in (one, other)]
        found -= {"match.features"} | ({"model.id_weight"} if weights[0] == weights[1] else set())
        found |= {"head"}
    return found - {"alignment"} if "model.use_dsag" in found else found


@pytest.mark.parametrize("profile", ["tables", "paper-dsa"])
def test_dsa_s_rows_erase_smooth_and_weigh_as_ruled_and_differ_in_one_thing(rendered, papers, profile):
    """At every scale: 4.4 builds all below Baseline (RE+LS) on it, and names what each row has that another has not."""
    rows = dsa_rows(rendered if profile == "tables" else papers["dsa"], profile)
    assert {key: as_ruled(row) for key, row in rows.items()} == DSA_ROWS
    by_name = {name: row for (_, name), row in rows.items()}
    for one, other, difference in DSA_STEPS:
        assert differences(by_name[one], by_name[other]) == difference, (one, other)
    assert {name for step in DSA_STEPS for name in step[:2]} == {name for table, name in rows if table != "2"}


def test_dsa_s_rows_of_table_2_differ_in_the_data_set(papers):
    """CUHK01 apart, whose ten networks start elsewhere."""
    runs = [papers["dsa"]["runs"][f"dsa-{name}"] for name in (
        "market1501", "cuhk03-labeled", "cuhk03-detected", "dukemtmc-reid")]
    for run in runs[1:]:
        assert {name for name in run if run[name] != runs[0][name]} == {"train_on", "cache", "image_steps"}


def test_partial_reid_s_probes_are_those_the_paper_uses(papers):
    """Its table has the paper's probes, which SGSFA does not name; every row is scored on the others too."""
    for paper, probes in {"esa": "partial-reid-occluded", "sgsfa": "partial-reid-occluded",
                          "sgam": "partial-reid-partial", "sorn": "partial-reid-occluded"}.items():
        tree = papers[paper]
        for table in tree["paper_tables"]["all"]["tables"]:
            for row in table["rows"]:
                if row["dataset"] == "partial-reid":
                    assert tree["datasets"][row["data"]]["layout"] == probes, paper
                    scored = {tree["datasets"][name]["layout"] for name in tree["evaluate"][row["result"]]["datasets"]}
                    assert scored >= {"partial-reid-occluded", "partial-reid-partial"}, row["result"]


def test_what_stands_beside_a_row_is_made_wherever_the_row_is(rendered, papers):
    """ESA's other readings: scored on all sets of that row, and another network by what is named here alone."""
    for name, beside, changed in (("esa-gated", "esa", {"attention": "gated"}),
                                  ("esa-cache", "esa", {"semantics": "cache"}),
                                  ("esa-g-attended", "esa-g", {"attention": "soft"})):
        for tree, scale in ((rendered, "tables"), (papers["esa"], "paper-esa")):
            trained = {row.train_on for row in read_rows() if row.variant == beside}
            assert trained
            for dataset in trained:
                train = counterpart("esa", dataset, wanted(scale))
                own, row = (run_name(variant, train, wanted(scale)) for variant in (name, beside))
                assert set(tree["evaluate"][own]["datasets"]) == set(tree["evaluate"][row]["datasets"])
                runs = [{"attention": "soft"} | tree["runs"][key]["model"] for key in (own, row)]
                assert runs[0] == runs[1] | changed and runs[0] != runs[1]
                assert {**tree["runs"][own], "model": {}} == {**tree["runs"][row], "model": {}}


def test_tables_show_what_stands_beside_a_row(rendered, papers):
    """Other readings in every table that has their row; on the papers' own sets also the other probes, of every row."""
    def of(tree: Entry, paper: str, table: str) -> set[tuple[str, ...]]:
        (plan,) = [plan for plan in tree["paper_tables"]["all"]["tables"] if (plan["paper"], plan["table"]) ==
                   (paper, table)]
        assert {(row["row"], row["setting"], row["dataset"]) for row in plan.get("beside", [])} <= {
            (row["row"], row["setting"], row["dataset"]) for row in plan["rows"]}
        return {(row["row"], row["name"], row["result"], row["data"]) for row in plan.get("beside", [])
                if row["dataset"] in ("partial-reid", "occluded-dukemtmc")}

    assert of(rendered, "esa", "4") == {
        ("g", "esa-g-attended", "esa-g-attended-synth-holistic", "synth-partial"),
        ("our", "esa-gated", "esa-gated-synth-holistic", "synth-partial"),
        ("our", "esa-cache", "esa-cache-synth-holistic", "synth-partial")}
    assert of(rendered, "sgsfa", "1") == {("SGSFA", "sgsfa-all", "sgsfa-all", "synth-occluded")}
    assert of(rendered, "sgam", "1") == of(rendered, "sorn", "I") == set()
    occluded, partial = "partial-reid-occluded", "partial-reid"
    assert of(papers["esa"], "esa", "2") == {
        ("Baseline", "on partial-reid", "esa-baseline-market1501", partial),
        ("ESA-ReID(ours)", "esa-gated", "esa-gated-market1501", occluded),
        ("ESA-ReID(ours)", "esa-cache", "esa-cache-market1501", occluded),
        ("ESA-ReID(ours)", "on partial-reid", "esa-market1501", partial)}
    assert of(papers["sgam"], "sgam", "2") == {("SGAM", "on partial-reid-occluded", "sgam-market1501", occluded)}
    assert {row[1] for row in of(papers["sorn"], "sorn", "V")} == {"on partial-reid"}


def test_table_4_s_row_g_has_no_attention(rendered):
    """4.4.3: "removing the entropy-based mask"; the pooled feature in the unconfident one's place."""
    model = rendered["runs"]["esa-g-synth-holistic"]["model"]
    assert (model["unconfident"], model["attention"]) == ("global", "none")


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
    assert compose("paper").plan["plan"]["paper_tables"] == {}, "a table would lack what the profile leaves out"


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


def test_dsa_s_cuhk01_row_starts_from_cuhk03_at_a_tenth_of_the_rate(own, papers):
    """DSA Table 2 and L223; the one without pre-training, out of the text, is DSA's recipe as it is."""
    plan, params = own["paper-dsa"].plan["plan"], own["paper-dsa"].params
    for trial in range(10):
        tuned, alone = (params["runs"][f"{name}-cuhk01-{trial}"] for name in ("dsa-pretrained", "dsa"))
        assert tuned["train_on"] == alone["train_on"] == f"cuhk01-{trial}"
        assert tuned["optimizer"]["lr"] == pytest.approx(alone["optimizer"]["lr"] / 10, rel=1e-12)
        assert tuned["optimizer"] | {"lr": 0} == alone["optimizer"] | {"lr": 0} and alone["optimizer"]["lr"] == 8e-4
        assert {key for key in tuned if tuned[key] != alone[key]} == {"init", "optimizer"}
        entry = plan["train_from"][f"dsa-pretrained-cuhk01-{trial}"]
        assert entry["weights"] == "data/runs/dsa-cuhk03-labeled/weights.safetensors"
        assert f"dsa-cuhk01-{trial}" in plan["train"]
    start = params["runs"]["dsa-cuhk03-labeled"]
    assert start["init"] == "imagenet" and start["train_on"] == "cuhk03-labeled"
    assert {key for key in start if start[key] != alone[key]} == {"train_on", "cache", "image_steps"}

    rows = {(row["row"], row["dataset"]): row for row in plan["paper_tables"]["all"]["tables"][0]["rows"]}
    assert rows["DSA-reID", "cuhk01"]["result"] == "dsa-pretrained-cuhk01"
    assert rows["DSA-reID(w/o pre-training)", "cuhk01"]["result"] == "dsa-cuhk01"
    with open(ROOT / "docs/papers/tables.csv", encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["row"] == "DSA-reID(w/o pre-training)"]
    assert [(line["metric"], line["value"]) for line in lines] == [("rank1", "88.6"), ("rank5", "97.1")]


def test_without_cuhk03_dsa_s_pretrained_row_is_left_out_and_says_so():
    composed = compose("paper-dsa", ("cuhk01",))
    plan = composed.plan["plan"]
    assert plan["train_from"] == {} and len(plan["train"]) == 10
    rows = {(row["row"], row["dataset"]): row["missing"] for row in plan["paper_tables"]["all"]["tables"][0]["rows"]}
    assert rows["DSA-reID", "cuhk01"] == "put cuhk03-labeled in data/raw/cuhk03-labeled and compose with it"
    assert rows["DSA-reID(w/o pre-training)", "cuhk01"] == ""
    assert list(compose("paper-dsa", ("cuhk03-labeled",)).plan["plan"]["train"]) == ["dsa-cuhk03-labeled"]


def test_a_row_alone_brings_the_run_that_it_starts_from(project):
    text = "include: [paper-recipes]\non: [paper]\nrows: {papers: [dsa], only: [dsa-pretrained-cuhk01]}\n"
    (project / "profiles/mine.yaml").write_text(text)
    plan = compose("mine").plan["plan"]
    assert list(plan["train"]) == ["dsa-cuhk03-labeled"] and len(plan["train_from"]) == 10


def test_where_both_sets_have_one_counterpart_nothing_is_pre_trained(rendered):
    """Rendered people stand for CUHK01 and CUHK03 alike: the row is DSA's, as those of the other sets."""
    assert rendered["train_from"] == {}
    (table,) = (table for table in compose("tables").plan["plan"]["paper_tables"]["all"]["tables"]
                if (table["paper"], table["table"]) == ("dsa", "2"))
    assert {(row["result"], row["full"]) for row in table["rows"]} == {("dsa-synth-holistic", True)}
