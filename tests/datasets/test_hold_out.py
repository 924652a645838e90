"""Held-out training people: who is drawn, what becomes a query, and that no test person is left."""

import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.datasets.hold_out import hold_out
from pipeline.datasets.index import COLUMNS, check_index


def frame(people: int = 6, images: int = 2, cameras: int = 3) -> pd.DataFrame:
    """Training people with so many images from each camera, and one test person."""
    rows = [(f"train/{pid}_c{camid}_{image}.jpg", f"t/{pid}_c{camid}_{image}.jpg", pid, camid, "train")
            for pid in range(1, people + 1) for camid in range(cameras) for image in range(images)]
    rows += [(f"{split}/{people + 1}_{camid}.jpg", f"{split}/{camid}.jpg", people + 1, camid, split)
             for camid, split in enumerate(("query", "gallery"))]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_queries_are_one_image_per_camera_and_have_a_match_from_another():
    held = hold_out(frame(), 2, "raw")

    check_index(held, "held")
    parts = {split: part for split, part in held.groupby("split")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 24, "query": 6, "gallery": 6}
    assert set(parts["query"]["pid"]) == set(parts["gallery"]["pid"])
    assert not set(parts["query"]["pid"]) & set(parts["train"]["pid"])
    assert 7 not in set(held["pid"])  # the data set's own test person
    assert all(row.image == f"{row.split}/{row.path[2:]}" for row in held.itertuples())
    assert not parts["query"].duplicated(["pid", "camid"]).any()


def test_a_cameras_only_image_goes_to_the_gallery():
    rows = frame(people=2, cameras=2)
    rows = rows[rows["image"] != "train/1_c1_1.jpg"]  # person 1 has two images from camera 0 and one from camera 1
    rows = rows[~((rows["pid"] == 2) & (rows["camid"] == 1))]  # person 2 is seen by one camera alone

    held = hold_out(rows, 1, "raw")
    assert held.loc[held["split"] == "query", "image"].tolist() == ["query/1_c0_0.jpg"]
    assert held.loc[held["split"] == "gallery", "image"].tolist() == ["gallery/1_c0_1.jpg", "gallery/1_c1_0.jpg"]


def test_the_order_of_rows_does_not_matter_and_more_people_hold_the_same_files():
    rows = frame(people=20)
    assert hold_out(rows, 5, "raw").equals(hold_out(rows[::-1], 5, "raw"))
    assert set(hold_out(rows, 5, "raw")["path"]) == set(rows.loc[rows["split"] == "train", "path"])


@pytest.mark.parametrize(("people", "rows"), [(6, frame()), (3, frame(images=1)), (3, frame(cameras=1))])
def test_too_many_people_are_refused(people, rows):
    with pytest.raises(InputError, match=rf"'raw': hold_out is {people}, and of its 6 training people (6|0) have "):
        hold_out(rows, people, "raw")
