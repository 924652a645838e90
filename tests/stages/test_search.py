"""Search of folders for an image: the list is that of the network's features, and what cannot be searched is said."""

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from models.histogram import Histogram
from pipeline.base.errors import InputError
from pipeline.base.images import fit, read_image
from pipeline.config import paths
from pipeline.config.loader import Experiment
from pipeline.loading.device_batch import normalise
from pipeline.reporting.plots import CROP
from stages import sentences, train
from stages.shared.embedder import open_embedder
from stages.tools import search
from tests.helpers.bare_params import bare_experiment, write_experiment
from tests.helpers.fake_runs import DATA, fake_experiment, fake_sections
from tests.helpers.fake_set import HEIGHT, WIDTH, write_fake_set

QUERY = Path("data/raw/query/0006_c1s1_000000_00.png")
FOLDER = Path("data/raw/gallery")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Weights of a histogram and of an untrained baseline."""
    folder = tmp_path_factory.mktemp("search")
    write_fake_set(folder / "data/raw", folder / paths.index(DATA))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("histogram", "baseline"):
            train.run(fake_experiment(image_steps=0), name)
        yield folder
    torch.use_deterministic_algorithms(False)


def find(run: str, out: Path, *, experiment: Experiment | None = None, **changes: Any) -> pd.DataFrame:
    options = {"query": QUERY, "gallery": FOLDER, "top": 7, "out": out} | changes
    return search.run(open_embedder(run, experiment=experiment or fake_experiment(image_steps=0)), **options)


def test_the_list_is_that_of_the_features(project, tmp_path):
    find("histogram", tmp_path)
    network, names = Histogram(stripes=2, bins=4, match="all"), sorted(path.name for path in FOLDER.iterdir())

    def feature(path: Path) -> np.ndarray:
        image = normalise(torch.from_numpy(fit(read_image(path), HEIGHT, WIDTH)))
        return network.embed({"image": image[None]})[0][0].double().numpy().reshape(2, -1)

    def distance(one: np.ndarray, two: np.ndarray) -> float:
        pairs = zip(one, two, strict=True)
        return float(np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))

    query = feature(QUERY)
    far = {name: distance(query, feature(FOLDER / name)) for name in names}
    table = pd.read_csv(tmp_path / "ranks.csv")
    assert table["image"].tolist() == sorted(names, key=lambda name: far[name])[:7]
    assert table["position"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(table["distance"], sorted(far.values())[:7], atol=2e-6)


def test_the_plot_shows_the_query_and_the_list(project, tmp_path):
    """Each crop of the plot is, enlarged, the image that the list names there."""
    table = find("baseline", tmp_path, top=3)
    plot = cv2.cvtColor(cv2.imread(str(tmp_path / "ranks.png")), cv2.COLOR_BGR2RGB)
    for path, left in zip([QUERY, *(FOLDER / name for name in table["image"])],
                          [12 + number * (CROP[0] + 20) + (20 if number else 0) for number in range(4)], strict=True):
        crop = plot[36:36 + CROP[1], left:left + CROP[0]]
        np.testing.assert_array_equal(crop, cv2.resize(read_image(path), CROP, interpolation=cv2.INTER_NEAREST))


def test_a_short_folder_and_the_query_s_own_file(project, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for number, path in enumerate(sorted(FOLDER.iterdir())[:2]):
        shutil.copy(path, folder / f"{number}.png")
    shutil.copy(QUERY, folder / "query.png")
    table = find("histogram", tmp_path / "out", query=folder / "query.png", gallery=folder)
    assert sorted(table["image"]) == ["0.png", "1.png"]

    copied = find("histogram", tmp_path / "out", gallery=folder)
    assert copied["image"][0] == "query.png" and float(copied["distance"][0]) == pytest.approx(0, abs=1e-5)
    before = (tmp_path / "out/ranks.csv").read_bytes(), (tmp_path / "out/ranks.png").read_bytes()
    find("histogram", tmp_path / "out", gallery=folder)
    assert ((tmp_path / "out/ranks.csv").read_bytes(), (tmp_path / "out/ranks.png").read_bytes()) == before


def test_a_name_that_no_list_can_hold_does_not_stop_the_search(project, tmp_path, capsys):
    """It is told and left out; any other name in UTF-8 is searched."""
    folder = tmp_path / "few"
    folder.mkdir()
    names = [b"bad\xff.png", b"two\nlines.png", "narrow\u202fspace.png".encode(), "\u3000.png".encode()]
    for path, name in zip(sorted(FOLDER.iterdir()), names, strict=False):
        shutil.copy(path, os.fsencode(folder) + b"/" + name)
    table = find("histogram", tmp_path / "out", gallery=folder)
    assert sorted(table["image"]) == ["narrow\u202fspace.png", "\u3000.png"]
    assert sorted(pd.read_csv(tmp_path / "out/ranks.csv")["image"]) == sorted(table["image"])
    said = capsys.readouterr().err
    assert said.count("is left out, the name holds") == 2 and "bad\\udcff.png" in said and "two\\nlines.png" in said


def test_a_broken_image_does_not_stop_the_search(project, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, path in enumerate(sorted(FOLDER.iterdir())[:2]):
        shutil.copy(path, folder / f"{number}.png")
    expected = find("histogram", tmp_path / "out", gallery=folder)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:20])
    (folder / "empty.jpg").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    pd.testing.assert_frame_equal(find("histogram", tmp_path / "out", gallery=folder), expected)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out of the search: ")]
    assert len(said) == 3
    assert "cut.png': is not an image" in said[0] and "empty.jpg': is empty" in said[1]
    assert "gone.png': cannot be read (No such file or directory)" in said[2]


def test_a_link_to_itself_is_one_sentence(project, tmp_path, capsys):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(SystemExit, match="2"), sentences():
        find("histogram", tmp_path / "out", gallery=tmp_path)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "loop.png': is a link that leads to itself; remove it" in error


def test_weights_are_searched_with_wherever_they_lie(project, tmp_path):
    """By their own parameters, whatever the experiment's run of that name has now."""
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(paths.weights("histogram"), moved)
    expected = find("histogram", tmp_path / "b")
    pd.testing.assert_frame_equal(find(str(moved), tmp_path / "a"), expected)

    params, plan = fake_sections(image_steps=0)
    params["runs"]["histogram"]["model"] = params["runs"]["histogram"]["model"] | {"bins": 5}
    other = bare_experiment(params=params, plan=plan)
    pd.testing.assert_frame_equal(find(str(moved), tmp_path / "c", experiment=other), expected)
    with pytest.raises(InputError, match=r"was trained with model.bins 4, and runs.histogram says 5"):
        find("histogram", tmp_path / "c", experiment=other)
    moved.write_bytes(b"")
    with pytest.raises(InputError, match=r"elsewhere.safetensors.*damaged"):
        find(str(moved), tmp_path / "c")


