"""What a profile says and nothing would do, or would do otherwise than it reads: one sentence, before anything runs."""

import re
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from pipeline.config.plan import TRAIN
from tests.config.test_written_by_hand import one_sentence

HEAD = "include: [small]\non: [default]\n"
HERE = HEAD + "datasets: {here: {layout: market, raw: data/raw/here}}\n"
PARSER = ("{architecture: lraspp-reduced, height: 128, width: 64, image_steps: 8, batch: 8, lr: 0.01, augment: flip, "
          "seed: 0, workers: 1, labels: densepose24, uv: true, ")
CSA = HEAD + """
warps: {so-csa: {like: warp, dataset: synth-occluded, alignment: csa, parts: synth-occluded}}
runs:
  csa: {like: small-dsa, cache: so-csa%s}
  csa-z: {of: csa, match: {features: %s}}
"""


def composed(text: str, *kept: str):
    Path("profiles/mine.yaml").write_text(text)
    return compose("mine", kept or None)


def refused(text: str, *said: str) -> None:
    with pytest.raises(InputError) as caught:
        composed(text)
    for part in said:
        assert part in str(caught.value), caught.value


# A cache has one parser.


@pytest.mark.parametrize(("recipe", "own", "source"), [
    ("parse-people", "weights: mine", "data/parsers/mine/weights.safetensors"),
    ("parse", "source: other.safetensors", "other.safetensors"),
    ("parse", "", "data/parsers/lraspp/weights.safetensors")])
def test_the_parser_that_an_entry_names_goes_over_its_recipe_s(project, recipe, own, source):
    plan = composed(HEAD + f"parsers: {{mine: {PARSER}data: parsing, init: none}}}}\n"
                    f"caches: {{a: {{like: {recipe}, dataset: synth-partial, {own}}}}}\n").plan["plan"]
    assert plan["parse"]["a"]["source"] == source


def test_two_parsers_of_one_cache_are_refused(project):
    refused(HEAD + "caches: {a: {like: parse, dataset: synth-partial, weights: lraspp, source: x.safetensors}}\n",
            "caches.a: weights is 'lraspp' and source is 'x.safetensors'", "take one out")


@pytest.mark.parametrize(("written", "start"), [("init: x.safetensors", "x.safetensors"), ("init: imagenet", None),
                                                ("init: none", None)])
def test_the_weights_that_any_parser_starts_from_are_watched(project, written, start):
    """Where it starts from none, dvc.yaml's dependency is one that the stage has already."""
    of_photographs = PARSER.replace("labels: densepose24, uv: true, ", "")
    plan = composed(f"""{HERE}
caches: {{teacher: {{like: parse, dataset: here}}}}
parsers:
  a: {PARSER}data: parsing, {written}}}
  b: {of_photographs}layout: ccp, raw: data/raw/photos, {written}}}
  c: {of_photographs}layout: ccp, data: parsing, teacher: teacher, share: 0.5, {written}}}
""").plan["plan"]
    assert [key for section in ("train_parser", "train_parser_from") for key in plan[section]] == ["a"]
    assert plan["train_parser_from"].get("a", {}).get("start") == start
    assert plan["train_photographs"]["b"]["start"] == (start or "data/raw/photos")
    assert plan["train_taught"]["c"]["start"] == (start or "data/raw/parsing")


# Folders that DVC would find twice.


def test_a_folder_that_another_stage_makes_is_not_linked(project):
    plan = composed(HEAD + "datasets: {some: {layout: market, raw: data/raw/synth-occluded, hold_out: 20}}\n")
    assert plan.plan["plan"]["link"] == {} and plan.plan["plan"]["prepare"]["some"]["raw"] == "data/raw/synth-occluded"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_folders_in_one_another_the_outer_one_is_linked(project, order):
    sets = {"a": "{layout: market, raw: data/raw/all/}", "b": "{layout: market, raw: data/raw/all/sub}"}
    plan = composed(HEAD + f"datasets: {{{', '.join(f'{name}: {sets[name]}' for name in order)}}}\n").plan["plan"]
    assert plan["link"] == {"a": {"path": "data/raw/all"}} and plan["prepare"]["a"]["raw"] == "data/raw/all"


