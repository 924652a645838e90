"""Embedders: a run opened by key or file gives what the stage embed gives, from files and arrays, parsed where need be.
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.config import paths
from pipeline.datasets.index import read_index
from pipeline.training.checkpoints import read_weights, save_weights
from stages import embed
from stages.shared.embedder import TAU, open_embedder
from tests.helpers.fake_runs import DATA, RAW
from tests.helpers.parsed_runs import make_runs, parsed_experiment, write_parser

# What is matched.
LOOSE = {"baseline": "all", "sorn": "all", "esa": "all", "sgam": "all", "dsa": "z", "sgam-parse": "all"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder where a random parser has parsed the made-up set and networks were trained and have embedded it."""
    folder = tmp_path_factory.mktemp("embedder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_runs(folder, *LOOSE)
        for name in LOOSE:
            embed.run(parsed_experiment(), name)
        yield folder
    torch.use_deterministic_algorithms(False)


def files() -> list[Path]:
    index = read_index(paths.index(DATA))
    return [Path(RAW) / path for path in index.loc[index["split"] != "train", "path"]]


@pytest.mark.parametrize("name", LOOSE)
def test_images_are_embedded_as_the_stage_embeds_them(project, name, tmp_path):
    """By key, by a file elsewhere, from files and from arrays, some of them and all: to the bit."""
    with h5py.File(paths.features(name, DATA)) as made:
        features, visibility, sizes = (made[column][:] for column in ("features", "visibility", "sizes"))
    moved = tmp_path / "moved.safetensors"
    shutil.copy(paths.weights(name), moved)

    for opened in (open_embedder(name, experiment=parsed_experiment()), open_embedder(moved, features=LOOSE[name])):
        torch.set_num_threads(1)
        found = opened.embed(files())
        np.testing.assert_array_equal(found.features, features)
        np.testing.assert_array_equal(found.visibility, visibility)
        assert found.sizes == tuple(sizes) and opened.matching.sizes == found.sizes

        some = opened.embed([read_image(files()[3]), files()[0]])
        np.testing.assert_allclose(some.features, features[[3, 0]], atol=1e-5)
    assert len(np.unique(features.round(6), axis=0)) > 4, "images of different people are embedded alike"


def test_no_image_has_no_features(project):
    found = open_embedder("sorn", experiment=parsed_experiment()).embed([])
    assert found.features.shape == (0, sum(found.sizes)) and found.visibility.shape == (0, len(found.sizes))


def test_what_is_no_image_is_named(project, tmp_path):
    opened = open_embedder("baseline", experiment=parsed_experiment())
    good = np.zeros((20, 10, 3), np.uint8)
    for bad, said in ((good[..., 0], r"images\[1\]: is an array \(20, 10\) of uint8; give \(H, W, 3\)"),
                      (good.astype(np.float32), r"images\[1\]: .* of float32"), (good[:0], r"\(0, 10, 3\)"),
                      ("none.png", "none.png': cannot be read")):
        with pytest.raises(InputError, match=said):
            opened.embed([good, bad])
    (tmp_path / "no.png").write_bytes(b"none")
    with pytest.raises(InputError, match="no.png': has no parse .*is not an image.* which sgam needs at test time"):
        open_embedder("sgam", experiment=parsed_experiment()).embed([good, tmp_path / "no.png"])


def test_which_parser(project, tmp_path, capsys):
    """That of the training, found where the weights lie or here; another is taken where it is named, and said."""
    shutil.copytree("data", tmp_path / "there/data", ignore=shutil.ignore_patterns("cache", "raw"))
    weights = tmp_path / "there" / paths.weights("sgam")
    parser = open_embedder(weights).parsed_by
    assert parser is not None and not capsys.readouterr().err

    shutil.rmtree(tmp_path / "there/data/parsers")
    write_parser(tmp_path / "other.safetensors", seed=1)
    expected = open_embedder(weights).embed(files()[:2]).features
    found = open_embedder(weights, parser=tmp_path / "other.safetensors").embed(files()[:2]).features
    assert np.abs(found - expected).max() > 1e-3
    assert "other.safetensors': is not the parser that sgam was trained with (lraspp, SHA" in capsys.readouterr().err

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(InputError, match="sgam reads a parts.h5 at test time, .* name a parser's weights with"):
            open_embedder(weights)


def test_what_cannot_be_opened(project, tmp_path):
    for run, changes, said in [
            ("none", {}, "runs: has no entry 'none'"),
            ("pcb", {}, "data/runs/pcb/weights.safetensors': no such weights"),
            (str(paths.parser_weights("made")), {}, "holds a parser, not a trained run"),
            ("sgam", {"parser": paths.weights("sgam")}, "sgam/weights.safetensors: holds unknown weights, not"),
            ("sorn", {"features": "z"}, "--features: is 'z', and of sorn .sorn. is matched one of all, global,")]:
        with pytest.raises(InputError, match=said):
            open_embedder(run, experiment=parsed_experiment(), **changes)

    tensors, made = read_weights(paths.weights("sorn"))
    network = open_embedder("sorn", experiment=parsed_experiment()).network
    made["parameters"]["model"]["gamma"] = 2
    save_weights(tmp_path / "later.safetensors", network, made)
    with pytest.raises(InputError, match="later.safetensors': parameters.model.gamma: unknown param.* open it with"):
        open_embedder(tmp_path / "later.safetensors")


def test_sorn_s_threshold_is_the_recipe_s():
    recipes = yaml.safe_load((Path(__file__).parents[2] / "profiles/recipes.yaml").read_text())["recipes"]
    assert recipes["sorn"]["match"]["tau"] == TAU