def test_folders_below_are_searched_and_counted(project, tmp_path, capsys):
    folder = tmp_path / "deep"
    (folder / "a/b").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a/again").symlink_to(folder)
    places = ["0.png", "a/b/0.png", "a/1.png", ".hidden/2.png"]
    for source, place in zip(sorted(FOLDER.iterdir()), places, strict=False):
        shutil.copy(source, folder / place)
    shutil.copy(QUERY, folder / "a/b/query.png")

    table = find("histogram", tmp_path / "out", gallery=folder, query=folder / "a/b/query.png")
    assert sorted(table["image"]) == ["0.png", "a/1.png", "a/b/0.png"]
    assert capsys.readouterr().out == "3 images in 3 folders\n"


def test_what_cannot_be_searched(project, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "0.jpg").write_bytes(b"no image")
    params, plan = fake_sections(image_steps=0)
    unmatched = bare_experiment(params=params | {"results": {}}, plan=plan)
    for key, changes, said in [
            ("sorn", {}, "data/runs/sorn/weights.safetensors': no such weights"),
            ("none", {}, "runs: has no entry 'none'"),
            ("baseline", {"experiment": unmatched}, "results: has no entry 'baseline'"),
            ("baseline", {"gallery": empty}, "empty': holds no image"),
            ("baseline", {"gallery": tmp_path / "absent"}, "absent': no such folder"),
            ("baseline", {"gallery": bad}, "0.jpg': is not an image"),
            ("baseline", {"query": tmp_path / "q.jpg"}, "q.jpg': cannot be read")]:
        with pytest.raises(InputError, match=said):
            find(key, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(project, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out/ranks.png': cannot be written"):
        find("histogram", tmp_path / "out")


def test_the_command_line(project, tmp_path, capsys):
    params, plan = fake_sections(image_steps=0)
    for name in ("default", "mine"):
        write_experiment(project, name, params=params, plan=plan)
    words = [str(QUERY), str(FOLDER), "histogram", "--top", "2", "--out", str(tmp_path)]
    for more in ([], ["--experiment", "mine"]):
        search.main([*words, *more])
        table = pd.read_csv(tmp_path / "ranks.csv")
        assert len(table) == 2 and table["image"][0] in capsys.readouterr().out

    for wrong, said in ((["dsa"], "error: 'data/runs/dsa/weights.safetensors': no such weights"),
                        (["histogram", "--features", "z"], "error: --features: is 'z', and of histogram (histogram)"),
                        (["dsa", "--experiment", "mien"], "error: 'experiments/mien': no such experiment (did you")):
        with pytest.raises(SystemExit, match="2"):
            search.main([str(QUERY), str(FOLDER), *wrong, "--out", str(tmp_path)])
        error = capsys.readouterr().err
        assert error.startswith(said) and error.count("\n") == 1
