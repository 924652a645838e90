"""Searching a folder for a picture: the list is that of the network's features, and what cannot be searched is said."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from models.histogram import Histogram
from pipeline.errors import InputError
from pipeline.figures import CROP
from pipeline.finishing import normalise
from pipeline.images import read_image
from pipeline.resizing import fit
from stages import search, train
from tests.fake_set import HEIGHT, WIDTH, write_fake_set
from tests.test_embedding import DATA, _params

QUERY = Path("data/raw/query/0006_c1s1_000000_00.png")
FOLDER = Path("data/raw/gallery")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Weights of a histogram and of an untrained baseline."""
    folder = tmp_path_factory.mktemp("search")
    write_fake_set(folder / "data/raw", folder / f"data/index/{DATA}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("default-histogram", "default-baseline"):
            train.run(_params(image_steps=0), name)
        yield folder
    torch.use_deterministic_algorithms(False)


def find(key: str, out: Path, **changes) -> pd.DataFrame:
    given = {"query": QUERY, "gallery": FOLDER, "key": key, "top": 7, "out": out} | changes
    return search.run(given.pop("params", _params(image_steps=0)), **given)


def test_the_list_is_that_of_the_features(project, tmp_path):
    find("default-histogram", tmp_path)
    network, names = Histogram(stripes=2, bins=4), sorted(path.name for path in FOLDER.iterdir())

    def feature(path: Path) -> np.ndarray:
        picture = normalise(torch.from_numpy(fit(read_image(path), HEIGHT, WIDTH)))
        return network.embed({"image": picture[None]})[0][0].double().numpy().reshape(2, -1)

    def distance(one: np.ndarray, two: np.ndarray) -> float:
        pairs = zip(one, two, strict=True)
        return float(np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))

    query = feature(QUERY)
    far = {name: distance(query, feature(FOLDER / name)) for name in names}
    found = pd.read_csv(tmp_path / "ranks.csv")
    assert found["image"].tolist() == sorted(names, key=lambda name: far[name])[:7]
    assert found["position"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(found["distance"], sorted(far.values())[:7], atol=2e-6)


def test_the_picture_shows_the_query_and_the_list(project, tmp_path):
    """Each crop of the picture is nearest, in colour, to the image that the list names there."""
    table = find("default-baseline", tmp_path, top=3)
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "ranks.png")), cv2.COLOR_BGR2RGB)
    for path, left in zip([QUERY, *(FOLDER / name for name in table["image"])],
                          [12 + number * (CROP[0] + 20) + (20 if number else 0) for number in range(4)], strict=True):
        crop = picture[36:36 + CROP[1], left:left + CROP[0]]
        np.testing.assert_array_equal(crop, cv2.resize(read_image(path), CROP, interpolation=cv2.INTER_NEAREST))


def test_a_short_folder_and_the_query_s_own_file(project, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for number, path in enumerate(sorted(FOLDER.iterdir())[:2]):
        shutil.copy(path, folder / f"{number}.png")
    shutil.copy(QUERY, folder / "query.png")
    found = find("default-histogram", tmp_path / "out", query=folder / "query.png", gallery=folder)
    assert sorted(found["image"]) == ["0.png", "1.png"]
    copied = find("default-histogram", tmp_path / "out", gallery=folder)
    assert copied["image"][0] == "query.png" and float(copied["distance"][0]) == pytest.approx(0, abs=1e-5)
    again = (tmp_path / "out/ranks.csv").read_bytes(), (tmp_path / "out/ranks.png").read_bytes()
    find("default-histogram", tmp_path / "out", gallery=folder)
    assert ((tmp_path / "out/ranks.csv").read_bytes(), (tmp_path / "out/ranks.png").read_bytes()) == again


def test_a_checkpoint_says_its_run(project, tmp_path):
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy("runs/default-histogram/weights.safetensors", moved)
    pd.testing.assert_frame_equal(find(str(moved), tmp_path / "a"), find("default-histogram", tmp_path / "b"))
    with pytest.raises(InputError, match=r"elsewhere.safetensors': was trained with model.bins 4, and .* says 5"):
        params = _params(image_steps=0)
        run = params.runs["default-histogram"]
        changed = dataclasses.replace(run, model=dataclasses.replace(run.model, bins=5))
        find(str(moved), tmp_path / "c", params=dataclasses.replace(
            params, runs=params.runs | {"default-histogram": changed}))
    moved.write_bytes(b"")
    with pytest.raises(InputError, match=r"elsewhere.safetensors.*damaged"):
        find(str(moved), tmp_path / "c")


def test_what_cannot_be_searched(project, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "0.jpg").write_bytes(b"no picture")
    params = _params(image_steps=0)
    for key, changes, said in [
            ("default-dsa", {}, "default-dsa: dsa reads a cache at test time .*dsap.h5.* cannot be searched this way"),
            ("default-sorn", {}, "runs/default-sorn/weights.safetensors': no such weights"),
            ("default-none", {}, "runs has no entry 'default-none'"),
            ("default-baseline", {"params": dataclasses.replace(params, embed={})}, "no entry of `embed` says how"),
            ("default-baseline", {"gallery": empty}, "empty': holds no picture"),
            ("default-baseline", {"gallery": tmp_path / "absent"}, "absent': no such folder"),
            ("default-baseline", {"gallery": bad}, "0.jpg': is not an image"),
            ("default-baseline", {"query": tmp_path / "q.jpg"}, "q.jpg': cannot be read")]:
        with pytest.raises(InputError, match=said):
            find(key, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_command_line(project, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "load_params", lambda path: _params(image_steps=0))
    search.main([str(QUERY), str(FOLDER), "default-histogram", "--top", "2", "--out", str(tmp_path)])
    assert len(pd.read_csv(tmp_path / "ranks.csv")) == 2
    assert pd.read_csv(tmp_path / "ranks.csv")["image"][0] in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        search.main([str(QUERY), str(FOLDER), "default-dsa", "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert error.startswith("error: default-dsa: dsa reads a cache") and error.count("\n") == 1
