"""benchmarks/scale.py at a few hundred images: every step does all of its images, whoever shares them."""

import sys

import numpy as np
import pytest

from benchmarks import scale
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.retrieval.features import read_features

COUNT = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    scale.write_set(folder, COUNT)
    scale.index(folder)
    scale.parse(folder)
    scale.warp(folder)
    return folder


def test_the_set_has_its_images_and_20_of_each_person(folder):
    frame = read_index(folder / "index.csv")
    assert len(frame) == COUNT == len({path.name for path in (folder / "raw").rglob("*.jpg")})
    assert frame["split"].value_counts().to_dict() == {"train": 100, "gallery": 90, "query": 10}
    assert frame[frame["split"] == "train"].groupby("pid").size().tolist() == [20] * 5


def test_parses_and_warps_are_real(folder):
    for name, array in (("parts", "labels"), ("dsap", "dsap")):
        cache = Cache(scale.cache(folder, name, 1))
        assert len(cache) == COUNT
        assert len({cache.read(array, row).tobytes() for row in range(COUNT)}) == scale.PICTURES
    assert 0.1 < np.mean([cache.read("valid", row) > 0 for row in range(9)]) * 24 < 24


@pytest.mark.parametrize(("step", "name"), [(scale.parse, "parts"), (scale.warp, "dsap")])
def test_several_ranks_make_the_same_bytes(folder, step, name):
    for rank in range(3):
        assert not scale.cache(folder, name, 3).exists()
        step(folder, rank, 3)
    assert scale.cache(folder, name, 3).read_bytes() == scale.cache(folder, name, 1).read_bytes()


def test_as_many_images_are_loaded_and_embedded_as_there_are(folder, monkeypatch):
    loaded = []

    def training_batches(*given, **more):
        loaded.extend(batch for batch in original(*given, **more | {"workers": 0}))
        return loaded

    original = scale.training_batches
    monkeypatch.setattr(scale, "training_batches", training_batches)
    scale.load_parts(folder)
    assert len(loaded) == 4 and {"probs8", "entropy"} < set(loaded[0]) and len(loaded[0]["image"]) == 64
    scale.load_dsap(folder)
    assert loaded[-1]["dsap"].shape == (64, 24, 3, 16, 16)

    scale.embed(folder)
    embedded = read_features(folder / "features.h5")
    assert len(embedded.query) == 20 and len(embedded.gallery) == 180
    assert np.unique(embedded.gallery.features, axis=0).shape[0] == scale.PICTURES


def test_a_search_finds_people_among_strangers(capsys):
    scale.print_search(20, 5000)
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    figures = {line[0]: float(line[-1]) for line in lines if line[0] in ("500", "5000")}
    assert len(figures) == 2 and 10 < figures["5000"] < figures["500"] < 100  # mAP, %


def test_too_few_images_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale", "--count", "1000"])
    with pytest.raises(SystemExit) as ended:
        scale.main()
    assert ended.value.code == 2 and "--count is 1000" in capsys.readouterr().err
