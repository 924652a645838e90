"""Composition: what each profile gives, who owns it, and that nothing of it depends on what lies on the disk."""

import contextlib
import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.project import new_project
from pipeline.base.errors import InputError
from pipeline.config.compose import Composed, compose, outputs
from pipeline.config.loader import load_experiment, parse
from pipeline.config.plan import TRAIN, Plan
from pipeline.config.schema import Params, without_neutral
from pipeline.config.writer import params_text, plan_text
from tests.config.conftest import ROOT, experiments
from tests.helpers.bare_params import by_data_set

WORKSPACE = ("default", "ci", "seeds", "tables", "figures", "sweeps-esa", "sweeps-sgam", "sweeps-sgsfa", "sweeps-sorn",
             "market", "market-seeds", "partial", "partial-seeds", "partial-rows", "partial-curve", "partial-large",
             "starts", "people", "vit")  # committed
TRAINED_PARSERS = ("train_parser", "train_parser_from", "train_photographs", "train_taught")
CROPS = ("parse_crops", "parse_crops_external", "parse_crops_described")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def every() -> dict[str, Composed]:
    with contextlib.chdir(ROOT):
        return {name: compose(name) for name in experiments()}


def together(every: dict[str, Composed], name: str) -> dict[str, Any]:
    """Sections of plan.yaml of an experiment and of those it stands on."""
    found: dict[str, Any] = {}
    for base in every[name].plan["plan"]["on"]:
        for section, entries in together(every, base).items():
            found.setdefault(section, {}).update(entries)
    for section, entries in every[name].plan["plan"].items():
        if isinstance(entries, dict):
            found.setdefault(section, {}).update(entries)
    return found


