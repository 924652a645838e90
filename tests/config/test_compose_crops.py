"""Parses of crops that a run with `recrop: parse` reads: which are made, by whose rule, and where they are refused."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import Composed, compose
from pipeline.config.compose_crops import SECTIONS
from pipeline.config.loader import load_experiment
from pipeline.config.plan import Plan
from tests.config.conftest import ROOT
from tests.helpers.bare_params import by_data_set
from tests.helpers.trees import tree, write_tree

SETS = {"market1501": "market1501", "occluded-dukemtmc": "occluded-duke", "partial-reid": "partial-reid-partial",
        "partial-ilids": "partial-ilids", "lip": "market1501"}  # in data/raw, in which layout; of LIP the folder alone


def reads(composed: Composed) -> dict[str, str]:
    """What each training and embedding of SGAM reads."""
    plan = composed.plan["plan"]
    return {key: entry["reads"].removeprefix("data/cache/")
            for key, entry in (plan["train"] | by_data_set(plan)).items()
            if entry["model"] == "sgam"}


def embedding_reads(plan: Plan) -> dict[str, str]:
    """What each embedding reads."""
    return {f"{entry.result}-on-{test.dataset}": test.reads for entry in plan.embeddings.values()
            for test in entry.sets}


def crops(composed: Composed) -> dict[str, dict[str, Any]]:
    return {key: entry for section in SECTIONS for key, entry in composed.plan["plan"][section].items()}


def test_the_paper_s_rows_read_the_crops_parsed_again(command):
    """Composed by the command over folders with files as published: rows that read maps of crops, and no other."""
    for name, layout in SETS.items():
        write_tree(Path("data/raw") / name, tree(layout))
    assert command("paper-sgam", "--with", *SETS).status == 0
    paper, own = load_experiment("paper"), load_experiment("paper-sgam")

    market = "market1501-lip-by-market1501-0_2"
    assert list(paper.plan.parse_crops) == [market, "partial-reid-lip-by-market1501-0_2",
                                            "partial-ilids-lip-by-market1501-0_2"]
    partial = paper.plan.parse_crops["partial-reid-lip-by-market1501-0_2"]
    assert (partial.dataset, partial.index, partial.raw, partial.source) == (
        "partial-reid", "data/index/partial-reid.csv", "data/raw/partial-reid",
        "data/parsers/lip/weights.safetensors")
    assert (partial.cache, partial.owner, partial.parts) == (
        "partial-reid-lip", "paper", "data/cache/partial-reid-lip/parts.h5")
    assert (partial.train_index, partial.train_parts) == (
        "data/index/market1501.csv", "data/cache/market1501-lip/parts.h5")
    assert paper.params.crops[market].thresholds == (0.2,) * 4 and paper.params.crops[market].scores == "normalised"
    assert paper.params.runs["sgam-market1501"].cache == market
    assert paper.plan.train["sgam-market1501"].reads == f"data/cache/{market}/crops.h5"
    assert embedding_reads(paper.plan)["sgam-market1501-on-partial-ilids"] == (
        "data/cache/partial-ilids-lip-by-market1501-0_2/crops.h5")

    duke = "occluded-dukemtmc-lip-by-occluded-dukemtmc-0_2"
    assert list(own.plan.parse_crops) == [duke] and own.plan.parse_crops[duke].owner == "paper"
    again = {f"data/cache/{duke}/crops.h5", f"data/cache/{market}/crops.h5"}
    whole = {"data/cache/occluded-dukemtmc-lip/parts.h5", "data/raw/occluded-dukemtmc"}
    for variant, expected in (("sgam", again), ("sgam-1", again), ("sgam-no-crop", whole), ("sgam-resnet50", whole),
                              ("sgam-resnet50-crop", whole)):
        assert own.plan.train[f"{variant}-occluded-dukemtmc"].reads in expected, variant
        assert embedding_reads(own.plan)[f"{variant}-occluded-dukemtmc-on-occluded-dukemtmc"] in expected, variant
    assert embedding_reads(own.plan)["sgam-2-occluded-dukemtmc-on-occluded-dukemtmc"] in again


def test_without_lip_the_crops_are_parsed_by_the_data_sets_own_parser():
    with contextlib.chdir(ROOT):
        paper = compose("paper", ("market1501",))
        sweep = compose("paper-sweeps-sgam")
    assert {key: (entry["cache"], entry["source"]) for key, entry in crops(paper).items()} == {
        "market1501-by-market1501-0_2": ("market1501", "data/parsers/paper-lraspp/weights.safetensors")}
    assert crops(sweep) == {}, "paper-sgam's are used"
    assert set(reads(sweep).values()) == {"occluded-dukemtmc-lip-by-occluded-dukemtmc-0_2/crops.h5"}


@pytest.mark.parametrize("name", ["default", "ci", "tables", "seeds", "market", "market-seeds", "sweeps-sgam"])
def test_elsewhere_maps_are_cropped_and_nothing_is_said_of_it(name):
    """A switch that was added later makes no older run stale."""
    with contextlib.chdir(ROOT):
        composed = compose(name)
    assert crops(composed) == {} == composed.params["crops"]
    assert not [run for run in composed.params["runs"].values() if "recrop" in run["model"]]
    assert not [read for read in reads(composed).values() if read.endswith("crops.h5")]


MINE = """
include: [small]
on: [default]
caches:
  synth-partial-mine: {like: parse, dataset: synth-partial, {PARSER}}
  synth-occluded-mine: {like: parse, dataset: synth-occluded, {PARSER}}
