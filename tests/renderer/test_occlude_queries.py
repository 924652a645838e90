"""Objects in front of queries: what changes, by how much, and that nothing else does."""

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.base.images import read_image, write_image
from pipeline.base.seeds import rng
from pipeline.datasets.layouts import add_occlusion
from pipeline.datasets.market_like import read_market
from pipeline.renderer import occlude_queries as module
from pipeline.renderer.occlude_queries import occlude, occlude_queries

HEIGHT, WIDTH = 96, 48


@pytest.mark.parametrize("number", range(12))
def test_the_share_is_that_of_the_ellipse_that_changed(number):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)              # what an object never is: magenta and green
    image[::2, :, ::2] = image[1::2, :, 1] = 255
    out, share = occlude(image, low=.25, high=.6, draw=rng(0, "test", str(number)))
    assert .25 <= share <= .6
    changed = (out != image).any(2)
    hidden = inside = 0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = (column + .5) / WIDTH * 2 - 1, (row + .5) / HEIGHT * 2 - 1
            if (x / module.BODY_WIDTH) ** 2 + y ** 2 <= 1:
                inside += 1
                hidden += changed[row, column]
    assert hidden / inside == pytest.approx(share, abs=.05)     # edges are averaged over 2 x 2
    assert not changed.all()


@pytest.fixture
def raw(tmp_path):
    for folder, count in (("bounding_box_train", 2), ("query", 3), ("bounding_box_test", 3)):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for pid in range(count):
            picture = rng(0, folder, str(pid)).integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            write_image(tmp_path / "raw" / folder / f"{pid:04d}_c1s1_000001_00.jpg", picture)
    return tmp_path / "raw"


def _make(raw, folder, **changed):
    wanted = {"key": "k", "seed": 0, "low": .25, "high": .6} | changed
    return occlude_queries(read_market(raw), raw, folder, **wanted)


def test_a_data_set_of_the_same_people_whose_queries_are_occluded(raw, tmp_path):
    assert _make(raw, tmp_path / "made") == 3
    frame = add_occlusion(read_market(tmp_path / "made"), tmp_path / "made")
    original = read_market(raw)
    original = original[original["split"] != "train"]
    pd.testing.assert_frame_equal(frame[["image", "pid", "camid", "split"]].reset_index(drop=True),
                                  original[["image", "pid", "camid", "split"]].reset_index(drop=True))
    for path, split, share in zip(frame["path"], frame["split"], frame["occlusion"], strict=True):
        if split == "gallery":
            assert (tmp_path / "made" / path).read_bytes() == (raw / path).read_bytes() and share == 0
        else:
            change = np.abs(read_image(tmp_path / "made" / path).astype(int) - read_image(raw / path)).max(2) > 40
            assert .25 <= share <= .6 and change.mean() > .1


def test_the_same_seed_gives_the_same_bytes_and_another_others(raw, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        _make(raw, tmp_path / name, seed=seed)
    one, two, three = ({path.name: path.read_bytes() for path in (tmp_path / name / "query").iterdir()}
                       for name in ("one", "two", "three"))
    assert one == two and all(one[name] != three[name] for name in one)
    labels = [(tmp_path / name / "labels.h5").read_bytes() for name in ("one", "two")]
    assert labels[0] == labels[1]


def test_bad_shares_and_a_set_without_queries_are_refused(raw, tmp_path):
    with pytest.raises(InputError, match=r"occlude\.k: hides from 0\.6 to 0\.25"):
        _make(raw, tmp_path / "made", low=.6, high=.25)
    for path in (raw / "query").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="has no query"):
        _make(raw, tmp_path / "made")
    assert not (tmp_path / "made").exists()
