"""Faults of a data set in every layout: `prepare` says each at once, in one sentence that names the data set."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.datasets.index import read_index
from pipeline.datasets.layouts import LAYOUTS, TRIALS
from pipeline.datasets.protocol import check_protocol
from stages import prepare
from tests.helpers.bare_params import bare_experiment
from tests.helpers.trees import MARKET, PAIRS, SHOTS, Shot, rows, touch, tree, write_tree

ROOT = Path(__file__).resolve().parents[2]

# Of the ten splits of CUHK01, which differ in their draws, one of each kind.
EVERY = [name for name in LAYOUTS if not name.startswith("cuhk01") or name.endswith(f"-{TRIALS - 1}")]
SCORED = [name for name in EVERY if name != "folder"]
NO_TRAINING = [*PAIRS, *(name for name in EVERY if name.startswith("cuhk01")), "folder"]  # or people drawn by us
NO_CAMERAS = [*PAIRS, "p-duke", "folder"]  # cameras are the folders
GALLERY = {"csv": "pictures", "folder": "gallery", "p-duke": "test/whole_body_images", "msmt17": "test",
           "msmt17-noval": "test", "cuhk03-labeled": "images_labeled", "cuhk03-detected": "images_detected",
           **{name: whole for name, (_, whole) in PAIRS.items()},
           **{name: "campus" for name in EVERY if name.startswith("cuhk01")}}
LISTED = ("csv", "msmt17", "msmt17-noval")  # a list says where each picture is


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Write a tree and prepare it: what lies in the index."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")

    def call(layout: str, files: dict[str, bytes], needs: tuple[str, ...] = (), **more: int) -> list[tuple]:
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        write_tree(tmp_path / "raw", files)
        prepare.run(bare_experiment(params={"datasets": {"people": {"layout": layout, **more}}},
                                    plan={"prepare": {"people": {"raw": str(tmp_path / "raw"), "needs": needs}}}),
                    "people")
        return rows(read_index(paths.index("people")))

    return call


def refused(prepared, layout: str, files: dict[str, bytes], *said: str, needs: tuple[str, ...] = (),
            **more: int) -> str:
    """The one sentence, which names data set and folder, and after which no index is there."""
    with pytest.raises(InputError) as caught:
        prepared(layout, files, needs, **more)
    message = str(caught.value)
    assert message.startswith("datasets.people: '/") and "/raw" in message and "\n" not in message, message
    assert "; " in message and all(word in message for word in said), message
    assert not paths.index("people").exists()
    return message


def people(found: list[tuple]) -> list[tuple]:
    return sorted((pid, camid, split) for _, _, pid, camid, split in found)


def gallery(layout: str) -> str:
    return GALLERY.get(layout, "bounding_box_test")


def shot_pair(layout: str, files: dict[str, bytes]) -> tuple[str, str]:
    """A query's file and a gallery file of the same person and, where there are cameras, another one."""
    if layout.startswith("cuhk01"):
        return "campus/0001001.png", "campus/0001003.png"
    shots = [shot for shot in SHOTS if layout not in PAIRS or shot[0] != "train"]
    names = [name for name in files if Path(name).suffix in (".jpg", ".png")]
    return names[shots.index(("query", 3, 1))], names[shots.index(("gallery", 3, 2))]


@pytest.mark.parametrize("layout", EVERY)
def test_a_sound_set_is_prepared_without_a_word_but_on_its_counts(prepared, capsys, layout):
    found = prepared(layout, tree(layout))
    said = [line for line in capsys.readouterr().err.splitlines()
            if "results will not compare" not in line and "DukeMTMC" not in line and "Drama" not in line]
    assert found and said == []
    if layout in PAIRS:
        assert people(found) == sorted((pid, int(split == "gallery"), split) for split, pid, _ in SHOTS
                                       if split != "train")
    elif not layout.startswith(("cuhk01", "msmt17", "p-duke", "folder")):
        assert people(found) == sorted((pid, camid, split) for split, pid, camid in SHOTS)


