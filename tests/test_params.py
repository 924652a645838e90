import dataclasses
from pathlib import Path

import pytest
import yaml

from pipeline import params as module
from pipeline.errors import InputError
from pipeline.params import Params
from pipeline.params_file import load_params, parse

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tree() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def _load(tree: dict, tmp_path: Path) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_params(path)


def test_committed_parameters_load_and_are_frozen(tree, tmp_path):
    params = _load(tree, tmp_path)
    assert params.runs["default-sorn"].model.lambda_spc == tree["runs"]["default-sorn"]["model"]["lambda_spc"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.runs["default-sorn"].seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        params.runs["new"] = params.runs["default-sorn"]  # type: ignore[index]


@pytest.mark.parametrize(("change", "message"), [
    (("runs", "default-sorn", "optimizer", "lr", "1e-4"),
     r"runs.default-sorn.optimizer.lr: expected a number, got '1e-4' \(a string\): write 0.0001"),
    (("runs", "default-sorn", "optimizer", "lr", "fast"), r"expected a number, got 'fast' \(a string\)$"),
    (("runs", "default-sorn", "batch", 1.5), r"runs.default-sorn.batch: expected a whole number, got 1.5 \(a number\)"),
    (("runs", "default-sorn", "batch", True), r"expected a whole number, got True \(a truth value\)"),
    (("runs", "default-sorn", "learning_rate", 1.0), r"runs.default-sorn.learning_rate: unknown parameter; known .*"),
    (("runs", "default-sorn", "model", "name", "resnet"), r"model.name: unknown model 'resnet' .* baseline, histogram"),
    (("runs", "default-sorn", "optimizer", "milestones", 3), r"optimizer.milestones: expected a list, got 3"),
    (("runs", "default-sorn", "train_on", "nowhere"), r"runs.default-sorn.train_on: .* no entry 'nowhere'.*synth"),
    (("runs", "default-sorn", "reads", "data/raw/x"), r"runs.default-sorn.reads: 'data/raw/x' does not belong"),
    (("runs", None), r"runs: expected entries, got None \(nothing\); an empty section is written {}"),
])
def test_mistakes_are_named(tree, tmp_path, change, message):
    *place, last, value = change
    entry = tree
    for key in place:
        entry = entry[key]
    entry[last] = value
    with pytest.raises(InputError, match=message):
        _load(tree, tmp_path)


PARSES = {"dataset": "default-synth-occluded", "images": "data/raw/default-synth-occluded", "height": 128, "width": 64,
          "batch": 16, "threads": 2, "parser": "precomputed", "source": "maps", "labels": "lip20",
          "reads": "pipeline/labelmaps/lip20.yaml", "min_score": 0.5}


@pytest.mark.parametrize(("change", "message"), [
    ({}, None), ({"labels": "iuv", "reads": "maps"}, None), ({"labels": "my.yaml", "reads": "my.yaml"}, None),
    ({"parser": "schp"}, "external.x.parser: unknown parser 'schp' .*; it is one of densepose, huggingface, precompu"),
    ({"boxes": "whole"}, "external.x.boxes: unknown parameter; known here are .*labels"),
    ({"parser": "huggingface"}, "external.x.min_score: unknown parameter"),
    ({"labels": "cihp20"}, "external.x.reads: .*lip20.yaml' does not belong .* write 'pipeline/labelmaps/cihp20.yaml'"),
    ({"images": "data/raw/x"}, "external.x.images: 'data/raw/x' does not belong"),
])
def test_an_outside_parsers_keys_are_its_own(tree, tmp_path, change, message):
    tree["external"] = {"x": {**PARSES, **change}}
    if message is None:
        assert _load(tree, tmp_path).external["x"].labels == tree["external"]["x"]["labels"]
    else:
        with pytest.raises(InputError, match=message):
            _load(tree, tmp_path)


def test_a_run_reads_an_outside_cache_of_its_own_data_set(tree, tmp_path):
    tree["external"] = {"x": PARSES}
    tree["runs"]["default-sorn"] |= {"cache": "x", "reads": "data/cache/x/parts.h5"}
    assert _load(tree, tmp_path).runs["default-sorn"].cache == "x"
    tree["external"]["x"] |= {"dataset": "default-synth-partial", "images": "data/raw/default-synth-partial"}
    with pytest.raises(InputError, match="runs.default-sorn.cache: its data set: 'default-synth-partial' does not bel"):
        _load(tree, tmp_path)


def test_a_missing_key_and_a_missing_file_are_named(tree, tmp_path):
    del tree["runs"]["default-dsa"]["seed"]
    with pytest.raises(InputError, match=r"params.yaml: runs.default-dsa.seed: is missing"):
        _load(tree, tmp_path)
    with pytest.raises(InputError, match=r"nowhere.yaml: no such parameter file"):
        load_params(tmp_path / "nowhere.yaml")


def test_every_leaf_has_a_comment():
    """A field without a comment holds entries of its own."""
    for kind in vars(module).values():
        if dataclasses.is_dataclass(kind):
            for item in dataclasses.fields(kind):
                hint = str(item.type)
                assert item.metadata["doc"] or hint.startswith("dict") or "Params" in hint, (kind, item.name)


def test_numbers_written_whole_are_numbers():
    assert parse(float, 1, "x") == 1.0 and isinstance(parse(float, 1, "x"), float)
