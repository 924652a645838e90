"""Occluders in training: another person's picture stands in front, and masks of the one behind end there."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.base.seeds import rng
from pipeline.datasets.index import read_index
from pipeline.loading.augmentation import Augmentation, Chance, draw_occluder
from pipeline.loading.dataset import Images, training_rows
from pipeline.loading.device_batch import finished, normalise
from tests.helpers.fake_set import HEIGHT, WIDTH, write_fake_caches, write_fake_set

PLAIN = Chance(seed=0, flip=0.5, pad=4, erase=0.0, fill="image")
HIDDEN = dataclasses.replace(PLAIN, occlude=1.0, occlude_low=0.3, occlude_high=0.5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The fake set's training images as they are augmented by a chance."""
    folder = tmp_path_factory.mktemp("fake")
    frame = write_fake_set(folder / "raw", folder / "index.csv")
    write_fake_caches(folder, folder / "raw", frame)
    rows = training_rows(read_index(folder / "index.csv"), max_ids=0)
    return lambda chance: Images(rows, raw=folder / "raw", cache=folder / "parts.h5", height=HEIGHT, width=WIDTH,
                                 arrays=("labels", "probs4"), chance=chance)


def seen(images: Images, number: int, row: int) -> dict[str, torch.Tensor]:
    return {name: tensor[0] for name, tensor in finished(images.load([(number, row)]), CPU).items()}


def test_the_box_shows_the_other_picture_and_nothing_of_the_masks_and_the_rest_is_as_before(images):
    hidden, plain = images(HIDDEN), images(PLAIN)
    whole, deep = 0, 0
    for number in range(12):
        row = number % len(plain)
        drawn = hidden._draw(number, row)
        top, left, bottom, right = drawn.erased
        (y, x), other = drawn.piece.place, drawn.piece.row
        assert hidden.targets[other] != hidden.targets[row]
        assert dataclasses.replace(drawn, erased=None, piece=None) == plain._draw(number, row)

        ours, before = seen(hidden, number, row), seen(plain, number, row)
        donor = finished(images(None).load([(-1, other)]), CPU)["image"][0]
        inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(ours["image"][:, top:bottom, left:right],
                           donor[:, y:y + bottom - top, x:x + right - left])
        assert torch.equal(ours["image"][:, ~inside], before["image"][:, ~inside])

        cells = inside.view(HEIGHT // 4, 4, WIDTH // 4, 4).float().mean((1, 3))
        assert (ours["labels"][cells == 1] == 0).all()
        assert torch.equal(ours["labels"][cells == 0], before["labels"][cells == 0])
        assert (ours["probs4"][0][cells == 1] == 1).all() and (ours["probs4"][1:][:, cells == 1] == 0).all()
        assert torch.equal(ours["probs4"][:, cells == 0], before["probs4"][:, cells == 0])
        whole += int((cells == 1).sum())
        deep += int((before["labels"][cells == 1] != 0).sum())
    assert whole > 50 and deep > 10  # body was hidden


def test_probability_area_and_place_are_as_they_were_declared():
    chance = dataclasses.replace(PLAIN, occlude=0.3, occlude_low=0.1, occlude_high=0.4)
    drawn = [draw_occluder(rng(0, "occlude", number), Augmentation(), chance=chance, others=np.array([3, 5]),
                           height=256, width=128) for number in range(600)]
    hidden = [one for one in drawn if one.piece is not None]
    assert 140 < len(hidden) < 220 and all((one.erased is None) == (one.piece is None) for one in drawn)
    assert {one.piece.row for one in hidden} == {3, 5}
    areas = [(one.erased[2] - one.erased[0]) * (one.erased[3] - one.erased[1]) / (256 * 128) for one in hidden]
    assert 0.09 < min(areas) < 0.13 and 0.35 < max(areas) < 0.41
    for one in hidden:
        (top, left, bottom, right), (y, x) = one.erased, one.piece.place
        assert 0 <= y <= 256 - (bottom - top) and 0 <= x <= 128 - (right - left)


def test_without_it_nothing_is_drawn_and_a_set_of_one_person_has_no_other_to_stand_in_front(images):
    plain = images(PLAIN)
    assert "pasted" not in plain.load([(0, 0)]) and plain._draw(0, 0).piece is None
    alone = draw_occluder(rng(0), Augmentation(), chance=HIDDEN, others=np.array([], np.int64), height=64, width=32)
    assert alone == Augmentation()


def test_what_stands_in_front_is_seen_where_the_picture_was_moved_away(images):
    """Padding is blank, an occluder over it is not."""
    hidden = images(dataclasses.replace(HIDDEN, pad=12, flip=0.0))
    over = 0
    for number in range(30):
        drawn = hidden._draw(number, 0)
        top, left, bottom, right = drawn.erased
        down = drawn.shift[0]
        if top < down:
            piece = seen(hidden, number, 0)["image"][:, top:min(down, bottom), left:right]
            (y, x), raw = drawn.piece.place, images(None).load([(-1, drawn.piece.row)])["image"]
            expected = normalise(raw[0])[:, y:y + min(down, bottom) - top, x:x + right - left]
            assert torch.equal(piece, expected)
            over += 1
    assert over > 3