@pytest.mark.parametrize("layout", EVERY)
@pytest.mark.parametrize("change", [str.upper, str.title, str.swapcase])
def test_a_folder_in_another_case_is_read_or_named(prepared, layout, change):
    files, place = tree(layout), gallery(layout)
    base, _, last = place.rpartition("/")
    changed = {name.replace(f"{place}/", f"{base}{'/' * bool(base)}{change(last)}/", 1): data
               for name, data in files.items()}
    if layout == "csv":
        refused(prepared, layout, changed, "images.csv', line", "pictures/0.jpg")
        return
    assert people(prepared(layout, changed)) == people(prepared(layout, files))


@pytest.mark.parametrize("layout", EVERY)
@pytest.mark.parametrize("inner", ["0006", "a/b/c/d"])
def test_pictures_in_folders_of_their_own_are_read_or_named(prepared, layout, inner):
    files, place = tree(layout), gallery(layout)
    nested = {f"{Path(name).parent}/{inner}/{Path(name).name}" if name.startswith(f"{place}/") else name: data
              for name, data in files.items()}
    assert nested.keys() != files.keys()
    if layout in LISTED:
        refused(prepared, layout, nested)
        return
    assert people(prepared(layout, nested)) == people(prepared(layout, files))


@pytest.mark.parametrize("layout", EVERY)
def test_a_gallery_that_is_missing_or_called_otherwise_is_named(prepared, capsys, layout):
    files, place = tree(layout), gallery(layout)
    without = {name: data for name, data in files.items() if not name.startswith(f"{place}/")}
    renamed = {name.replace(f"{place}/", "other_name/", 1): data for name, data in files.items()}
    if layout == "folder":  # which asks for nothing
        assert len(prepared(layout, without)) == 6 and len(prepared(layout, renamed)) == 10
        return
    refused(prepared, layout, without)
    message = refused(prepared, layout, renamed)
    if place == "bounding_box_test" and layout != "occluded-duke-lists":
        assert "holds 2 queries and no gallery" in message and "pictures in 'other_name' are not read" in message


@pytest.mark.parametrize("layout", [name for name in EVERY if name not in NO_CAMERAS])
def test_one_camera_for_everyone_is_named(prepared, layout):
    files = tree(layout, [(split, pid, 1) for split, pid, _ in SHOTS])
    if layout.startswith("cuhk01"):
        files = {name: data for name, data in files.items() if name.endswith(("001.png", "002.png"))}
    said = "no gallery" if layout.startswith("cuhk01") else "every query and all of the gallery are of camera 1"
    refused(prepared, layout, files, said)


@pytest.mark.parametrize("layout", [name for name in SCORED if name not in NO_TRAINING])
def test_a_person_in_train_and_test_is_named(prepared, layout):
    shots: list[Shot] = [*SHOTS, ("query", 1, 1), ("gallery", 1, 2)]
    files = tree(layout, shots)
    if layout.startswith("msmt17"):  # numbers both parts from 0, and so cannot tell but by the pictures
        names = [name for name in files if name.endswith(".jpg")]
        files[names[-2]] = files[names[0]]
        refused(prepared, layout, files, "1 picture ('", "stands in train and in test")
    else:
        refused(prepared, layout, files, "person 1 stands in train and in test ('")


@pytest.mark.parametrize("layout", SCORED)
def test_a_query_s_picture_in_the_gallery_under_another_camera_is_named(prepared, layout):
    files = tree(layout)
    query, other = shot_pair(layout, files)
    if layout.startswith("cuhk01"):  # which draws who is tested
        for pid in range(1, 104):
            files[f"campus/{pid:04d}003.png"] = files[f"campus/{pid:04d}004.png"] = files[f"campus/{pid:04d}001.png"]
        refused(prepared, layout, files, "queries would find themselves")
        return
    files[other] = files[query]
    refused(prepared, layout, files, f"1 picture ({query!r} and {other!r}) stands in query and gallery as another "
                                     "person's or another camera's", "take them out of one part")