runs:
  mine: {like: small-sgam, masks: [mine], train_on: synth-occluded, eval_on: [synth-partial], model: {recrop: parse}}
"""
HUGGINGFACE = "parser: huggingface, source: checkpoint, labels: {LABELS}, input_height: 0, input_width: 0"
DENSEPOSE = ("parser: densepose, source: model.pkl, config: model.yaml, boxes: whole, input_height: 0, input_width: 0, "
             "min_score: 0.5")


def mine(parser: str = "parser: lraspp", more: str = "") -> Composed:
    Path("profiles/mine.yaml").write_text(MINE.replace("{PARSER}", parser) + more)
    return compose("mine")


@pytest.mark.parametrize(("parser", "section", "description"), [
    ("parser: lraspp", "parse_crops", None),
    (HUGGINGFACE.replace("{LABELS}", "lip20"), "parse_crops_external", None),
    (HUGGINGFACE.replace("{LABELS}", "my.yaml"), "parse_crops_described", "my.yaml"),
    (DENSEPOSE, "parse_crops_described", "model.yaml")])
def test_parsers_from_outside_parse_crops_too(project, parser, section, description):
    plan = mine(parser).plan["plan"]
    assert set(plan[section]) == {"synth-occluded-mine-by-synth-occluded-0_2",
                                  "synth-partial-mine-by-synth-occluded-0_2"}
    for entry in plan[section].values():
        assert entry.get("description") == description and entry["owner"] == "mine"
    assert not any(plan[other] for other in SECTIONS if other != section)


def test_runs_of_one_rule_share_crops_and_others_have_their_own(project):
    composed = mine(more="""
  mine-too: {like: small-sgam, masks: [mine], train_on: synth-occluded, eval_on: [synth-occluded],
             model: {recrop: parse, lambda_global: 0.4}}
  mine-strict: {like: small-sgam, masks: [mine], train_on: synth-occluded, eval_on: [synth-occluded], max_ids: 8,
                model: {recrop: parse, thresholds: [0.2, 0.25, 0.2, 0.2], scores: paper}}
""")
    strict = "synth-occluded-mine-by-synth-occluded-0_2-0_25-0_2-0_2-paper-8ids"
    assert set(composed.params["crops"]) == {"synth-occluded-mine-by-synth-occluded-0_2",
                                             "synth-partial-mine-by-synth-occluded-0_2", strict}
    assert composed.params["crops"][strict] == {"thresholds": [0.2, 0.25, 0.2, 0.2], "scores": "paper", "max_ids": 8}
    own = "synth-occluded-mine-by-synth-occluded-0_2/crops.h5"
    assert reads(composed) == {
        "mine": own, "mine-too": own, "mine-strict": f"{strict}/crops.h5",
        "mine-on-synth-partial": "synth-partial-mine-by-synth-occluded-0_2/crops.h5",
        "mine-too-on-synth-occluded": own, "mine-strict-on-synth-occluded": f"{strict}/crops.h5"}


def test_what_cannot_be_parsed_again_is_refused(project):
    for parser in ("parser: oracle", "parser: precomputed, source: maps, labels: lip20, min_score: 0.5"):
        name = parser.removeprefix("parser: ").partition(",")[0]
        with pytest.raises(InputError, match=f"runs.mine.model.recrop: is 'parse', and the cache 'synth-occluded-mine' "
                                             f"is by '{name}', which knows whole images alone"):
            mine(parser)
    for field in ("crop", "use_parts"):
        with pytest.raises(InputError, match=f"runs.other.model.recrop: is 'parse', and {field} is false"):
            mine(more=f"  other: {{like: mine-sgam, model: {{{field}: false}}}}\n"
                      "recipes: {mine-sgam: {like: small-sgam, train_on: synth-occluded, eval_on: [synth-occluded], "
                      "model: {recrop: parse}}}\n")
    with pytest.raises(InputError, match="runs.other.cache: is 'synth-occluded-mine', and sgam reads masks in"):
        mine(more="  other: {like: small-sgam, cache: synth-occluded-mine, train_on: synth-occluded, "
                  "eval_on: [synth-occluded], model: {recrop: parse}}\n")