@pytest.mark.parametrize("name", experiments())
def test_every_profile_composes_to_what_stages_read(project, name, every):
    folder = Path() if name == "default" else Path("experiments", name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(params_text(every[name].params, name, None))
    (folder / "plan.yaml").write_text(plan_text(every[name].plan, name, None))
    experiment = load_experiment(name)
    assert experiment.params == parse(Params, every[name].params, "")
    assert experiment.plan == parse(Plan, every[name].plan["plan"], "")


@pytest.mark.parametrize("name", experiments())
def test_each_stage_has_an_entry_of_parameters_and_the_plan_s_names_hang_together(every, name):
    """The params that dvc.yaml names are there for each key, and whatever an entry reads is made or is the user's."""
    plan, params = every[name].plan["plan"], every[name].params
    assert set(STAGES) == {key for key, value in plan.items() if key in STAGES}
    for stage, section in (("render", "render"), ("prepare", "datasets"), ("occlude", "occlude"),
                           ("train_photographs", "photographs"), ("train_taught", "taught"), ("parse", "caches"),
                           ("warp", "warps")):
        assert list(plan[stage]) == list(params[section]), stage
    assert sorted([*plan["train_parser"], *plan["train_parser_from"]]) == sorted(params["parsers"])
    assert sorted([*plan["train"], *plan["train_file"], *plan["train_from"]]) == sorted(params["runs"])
    assert set(plan["parse_external"]) | set(plan["parse_described"]) == set(params["external"])
    assert sorted(key for stage in CROPS for key in plan[stage]) == sorted(params["crops"])
    embeds = by_data_set(plan).values()
    for key, entry in plan["prepare"].items():  # which its index is checked for
        needs = entry.get("needs", [])
        assert ("train" in needs) == any(run["train_on"] == key for stage in TRAIN for run in plan[stage].values())
        assert ("test" in needs) == any(embed["dataset"] == key for embed in embeds)
    assert {embed["result"] for embed in embeds} <= set(params["results"])

    whole = together(every, name)
    made = {f"data/index/{key}.csv" for key in whole["prepare"]}
    made |= {f"data/raw/{key}" for key in [*whole.get("occlude", {}), *rendered(every, name)]}
    made |= {f"data/raw/{key}/labels.h5" for key in rendered(every, name)}
    made |= {f"data/parsers/{key}/weights.safetensors"
             for stage in TRAINED_PARSERS for key in whole[stage]}
    made |= {f"data/cache/{key}/parts.h5" for stage in ("parse", "parse_external", "parse_described")
             for key in whole[stage]}
    made |= {f"data/cache/{key}/crops.h5" for stage in CROPS for key in whole[stage]}
    made |= {f"data/cache/{key}/dsap.h5" for key in whole["warp"]}
    made |= {f"data/runs/{key}/weights.safetensors" for stage in TRAIN for key in whole[stage]}
    shipped = {path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("data/parsers/*.dvc")}
    given = set(every[name].folders.values()) | shipped
    for stage in ("prepare", "occlude", *TRAINED_PARSERS, "parse", *CROPS, "warp", *TRAIN, "embed"):
        for key, entry in (by_data_set(plan) if stage == "embed" else plan[stage]).items():
            for field in ("raw", "rendered", "teacher", "index", "source", "parts", "train_index", "train_parts",
                          "reads", "weights", "seen_by"):
                assert field not in entry or entry[field] in made | given, (stage, key, field)
    assert {entry["start"] for entry in plan["train_parser_from"].values()} <= made | given


def rendered(every: dict[str, Composed], name: str) -> list[str]:
    return [*every[name].plan["plan"]["render"],
            *itertools.chain.from_iterable(rendered(every, base) for base in every[name].plan["plan"]["on"])]


def test_no_output_has_two_owners(every):
    """Whatever is composed side by side: all profiles together, each against each."""
    owners: dict[tuple[str, str], str] = {}
    for name, composed in every.items():
        for output in outputs(parse(Plan, composed.plan["plan"], "")):
            assert owners.setdefault(output, name) == name, output
    assert len(owners) > 300


def test_a_second_owner_is_refused_by_name(command):
    Path("profiles/mine.yaml").write_text("include: [small]\non: [default]\nruns: {sorn-2: {like: small-sorn}}\n")
    Path("profiles/other.yaml").write_text("include: [small]\non: [default]\nruns: {sorn-2: {like: small-sorn}}\n")
    assert command("mine").status == 0
    ended = command("other")
    assert ended.status == 2 and not Path("experiments/other").exists()
    assert "'profiles/other.yaml': the result 'sorn-2' belongs to experiment mine; take it from there (on: [mine])" \
        in ended.error
    Path("profiles/other.yaml").write_text("include: [small]\non: [mine]\nbeside: [sorn-2]\n")
    assert command("other").status == 0
    plan = load_experiment("other").plan
    assert plan.train == plan.embeddings == {} and list(plan.evaluate) == ["sorn-2"]


def test_plans_of_an_earlier_commit_are_composed_again_one_after_the_other(command):
    """Both lack a section that was added since, so that neither can be read when the other is composed."""
    Path("profiles/mine.yaml").write_text("include: [small]\non: [default]\nruns: {sorn-2: {like: small-sorn}}\n")
    assert command("mine").status == 0
    plans = [Path("plan.yaml"), Path("experiments/mine/plan.yaml")]
    present = [path.read_text() for path in plans]
    for path, text in zip(plans, present, strict=True):
        assert text.count("\n  train_from: {}\n") == 1
        path.write_text(text.replace("  train_from: {}\n", ""))
    ended = command("mine")
    assert ended.status == 2 and "'plan.yaml': train_from: is missing" in ended.error
    ended = command("mine", "--force")
    assert ended.status == 0 and "what default makes was not compared; compose it again too" in ended.error
    assert command("default", "--force").status == 0 and [path.read_text() for path in plans] == present


def test_the_workspace_has_few_stages(every):
    """DVC reads all of them before it does anything: 400 were the aim, which real people and sweeps went beyond."""
    assert sum(len(every[name].plan["plan"][stage]) for name in WORKSPACE for stage in STAGES) <= 984
    assert {path.name for path in (ROOT / "experiments").iterdir() if path.is_dir()} <= {*experiments()}


@pytest.mark.parametrize("name", ["market", "paper", "paper-sorn", "market-seeds", "folder", "lip"])
def test_what_is_composed_does_not_depend_on_the_disk(project, name):
    def texts(kept):
        composed = compose(name, kept)
        return params_text(composed.params, name, kept), plan_text(composed.plan, name, kept), composed.folders

    folders = compose(name).folders
    for kept in (None, tuple(list(folders)[:1]), tuple(folders)):
        with_nothing = texts(kept)
        for folder in folders.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, "a.jpg").touch()
        assert texts(kept) == with_nothing
        shutil.rmtree("data")


def test_what_is_not_kept_is_left_out_with_all_that_needs_it(every):
    with contextlib.chdir(ROOT):
        without, alone = compose("market", ()), compose("market", ("market1501-dev",))
    assert without.params["runs"] == without.params["caches"] == without.params["datasets"] == {}
    assert not any(without.plan["plan"][stage] for stage in STAGES)
    assert list(alone.params["runs"]) == list(every["market"].params["runs"]) != []
    assert list(alone.params["caches"]) == ["market1501-dev", "market1501-dev-occluded"]