def test_a_folder_belongs_to_one_experiment_however_it_is_written(command):
    Path("data/raw/all").mkdir(parents=True)
    for name, raw in (("first", "data/raw/all"), ("second", "data/raw/all/")):
        Path(f"profiles/{name}.yaml").write_text(HEAD + f"datasets: {{{name}: {{layout: market, raw: {raw}}}}}\n")
    assert command("first").status == 0
    one_sentence(command("second"), "the user's folder 'data/raw/all' belongs to experiment first")


@pytest.mark.parametrize(("first", "second", "on"), [
    ("data/raw/all", "data/raw/all/sub", "default"), ("data/raw/all/sub", "data/raw/all", "first")])
def test_folders_in_one_another_belong_to_one_experiment(command, first, second, on):
    """DVC would refuse every command of every experiment, without a word of whose they are."""
    Path("data/raw/all/sub").mkdir(parents=True)
    for name, raw, base in (("first", first, "default"), ("second", second, on)):
        Path(f"profiles/{name}.yaml").write_text(
            f"include: [small]\non: [{base}]\ndatasets: {{{name}: {{layout: market, raw: {raw}}}}}\n")
    assert command("first").status == 0
    said = one_sentence(command("second"), "'profiles/second.yaml'", "belongs to experiment first", "in one another")
    assert f"{str(Path(second))!r}" in said and f"{first!r}" in said and not Path("experiments/second").exists()


def test_a_rendered_folder_belongs_to_the_experiment_that_renders_it(command):
    Path("data/raw/synth-occluded").mkdir(parents=True)
    assert command("default").status == 0
    Path("profiles/mine.yaml").write_text(
        "include: [small]\ndatasets: {mine: {layout: market, raw: data/raw/synth-occluded}}\n")
    one_sentence(command("mine"), "'data/raw/synth-occluded', which belongs to experiment default", "on: [default]")


# What is read in matching is what was read in training.


@pytest.mark.parametrize(("own", "other", "run"), [("", "z", "csa-z"), (", match: {features: z}", "f", "csa")])
def test_warps_of_a_name_of_their_own_are_not_matched_by_others(project, own, other, run):
    refused(CSA % (own, other), f"runs.{run}.match.features: is 'z'", "'csa' learned from 'so-csa'", "take `cache` out")


def test_what_learned_from_warps_of_a_name_of_their_own_is_matched_by_the_image(project):
    plan = composed(CSA % ("", "f")).plan["plan"]
    assert plan["train"]["csa"]["reads"] == "data/cache/so-csa/dsap.h5"
    assert all(one["reads"].startswith("data/raw/") for one in plan["embed_three"]["csa"]["sets"])


@pytest.mark.parametrize("source", ["baseline", "sorn-blind"])
def test_what_segments_nothing_says_of_no_stripe_that_it_is_seen(project, source):
    blind = "{like: small-sorn, model: {use_semantic: false}, match: {features: unmasked}}"
    refused(f"{HEAD}runs:\n  sorn-blind: {blind}\n"
            f"  mine: {{of: sorn, visible_by: {source}}}\n", f"runs.mine.visible_by: is {source!r}", "segments nothing")


def test_a_base_that_was_composed_with_other_masks_is_refused(command):
    """Its run would be trained on them, and this experiment's others, which stand in one curve with it, would not."""
    for folder in ("market1501", "partial-reid", "lip"):
        Path("data/raw", folder).mkdir(parents=True)
    sets = ("market1501", "partial-reid-occluded")
    assert command("default").status == 0 and command("paper", "--with", *sets, "lip").status == 0
    assert command("paper-esa", "--with", *sets, "lip").status == 0
    said = one_sentence(command("paper-sweeps-esa", "--with", *sets), "run esa-market1501 reads the cache",
                        "'market1501-lip'", "counts on 'market1501'")
    way = said.split("`")[1].split()[3:]
    assert command(*way).status == 0 and command("--check").status == 0


def test_runs_stand_in_any_order(project):
    """One that is `of` another, or for which another says what is seen, before that one."""
    runs = """
  c: {of: a, match: {features: unmasked}}
  b: {of: a, visible_by: s}
  a: {like: small-sorn}
  s: {like: small-sorn, seed: 1}
"""
    plan = composed(f"{HEAD}runs:{runs}").plan["plan"]
    assert list(plan["train"]) == ["a", "s"] and {"b", "c"} <= plan["evaluate"].keys()


def test_runs_that_are_of_one_another_are_refused(project):
    refused(HEAD + "runs: {a: {of: b}, b: {of: a}}\n", "runs.a: it takes its weights from itself (a -> b -> a)")


