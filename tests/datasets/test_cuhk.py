"""CUHK03 from files with the structure of the release and of the protocol, and CUHK01's seeded splits."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.datasets.index import read_index, write_index
from pipeline.datasets.layouts import LAYOUTS, remarks
from tests.helpers.trees import counts, rows, touch

# Pair 1 has two people, pair 5 has one; person 2 of pair 1 was seen twice by camera 1 and once by camera 2.
IMAGES = {"1_001_1_01.png": (1, 1, "train"), "1_001_2_06.png": (1, 2, "train"), "1_002_1_01.png": (2, 1, "query"),
          "1_002_1_03.png": (2, 1, "gallery"), "1_002_2_10.png": (2, 2, "gallery"), "5_001_1_02.png": (3, 1, "query")}
CONFIG = "cuhk03_new_protocol_config_{}.mat"


def _save_split(path: Path, **over: object) -> None:
    """A split file as MATLAB writes it: columns of doubles, a cell array of names, indices from 1."""
    names = list(IMAGES)
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = names
    column = {name: np.array([[IMAGES[key][place]] for key in names], float) for place, name in
              enumerate(("labels", "camId"))}
    used = {f"{split}_idx": np.array([[names.index(key) + 1] for key in names if IMAGES[key][2] == split], float)
            for split in ("train", "query", "gallery")}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {**column, **used, "filelist": cells, **over})


def _picture(boxes: str, name: str) -> np.ndarray:
    """(H, W, 3) uint8, another for every name, heights and widths differing."""
    seed = int(hashlib.sha256(f"{boxes}/{name}".encode()).hexdigest()[:8], 16)
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (int(random.integers(4, 9)), int(random.integers(2, 5)), 3)).astype(np.uint8)


def _save_release(path: Path) -> None:
    """cuhk-03.mat in MATLAB 7.3: {5,1} cells of {people, 10} cells of (H, W, 3) pictures, all transposed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for boxes in ("labeled", "detected"):
            pairs = file.create_dataset(boxes, (1, 5), dtype=h5py.ref_dtype)
            for pair, people in enumerate((2, 1, 1, 1, 1), 1):
                cells = file.create_dataset(f"#refs#/{boxes}{pair}", (10, people), dtype=h5py.ref_dtype)
                for person in range(1, people + 1):
                    for number in range(1, 11):
                        name = f"{pair}_{person:03d}_{1 if number <= 5 else 2}_{number:02d}.png"
                        cell = file.create_dataset(f"#refs#/{boxes}{name}",
                                                   data=_picture(boxes, name).T if name in IMAGES
                                                   else np.zeros(2, np.uint64))
                        if name not in IMAGES:
                            cell.attrs["MATLAB_empty"] = np.uint8(1)
                        cells[number - 1, person - 1] = cell.ref
                pairs[0, pair - 1] = cells.ref


def _expected(folder: str, suffix: str = ".png") -> list[tuple]:
    files = {name: Path(name).with_suffix(suffix).name for name in IMAGES}
    return sorted((f"{split}/{files[name]}", f"{folder}/{files[name]}", pid, camid, split)
                  for name, (pid, camid, split) in IMAGES.items())


@pytest.mark.parametrize("boxes", ["labeled", "detected"])
@pytest.mark.parametrize("release", ["cuhk03_release/cuhk-03.mat", "cuhk-03.mat"])
def test_cuhk03_from_the_release(tmp_path, boxes, release):
    _save_split(tmp_path / "cuhk03" / CONFIG.format(boxes))
    _save_release(tmp_path / "cuhk03" / release)
    frame = LAYOUTS[f"cuhk03-{boxes}"].read(tmp_path)
    assert rows(frame) == _expected(f"cuhk03/images_{boxes}")
    for path in frame["path"]:
        np.testing.assert_array_equal(read_image(tmp_path / path), _picture(boxes, Path(path).name))
    (tmp_path / "cuhk03" / release).unlink()  # what was written is enough from now on
    assert rows(LAYOUTS[f"cuhk03-{boxes}"].read(tmp_path)) == rows(frame)


