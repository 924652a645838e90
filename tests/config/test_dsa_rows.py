"""DSA-reID's rows: each is one thing away from the next, and CUHK01's starts from CUHK03."""

import csv

import pytest

from pipeline.config.compose import compose
from pipeline.config.paper_rows import counterpart, read_rows, run_name
from pipeline.reporting.paper_tables import Own, compare, read_printed
from tests.config.conftest import ROOT
from tests.helpers.compositions import Entry, wanted

pytestmark = pytest.mark.usefixtures("at_root")

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


def test_the_full_model_of_table_2_is_dsa_reid_on_every_set(own):
    """On CUHK01 its row is the pre-trained one, and the paper's 88.6 without is below it, not above."""
    rows = own["paper-dsa"].plan["plan"]["paper_tables"]["all"]["tables"][0]["rows"]
    assert {(row["row"], row["full"]) for row in rows} == {("DSA-reID", True), ("DSA-reID(w/o pre-training)", False)}

    places = {(row["row"], row["setting"], row["dataset"]): Own(row["result"], (), row["data"], row["full"], "not made")
              for row in rows}
    frame = compare(read_printed(ROOT / "docs/papers/tables.csv", "dsa", "2"), places, {})
    compared = frame[frame["paper_minus_full"].notna()]
    assert [*zip(compared["row"], compared["metric"], compared["paper_minus_full"], strict=True)] == [
        ("DSA-reID(w/o pre-training)", "rank1", -1.8),  # 88.6 - 90.4
        ("DSA-reID(w/o pre-training)", "rank5", -0.7)]  # 97.1 - 97.8


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