def test_the_report_of_real_partial_people_shows_the_common_baseline_and_full_models(project):
    assert compose("partial").plan["plan"]["report"]["partial"]["shows"] == [
        f"{name}-real-market" for name in ("baseline", "esa", "sgsfa", "sgam", "sorn")]


# Keys, names and numbers.


@pytest.mark.parametrize(("runs", "said"), [
    ("{like: small-sorn, mask: null}", "runs.mine.mask: unknown key (did you mean 'masks'?)"),
    ("{like: small-sorn, model: {patchs: null}}", "runs.mine.model.patchs: is null"),
    ("{like: small-sorn, optimizer: {layer_decay: null}}", "runs.mine.optimizer.layer_decay: is null")])
def test_null_takes_out_what_is_there(project, runs, said):
    refused(HEAD + f"runs: {{mine: {runs}}}\n", said)


def test_null_takes_out_what_an_entry_has_that_another_is_of(project):
    runs = "{on: {like: small-baseline, match: {flip: mean}}, off: {of: on, match: {flip: null}}}"
    results = composed(HEAD + f"runs: {runs}\n").params["results"]
    assert results["on"]["match"]["flip"] == "mean" and "flip" not in results["off"]["match"]


def test_a_budget_that_is_missing_is_named_where_a_report_asks_for_it(project):
    refused("include: [synthetic]\non: [default]\nruns: {mine: {like: sorn, train_on: synth-occluded, "
            "eval_on: [synth-occluded]}}\nreport: {r: {title: t, pictures: synth-occluded, parser: lraspp}}\n",
            "runs.mine.image_steps: is missing")


def test_rows_beside_stand_on_a_data_set_that_a_row_has(project):
    text = Path("profiles/partial-recipes.yaml").read_text()
    Path("profiles/partial-recipes.yaml").write_text(text.replace("real-partial-ilids: real-partial-ilids-u",
                                                                  "real-partial-ilid: real-partial-ilids-u"))
    with pytest.raises(InputError, match=re.escape("rows.beside: 'real-partial-ilid' is no row's data set of this "
                                                   "profile (did you mean 'real-partial-ilids'")):
        compose("partial")


@pytest.mark.parametrize("seeds", ["{sgam-2: [1], sgam: [1]}", "{sgam: [1.0], sgam-2: [1]}"])
def test_seeds_of_rows_stand_in_any_order_and_are_whole_numbers(project, seeds):
    rows = "rows: {papers: [sgam], prefix: small-, main: synth-occluded, seeds: %s, counterparts: {%s}}\n"
    sets = ", ".join(f"{one}: {other}" for one, other in {
        "market1501": "synth-holistic", "dukemtmc-reid": "synth-holistic", "partial-reid": "synth-partial",
        "partial-ilids": "synth-partial", "occluded-dukemtmc": "synth-occluded", "occluded-reid": "synth-occluded",
        "p-dukemtmc-reid": "synth-occluded"}.items())
    plan = composed(HEAD + rows % (seeds, sets)).plan["plan"]
    runs = {key for section in TRAIN for key in plan[section]}
    assert "sgam-seed1" in runs and "sgam-2-seed1" in plan["evaluate"]


# Pages that could not be made.


WARPS = HERE + """
caches: {here: {like: parse, dataset: here}, here-dp: {like: parse, dataset: here}}
warps: {%s: {like: warp, dataset: here, parts: %s}}
runs: {mine: {like: small-baseline, train_on: here, eval_on: [%s]}}
report: {r: {title: t, pictures: %s, parser: lraspp}}
"""


@pytest.mark.parametrize(("warps", "parts"), [("here", "here-dp"), ("here-other", "here")])
def test_a_page_shows_masks_and_warps_of_one_cache(project, warps, parts):
    refused(WARPS % (warps, parts, "here", warps), f"report.r.pictures: the warps {warps!r} follow the cache {parts!r}")


def test_a_page_of_a_data_set_on_which_nothing_is_scored_is_refused(project):
    refused(WARPS % ("here", "here", "synth-partial", "here"), "report.r.pictures: is of 'here', on which nothing here")
    made = composed(WARPS % ("here", "here", "here", "here")).plan["plan"]
    assert made["report"]["r"]["shows"] == ["mine"]


def test_tables_without_a_row_that_is_here_are_not_planned(project):
    assert compose("paper-dsa", ("occluded-reid",)).plan["plan"]["paper_tables"] == {}
