"""Joints of real sets and checkpoints of the Hub in a profile: what DVC is told of them."""

from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import InputError
from pipeline.config.compose import compose, outputs
from pipeline.config.loader import parse
from pipeline.config.plan import Plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCHED = f"owner-vitpose-base-0-1-{COMMIT[:12]}"
SETS = {"here": {"layout": "market", "raw": "data/raw/here"}, "there": {"layout": "market", "raw": "data/raw/there"}}
RUNS = {"a": {"like": "small-sorn", "train_on": "here", "eval_on": ["here", "there"]},
        "a-p": {"of": "a", "visible_by": "joints", "eval_on": ["here", "there"]}}
CACHES = {name: {"like": "parse", "dataset": name} for name in SETS}


def profile(name: str = "mine", **sections) -> None:
    tree = {"include": ["small"], "on": ["default"], "datasets": SETS, "caches": CACHES, "runs": RUNS} | sections
    Path(f"profiles/{name}.yaml").write_text(yaml.safe_dump({key: value for key, value in tree.items() if value}))


def test_sorn_s_row_reads_the_joints_that_a_profile_makes(project):
    profile(joints={"here-points": {"dataset": "here", "estimator": "kpr", "source": "data/raw/points"}})
    composed = compose("mine")
    plan = composed.plan["plan"]
    assert plan["joints"] == {"here-points": {"dataset": "here", "index": "data/index/here.csv", "raw": "data/raw/here",
                                              "source": "data/raw/points"}}
    seen = {entry["sets"][0]["dataset"]: entry["seen_by"] for entry in plan["embed_seen"].values()}
    assert seen == {"here": "data/cache/here-points/joints.h5"}  # there has none
    assert composed.params["joints"] == {"here-points": {"estimator": "kpr"}}
    assert plan["link"]["here-points-keypoints"] == {"path": "data/raw/points"}
    assert ("joints", "here-points") in set(outputs(parse(Plan, plan, "plan")))

    more = {"sorn-p": {"of": "a", "visible_by": "joints", "eval_on": ["there"]}}
    profile("more", on=["mine"], datasets={}, caches={}, runs=more, joints={
        "there-points": {"dataset": "there", "estimator": "coco", "source": "data/raw/all.json", "scale": 2.0}})
    assert compose("more").plan["plan"]["embed_seen"]["sorn-p"]["seen_by"] == "data/cache/there-points/joints.h5"
    profile(joints={"inside": {"dataset": "here", "estimator": "kpr", "source": "data/raw/here/points"}})
    links = compose("mine").plan["plan"]["link"]
    assert [link["path"] for link in links.values()] == ["data/raw/here", "data/raw/there"]  # DVC has no output in one
    left = compose("mine", ("there",)).plan["plan"]
    assert left["joints"] == left["embed_seen"] == {}


@pytest.mark.parametrize(("entry", "words"), [
    ({"dataset": "synth-partial"}, "joints.x.dataset: 'synth-partial' has joints already, .*labels.h5"),
    ({"dataset": "hear"}, "joints.x.dataset: .*'hear'.*here"), ({"source": None}, "joints.x.source: is missing"),
    ({"estimator": "openpose"}, "estimator.*openpose.*vitpose"),
    ({"estimator": "vitpose", "source": "owner/name@main"}, "joints.x.source: pins 'owner/name' to 'main', .*40 hex"),
    ({"points": 1}, "joints.x.points: unknown key")])
def test_mistakes_name_their_place(project, entry, words):
    written = {"dataset": "here", "estimator": "kpr", "source": "data/raw/points"} | entry
    profile(joints={"x": {key: value for key, value in written.items() if value}})
    with pytest.raises(InputError, match=words):
        compose("mine")


def test_joints_of_one_s_own_and_made_ones_are_not_both_had(project):
    profile(datasets={**SETS, "here": SETS["here"] | {"joints": True}},
            joints={"x": {"dataset": "here", "estimator": "kpr", "source": "data/raw/points"}})
    with pytest.raises(InputError, match="'here' has joints already, 'data/raw/here.joints.h5'; use "
                                         "those, or compose with `--with` the data sets that are there but "
                                         "'here-joints'"):
        compose("mine")


def test_a_pinned_checkpoint_is_fetched_once_into_a_folder_that_dvc_holds(project):
    pinned = f"owner/ViTPose_base.0.1@{COMMIT}"
    parser = {"parser": "huggingface", "labels": "fashn18", "input_height": 576, "input_width": 384, "height": 128,
              "width": 64, "batch": 16, "threads": 2, "source": pinned}
    profile(joints={"x": {"dataset": "here", "estimator": "vitpose", "source": pinned}},
            caches=CACHES | {"here-fashn": {"dataset": "here", **parser}})
    plan = compose("mine").plan["plan"]
    assert plan["fetch"] == {FETCHED: {"repository": "owner/ViTPose_base.0.1", "revision": COMMIT}}
    folder = f"data/checkpoints/{FETCHED}"
    assert plan["joints"]["x"]["source"] == plan["parse_external"]["here-fashn"]["source"] == folder
    assert not any(entry["path"] == folder for entry in plan["link"].values())
    assert ("checkpoint", FETCHED) in set(outputs(parse(Plan, plan, "plan")))

    profile("more", on=["mine"], datasets={}, runs={}, caches={"there-fashn": {"dataset": "there", **parser}})
    more = compose("more").plan["plan"]
    assert more["fetch"] == {} and more["parse_external"]["there-fashn"]["source"] == folder
    profile("other", caches=CACHES | {"here-fashn": {"dataset": "here", **parser, "source": "data/x@y"}})
    other = compose("other").plan["plan"]
    assert other["fetch"] == {} and other["parse_external"]["here-fashn"]["source"] == "data/x@y"