def test_what_stands_on_what_is_left_out_is_left_out_too(project):
    """A run, another `of` it, a cache, a warp, an occluded set, a figure, a report and what is shown beside."""
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here}, there: {layout: market, raw: data/raw/there}}
occlude: {hidden: {dataset: there, stream: a, seed: 0, low: 0.1, high: 0.2}}
parsers:
  photos: {architecture: lraspp, layout: lip, raw: data/raw/photos, init: none, height: 128, width: 64, image_steps: 8,
           batch: 8, lr: 0.01, augment: flip, seed: 0, workers: 1}
caches:
  here: {like: parse, dataset: here}
  there: {like: parse, dataset: there}
  here-photos: {like: parse, dataset: here, weights: photos}
warps: {there: {like: warp, dataset: there}, here: {like: warp, dataset: here}}
runs:
  a: {like: small-sorn, train_on: here, eval_on: [here, there, hidden, synth-partial]}
  b: {like: small-sorn, train_on: there, eval_on: [here]}
  b-z: {of: b, eval_on: [here]}
  c: {like: small-sorn, train_on: here, cache: here-photos, eval_on: [there]}
  d: {of: a, visible_by: b, eval_on: [here]}
  e: {of: sorn, visible_by: joints, eval_on: [here, synth-partial]}
report: {mine: {title: a, pictures: there, parser: lraspp}, photos: {title: b, pictures: here, parser: photos}}
figures:
  f: {kind: lists, title: a, shows: [a, b], names: [a, b], count: 1, dataset: here}
  g: {kind: lists, title: a, shows: [a, sorn], names: [a, b], count: 1, dataset: synth-partial}
  h: {kind: aggregation, title: a, shows: [c], names: [c], count: 1, dataset: here}
  i: {kind: lists, title: a, shows: [a, d], names: [a, d], count: 1, dataset: here}
""")
    Path("profiles/more.yaml").write_text("include: [small]\non: [mine]\nbeside: [b-z, a, c]\n")
    plan = compose("mine", ("here",)).plan["plan"]
    assert list(plan["prepare"]) == list(plan["parse"]) == list(plan["warp"]) == ["here"] and plan["occlude"] == {}
    assert list(plan["train"]) == ["a"]
    assert list(by_data_set(plan)) == ["a-on-here", "a-on-synth-partial", "e-on-synth-partial"]
    assert list(plan["embed_two"]) == ["a"] and list(plan["embed_seen"]) == ["e"]
    assert list(plan["evaluate"]) == ["a", "e", "sorn"]
    assert list(plan["figure_lists"]) == ["g"] and plan["figure_maps"] == plan["report"] == {}
    assert list(compose("more", ("here",)).plan["plan"]["evaluate"]) == ["a"]
    whole = compose("more").plan["plan"]["evaluate"]
    assert {name: entry["datasets"] for name, entry in whole.items()} == {
        "b-z": ["here"], "a": ["here", "there", "hidden", "synth-partial"], "c": ["there"]}


def test_a_report_shows_each_network_s_first_trained_run_by_neighbours_of_its_own(project):
    """Where the data set has a list of pictures to leave out, the lists of neighbours read it too."""
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here, ignore: data/raw/here.ignore.csv}}
caches: {here: {like: parse, dataset: here}}
warps: {here: {like: warp, dataset: here}}
runs: {a: {of: untrained, eval_on: [here]}, b: {of: baseline, eval_on: [here]}, c: {of: sorn, eval_on: [here]},
       d: {of: sorn, match: {features: global}, eval_on: [here]}}
report: {mine: {title: a, pictures: here, parser: lraspp}}
""")
    plan = compose("mine").plan["plan"]
    assert plan["report"]["mine"]["shows"] == ["b", "c"] and plan["neighbours"] == {}
    assert plan["neighbours_listed"]["mine-c"] == {"report": "mine", "result": "c", "dataset": "here",
                                                   "features": "data/features/c/here.h5"}
    shown = compose("default").plan["plan"]
    assert shown["report"]["rendered"]["shows"] == ["baseline", "sorn", "dsa", "esa", "sgsfa", "sgam"]
    assert [*shown["neighbours"]] == [f"rendered-{name}" for name in shown["report"]["rendered"]["shows"]]


