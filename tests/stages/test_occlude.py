"""The stage occlude: the set that it makes has the people and cameras of the index, or is not made."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.datasets.index import COLUMNS, read_index, write_index
from pipeline.datasets.layouts import LAYOUTS
from pipeline.datasets.market_like import read_market
from stages import occlude
from tests.helpers.bare_params import bare_experiment
from tests.helpers.trees import tree

SETTINGS = {"stream": "k", "seed": 0, "low": 0.25, "high": 0.6}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write a set's pictures and index, and run the stage: person and camera of each picture that it made."""
    monkeypatch.chdir(tmp_path)

    def call(layout: str, files: dict[str, bytes]) -> list[tuple]:
        for name, data in files.items():
            path = Path("raw", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".png"):
                write_image(path, np.full((24, 12, 3), 120, np.uint8))
            else:
                path.write_bytes(data)
        write_index(LAYOUTS[layout].read("raw"), "index.csv")
        return labels_of_run()

    return call


def labels_of_run() -> list[tuple]:
    occlude.run(bare_experiment(params={"occlude": {"people": SETTINGS}},
                                plan={"occlude": {"people": {"index": "index.csv", "raw": "raw"}}}), "people")
    return labels(read_market("data/raw/people"))


def labels(frame: pd.DataFrame) -> list[tuple]:
    frame = frame[frame["split"] != "train"]
    return sorted(frame[["pid", "camid", "split"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("layout", ["market", "duke", "occluded-duke-lists"])
def test_people_and_cameras_are_those_of_the_index(made, layout):
    assert made(layout, tree(layout)) == labels(read_index("index.csv"))


@pytest.mark.parametrize(("layout", "said"), [
    ("p-duke", r"'test/whole_body_images/0003/0003_c2_f0000006.jpg' of 'raw' is person 3, camera 1 in its index, and "
               "its name says person 3, camera 2"),
    ("partial-ilids", r"'Gallery/003_06.jpg' of 'raw' is person 3, camera 1 in its index, and its name says neither"),
    ("csv", r"'pictures/\d.jpg' of 'raw' is person \d, camera \d in its index, and its name says neither")])
def test_a_set_whose_names_say_otherwise_is_refused(made, layout, said):
    with pytest.raises(InputError, match=f"occlude.people: {said}; name a data set in Market-1501's layout") as caught:
        made(layout, tree(layout))
    assert "\n" not in str(caught.value) and not Path("data/raw/people").exists()


def test_another_person_than_the_name_s_is_refused_and_what_is_trained_on_may_be_called_anything(made):
    made("market", tree("market"))
    good = read_index("index.csv")
    train = pd.DataFrame([("train/x.jpg", "x.jpg", 5, 1, "train")], columns=COLUMNS)
    write_index(pd.concat([good, train]), "index.csv")
    assert labels_of_run() == labels(good)

    before = Path("data/raw/people/labels.h5").read_bytes()
    good.loc[good["image"] == good["image"].iloc[0], "pid"] = 7
    write_index(good, "index.csv")
    with pytest.raises(InputError, match="is person 7, camera . in its index, and its name says person 3, camera "):
        labels_of_run()
    assert Path("data/raw/people/labels.h5").read_bytes() == before
