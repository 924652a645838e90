import os
from pathlib import Path

import h5py
import pytest

from pipeline.datasets import add_occlusion, read_market
from pipeline.errors import InputError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "market1501_dev"


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_market_layout(tmp_path):
    _touch(tmp_path, "bounding_box_train/0002_c1s1_000451_03.jpg", "query/0003_c2s1_000001_00.jpg",
           "bounding_box_test/0003_c3s1_000001_00.jpg", "bounding_box_test/0000_c1s1_000001_00.jpg",
           "bounding_box_test/-1_c1s1_000001_00.jpg", "bounding_box_test/Thumbs.db", "query/.hidden.jpg")
    frame = read_market(tmp_path).set_index("image")
    assert sorted(frame.index) == ["gallery/0000_c1s1_000001_00.jpg", "gallery/0003_c3s1_000001_00.jpg",
                                   "query/0003_c2s1_000001_00.jpg", "train/0002_c1s1_000451_03.jpg"]
    assert frame.loc["query/0003_c2s1_000001_00.jpg", ["path", "pid", "camid", "split"]].tolist() == [
        "query/0003_c2s1_000001_00.jpg", 3, 2, "query"]


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
    _touch(tmp_path, "query/portrait.jpg")
    with pytest.raises(InputError, match="query/portrait.jpg': the name does not say person and camera"):
        read_market(tmp_path)


@pytest.mark.parametrize("name", [b"0001_c1\xff.jpg", b"0001_c1\n.jpg"])
def test_unreadable_file_names_are_named(tmp_path, name):
    (tmp_path / "query").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "query") + b"/" + name)).write_bytes(b"x")
    with pytest.raises(InputError, match="no UTF-8 or a control character; rename the file"):
        read_market(tmp_path)


def test_occlusion_comes_from_the_labels_of_a_rendered_set(tmp_path):
    _touch(tmp_path, "query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000001_00.jpg")
    frame = read_market(tmp_path)
    assert "occlusion" not in add_occlusion(frame, tmp_path)
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["path"] = ["query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000001_00.jpg"]
        file["occlusion"] = [0.5, 0.25]
    known = add_occlusion(frame, tmp_path).set_index("split")["occlusion"]
    assert known["query"] == 0.5 and known["gallery"] == 0.25
    _touch(tmp_path, "query/0002_c1s1_000001_00.jpg")
    with pytest.raises(InputError, match="labels.h5': does not belong to the images beside it"):
        add_occlusion(read_market(tmp_path), tmp_path)