@pytest.mark.parametrize("layout", [name for name in SCORED if not name.startswith("cuhk01")])
def test_a_query_s_person_who_is_not_in_the_gallery_is_told_and_kept(prepared, capsys, layout):
    prepared(layout, tree(layout, [shot for shot in SHOTS if shot[:2] != ("gallery", 4)]))
    said = "1 of 2 queries, '"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert line.startswith("people: ") and "have no picture of their person from another camera" in line
    assert line.removeprefix("people: ") in paths.remarks("people").read_text().splitlines()
    paths.index("people").unlink()
    strangers = [shot if shot[0] != "gallery" else ("gallery", 9, shot[2]) for shot in SHOTS]
    refused(prepared, layout, tree(layout, strangers), "no query's person is in the gallery")


def test_the_index_and_what_was_said_of_it_stand_side_by_side(prepared):
    prepared("market", tree("market"))
    assert paths.remarks("people").read_text() == ("gallery 4 images of 2 people, query 2 images of 2 people, train 4 "
                                                   "images of 2 people\n")


@pytest.mark.parametrize("layout", ["market", "occluded-duke", "occluded-duke-lists"])
def test_a_query_that_stands_in_the_gallery_under_its_own_camera_is_the_camera_rule_s(prepared, capsys, layout):
    """Occluded-DukeMTMC has 1,870 of them."""
    files = tree(layout)
    names = [name for name in files if name.endswith(".jpg")]
    query, other = names[SHOTS.index(("query", 3, 1))], names[SHOTS.index(("gallery", 3, 1))]
    files[other] = files[query]
    assert len(prepared(layout, files)) == 10
    assert (f"people: 1 picture ({query!r} and {other!r}) stands in query and gallery alike, of one person and camera"
            in capsys.readouterr().err)


def test_a_picture_twice_in_the_gallery_is_told(prepared, capsys):
    files = tree("market")
    one, two = [name for name in files if name.startswith("bounding_box_test/0004")]
    prepared("market", files | {two: files[one]})
    assert f"people: 1 picture ({one!r} and {two!r}) stands twice in one split, where each counts" \
        in capsys.readouterr().err


def test_files_of_one_size_are_no_duplicates_and_empty_ones_tell_nothing(prepared, capsys):
    files = tree("market")
    prepared("market", {name: f"{number:08d}".encode() for number, name in enumerate(files)})
    prepared("market", dict.fromkeys(files, b""))
    assert capsys.readouterr().err == ""


def test_one_file_that_a_list_names_for_train_and_test_is_named(prepared):
    files = tree("csv")
    files["images.csv"] += b"pictures/0.jpg,7,1,query\n"
    refused(prepared, "csv", files, "1 picture ('pictures/0.jpg' and 'pictures/0.jpg') stands in train and in test")


def test_distractors_are_nobody_in_particular(prepared):
    """Person 0 of the gallery may bear the number of someone who is trained on; of a query not."""
    shots: list[Shot] = [*SHOTS, ("train", 0, 1), ("gallery", 0, 2)]
    assert len(prepared("market", tree("market", shots))) == 12
    paths.index("people").unlink()
    refused(prepared, "market", tree("market", [*shots, ("query", 0, 1)]), "person 0 stands in train and in test")


def test_what_its_makers_gave_out_is_no_fault_but_a_remark(tmp_path):
    """The same set, once with the published counts and once with others."""
    files = tree("market")
    query, other = shot_pair("market", files)
    files[other] = files[query]
    write_tree(tmp_path, files)
    frame = LAYOUTS["market"].read(tmp_path)
    (said,) = check_protocol(frame, tmp_path, listed=False, published=True)
    assert said.startswith("1 picture (") and said.endswith("so that queries would find themselves; so its makers gave "
                                                            "it out")
    with pytest.raises(InputError, match="queries would find themselves; take them out"):
        check_protocol(frame, tmp_path, listed=False, published=False)


def test_the_published_counts_alone_do_not_excuse_what_cannot_be_scored(tmp_path):
    write_tree(tmp_path, tree("market", [(split, pid, 1) for split, pid, _ in SHOTS]))
    with pytest.raises(InputError, match="all of the gallery are of camera 1"):
        check_protocol(LAYOUTS["market"].read(tmp_path), tmp_path, listed=False, published=True)