def test_held_out_people_are_a_parameter_of_their_data_set(project):
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here, hold_out: 9}, whole: {layout: market, raw: data/raw/here}}
""")
    assert compose("mine").params["datasets"] == {"here": {"layout": "market", "hold_out": 9},
                                                  "whole": {"layout": "market"}}


def test_a_list_of_pictures_to_leave_out_belongs_to_its_data_set(project):
    """Whatever is scored there leaves them out, in an experiment that stands on it too; other results are as before."""
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here, ignore: data/raw/here.ignore.csv}}
runs: {a: {of: baseline, eval_on: [here, synth-partial]}, b: {of: baseline, eval_on: [synth-partial]}}
""")
    Path("profiles/more.yaml").write_text("include: [small]\non: [mine]\nruns: {c: {of: baseline, eval_on: [here]}}\n")
    plan = compose("mine").plan["plan"]
    assert plan["ignore"] == {"here": {"index": "data/index/here.csv", "list": "data/raw/here.ignore.csv"}}
    assert {name: entry["listed"] for name, entry in plan["evaluate_listed"].items()} == {"a": ["here"]}
    assert list(plan["evaluate"]) == ["b"]
    assert plan["link"]["here-ignored"] == {"path": "data/raw/here.ignore.csv"}
    more = compose("more").plan["plan"]
    assert more["ignore"] == {} and more["evaluate_listed"]["c"]["listed"] == ["here"]

    Path("profiles/mine.yaml").write_text("include: [small]\ndatasets: {few: {layout: cuhk01, raw: data/raw/few, "
                                          "trials: 2, ignore: few.csv}}\n")
    with pytest.raises(InputError, match="datasets.few.ignore: the data set is 2 trials, and a list is of one; take"):
        compose("mine")


def test_a_dropped_name_drops_nothing_of_another_kind(project):
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {sorn: {layout: market, raw: data/raw/sorn}}
runs: {mine: {of: sorn, match: {tau: 0.5}, eval_on: [sorn, synth-partial]}}
""")
    assert list(by_data_set(compose("mine", ()).plan["plan"])) == ["mine-on-synth-partial"]


def test_one_experiment_s_threads_device_and_precision_touch_nothing_of_another(project):
    Path("profiles/mine.yaml").write_text("include: [small]\non: [default]\nthreads: 1\ndevice: cpu\n"
                                          "precision: float32\nruns: {mine: {like: small-sorn}}\n")
    mine = compose("mine")
    assert mine.params["threads"] == 1
    assert not any(mine.plan["plan"][stage] for stage in (*TRAINED_PARSERS, "parse", "warp"))
    assert compose("default").params["threads"] == 2


def test_a_run_says_what_it_reads_and_another_experiment_s_run_whose_it_is(every):
    plan = every["figures"].plan["plan"]
    assert plan["owners"] == {"esa": "default", "sorn": "default", "sorn-no-ls": "tables",
                              "sorn-segmentation": "tables"}
    train = every["default"].plan["plan"]["train"]
    assert {name: entry["reads"] for name, entry in train.items()} == {
        "histogram": "data/raw/synth-occluded", "untrained": "data/raw/synth-occluded",
        "baseline": "data/raw/synth-occluded", "dsa": "data/cache/synth-occluded/dsap.h5",
        **{name: "data/cache/synth-occluded/parts.h5" for name in ("sorn", "esa", "sgsfa", "sgam")}}
    reads = {name: entry["reads"] for name, entry in by_data_set(every["default"].plan["plan"]).items()}
    assert reads["sgam-on-synth-partial"] == "data/cache/synth-partial/parts.h5"
    assert reads["sorn-on-synth-partial"] == reads["dsa-on-synth-partial"] == "data/raw/synth-partial"


def test_parsers_from_outside_and_parsers_of_photographs_have_their_own_sections(every):
    for name, source, stage, description in (
            ("precomputed", "data/raw/parses", "parse_external", None),
            ("bodypix", "data/raw/bodypix/MobileNetV1-x050-stride8.onnx", "parse_external", None),
            ("huggingface", "data/raw/checkpoint", "parse_external", None),
            ("densepose", "data/raw/densepose/model_final_162be9.pkl", "parse_described",
             "data/raw/densepose/densepose_rcnn_R_50_FPN_s1x.yaml")):
        composed = every[f"folder-{name}"]
        params, plan = parse(Params, composed.params, ""), composed.plan["plan"]
        (key, cache), = params.external.items()
        assert key == f"pictures-{name}" and not (params.caches or params.parsers or params.render)
        entry = plan[stage][key]
        assert (cache.parser, entry["source"], entry["raw"]) == (name, source, "data/raw/pictures")
        assert entry.get("description") == description
        assert [warp["parts"] for warp in plan["warp"].values()] == (
            [f"data/cache/{key}/parts.h5"] if name == "densepose" else [])
    params, plan = every["photographs"].params, every["photographs"].plan["plan"]
    assert params["photographs"]["ccp-lraspp"]["layout"] == "ccp" and not params["parsers"]
    assert plan["parse"]["market1501-dev-ccp"]["source"] == "data/parsers/ccp-lraspp/weights.safetensors"
    with contextlib.chdir(ROOT):
        assert compose("photographs", ("market1501-dev",)).params["caches"] == {}


def test_a_cache_may_name_its_weights_and_a_label_map_of_the_user_s(project):
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
caches:
  a: {like: parse, dataset: synth-partial, source: other/weights.safetensors}
  b: {like: parse, dataset: synth-partial, parser: oracle}
  c: {dataset: synth-partial, parser: precomputed, source: maps, labels: my.yaml, min_score: 0.5, height: 128,
      width: 64, batch: 16, threads: 2}
""")
    plan = compose("mine").plan["plan"]
    assert plan["parse"]["a"]["source"] == "other/weights.safetensors"
    assert plan["parse"]["b"]["source"] == "data/raw/synth-partial/labels.h5"
    assert plan["parse_described"]["c"]["description"] == "my.yaml"


