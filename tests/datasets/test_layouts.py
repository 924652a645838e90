import os
import re
from pathlib import Path

import h5py
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.datasets.index import read_index, write_index
from pipeline.datasets.layouts import LAYOUTS, add_occlusion, pick_layout, read_market, remarks
from stages.prepare import run
from tests.helpers.bare_params import bare_experiment
from tests.helpers.trees import SHOTS, rows, touch, tree, write_tree

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "market1501_dev"
MARKET = ("bounding_box_train/0002_c1s1_000451_03.jpg", "query/0003_c2s1_000001_00.jpg",
          "bounding_box_test/0003_c3s1_000001_00.jpg")
# Every layout but the user's own, and what its error must name when the folder holds something else.
EXPECTS = {"folder": "hold no image",
           "market": "bounding_box_train, query, bounding_box_test", "market1501": "bounding_box_train",
           "drama-reid": "bounding_box_train", "duke": "bounding_box_train", "occluded-duke": "bounding_box_train",
           "occluded-duke-lists": "train.list, query.list, gallery.list", "p-duke": "test/occluded_body_images/",
           "occluded-reid": "occluded_body_images", "partial-reid-partial": "partial_body_images",
           "partial-reid-occluded": "occluded_body_images", "partial-ilids": "probe",
           "partial-ilids-uncropped": "nocrop",
           "cuhk03-labeled": "cuhk03_new_protocol_config_labeled.mat",
           "cuhk03-detected": "cuhk03_new_protocol_config_detected.mat", "cuhk01-0": "campus/",
           "msmt17": "list_train.txt", "msmt17-noval": "list_train.txt", "csv": "images.csv"}


def test_market_layout(tmp_path):
    touch(tmp_path, *MARKET, "bounding_box_test/0000_c1s1_000001_00.jpg", "bounding_box_test/-1_c1s1_000001_00.jpg",
          "bounding_box_test/Thumbs.db", "query/.hidden.jpg", "query/0009_c1.jpg/inside.txt")
    frame = read_market(tmp_path).set_index("image")
    assert sorted(frame.index) == ["gallery/0000_c1s1_000001_00.jpg", "gallery/0003_c3s1_000001_00.jpg",
                                   "query/0003_c2s1_000001_00.jpg", "train/0002_c1s1_000451_03.jpg"]
    assert frame.loc["query/0003_c2s1_000001_00.jpg", ["path", "pid", "camid", "split"]].tolist() == [
        "query/0003_c2s1_000001_00.jpg", 3, 2, "query"]


@pytest.mark.parametrize("around", ["Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15"])
def test_folders_that_a_download_put_around_are_found(tmp_path, around):
    touch(tmp_path / "flat", *MARKET)
    touch(tmp_path / "nested" / around, *MARKET, "gt_bbox/0001_c1s1_000001_00.jpg", "readme.txt")
    touch(tmp_path / "nested/__MACOSX" / around, "query/._0003_c2s1_000001_00.jpg")
    flat, nested = rows(read_market(tmp_path / "flat")), rows(read_market(tmp_path / "nested"))
    assert [(row[0], f"{around}/{row[1]}", *row[2:]) for row in flat] == nested
    assert all((tmp_path / "nested" / path).is_file() for _, path, *_ in nested)


def test_two_equal_places_are_both_named(tmp_path):
    touch(tmp_path / "detected", *MARKET)
    touch(tmp_path / "labeled", *MARKET)
    with pytest.raises(InputError, match=r"both '.*/detected' and '.*/labeled' could be meant; set `raw` to one"):
        read_market(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/market1501_dev is not on this machine")
def test_market1501_development_split_has_its_published_counts():
    frame = read_market(REAL)
    assert frame["split"].value_counts().to_dict() == {"train": 8655, "gallery": 3180, "query": 1101}
    assert frame.groupby(frame["split"] == "train")["pid"].nunique().to_dict() == {True: 500, False: 251}
    assert sorted(frame["camid"].unique()) == [1, 2, 3, 4, 5, 6]


def test_wrong_folders_and_names_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere': no such folder; put the data set there"):
        read_market(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds none of bounding_box_train, query, bounding_box_test"):
        read_market(tmp_path)
    touch(tmp_path, "query/portrait.jpg")
    with pytest.raises(InputError, match="query/portrait.jpg': the name does not say person and camera"):
        read_market(tmp_path)


@pytest.mark.parametrize("name", ["1" * 19 + "_c1.jpg", "1_c" + "1" * 19 + ".jpg"])
def test_a_number_too_long_for_an_index_is_no_person_or_camera(tmp_path, name):
    touch(tmp_path, f"query/{name}")
    with pytest.raises(InputError, match="the name does not say person and camera"):
        read_market(tmp_path)


def test_folders_without_images_are_an_error(tmp_path):
    touch(tmp_path, "query/readme.txt", "bounding_box_test/-1_c1s1_000001_00.jpg")
    with pytest.raises(InputError, match=f"{re.escape(repr(str(tmp_path)))}: its folders hold no image .*unpack"):
        read_market(tmp_path)


@pytest.mark.parametrize("name", [b"0001_c1\xff.jpg", b"0001_c1\n.jpg"])
def test_unreadable_file_names_are_named(tmp_path, name):
    (tmp_path / "query").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "query") + b"/" + name)).write_bytes(b"x")
    with pytest.raises(InputError, match="no UTF-8 or a control character; rename it"):
        read_market(tmp_path)