def test_a_set_to_train_on_alone(prepared, capsys):
    files = {name: data for name, data in tree("market").items() if name.startswith("bounding_box_train/")}
    assert len(prepared("market", files, ("train",))) == 4
    assert capsys.readouterr().err == ("people: neither queries nor a gallery: networks can be trained on it, not "
                                       "scored\n")
    paths.index("people").unlink()
    refused(prepared, "market", files, "has neither queries nor a gallery, and runs are scored on it",
            needs=("train", "test"))


def test_a_set_to_test_on_alone(prepared, capsys):
    files = {name: data for name, data in tree("market").items() if not name.startswith("bounding_box_train/")}
    assert len(prepared("market", files, ("test",))) == 6 and capsys.readouterr().err == ""
    paths.index("people").unlink()
    refused(prepared, "market", files, "has no training images, and runs train on it", needs=("train", "test"))


def test_a_folder_of_nobody_known_cannot_be_scored(prepared):
    assert len(prepared("folder", tree("folder"))) == 10
    paths.index("people").unlink()
    refused(prepared, "folder", tree("folder"), "has `layout: folder`", "take it out of eval_on", needs=("test",))
    files = {name: data for name, data in tree("market").items() if name.startswith("bounding_box_test/")}
    refused(prepared, "market", files, "holds a gallery of 4 and no query", needs=("test",))


def held_tree() -> dict[str, bytes]:
    """Five people to train on, two pictures of each from two cameras, no two the same."""
    return {f"bounding_box_train/{pid:04d}_c{camid}s1_00000{number}_00.jpg": f"{pid} {camid} {number}".encode()
            for pid in range(1, 6) for camid in (1, 2) for number in (1, 2)}


def test_held_out_people_are_checked_as_they_are_scored(prepared, capsys):
    """A picture of theirs among those of training is refused; that the folder has no test part of its own is no fault,
    nor who is in that part, which is left out."""
    files = held_tree()
    found = prepared("market", files, ("train", "test"), hold_out=2)
    assert capsys.readouterr().err == "people: queries and gallery are 2 of its training people; its own are left out\n"
    held, free = ([name for _, name, *_, split in found if (split == "train") == trained] for trained in (False, True))
    own = {"query/0001_c1s1_000009_00.jpg": b"own query", "bounding_box_test/0001_c2s1_000009_00.jpg": b"own gallery"}
    assert prepared("market", files | own, hold_out=2) == found
    paths.index("people").unlink()
    refused(prepared, "market", files | {free[0]: files[held[0]]}, f"1 picture ({free[0]!r} and {held[0]!r}) stands in "
            "train and in test, so that a network would be scored on what it has seen", hold_out=2)
    refused(prepared, "market", files | own, "person 1 stands in train and in test")


def test_folders_that_are_not_read_are_told(prepared, capsys):
    files = tree("market1501") | {"gt_bbox/1.jpg": b"1", "gt_query/deep/2.jpg": b"2", "query/notes.txt": b"3",
                                  "loose.jpg": b"4", ".hidden/5.jpg": b"6", "texts/6.txt": b"7"}
    prepared("market1501", files)
    assert "people: pictures in the folder itself, 'gt_bbox', 'gt_query' are not read, the layout has no such place\n" \
        in capsys.readouterr().err


def test_market_s_gallery_in_folders_beside_one_picture(prepared):
    """A folder for each person beside one picture: none is lost."""
    files = {f"{place}/{pid:04d}_c1s1_000001_00.jpg": f"{place} {pid}".encode()
             for place, pids in (("bounding_box_train", (1, 2)), ("query", (6, 7))) for pid in pids}
    files |= {f"bounding_box_test/{pid:04d}/{pid:04d}_c2s1_000001_00.jpg": f"gallery {pid}".encode() for pid in (6, 7)}
    files["bounding_box_test/0000_c3s1_000001_00.jpg"] = b"distractor"
    assert [row[:2] for row in prepared("market", files) if row[4] == "gallery"] == [
        (f"gallery/{name}", f"bounding_box_test/{name}") for name in (
            "0000_c3s1_000001_00.jpg", "0006/0006_c2s1_000001_00.jpg", "0007/0007_c2s1_000001_00.jpg")]