def test_what_sees_no_images_cannot_keep_their_proportions(project):
    """The oracle and parses made elsewhere; where nothing is said of `fit`, params.yaml says nothing either."""
    entry = "include: [small]\non: [default]\ncaches: {{a: {{like: parse, dataset: synth-partial, {}}}}}\n"
    profile = Path("profiles/mine.yaml")
    profile.write_text(entry.format("fit: keep"))
    assert compose("mine").params["caches"]["a"]["fit"] == "keep"
    profile.write_text(entry.format("fit: stretch"))
    assert "fit" not in without_neutral(parse(Params, compose("mine").params, ""))["caches"]["a"]
    profile.write_text(entry.format("fit: keep, parser: oracle"))
    with pytest.raises(InputError, match="caches.a.fit: is 'keep', and the oracle sees no images.*take it out"):
        compose("mine")
    profile.write_text("include: [small]\non: [default]\ncaches: {a: {dataset: synth-partial, parser: precomputed, "
                       "source: maps, labels: lip20, min_score: 0.5, height: 128, width: 64, batch: 16, threads: 2, "
                       "fit: keep}}\n")
    with pytest.raises(InputError, match=r"external.a.fit: is 'keep'.*stretch"):
        parse(Params, compose("mine").params, "")


@pytest.mark.parametrize(("run", "said"), [
    ("{of: sgsfa, match: {features: part}}", "is 'part' (did you mean 'parts'?); sgsfa matches by parts | "
     "parts_and_whole | semantic | spatial"),
    ("{like: small-sgam, match: {features: f}}", "is 'f'; sgam matches by all | unmasked | global | local"),
    ("{like: small-baseline, match: {features: 3}}", "is 3; baseline matches by all"),
])
def test_what_a_network_cannot_be_matched_by_is_refused_before_it_is_trained(project, run, said):
    Path("profiles/mine.yaml").write_text(f"include: [small]\non: [default]\nruns: {{mine: {run}}}\n")
    with pytest.raises(InputError) as caught:
        compose("mine")
    assert str(caught.value) == f"'profiles/mine.yaml': runs.mine.match.features: {said}"


def test_a_rendered_set_is_drawn_from_its_stream_whatever_it_is_called(every):
    """Pictures are drawn from (seed, stream): a renamed set has the same people."""
    streams = [entry["stream"] for composed in every.values() for entry in composed.params["render"].values()]
    assert len(streams) == len(set(streams))
    assert every["default"].params["render"]["synth-occluded"]["stream"] == "default-synth-occluded"


@pytest.mark.parametrize("name", experiments())
def test_every_training_finds_how_its_run_is_matched(name):
    """stages/train.py builds the network by the run's own name: the trials of CUHK01, whose result has another, too."""
    composed = compose(name)
    trained = {key: entry for stage in TRAIN for key, entry in composed.plan["plan"][stage].items()}
    assert trained.keys() <= composed.params["results"].keys()


def test_the_docs_example_of_scoring_composes_beside_all_that_is_committed(tmp_path):
    """It named a folder that a committed experiment has."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/datasets.md").read_text(), re.M | re.S)
    (example,) = [block for block in blocks if "{of: sorn" in block]
    committed = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/params.yaml"))
    assert "partial" in committed
    project = new_project(tmp_path / "project", experiments=committed)
    (project.folder / "profiles/scored.yaml").write_text(example)
    (project.folder / re.findall(r"raw: ([^}]+)}", example)[0]).mkdir(parents=True)
    project.run("python", "-m", "stages.compose", "scored")
