"""Loaders on trees with the published folders and names."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.datasets.index import write_index
from pipeline.datasets.layouts import LAYOUTS, remarks
from tests.helpers.trees import counts, rows, touch

DUKE = {"train": ["0001_c2_f0046182.jpg", "0001_c2_f0046302.jpg"], "query": ["0019_c1_f0051230.jpg"],
        "gallery": ["0019_c1_f0051230.jpg", "0019_c3_f0060000.jpg", "7140_c4_f0175868.jpg"]}
FOLDER = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def _read(layout: str, root: Path):
    return LAYOUTS[layout].read(root)


def _duke_with_lists(root: Path, lists: Path) -> None:
    """DukeMTMC-reID, in which Occluded-DukeMTMC's query image still is a gallery image, and the lists."""
    touch(root, *(f"bounding_box_train/{name}" for name in DUKE["train"]), "query/0005_c2_f0046985.jpg",
          *(f"bounding_box_test/{name}" for name in DUKE["gallery"]))
    lists.mkdir(parents=True, exist_ok=True)
    for split, names in DUKE.items():
        (lists / f"{split}.list").write_text("".join(f"{name}\n" for name in names))


@pytest.mark.parametrize("place", ["", "Occluded_Duke", "Occluded-DukeMTMC-Dataset/Occluded_Duke"])
def test_occluded_duke_from_lists_is_the_ready_made_one(tmp_path, place):
    _duke_with_lists(tmp_path / "lists/DukeMTMC-reID", tmp_path / "lists" / place)
    touch(tmp_path / "ready", *(f"{FOLDER[split]}/{name}" for split, names in DUKE.items() for name in names))
    ready, listed = rows(_read("occluded-duke", tmp_path / "ready")), rows(_read("occluded-duke-lists",
                                                                                 tmp_path / "lists"))
    assert [(image, *rest) for image, _, *rest in ready] == [(image, *rest) for image, _, *rest in listed]
    assert len(listed) == 6 and ("query/0019_c1_f0051230.jpg", "DukeMTMC-reID/bounding_box_test/0019_c1_f0051230.jpg",
                                 19, 1, "query") in listed
    assert all((tmp_path / "lists" / path).is_file() for _, path, *_ in listed)
    write_index(_read("occluded-duke-lists", tmp_path / "lists"), tmp_path / "index.csv")  # keys carry the split


def test_occluded_duke_lists_that_do_not_fit_are_named(tmp_path):
    _duke_with_lists(tmp_path, tmp_path)
    (tmp_path / "query.list").write_text("0019_c1_f0051230.jpg\n\n0020_c1_f0000001.jpg\n")
    with pytest.raises(InputError, match=r"query.list', line 3: names '0020_c1_f0000001.jpg', which is in neither"):
        _read("occluded-duke-lists", tmp_path)
    (tmp_path / "query.list").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="query.list': cannot be read as UTF-8 text"):
        _read("occluded-duke-lists", tmp_path)
    (tmp_path / "query.list").unlink()
    with pytest.raises(InputError, match="query.list': no such list; put it there"):
        _read("occluded-duke-lists", tmp_path)


