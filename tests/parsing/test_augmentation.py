"""Augmentation of parsers' images: picture, labels and u,v move, flip and hide together."""

import numpy as np
import torch

from pipeline.base.body_parts import LIP20_FLIP
from pipeline.parsing.augmentation import PAD, erase, flip, hide, move, vary
from pipeline.parsing.rendered_set import Shuffled
from tests.helpers.figures import HEIGHT, WIDTH, figure, pictures_of


def test_a_flip_is_the_mirrored_figure_and_its_own_inverse():
    sample = figure(shift=3, raised=6)
    flipped, mirrored = flip(sample, "densepose24"), figure(shift=3, raised=6, mirrored=True)
    assert not np.array_equal(sample[1], mirrored[1])
    assert np.array_equal(flipped[1], mirrored[1])
    assert np.abs(flipped[2].astype(int) - mirrored[2]).max() <= 1  # 255 - round(x) against round(255 - x)
    for twice, once in zip(flip(flipped, "densepose24"), sample, strict=True):
        assert np.array_equal(twice, once)


def test_a_lip_flip_exchanges_sides():
    labels = np.arange(20, dtype=np.uint8)[None].repeat(2, 0)
    _, flipped, _ = flip((np.zeros((2, 20, 3), np.uint8), labels, np.zeros((2, 20, 2), np.uint8)), "lip20")
    assert flipped[0, ::-1].tolist() == [*range(14), 15, 14, 17, 16, 19, 18]


def test_pictures_labels_and_uv_move_together():
    generator = np.random.default_rng(0)
    for _ in range(20):
        image, labels, uv = figure(raised=5)
        image = np.dstack([labels * 10, uv]).astype(np.uint8)  # a picture that shows its labels and u,v
        moved, labels, uv = move((image, labels, uv), generator)
        flat = np.ones_like(labels, bool)  # away from edges, where a picture is interpolated and labels are not
        for shift in [(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)]:
            flat &= np.roll(labels, shift, (0, 1)) == labels
        flat[[0, -1]] = flat[:, [0, -1]] = False
        assert flat.mean() > 0.5
        assert (moved[flat][:, 0] == labels[flat] * 10).all()
        # u,v change by up to 32 a pixel, and by twice as much where a pixel is less than one of the picture
        assert np.abs(moved[flat][:, 1:].astype(int) - uv[flat]).max() <= 64


def test_hidden_pixels_are_background():
    sample = figure()
    image, labels, uv = hide(sample, np.random.default_rng(1))
    changed = (image != sample[0]).any(-1)
    assert changed.mean() > 0.01
    assert not labels[changed].any() and not uv[changed].any()
    assert np.array_equal(labels[~changed], sample[1][~changed])


def test_what_is_erased_or_padded_is_background_and_the_rest_its_own_label():
    """Each pixel's u,v name the place that it is from: there it had this colour, and this label or its mirrored one."""
    generator = np.random.default_rng(0)
    image = generator.integers(200, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # nothing has the colour of what is gone
    labels = generator.integers(1, 20, (HEIGHT, WIDTH), dtype=np.uint8)
    uv = np.stack(np.mgrid[1:HEIGHT + 1, 1:WIDTH + 1], -1).astype(np.uint8)
    erased, moves = 0, set()

    for number in range(80):
        seen, found, places = erase((image, labels, uv), "lip20", np.random.default_rng(number))
        gone = (seen == (124, 116, 104)).all(2)  # ImageNet's mean, 0.485, 0.456, 0.406 of 255
        assert (found[gone] == 0).all() and (places[gone] == 0).all() and (places[~gone] > 0).all()

        row, column = np.argwhere(~gone).T
        there, across = places[~gone].astype(int).T - 1
        mirrored = bool((across + column == across[0] + column[0]).all())
        np.testing.assert_array_equal(seen[~gone], image[there, across])
        np.testing.assert_array_equal(found[~gone], (LIP20_FLIP[labels] if mirrored else labels)[there, across])

        down, right = row - there, column - (WIDTH - 1 - across if mirrored else across)
        assert len(set(down)) == len(set(right)) == 1 and max(abs(down[0]), abs(right[0])) <= PAD
        moves.add((mirrored, int(down[0]), int(right[0])))
        erased += gone[PAD:-PAD, PAD:-PAD].any()

    assert 20 < erased < 60 and {mirrored for mirrored, _, _ in moves} == {False, True}
    for axis in (1, 2):
        assert {-PAD, PAD} <= {move[axis] for move in moves} and len({move[axis] for move in moves}) > 15


def test_augmented_samples_vary_and_repeat(folder):
    sequence = Shuffled(pictures_of(folder), seed=0, augment="all")
    first, again, later = sequence[0], Shuffled(pictures_of(folder), seed=0, augment="all")[0], sequence[8]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], later["image"])
    assert {int(sequence[item]["row"]) for item in range(8, 16)} == set(range(8))  # an epoch shows each once
    sample = vary(figure(), "densepose24", np.random.default_rng(2))
    assert [array.shape for array in sample] == [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH), (HEIGHT, WIDTH, 2)]
