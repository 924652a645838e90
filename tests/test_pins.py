"""CI from pinned caches: the pins are current, give the committed tables, and train to what they trained to before."""

import functools
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from benchmarks.ci_ranges import DATA, ROWS, SCORED, outside, pinned_project, score_row, train_row
from benchmarks.project import ROOT

PINS = ROOT / "ci" / "pins"


@pytest.fixture(scope="module")
def pinned(tmp_path_factory):
    return pinned_project(tmp_path_factory.mktemp("pinned"))


def test_the_pins_are_small_and_current(pinned):
    assert sum(path.stat().st_size for path in PINS.rglob("*") if path.is_file()) <= 15e6
    plan = pinned.run("dvc", "repro", "--allow-missing", "--dry").stdout
    assert "Running stage" not in plan, f"the ci scale is stale: make it again (docs/ci.md)\n{plan}"
    assert len(pd.read_csv(pinned.folder / f"data/index/{DATA}.csv")) <= 400


@pytest.fixture(scope="module")
def trained(pinned):
    """row -> its figures, trained once from the pinned caches."""
    return functools.cache(lambda row: train_row(pinned, row))


@pytest.mark.parametrize("row", SCORED)
def test_pinned_embeddings_give_the_committed_table(pinned, row):
    committed = json.loads((ROOT / f"metrics/ci/{row}.json").read_text())[DATA]
    with h5py.File(pinned.folder / f"features/{row}/{DATA}.h5") as file:
        assert file["features"].dtype == np.float16
    pinned.run("python", "-m", "stages.evaluate", row)
    again = json.loads((pinned.folder / f"metrics/ci/{row}.json").read_text())[DATA]
    assert again.keys() == committed.keys()
    committed, again = (figures | figures.pop("details")[0] for figures in (committed, again))
    assert again.keys() == committed.keys()
    for name, value in committed.items():
        assert abs(again[name] - value) <= 0.1, (row, name, value, again[name])


@pytest.mark.parametrize("row", ROWS)
def test_training_from_the_pinned_caches_gives_what_it_gave(trained, row):
    assert outside(row, trained(row)) == []


def _copy(project, folder):
    shutil.copytree(project.folder, folder, symlinks=False)
    return type(project)(folder)


@pytest.fixture
def spoilt(pinned, tmp_path):
    """The pinned project, to be spoilt."""
    return _copy(pinned, tmp_path / "spoilt")


def _permute(values: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(values)


def test_permuted_identities_are_noticed(spoilt):
    path = spoilt.folder / f"data/index/{DATA}.csv"
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


@pytest.mark.parametrize(("row", "file", "names"), [("ci-sorn", "parts.h5", ["labels"]),
                                                    ("ci-dsa", "dsap.h5", ["dsap", "valid"]),
                                                    ("ci-sgam", "parts.h5", ["probs/parts4"])])
def test_caches_shuffled_between_images_are_noticed(spoilt, row, file, names):
    _shuffle(spoilt.folder / f"data/cache/{DATA}/{file}", names)
    assert outside(row, train_row(spoilt, row))


def test_caches_shuffled_at_test_time_are_noticed(trained, pinned, tmp_path):
    """SGAM's rows read parts.h5 for embedding: right weights do not save them."""
    figures = trained("ci-sgam")
    spoilt = _copy(pinned, tmp_path / "trained")
    _shuffle(spoilt.folder / f"data/cache/{DATA}/parts.h5", ["probs/parts4"])
    found = score_row(spoilt, "ci-sgam")
    assert outside("ci-sgam", found) and found["mAP"] < figures["mAP"]


def test_the_ranges_are_those_of_the_trainings_beside_them():
    content = json.loads((Path(ROOT) / "ci" / "ranges.json").read_text())
    for row, trainings in content["trainings"].items():
        assert len(trainings) == 10
        for name, (low, high) in content["rows"][row].items():
            assert [min(each[name] for each in trainings), max(each[name] for each in trainings)] == [low, high]
