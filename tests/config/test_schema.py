"""Parameters: types, ranges and choices of every field, each a sentence when it is broken, and neutral values."""

import dataclasses
import importlib
import itertools
import json
import typing
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.config import fields, schema
from pipeline.config.compose import compose
from pipeline.config.loader import parse
from pipeline.config.model_params import MODELS
from pipeline.config.schema import Params, RunParams, without_neutral
from pipeline.config.writer import comment_of, params_text
from stages.shared.trained_run import recorded
from tests.config.conftest import ROOT

KINDS = [kind for kind in vars(schema).values() if dataclasses.is_dataclass(kind)]
FIELDS = [pytest.param(kind, item, id=f"{kind.__name__}.{item.name}") for kind in KINDS
          for item in dataclasses.fields(kind)]


@pytest.fixture(scope="module")
def trees() -> dict[str, Any]:
    """What params.yaml holds, of experiments that together have an entry of every kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        names = ("default", "market", "photographs", "folder-bodypix", "folder-densepose", "folder-huggingface",
                 "folder-precomputed", "figures")
        return {name: compose(name).params for name in names}


@pytest.fixture
def tree(trees) -> dict[str, Any]:
    """The default's, and of other experiments the first entry of each kind that it has none of."""
    found = json.loads(json.dumps(trees["default"]))
    for section in (key for key, value in found.items() if isinstance(value, dict)):
        kinds = {kind_of(entry) for entry in found[section].values()}
        for key, entry in ((key, entry) for tree in trees.values() for key, entry in tree[section].items()):
            if kind_of(entry) not in kinds:
                found[section][key] = json.loads(json.dumps(entry))
                kinds.add(kind_of(entry))
    return found


def kind_of(entry: dict[str, Any]) -> str:
    return entry["model"]["name"] if "model" in entry else entry.get("parser", "")