NAMES = ["narrow\u202fno-break", "ideographic\u3000space", "no-break\u00a0space", "soft\u00adhyphen", "line\u2028end",
         "family \U0001f468\u200d\U0001f469", "private \ue000", "\u200e right to left \u200f", "e\u0301", "\ufeffmark"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_is_utf_8_is_read(prepared, name):
    """In names of files, of folders, in lists and in a CSV; and it comes back out of the index."""
    market = {f"{MARKET[split]}/{name}/{pid:04d}_c{camid}_{name}{number}.jpg": f"{number}".encode()
              for number, (split, pid, camid) in enumerate(SHOTS)}
    assert sorted(row[1] for row in prepared("market", market)) == sorted(market)
    assert sorted(row[1] for row in prepared("folder", market)) == sorted(market)
    lines = "".join(f"\"{place}\",{shot[1]},{shot[2]},{shot[0]}\n" for place, shot in zip(market, SHOTS, strict=True))
    assert sorted(row[1] for row in prepared("csv", {"images.csv": f"path,pid,camid,split\n{lines}".encode(), **market}
                                             )) == sorted(market)
    duke = tree("occluded-duke-lists")
    odd = {place.replace("_f", f"_{name}"): data.replace(b"_f", f"_{name}".encode()) for place, data in duke.items()}
    assert sum(name in row[1] for row in prepared("occluded-duke-lists", odd)) == len(SHOTS)


def test_a_picture_that_cannot_be_read_is_named(prepared, tmp_path):
    files = tree("market")
    write_tree(tmp_path / "raw", files)
    touch(tmp_path / "raw", "query/0003_c1s1_000011_00.jpg")
    (tmp_path / "raw/query/0003_c1s1_000011_00.jpg").unlink()
    (tmp_path / "raw/query/0003_c1s1_000011_00.jpg").symlink_to("nowhere")
    with pytest.raises(InputError, match="datasets.people: '.*0003_c1s1_000011_00.jpg': cannot be read .No such file"):
        prepare.run(bare_experiment(params={"datasets": {"people": {"layout": "market"}}},
                                    plan={"prepare": {"people": {"raw": str(tmp_path / "raw")}}}), "people")


def docs_code(language: str, word: str) -> str:
    """A block of docs/datasets.md in that language with that word."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / "docs/datasets.md").read_text(), re.M | re.S)
    (block,) = [textwrap.dedent(block) for block in blocks if word in block]
    return block


def test_part_of_a_set_as_the_docs_make_it(prepared, tmp_path):
    """From an index, and from the names alone where the whole is not there."""
    write_tree(Path("data/raw/cuhk03"), tree("cuhk03-labeled"))
    prepared("cuhk03-labeled", tree("cuhk03-labeled"))
    paths.index("people").rename(paths.index("cuhk03-labeled"))
    command = docs_code("bash", "ln -s ../cuhk03").replace("<= 100", "<= 3")
    subprocess.run(["bash", "-euc", command], check=True)
    part = rows(LAYOUTS["csv"].read("data/raw/part"))
    assert people(part) == sorted((pid, camid, split) for split, pid, camid in SHOTS if pid <= 3)

    write_tree(Path("data/raw/pair"), {f"images_labeled/1_{pid:03d}_{camid}_01.png": f"{pid} {camid}".encode()
                                       for pid in (1, 2, 3, 4) for camid in (1, 2)})
    exec(docs_code("python", "images_labeled"), {})
    made = rows(LAYOUTS["csv"].read("data/raw/pair"))
    assert people(made) == [(1001, 1, "train"), (1001, 2, "train"), (1002, 1, "query"), (1002, 2, "gallery"),
                            (1003, 1, "train"), (1003, 2, "train"), (1004, 1, "query"), (1004, 2, "gallery")]