@pytest.mark.parametrize("folder,suffix", [("images_labeled", ".png"), ("cuhk03_labeled", ".jpg"), ("labeled", ".png")])
def test_cuhk03_from_images(tmp_path, folder, suffix):
    _save_split(tmp_path / CONFIG.format("labeled"))
    touch(tmp_path / folder, *(Path(name).with_suffix(suffix).name for name in IMAGES), f"1_001_1_02{suffix}")
    assert rows(LAYOUTS["cuhk03-labeled"].read(tmp_path)) == _expected(folder, suffix)
    (tmp_path / folder / f"5_001_1_02{suffix}").unlink()
    with pytest.raises(InputError, match=rf"{folder}': lacks 1 of the 6 images that '{CONFIG.format('labeled')}' "
                                         "names, '5_001_1_02.png' first; complete the folder, or remove it"):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)


def test_cuhk03_np(tmp_path):
    for boxes, pid in (("labeled", 3), ("detected", 4)):
        touch(tmp_path / "cuhk03-np" / boxes, f"bounding_box_train/{pid:04d}_c1_1.png", f"query/{pid:04d}_c2_6.png")
    frame = LAYOUTS["cuhk03-detected"].read(tmp_path)
    base = "cuhk03-np/detected"
    assert rows(frame) == [("query/0004_c2_6.png", f"{base}/query/0004_c2_6.png", 4, 2, "query"),
                           ("train/0004_c1_1.png", f"{base}/bounding_box_train/0004_c1_1.png", 4, 1, "train")]
    _save_split(tmp_path / "cuhk03-np" / CONFIG.format("detected"))  # alone, without images, it changes nothing
    assert rows(LAYOUTS["cuhk03-detected"].read(tmp_path)) == rows(frame)


def test_cuhk03_without_pictures_is_named(tmp_path):
    _save_split(tmp_path / CONFIG.format("labeled"))
    with pytest.raises(InputError, match="holds neither images_labeled/ .* nor cuhk-03.mat .*; put CUHK03's images or"):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)


@pytest.mark.parametrize("over,wrong", [
    ({"camId": np.ones((5, 1))}, "lists 6 images, 6 people, 5 cameras"),
    ({"gallery_idx": np.array([[7.0]])}, "do not all stand among them"),
    ({"train_idx": np.array([[0.0]])}, "do not all stand among them"),
    ({"labels": np.full((6, 1), 1.5)}, "a number is not whole"),
    ({"filelist": np.zeros((0, 0))}, "lists 0 images"),
    ({"filelist": np.array([["portrait.png"]] * 6, dtype=object)}, "names an image 'portrait.png'")])
def test_cuhk03_split_files_that_do_not_fit_are_named(tmp_path, over, wrong):
    _save_split(tmp_path / CONFIG.format("labeled"), **over)
    touch(tmp_path / "images_labeled", *IMAGES)
    with pytest.raises(InputError, match=rf"config_labeled.mat': .*{wrong}.*; download it again"):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file", bytes(range(256)) * 8])
def test_cuhk03_damaged_files_are_named(tmp_path, data):
    config = tmp_path / CONFIG.format("labeled")
    config.write_bytes(data)
    (tmp_path / "cuhk-03.mat").write_bytes(data)
    with pytest.raises(InputError, match=r"config_labeled.mat': is no split file of CUHK03's new protocol \("):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)
    _save_split(config)
    with pytest.raises(InputError, match=r"cuhk-03.mat': is no MATLAB 7.3 file, or is damaged"):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)
    assert not (tmp_path / "images_labeled").exists()


def test_cuhk03_a_cell_without_an_image_is_named(tmp_path):
    _save_release(tmp_path / "cuhk-03.mat")
    _save_split(tmp_path / CONFIG.format("labeled"))
    with h5py.File(tmp_path / "cuhk-03.mat", "a") as file:
        del file["#refs#/labeled5_001_1_02.png"]
        file["labeled5"] = np.zeros(2, np.uint64)
        file[file["labeled"][0, 4]][1, 0] = file["labeled5"].ref
    with pytest.raises(InputError, match=r"cuhk-03.mat': labeled\{5\}\{1,2\} is no image \(uint64 \(2,\)\)"):
        LAYOUTS["cuhk03-labeled"].read(tmp_path)
    assert not (tmp_path / "images_labeled").exists()