def put(tree: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The tree with another value at a dotted place."""
    *path, last = place.split(".")
    entry = tree
    for key in path:
        entry = entry[key]
    entry[last] = value
    return tree


@pytest.mark.parametrize(("kind", "item"), FIELDS)
def test_every_field_says_what_it_means_and_numbers_their_range(kind, item):
    hint = typing.get_type_hints(kind)[item.name]
    nested = dataclasses.is_dataclass(hint) or hint in schema.CHOICES
    assert item.metadata["doc"] or nested, "a comment, but for entries of entries"
    if hint in (int, float) or typing.get_args(hint)[:1] in ((int,), (float,)):
        low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
        assert low is not None or choices, "a range or choices"
        said = comment_of(item.metadata)
        assert all(str(choice) in said for choice in choices) and (choices or str(low) in said)
        assert high is None or str(high) in said


def places(kind: Any, tree: Any, name: str = "") -> typing.Iterator[tuple[str, Any, dataclasses.Field]]:
    """(dotted place, type, field) of every leaf of a tree of `kind`, found without the loader."""
    if kind in schema.CHOICES:
        key, known = schema.CHOICES[kind]
        kind = known[tree[key]]
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        place, hint = f"{name}{item.name}", hints[item.name]
        if typing.get_origin(hint) is dict:
            for key, entry in tree[item.name].items():
                yield from places(typing.get_args(hint)[1], entry, f"{place}.{key}.")
        elif dataclasses.is_dataclass(hint) or hint in schema.CHOICES:
            yield from places(hint, tree[item.name], f"{place}.")
        elif item.name in tree:
            yield place, hint, item


def test_every_leaf_is_held_to_its_type_its_range_and_its_choices(tree):
    """One beyond each end, a choice that there is none of, and values of other types: all refused by name."""
    for section in ("render", "datasets", "caches", "warps", "results"):
        tree[section] = dict(itertools.islice(tree[section].items(), 1))
    del tree["runs"]["untrained"]
    parse(Params, tree, "")
    tried = 0
    for place, hint, item in list(places(Params, tree)):
        low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
        whole = hint is int
        number = hint in (int, float)
        wrong: list[Any] = [None, {"a": 1}]
        wrong += [[1], "x", True] if number else []
        wrong += [1.5, float("inf")] if whole else [float("nan"), float("inf"), -float("inf")] if number else []
        wrong += [3, ["a"], True] if hint is str else [0, "yes"] if hint is bool else []
        wrong += [f"{choices[0]} ", str(choices[0]).upper()] if choices and hint is str else []
        wrong += [max(choices) + 1] if choices and whole else []
        step = 1 if whole else 1e-6
        ends = ([low - step, -10 ** 6] if low is not None else []) + ([high + step] if high is not None else [])
        if typing.get_origin(hint) is tuple:
            wrong += [1.0, "x", ["x"], [True], *([end] for end in ends)]
        elif number:
            wrong += ends

        *path, last = place.split(".")
        entry = tree
        for key in path:
            entry = entry[key]
        right = entry[last]
        for value in wrong:
            entry[last] = value
            with pytest.raises(InputError) as caught:
                parse(Params, tree, "")
            said = str(caught.value)
            assert said.startswith((place, f"{place.rpartition('.')[0]}.")) and "\n" not in said, said
            tried += 1
        entry[last] = right
        if number and low is not None and not choices and not item.metadata["above"]:
            entry[last] = low
            assert parse(Params, tree, "") is not None
            entry[last] = right
    assert tried > 1000


@pytest.mark.parametrize(("place", "value", "said"), [
    ("threads", 0, "threads: is 0; it is 1 to 1024"), ("threads", 10 ** 6, "threads: is 1000000; it is 1 to 1024"),
    ("device", "gpu", "device: is 'gpu'"), ("precision", "float16", "it is one of auto, float32"),
    ("render.parsing.seed", -1, "render.parsing.seed: is -1; it is 0 to 4294967295"),
    ("render.parsing.kind", "occlude", "did you mean 'occluded'"),
    ("parsers.lraspp.batch", 1, "parsers.lraspp.batch: is 1; it is at least 2"),
    ("parsers.lraspp.lr", -1, "parsers.lraspp.lr: is -1.0; it is at least 0"),
    ("parsers.lraspp.augment", "All", "did you mean 'all'"),
    ("caches.synth-partial.batch", 0, "at least 1"), ("caches.synth-partial.threads", 0, "1 to 1024"),
    ("warps.synth-partial.texels", 0, "4 to 1024"),
    ("runs.sorn.batch", 1, "runs.sorn.batch: is 1; it is at least 2"),
    ("runs.sorn.workers", -1, "runs.sorn.workers: is -1; it is 0 to 256"),
    ("runs.sorn.seed", -1, "runs.sorn.seed: is -1; it is 0 to 4294967295"),
    ("runs.sorn.seed", 2 ** 32, "it is 0 to 4294967295"), ("runs.sorn.image_steps", -5, "is -5; it is at least 0"),
    ("runs.sorn.image_steps", 1e300, "write a smaller number"), ("runs.sorn.height", 15, "16 to 4096"),
    ("runs.sorn.max_ids", -1, "at least 0"), ("runs.sorn.ids_per_batch", -1, "at least 0"),
    ("runs.sorn.optimizer.lr", -1, "runs.sorn.optimizer.lr: is -1.0; it is at least 0"),
    ("runs.sorn.optimizer.lr", "1e-4x", "expected a number, got '1e-4x' (a string)"),
    ("runs.sorn.optimizer.lr", float("nan"), "a finite number is needed"),
    ("runs.sorn.optimizer.weight_decay", -1, "weight_decay: is -1.0; it is at least 0"),
    ("runs.sorn.optimizer.name", "Adam", "did you mean 'adam'"),
    ("runs.sorn.optimizer.warmup", 1.5, "0 to 1"), ("runs.sorn.optimizer.gamma", -0.1, "at least 0"),
    ("runs.sorn.optimizer.milestones", [0.5, 1.5], "milestones: is 1.5; it is 0 to 1"),
    ("runs.sorn.optimizer.milestones", [-0.5], "milestones: is -0.5; it is 0 to 1"),
    ("runs.sorn.optimizer.milestones", 3, "milestones: expected a list, got 3 (a whole number)"),
    ("runs.sorn.augment.flip", 2.0, "augment.flip: is 2.0; it is 0 to 1"),
    ("runs.sorn.augment.erase", -0.1, "0 to 1"), ("runs.sorn.augment.pad", -1, "0 to 4096"),
    ("runs.sorn.augment.occlude_low", 0.5,
     "runs.sorn.augment.occlude_low: is 0.5, and occlude_high is 0.4; write occlude_low <= occlude_high"),
    ("runs.sorn.augment.occlude_high", 0.05, "occlude_low: is 0.1, and occlude_high is 0.05; write occlude_low <="),
    ("runs.sorn.augment.occlude_low", 0.0, "occlude_low: is 0.0; it is 0.01 to 0.99"),
    ("runs.sorn.augment.fill", "Image", "augment.fill: is 'Image' (did you mean 'image' or "),
    ("runs.sorn.model.labels", 3, "labels: is 3; it is one of 8, 5, 2"),
    ("runs.sorn.model.label_smoothing", 1.1, "0 to 1"), ("runs.sorn.model.lambda_spc", -1, "at least 0"),
    ("runs.sorn.model.name", "resnet", "unknown model 'resnet' (a string); it is one of baseline, histogram, sorn"),
    ("runs.sorn.learning_rate", 1.0, "runs.sorn.learning_rate: unknown parameter"),
    ("results.sorn.dtype", "float64", "it is one of float32, float16"), ("results.sorn.match.tau", 1.01, "0 to 1"),
    ("runs", None, "runs: expected entries, got None (nothing); an empty section is written {}"),
    ("runs.sorn", 3, "runs.sorn: expected entries, got 3"),
    ("external.pictures-precomputed.min_score", 2, "0 to 1"),
    ("external.pictures-precomputed.scale", 0, "0.01 to 100"),
    ("external.pictures-densepose.boxes", "all", "it is one of whole, detect"),
    ("external.pictures-huggingface.min_score", 0.5, "min_score: unknown parameter"),
    ("external.pictures-precomputed.parser", "schp", "unknown parser 'schp'"),
])
def test_mistakes_are_named(tree, place, value, said):
    with pytest.raises(InputError) as caught:
        parse(Params, put(tree, place, value), "")
    assert said in str(caught.value)


def test_the_shares_that_objects_hide_are_a_range():
    entry = {"stream": "x", "seed": 0, "low": 0.6, "high": 0.25}
    with pytest.raises(InputError, match=r"^occlude.x.low: is 0.6, and high is 0.25; write low <= high$"):
        parse(schema.OccludeParams, entry, "occlude.x")


def test_numbers_written_whole_are_numbers_and_whole_numbers_may_be_written_long():
    assert parse(float, 1, "x") == 1.0 and isinstance(parse(float, 1, "x"), float)
    assert parse(int, 1e5, "x") == 100000 and isinstance(parse(int, 1e5, "x"), int)
    with pytest.raises(InputError, match=r"^x: expected a whole number, got 1.5 \(a number\)$"):
        parse(int, 1.5, "x")


def test_parameters_are_frozen(tree):
    params = parse(Params, tree, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.runs["sorn"].seed = 3
    with pytest.raises(TypeError):
        params.runs["new"] = params.runs["sorn"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_which_cache_it_reads(tree, name):
    """parts.h5 or dsap.h5 where models/NAME.py reads arrays of it, images alone elsewhere."""
    run = next(run for run in parse(Params, tree, "").runs.values() if run.model.name == name)
    read = {"sorn": "parts.h5", "esa": "parts.h5", "sgsfa": "parts.h5", "sgam": "parts.h5", "dsa": "dsap.h5"}.get(name)
    assert run.model.cache_file(None) == read
    assert (run.model.arrays() == ()) == (read is None)


@pytest.mark.parametrize("name", MODELS)
def test_what_may_be_matched_is_what_the_network_takes(tree, name):
    """One list for compose, one for the network, which imports nothing of the pipeline."""
    run = next(run for run in parse(Params, tree, "").runs.values() if run.model.name == name)
    assert run.model.matchable() == importlib.import_module(f"models.{name}").CHOICES["features"]


# A field that is added later

def with_more(kind: type, **more: Any) -> type:
    """A copy of a dataclass with more fields."""
    return dataclasses.make_dataclass(kind.__name__, [(name, type(item.default), item) for name, item in more.items()],
                                      bases=(kind,), frozen=True)


@pytest.fixture
def later(monkeypatch) -> type:
    """RunParams and OptimizerParams with a new switch each, as if they had been written into schema.py."""
    optimizer = with_more(schema.OptimizerParams, nesterov=fields.doc("a new switch", neutral=True))
    run = with_more(RunParams, ema=fields.share("another", neutral=0.0),
                    freeze=fields.doc("and another", choices=("none", "stem"), neutral="none"))
    run.__annotations__["optimizer"] = optimizer
    changed = with_more(Params)
    changed.__annotations__["runs"] = dict[str, run]
    return changed


def test_a_field_added_later_changes_neither_the_file_nor_the_record(tree, later, monkeypatch):
    before = parse(Params, tree, "")
    after = parse(later, tree, "")
    assert after.runs["sorn"].ema == 0.0 and after.runs["sorn"].optimizer.nesterov is True, "read as if it stood there"

    text = params_text(without_neutral(before), "default", None)
    monkeypatch.setattr("pipeline.config.writer.Params", later)
    assert params_text(without_neutral(after), "default", None) == text
    for key, run in before.runs.items():
        assert recorded(after.runs[key]) == recorded(run) and not recorded(run).keys() & {"max_ids", "workers"}


def test_a_field_added_later_is_written_recorded_and_checked_where_it_is_not_neutral(tree, later, monkeypatch):
    put(put(tree, "runs.esa.ema", 0.5), "runs.esa.optimizer.nesterov", False)
    after = parse(later, tree, "")
    assert recorded(after.runs["esa"])["ema"] == 0.5 and recorded(after.runs["esa"])["optimizer"]["nesterov"] is False
    assert [key for key, run in after.runs.items() if "ema" in recorded(run)] == ["esa"]

    monkeypatch.setattr("pipeline.config.writer.Params", later)
    lines = params_text(without_neutral(after), "default", None).splitlines()
    assert [line.strip() for line in lines if "ema:" in line] == ["ema: 0.5  # another; 0 to 1"]
    assert [line.strip() for line in lines if "nesterov:" in line] == ["nesterov: false  # a new switch"]
    with pytest.raises(InputError, match="runs.esa.ema: is 2.0; it is 0 to 1"):
        parse(later, put(tree, "runs.esa.ema", 2.0), "")


def test_recipes_need_not_state_what_is_neutral(tree):
    assert all("max_ids" not in run for run in tree["runs"].values())
    assert {run.max_ids for run in parse(Params, tree, "").runs.values()} == {0}
    chosen = parse(Params, put(tree, "runs.sorn.max_ids", 12), "")
    assert without_neutral(chosen)["runs"]["sorn"]["max_ids"] == recorded(chosen.runs["sorn"])["max_ids"] == 12