@pytest.mark.parametrize("name", ["x", "0004_c1s1_000001_00.jpg"])
@pytest.mark.parametrize("layout", ["market", "folder", "market1501"])
def test_a_link_that_leads_to_itself_is_named(project, layout, name):
    """By itself or through another one; hidden ones are left alone, as what is hidden is."""
    touch(project, *MARKET)
    link, other = project / "query" / name, project / "query" / ".hidden"
    other.symlink_to(other)
    prepare(layout, project)
    for target in (link, other):
        link.symlink_to(target)
        other.unlink()
        other.symlink_to(link)
        with pytest.raises(InputError, match=f"datasets.set: '.*query/{name}': is a link that leads to itself; remove"):
            prepare(layout, project)
        link.unlink()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_says_what_it_expects(tmp_path, layout):
    """Neither a missing folder nor one with other things is anything but one sentence that names what belongs there."""
    expected = EXPECTS["cuhk01-0" if layout.startswith("cuhk01") else layout]
    touch(tmp_path, "something/else/0001_c1.txt")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            LAYOUTS[layout].read(root)
        message = str(caught.value)
        assert str(root) in message and "\n" not in message
        assert (expected if root == tmp_path else "put the data set there") in message or layout == "csv"
        assert layout != "csv" or "images.csv" in message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_loader_cites_its_source(layout):
    read = LAYOUTS[layout].read
    text = getattr(read, "func", read).__doc__
    assert layout in ("market", "csv", "folder") or re.search("[Ss]ource", text), "whose data set, and on what terms?"


def test_an_unknown_layout_lists_the_choices():
    with pytest.raises(InputError, match=r"unknown layout 'viper'; a layout is one of market, csv, .*cuhk01-0 to 9, "):
        pick_layout("viper")
    assert pick_layout("cuhk01-7") is LAYOUTS["cuhk01-7"]


def _frame(published: dict[str, tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame([{"split": split, "pid": number % people} for split, (images, people) in published.items()
                         for number in range(images)])


def test_counts_that_differ_from_the_published_ones_are_told():
    layout = LAYOUTS["market1501"]
    assert remarks(layout, _frame({**layout.published})) == []
    found = remarks(layout, _frame({**layout.published, "query": (3367, 750), "gallery": (15913, 750)}))
    assert [line.partition(";")[0] for line in found] == [
        "query: 3367 images of 750 people are here, published are 3368 of 750",
        "gallery: 15913 images of 750 people are here, published are 15913 of 751"]
    (line,) = remarks(LAYOUTS["partial-ilids"], _frame({"train": (5, 5), "query": (119, 119), "gallery": (119, 119)}))
    assert line.startswith("train: 5 images of 5 people are here, published are 0 of 0")


def test_published_counts_add_up():
    """Against the totals that the data sets' own pages give."""
    totals = {"market1501": 12936 + 19732 - 3819 + 3368, "duke": 36411, "p-duke": 24143, "occluded-reid": 2000,
              "partial-ilids": 238, "cuhk03-labeled": 14096, "cuhk03-detected": 14097, "msmt17": 126441,
              "cuhk01-multi-0": 3884, "cuhk01-100-multi-9": 3884}
    for layout, total in totals.items():
        assert sum(images for images, _ in LAYOUTS[layout].published.values()) == total, layout
    assert LAYOUTS["msmt17"].published["train"][0] - LAYOUTS["msmt17-noval"].published["train"][0] == 2373


def prepare(layout: str, raw: Path) -> None:
    run(bare_experiment(params={"datasets": {"set": {"layout": layout}}}, plan={"prepare": {"set": {"raw": str(raw)}}}),
        "set")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "raw"


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "duke" in name])
def test_preparing_a_duke_set_says_that_it_was_withdrawn(project, capsys, layout):
    write_tree(project, tree(layout))
    prepare(layout, project)
    said = capsys.readouterr()
    assert "set: DukeMTMC, from which this data set was cut, was withdrawn by its authors in 2019" in said.err
    assert "published are" in said.err and "set: gallery 4 images of 2 people" in said.out
    assert len(read_index("data/index/set.csv")) == len(SHOTS)


def test_preparing_a_market_layout_says_only_its_counts(project, capsys):
    touch(project, *MARKET)
    prepare("market", project)
    assert capsys.readouterr().err == ""
    prepare("drama-reid", project)
    assert "Drama-ReID was never released" in capsys.readouterr().err
    with pytest.raises(InputError, match="datasets.set.layout: unknown layout 'markt'; a layout is one of"):
        prepare("markt", project)


def test_index_bytes_do_not_depend_on_the_order_on_disk(tmp_path):
    names = [f"query/{pid:04d}_c{pid % 6 + 1}s1_000001_00.jpg" for pid in range(40)]
    touch(tmp_path / "a", *names)
    touch(tmp_path / "b", *reversed(names))
    for name in "ab":
        write_index(read_market(tmp_path / name), tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_bytes().startswith(
        b"image,path,pid,camid,split\nquery/0000_c1s1_000001_00.jpg,query/0000_c1s1_000001_00.jpg,0,1,query\n")


def test_occlusion_comes_from_the_labels_of_a_rendered_set(tmp_path):
    touch(tmp_path, "query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000001_00.jpg")
    frame = read_market(tmp_path)
    assert "occlusion" not in add_occlusion(frame, tmp_path)
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["path"] = ["query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000001_00.jpg"]
        file["occlusion"] = [0.5, 0.25]
    known = add_occlusion(frame, tmp_path).set_index("split")["occlusion"]
    assert known["query"] == 0.5 and known["gallery"] == 0.25
    touch(tmp_path, "query/0002_c1s1_000001_00.jpg")
    with pytest.raises(InputError, match="labels.h5': does not belong to the images beside it"):
        add_occlusion(read_market(tmp_path), tmp_path)