@pytest.fixture(scope="module")
def cuhk01(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cuhk01")
    touch(root / "campus", *(f"{pid:04d}{number:03d}.png" for pid in range(1, 972) for number in range(1, 5)))
    return root


def test_cuhk01_has_the_protocols_counts(cuhk01):
    for layout in ("cuhk01-0", "cuhk01-multi-3", "cuhk01-100-9", "cuhk01-100-multi-9"):
        assert remarks(LAYOUTS[layout], LAYOUTS[layout].read(cuhk01)) == []
    assert counts(LAYOUTS["cuhk01-4"].read(cuhk01)) == {"train": (1940, 485), "query": (972, 486),
                                                        "gallery": (486, 486)}
    assert counts(LAYOUTS["cuhk01-100-4"].read(cuhk01)) == {"train": (3484, 871), "query": (200, 100),
                                                            "gallery": (100, 100)}


def test_cuhk01_trains_and_tests_on_different_people_across_cameras(cuhk01):
    frame = LAYOUTS["cuhk01-0"].read(cuhk01)
    people = frame.groupby("split")["pid"].agg(set)
    assert people["query"] == people["gallery"] and not people["query"] & people["train"]
    assert people["query"] | people["train"] == set(range(1, 972))
    assert frame.groupby("split")["camid"].agg(set).to_dict() == {"train": {1, 2}, "query": {1}, "gallery": {2}}
    row = frame.set_index("image").loc[f"query/{min(people['query']):04d}002.png"]
    assert [row["path"], row["pid"], row["camid"]] == [f"campus/{min(people['query']):04d}002.png",
                                                       min(people["query"]), 1]


def test_cuhk01_splits_differ_and_each_says_which_it_is(cuhk01, tmp_path):
    tested = []
    for trial in range(10):
        frame = LAYOUTS[f"cuhk01-{trial}"].read(cuhk01)
        assert set(frame["trial"]) == {trial}
        tested.append(frozenset(frame.loc[frame["split"] == "query", "pid"]))
    assert len(set(tested)) == 10
    write_index(frame, tmp_path / "index.csv")
    assert set(read_index(tmp_path / "index.csv")["trial"]) == {9}


def test_cuhk01_gallery_draws_fall_on_both_images_and_stand_in_the_multi_shot_gallery(cuhk01):
    single, multi = (LAYOUTS[f"cuhk01{name}-2"].read(cuhk01) for name in ("", "-multi"))
    drawn = single.loc[single["split"] == "gallery", "image"]
    assert 180 < drawn.str.endswith("003.png").sum() < 306  # 486 fair draws: mean 243, standard deviation 11
    gallery = multi.loc[multi["split"] == "gallery", "image"]
    assert set(drawn) < set(gallery) and len(gallery) == 972
    assert rows(single[single["split"] != "gallery"]) == rows(multi[multi["split"] != "gallery"])


def test_cuhk01_splits_are_the_same_everywhere(cuhk01, tmp_path):
    """The ten indices' bytes, pinned: another NumPy must not draw other people."""
    digest = hashlib.sha256()
    for trial in range(10):
        write_index(LAYOUTS[f"cuhk01-{trial}"].read(cuhk01), tmp_path / "index.csv")
        digest.update((tmp_path / "index.csv").read_bytes())
    assert digest.hexdigest() == "c77f806995207291f15a7a3858d0731d7b2faa4c3a5ad98c5b831d9a47967947"


def test_cuhk01_folders_that_do_not_fit_are_named(tmp_path):
    touch(tmp_path / "CUHK01/campus", "0001001.png", "0002001.png")
    with pytest.raises(InputError, match=r"campus': holds 2 people, and 486 of them are to be tested on; unpack all"):
        LAYOUTS["cuhk01-0"].read(tmp_path)
    for name in ("0001005.png", "0001000.png", "portrait.png", "00010011.png"):
        touch(tmp_path / "CUHK01/campus", name)
        with pytest.raises(InputError, match=f"campus/{name}': the name is not person"):
            LAYOUTS["cuhk01-0"].read(tmp_path)
        (tmp_path / "CUHK01/campus" / name).unlink()