@pytest.mark.parametrize("train,test", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path, train, test):
    base = tmp_path / "MSMT17"
    lists = {"train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_02_0303noon_0000_0.jpg 1"],
             "val": ["0000/0000_001_14_0303morning_0016_1_ex.jpg 0"],
             "query": ["0000/0000_000_05_0303morning_0001_0.jpg 0"],
             "gallery": ["0000/0000_001_15_0303morning_0002_0.jpg 0"]}
    for name, lines in lists.items():
        folder = train if name in ("train", "val") else test
        touch(base / folder, *(line.split()[0] for line in lines))
        (base / f"list_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    found = rows(_read("msmt17", tmp_path))
    assert found == sorted([
        ("train/0000/0000_000_01_0303morning_0015_0.jpg", f"MSMT17/{train}/0000/0000_000_01_0303morning_0015_0.jpg",
         0, 1, "train"),
        ("train/0001/0001_000_02_0303noon_0000_0.jpg", f"MSMT17/{train}/0001/0001_000_02_0303noon_0000_0.jpg",
         1, 2, "train"),
        ("train/0000/0000_001_14_0303morning_0016_1_ex.jpg",
         f"MSMT17/{train}/0000/0000_001_14_0303morning_0016_1_ex.jpg", 0, 14, "train"),
        ("query/0000/0000_000_05_0303morning_0001_0.jpg", f"MSMT17/{test}/0000/0000_000_05_0303morning_0001_0.jpg",
         1041, 5, "query"),  # person 0 of the test lists is not person 0 of the training lists
        ("gallery/0000/0000_001_15_0303morning_0002_0.jpg", f"MSMT17/{test}/0000/0000_001_15_0303morning_0002_0.jpg",
         1041, 15, "gallery")])
    assert [row for row in found if "_14_" not in row[0]] == rows(_read("msmt17-noval", tmp_path))


@pytest.mark.parametrize("line,wrong", [
    ("0000/0000_000_01_0303morning_0015_0.jpg", "is not a path, a space and a person"),
    ("0000/0000_000_01_0303morning_0015_0.jpg x", "is not a path, a space and a person"),
    ("0000/portrait.jpg 0", "is not a path, a space and a person"),
    ("../0000_000_01_0303morning_0015_0.jpg 0", "is not a path, a space and a person"),
    ("0000/0000_000_02_0303morning_0015_0.jpg 0", "is missing; unpack MSMT17 again")])
def test_msmt17_lines_that_do_not_fit_are_named(tmp_path, line, wrong):
    touch(tmp_path, "train/0000/0000_000_01_0303morning_0015_0.jpg", "test/x")
    (tmp_path / "list_train.txt").write_text(f"0000/0000_000_01_0303morning_0015_0.jpg 0\n{line}\n")
    with pytest.raises(InputError, match=rf"list_train.txt', line 2: .*{wrong}"):
        _read("msmt17", tmp_path)


def test_msmt17_without_its_images_is_named(tmp_path):
    (tmp_path / "list_train.txt").write_text("0000/0000_000_01_0303morning_0015_0.jpg 0\n")
    with pytest.raises(InputError, match="holds neither train nor mask_train_v2; unpack MSMT17's images"):
        _read("msmt17", tmp_path)


def _partial_reid(root: Path, probes: str, gallery: str, suffix: str = ".jpg") -> None:
    touch(root, *(f"{folder}/{pid:03d}_{number:02d}{suffix}" for folder in (probes, gallery) for pid in range(1, 61)
                  for number in range(1, 6)))


@pytest.mark.parametrize("layout,probes,gallery,around", [
    ("partial-reid-partial", "partial_body_images", "whole_body_images", "Partial-REID_Dataset"),
    ("partial-reid-occluded", "occluded_body_images", "whole_body_images", "Partial_REID"),
    ("partial-reid-partial", "query", "gallery", ""), ("partial-reid-occluded", "Probe", "Gallery", "")])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_partial_reid(tmp_path, layout, probes, gallery, around, suffix):
    _partial_reid(tmp_path / around, probes, gallery, suffix)
    frame = _read(layout, tmp_path)
    assert counts(frame) == {"query": (300, 60), "gallery": (300, 60)} and remarks(LAYOUTS[layout], frame) == []
    place = Path(around, probes, f"060_05{suffix}").as_posix()
    assert (f"query/060_05{suffix}", place, 60, 0, "query") in rows(frame)
    assert frame.groupby("split")["camid"].unique().map(list).to_dict() == {"query": [0], "gallery": [1]}


def test_a_tiff_is_read_as_it_was_written(tmp_path):
    """Occluded-REID's pictures are TIFF files, uncompressed or not."""
    picture = np.random.default_rng(0).integers(0, 256, (9, 5, 3)).astype(np.uint8)
    for number, (suffix, compression) in enumerate(((".tif", 1), (".TIFF", 5))):
        for folder in ("occluded_body_images", "whole_body_images"):
            path = tmp_path / folder / f"001_0{number + 1}{suffix}"
            path.parent.mkdir(exist_ok=True)
            written = cv2.imencode(".tif", picture[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])[1]
            path.write_bytes(written.tobytes())
    frame = _read("occluded-reid", tmp_path)
    assert len(frame) == 4
    for path in frame["path"]:
        np.testing.assert_array_equal(read_image(tmp_path / path), picture)


def test_partial_reid_takes_the_probes_that_the_layout_names(tmp_path):
    """The release has all three folders."""
    _partial_reid(tmp_path, "partial_body_images", "whole_body_images")
    _partial_reid(tmp_path, "occluded_body_images", "whole_body_images")
    for kind in ("partial", "occluded"):
        frame = _read(f"partial-reid-{kind}", tmp_path)
        assert set(frame.loc[frame["split"] == "query", "path"].str.split("/").str[0]) == {f"{kind}_body_images"}


@pytest.mark.parametrize("probes,gallery", [("Probe", "Gallery"), ("query", "gallery"),
                                            ("partial_body_images", "whole_body_images")])
@pytest.mark.parametrize("name", ["{}.jpg", "{:03d}.jpg", "{:03d}_1.jpg"])
def test_partial_ilids(tmp_path, probes, gallery, name):
    touch(tmp_path / "Partial_iLIDS", *(f"{folder}/{name.format(pid)}" for folder in (probes, gallery)
                                        for pid in range(1, 120)))
    frame = _read("partial-ilids", tmp_path)
    assert remarks(LAYOUTS["partial-ilids"], frame) == []
    assert sorted(frame.loc[frame["split"] == "query", "pid"]) == list(range(1, 120))


def test_partial_ilids_uncropped_has_other_probes_of_the_same_people(tmp_path):
    """The release has all three folders."""
    folders = ("Probe", "partial_iLIDS_Probe_nocrop", "Gallery")
    touch(tmp_path, *(f"{folder}/{pid:03d}.jpg" for folder in folders for pid in range(1, 120)))
    for layout, folder in (("partial-ilids", "Probe"), ("partial-ilids-uncropped", "partial_iLIDS_Probe_nocrop")):
        frame = _read(layout, tmp_path)
        assert remarks(LAYOUTS[layout], frame) == []
        query = frame[frame["split"] == "query"]
        assert set(query["path"].str.split("/").str[0]) == {folder} and sorted(query["pid"]) == list(range(1, 120))


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
@pytest.mark.parametrize("own_folders", [True, False])
def test_occluded_reid(tmp_path, suffix, own_folders):
    touch(tmp_path / "Occluded_REID", *(
        f"{folder}/{f'{pid:03d}/' if own_folders else ''}{pid:03d}_{number:02d}{suffix}"
        for folder in ("occluded_body_images", "whole_body_images") for pid in range(1, 201) for number in range(1, 6)))
    frame = _read("occluded-reid", tmp_path)
    assert remarks(LAYOUTS["occluded-reid"], frame) == []
    name = f"{'200/' if own_folders else ''}200_05{suffix}"
    assert (f"gallery/{name}", f"Occluded_REID/whole_body_images/{name}", 200, 1, "gallery") in rows(frame)


def test_a_folder_of_ones_own_says_the_person_where_the_name_does_not(tmp_path):
    touch(tmp_path, "query/017/3.tif", "gallery/017/4.tif")
    assert {row[2] for row in rows(_read("occluded-reid", tmp_path))} == {17}


def test_p_duke(tmp_path):
    base = tmp_path / "P-DukeMTMC-reid"
    touch(base, "train/occluded_body_images/0001/0001_c2_f0046182.jpg",
          "train/whole_body_images/0001/0001_c3_f0046302.jpg", "train/whole_body_images/0002/0002_c3_f0046302.jpg",
          "test/occluded_body_images/0005/0005_c2_f0046985.jpg", "test/whole_body_images/0005/0005_c5_f0046985.jpg")
    found = rows(_read("p-duke", tmp_path))
    assert [(image, *rest) for image, _, *rest in found] == [
        ("gallery/0005/0005_c5_f0046985.jpg", 5, 1, "gallery"),
        ("query/0005/0005_c2_f0046985.jpg", 5, 0, "query"),
        ("train/occluded_body_images/0001/0001_c2_f0046182.jpg", 1, 0, "train"),
        ("train/whole_body_images/0001/0001_c3_f0046302.jpg", 1, 1, "train"),
        ("train/whole_body_images/0002/0002_c3_f0046302.jpg", 2, 1, "train")]
    assert all((tmp_path / path).is_file() for _, path, *_ in found)
    for folder in ("occluded_body_images", "whole_body_images"):
        (base / "train" / folder).rename(tmp_path / folder)
    with pytest.raises(InputError, match=r"train': holds no occluded_body_images/ and whole_body_images/; unpack"):
        _read("p-duke", tmp_path)
    (base / "train").rmdir()
    frame = _read("p-duke", base)
    assert counts(frame) == {"gallery": (1, 1), "query": (1, 1)}
    assert remarks(LAYOUTS["p-duke"], frame)[1].startswith("train: 0 images of 0 people are here, published are 12927")


@pytest.mark.parametrize("name", ["portrait.jpg", "p001.jpg", "1" * 19 + "_1.jpg"])
def test_a_name_that_says_nobody_is_named(tmp_path, name):
    touch(tmp_path, f"query/{name}", "gallery/001_01.jpg")
    with pytest.raises(InputError, match=f"query/{name}': the name does not say the person; rename it like 001_01"):
        _read("partial-reid-partial", tmp_path)


def test_folders_that_differ_in_case_only_are_both_named(tmp_path):
    touch(tmp_path, "query/001_01.jpg", "Query/001_01.jpg", "gallery/001_01.jpg")
    with pytest.raises(InputError, match="both 'Query' and 'query' could be meant; move one away"):
        _read("partial-reid-partial", tmp_path)


def test_two_images_with_one_key_are_both_named(tmp_path):
    _duke_with_lists(tmp_path, tmp_path)
    (tmp_path / "train.list").write_text(f"{DUKE['train'][0]}\n{DUKE['train'][0]}\n")
    with pytest.raises(InputError, match=f"two images have the key 'train/{DUKE['train'][0]}'"):
        write_index(_read("occluded-duke-lists", tmp_path), tmp_path / "index.csv")


@pytest.mark.parametrize("place", [b"query/00\xff/001_01.jpg", b"query/001/001_01\n.jpg"])
def test_unreadable_names_below_are_named(tmp_path, place):
    touch(tmp_path, "gallery/001_01.jpg")
    path = os.fsencode(tmp_path) + b"/" + place
    os.makedirs(os.path.dirname(path))
    Path(os.fsdecode(path)).touch()
    with pytest.raises(InputError, match="no UTF-8 or a control character; rename it"):
        _read("occluded-reid", tmp_path)
