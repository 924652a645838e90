"""Surveillance crops: their sizes, what moves along, what nobody knows."""

import numpy as np
import pytest

from pipeline.base.seeds import rng
from pipeline.parsing.augmentation import UNKNOWN
from pipeline.parsing.surveillance import (
    ASPECTS,
    LEFT,
    cover,
    cut,
    draw_frame,
    letterbox,
    person_in_front,
    piece_in_front,
    shake,
    surveil,
)
from tests.helpers.figures import figure

SEEDS = range(60)


def picture(seed=0, *, height=150, width=110):
    """A person of three parts in the middle, each in its colour, u,v of that place."""
    labels, uv = np.zeros((height, width), np.uint8), np.zeros((height, width, 2), np.uint8)
    for label, rows in ((23, (25, 45)), (2, (45, 85)), (9, (85, 125))):
        labels[slice(*rows), 40:70] = label
    uv[labels > 0] = 100
    colours = np.random.default_rng(seed).integers(0, 256, (25, 3), dtype=np.uint8)
    return colours[labels], labels, uv


def test_frames_are_a_detector_s():
    labels = picture()[1]
    frames = np.array([draw_frame(labels, rng(0, seed)) for seed in range(400)])
    tall, wide = frames[:, 2] - frames[:, 0], frames[:, 3] - frames[:, 1]
    assert (tall / wide >= ASPECTS[0] - 1e-9).all() and (tall / wide <= ASPECTS[1] + 1e-9).all()
    assert 0.2 < (frames[:, 2] < 120).mean() < 0.45  # cut below
    assert 0.05 < (frames[:, 0] > 34).mean() < 0.2  # cut above
    assert ((frames[:, 1] < 55) & (frames[:, 3] > 55)).all()  # the middle of the person is inside
    assert np.isfinite(draw_frame(np.zeros((20, 10), np.uint8), rng(0, 1))).all()


def test_labels_and_uv_move_with_the_image():
    image, labels, uv = picture(3)
    colours = {label: image[labels == label][0] for label in (0, 2, 9, 23)}
    for seed in SEEDS:
        found, moved, moved_uv = cut((image, labels, uv), draw_frame(labels, rng(1, seed)), rng(2, seed))
        same = np.zeros(moved.shape, bool)
        for label, colour in colours.items():
            same |= (moved == label) & (np.abs(found.astype(int) - colour).max(-1) <= 1)
        assert same.mean() > 0.85  # all but the edges, which are mixed
        assert (moved_uv[moved > 0] == 100).all() and not moved_uv[moved == 0].any()


@pytest.mark.parametrize("shape", [(40, 20), (30, 30), (200, 33), (41, 90)])
def test_the_letterbox_keeps_proportions_and_knows_nothing_of_its_border(shape):
    labels = np.full(shape, 2, np.uint8)
    grey, places = np.full((*shape, 3), 77, np.uint8), np.full((*shape, 2), 9, np.uint8)
    image, found, uv = letterbox((grey, labels, places), 128, 64)
    assert image.shape == (128, 64, 3) and (image == 77).all()
    rows, columns = (np.flatnonzero((found == 2).any(axis)) for axis in (1, 0))
    size = len(rows), len(columns)
    assert (found == 2).sum() == size[0] * size[1] and (found[found != 2] == UNKNOWN).all()
    assert size[0] == 128 or size[1] == 64
    assert abs(size[0] / size[1] - shape[0] / shape[1]) < 0.05 * shape[0] / shape[1]
    assert abs(rows[0] - (127 - rows[-1])) <= 1 and abs(columns[0] - (63 - columns[-1])) <= 1
    assert (uv[found == 2] == 9).all() and not uv[found != 2].any()


def test_what_stands_in_front_is_background_and_leaves_enough():
    sample, others = picture(1), [picture(seed) for seed in range(2, 6)]
    body = sample[1] > 0
    changed = 0
    for seed in range(200):
        image, labels, uv = cover(sample, others, rng(0, seed))
        hidden = body & (labels == 0)
        assert (labels > 0).sum() >= LEFT**2 * body.sum() and not labels[~body].any()
        assert np.array_equal(labels[body & ~hidden], sample[1][body & ~hidden]) and not uv[hidden].any()
        assert np.array_equal(image[labels > 0], sample[0][labels > 0])
        changed += hidden.any()
    assert 20 < changed < 120
    assert any((piece_in_front(sample, others[0], rng(1, seed))[1] != sample[1]).any() for seed in SEEDS)
    assert any((person_in_front(sample, others[0], rng(1, seed))[1] != sample[1]).any() for seed in SEEDS)


def test_motion_blur_keeps_the_light():
    image = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    blurred = [shake(image, rng(0, seed)) for seed in SEEDS]
    moved = [found for found in blurred if found is not image]
    assert 2 <= len(moved) <= 25
    for found in moved:
        assert abs(found.mean() - image.mean()) < 2 and found.std() < image.std()


def test_a_crop_is_drawn_from_its_stream_alone():
    sample = figure()
    others = [picture(1)]
    for seed in SEEDS:
        one, other = (surveil(sample, "densepose24", rng(0, seed), size=(128, 64), others=others) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert [array.shape for array in one] == [(128, 64, 3), (128, 64), (128, 64, 2)]
        assert {array.dtype for array in one} == {np.dtype("u1")}
        assert set(np.unique(one[1])) <= {*range(25), UNKNOWN}
    assert surveil(sample, "lip20", rng(0, 0))[1].shape == sample[1].shape
