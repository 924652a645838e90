"""CI from pinned caches: the pins are current, give the committed tables, and train to what they trained to before."""

import functools
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.ci_ranges import DATA, FOLDER, ROWS, SCORED, metrics, outside, pinned_project, score_row, train_row
from benchmarks.project import ROOT, Project
from models.parsers.parser_files import parser_provenance
from pipeline.config import paths

PINS = ROOT / "ci" / "pins"
# On AVX-512 without AMX SORN's loss from shuffled labels lay inside the range that its right trainings there widened.
NO_AMX = (torch.backends.cpu.get_cpu_capability() == "AVX512"
          and not torch.cpu.get_capabilities().get("amx_bf16", False))
SHUFFLES = pytest.mark.skipif(NO_AMX, reason="the ranges of AVX-512 without AMX are too wide to tell (docs/ci.md)")


@pytest.fixture(scope="module")
def pinned(tmp_path_factory, programs):
    return Project(pinned_project(tmp_path_factory.mktemp("pinned")).folder, programs)


def test_the_pins_are_small_and_current(pinned):
    assert sum(path.stat().st_size for path in PINS.rglob("*") if path.is_file()) <= 15e6
    plan = pinned.run("dvc", "repro", "--allow-missing", "--dry", f"{FOLDER}/dvc.yaml").stdout
    assert "Running stage" not in plan, f"the ci experiment is stale: make it again (docs/ci.md)\n{plan}"
    assert len(pd.read_csv(pinned.folder / paths.index(DATA))) <= 400


def test_shipped_weights_are_small_and_pulled_by_their_name(tmp_path, programs):
    """A clone of what git holds; nothing of anyone's own remote."""
    weights = "data/parsers/people.safetensors"
    for name in ("ci/shipped", ".dvc/config", f"{weights}.dvc", ".gitignore", ".dvcignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    project = Project(tmp_path, programs)
    project.run("git", "init", "-q")
    project.run("dvc", "pull", weights)
    assert (tmp_path / weights).stat().st_size <= 4e6
    made = parser_provenance(tmp_path / weights)
    assert set(made["licences"].values()) == {"Apache-2.0"} and made["scores"]["miou8"] > 0.5


def test_a_push_does_not_reach_the_pins(pinned):
    """They are the project's own; who wants to push adds a remote (docs/dvc.md)."""
    said = pinned.run("dvc", "push", check=False)
    assert said.returncode != 0 and "no remote specified" in said.stderr


@pytest.fixture(scope="module")
def trained(pinned):
    """row -> its metrics, trained once from the pinned caches."""
    return functools.cache(lambda row: train_row(pinned, row))


@pytest.mark.parametrize("row", SCORED)
def test_pinned_embeddings_give_the_committed_table(pinned, row):
    committed = metrics(ROOT, row)
    with h5py.File(pinned.folder / paths.features(row, DATA)) as file:
        assert file["features"].dtype == np.float16
    pinned.run("python", "-m", "stages.evaluate", row, "--experiment", "ci")
    again = metrics(pinned.folder, row)
    assert again.keys() == committed.keys()
    people = [[line.split()[:3] for line in values.pop("by_identity")] for values in (committed, again)]
    assert people[0] == people[1]
    committed, again = (values | values.pop("details")[0] for values in (committed, again))
    assert again.keys() == committed.keys()
    for name, value in committed.items():
        assert abs(again[name] - value) <= 0.1, (row, name, value, again[name])


@pytest.mark.parametrize("row", ROWS)
def test_training_from_the_pinned_caches_gives_what_it_gave(trained, row):
    assert outside(row, trained(row)) == []


def _copy(project, folder):
    shutil.copytree(project.folder, folder, symlinks=False)
    return Project(folder, project.programs)


@pytest.fixture
def spoilt(pinned, tmp_path):
    """The pinned project, to be spoilt."""
    return _copy(pinned, tmp_path / "spoilt")


def _permute(values: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(values)


def test_permuted_identities_are_noticed(spoilt):
    path = spoilt.folder / paths.index(DATA)
    index = pd.read_csv(path)
    train = index["split"] == "train"
    index.loc[train, "pid"] = _permute(index.loc[train, "pid"].to_numpy())
    path.unlink()
    index.to_csv(path, index=False)
    assert outside("ci-sorn", train_row(spoilt, "ci-sorn"))


def _shuffle(path: Path, names: list[str]) -> None:
    """Give each image another one's rows of these arrays; key and image_sha256 stay, so that no check of files sees it.
    """
    loose = path.with_suffix(".loose")
    shutil.copyfile(path, loose)
    with h5py.File(loose, "r+") as cache:
        order = _permute(np.arange(len(cache["key"])))
        for name in names:
            cache[name][...] = cache[name][:][order]
    loose.replace(path)


@SHUFFLES
@pytest.mark.parametrize(("row", "file", "names"), [("ci-sorn", "parts.h5", ["labels"]),
                                                    ("ci-dsa", "dsap.h5", ["dsap", "valid"]),
                                                    ("ci-sgam", "parts.h5", ["probs/parts4"])])
def test_caches_shuffled_between_images_are_noticed(spoilt, row, file, names):
    _shuffle(spoilt.folder / paths.cache(DATA, file), names)
    assert outside(row, train_row(spoilt, row))


@SHUFFLES
def test_caches_shuffled_at_test_time_are_noticed(trained, pinned, tmp_path):
    """SGAM's rows read parts.h5 for embedding: right weights do not save them."""
    right = trained("ci-sgam")
    spoilt = _copy(pinned, tmp_path / "trained")
    _shuffle(spoilt.folder / paths.cache(DATA, "parts.h5"), ["probs/parts4"])
    found = score_row(spoilt, "ci-sgam")
    assert outside("ci-sgam", found) and found["mAP"] < right["mAP"]


def test_the_ranges_are_those_of_the_trainings_beside_them():
    content = json.loads((Path(ROOT) / "ci" / "ranges.json").read_text())
    for row, trainings in content["trainings"].items():
        assert len(trainings) >= 10
        for name, (low, high) in content["rows"][row].items():
            assert [min(each[name] for each in trainings), max(each[name] for each in trainings)] == [low, high]
