"""The crop box and the cropped maps against exact fractions, and the medians against a loop over pictures."""

import functools
import math
import statistics
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import sgam
from pipeline.base.errors import InputError
from pipeline.base.images import crop_image
from pipeline.loading.sgam_crop import automatic_crop, crop_box, crop_maps, means, shown, training_medians

T = (0.2, 0.2, 0.2, 0.2)


def by(medians, thresholds=T):
    """What is visible in units of these medians; None is as the paper prints it."""
    return functools.partial(sgam.visible_regions, medians=medians, thresholds=thresholds)


def draw_maps(seed: int, h: int, w: int) -> np.ndarray:
    """(5, h, w) uint8 whose channels sum to about 255: noise, and background outside a random rectangle."""
    g = np.random.default_rng(seed)
    logits = g.normal(0, 2, (5, h, w))
    (top, bottom), (left, right) = (np.sort(g.integers(0, size + 1, 2)) for size in (h, w))
    logits[0] += 9
    logits[0, top:bottom, left:right] -= 9
    p = np.exp(logits) / np.exp(logits).sum(0)
    return np.rint(p * 255).astype(np.uint8)


def painted(h: int, w: int, **regions: tuple[int, int, int, int]) -> np.ndarray:
    """(5, h, w): certain background but for rectangles (top, left, bottom, right) of regions r1 .. r4."""
    maps = np.zeros((5, h, w), np.uint8)
    maps[0] = 255
    for name, (top, left, bottom, right) in regions.items():
        maps[:, top:bottom, left:right] = 0
        maps[int(name[1]), top:bottom, left:right] = 255
    return maps


@pytest.mark.parametrize("seed", range(3))
def test_eq_2_is_the_mean_over_the_image_s_pixels(seed):
    maps = draw_maps(seed, 6, 4)
    for i in range(4):
        naive = 0.0
        for y in range(24):
            for x in range(12):
                naive += int(maps[1 + i, y // 4, x // 3]) / 255
        assert abs(means(maps)[i] - naive / (24 * 12)) < 1e-10


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(0, 20)] * 4), st.tuples(*[st.integers(0, 20)] * 4), st.tuples(*[st.integers(0, 5)] * 4))
def test_what_is_visible_in_fractions(sums, medians, t):
    """S_i > t_i, S at most 1 and 0 where no training image shows the region; as printed, sums over the pixels."""
    mean, pixels = np.array(sums) / 64, 64
    shares = [min(Fraction(a, b), Fraction(1)) if b else Fraction(0) for a, b in zip(sums, medians, strict=True)]
    thresholds = [value / 4 for value in t]  # exact, as all of these are
    ours = sgam.visible_regions(mean, pixels, medians=[value / 64 for value in medians], thresholds=thresholds)
    assert ours.tolist() == [share > Fraction(value, 4) for share, value in zip(shares, t, strict=True)]
    printed = sgam.visible_regions(mean, pixels, medians=None, thresholds=thresholds)
    assert printed.tolist() == [total > Fraction(value, 4) for total, value in zip(sums, t, strict=True)]


def test_as_printed_a_speck_of_a_region_draws_the_box():
    """Sums over pixels reach t_i of 0.2 with less than one pixel: what the medians leave out is in the box."""
    maps = painted(32, 16, r2=(8, 4, 16, 12), r4=(30, 0, 31, 1))
    assert automatic_crop(maps, 128, 64, visible=by([0.04, 0.1, 0.1, 0.05])) == (30, 14, 66, 50)
    assert automatic_crop(maps, 128, 64, visible=by(None)) == (27, 0, 128, 51)
    assert automatic_crop(maps, 128, 64, visible=by(None, (0.2, 0.2, 0.2, 16.1))) == (30, 14, 66, 50)  # of its 16


def exact_box(maps: np.ndarray, visible, height: int, width: int) -> tuple[int, int, int, int]:
    """The rule with fractions, cell by cell."""
    _, h, w = maps.shape
    cells = []
    for y in range(h):
        for x in range(w):
            column = maps[:, y, x].tolist()
            winner = column.index(max(column))
            if winner > 0 and visible[winner - 1]:
                cells.append((y, x))
    if not cells:
        return 0, 0, height, width
    sides = []
    for axis, (count, pixels) in enumerate([(h, height), (w, width)]):
        lines = [cell[axis] for cell in cells]
        start, stop = Fraction(min(lines) * pixels, count), Fraction((max(lines) + 1) * pixels, count)
        margin = (stop - start) * Fraction(5, 100)
        sides.append((max(math.floor(start - margin), 0), min(math.ceil(stop + margin), pixels)))
    (top, bottom), (left, right) = sides
    return (0, 0, height, width) if min(bottom - top, right - left) < 16 else (top, left, bottom, right)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(8, 90), st.integers(8, 60))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), sizes, st.tuples(*[st.booleans()] * 4))
def test_the_box_is_the_rule_in_fractions(seed, size, visible):
    h, w, height, width = size
    maps = draw_maps(seed, h, w)
    box = crop_box(maps, np.array(visible), height=height, width=width)
    assert box == exact_box(maps, visible, height, width)
    top, left, bottom, right = box
    assert 0 <= top < bottom <= height and 0 <= left < right <= width
    assert box == (0, 0, height, width) or (bottom - top >= 16 and right - left >= 16)
    for y, x in np.argwhere(shown(maps)[list(visible)].any(0)):
        assert top * h <= y * height and (y + 1) * height <= bottom * h
        assert left * w <= x * width and (x + 1) * width <= right * w


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_showing_more_never_makes_the_box_smaller(seed):
    maps = draw_maps(seed, 8, 4)
    some, more = np.array([False, True, True, False]), np.array([True, True, True, False])
    if not shown(maps)[some].any():
        return
    a, b = (crop_box(maps, visible, height=128, width=64) for visible in (some, more))
    assert b[0] <= a[0] and b[1] <= a[1] and b[2] >= a[2] and b[3] >= a[3]


def test_only_visible_regions_draw_the_box():
    """Upper body in rows 8 .. 16 of 32; a speck of shoes far below is under its threshold and is cropped away."""
    maps = painted(32, 16, r2=(8, 4, 16, 12), r4=(30, 0, 31, 1))
    box = automatic_crop(maps, 128, 64, visible=by([0.04, 0.1, 0.1, 0.05]))
    # rows 32 .. 64 of pixels and 1.6 more on each side; columns 16 .. 48 likewise
    assert box == (30, 14, 66, 50)
    wide = automatic_crop(maps, 128, 64, visible=by([0.04, 0.1, 0.1, 0.002]))
    assert wide == (27, 0, 128, 51)


def test_a_picture_that_shows_nobody_or_too_little_stays_whole():
    whole = {"height": 128, "width": 64, "visible": by([0.05] * 4)}
    assert automatic_crop(painted(32, 16), **whole) == (0, 0, 128, 64)
    assert automatic_crop(np.zeros((5, 32, 16), np.uint8), **whole) == (0, 0, 128, 64)  # a failed parse
    speck = painted(32, 16, r3=(4, 4, 20, 7))  # 3 cells wide: 12 pixels and twice 0.6, outwards 15 .. 29
    assert automatic_crop(speck, **whole) == (0, 0, 128, 64)
    assert automatic_crop(painted(32, 16, r3=(4, 4, 20, 8)), **whole) == (12, 15, 84, 33)
    assert automatic_crop(painted(32, 16, r3=(4, 4, 20, 8)), **whole | {"visible": by([0.05, 0.05, 0.0, 0.05])}) == \
        (0, 0, 128, 64)


def test_the_edges_of_the_rules():
    """A side of 16 pixels is enough and 15 are not; S_i = t_i is not visible."""
    maps = painted(60, 30, r2=(10, 0, 40, 15))
    assert crop_box(maps, np.array([False, True, False, False]), height=60, width=30) == (8, 0, 42, 16)
    maps = painted(60, 30, r2=(10, 0, 40, 14))
    assert crop_box(maps, np.array([False, True, False, False]), height=60, width=30) == (0, 0, 60, 30)
    maps = painted(32, 16, r1=(4, 4, 12, 12))  # S = 1/8 over 1/2
    assert automatic_crop(maps, 128, 64, visible=by([0.5] * 4, (0.25,) * 4)) == (0, 0, 128, 64)
    assert automatic_crop(maps, 128, 64, visible=by([0.5] * 4, (0.2499,) * 4)) == (14, 14, 50, 50)


def covered(maps, box, image, height, width, k, i, j) -> float:
    """One cell of the cropped maps: exact overlaps in fractions."""
    top, left, bottom, right = box
    y = [top + Fraction((bottom - top) * n, height) for n in (i, i + 1)]
    x = [left + Fraction((right - left) * n, width) for n in (j, j + 1)]
    total = Fraction(0)
    for r in range(maps.shape[1]):
        for c in range(maps.shape[2]):
            tall = min(y[1], Fraction((r + 1) * image[0], maps.shape[1])) - max(y[0], Fraction(r * image[0],
                                                                                             maps.shape[1]))
            wide = min(x[1], Fraction((c + 1) * image[1], maps.shape[2])) - max(x[0], Fraction(c * image[1],
                                                                                             maps.shape[2]))
            if tall > 0 and wide > 0:
                total += tall * wide * int(maps[k, r, c])
    return float(total / ((y[1] - y[0]) * (x[1] - x[0])) / 255)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 5), st.integers(1, 4)),
       st.tuples(st.integers(1, 6), st.integers(1, 5)), st.data())
def test_cropped_maps_are_exact_means_of_what_they_cover(seed, cells, out, data):
    maps, image = draw_maps(seed, *cells), (data.draw(st.integers(4, 40)), data.draw(st.integers(4, 40)))
    top, bottom = sorted(data.draw(st.lists(st.integers(0, image[0]), min_size=2, max_size=2, unique=True)))
    left, right = sorted(data.draw(st.lists(st.integers(0, image[1]), min_size=2, max_size=2, unique=True)))
    box = top, left, bottom, right
    ours = crop_maps(maps, box, image=image, height=out[0], width=out[1])
    assert ours.dtype == np.float32 and ours.shape == (5, *out)
    for i in range(out[0]):
        for j in range(out[1]):
            assert abs(ours[2, i, j] - covered(maps, box, image, *out, 2, i, j)) < 1e-6
    # Means over the frame are the box's at any size, and the channels still sum to what they summed to.
    fine = crop_maps(maps, box, image=image, height=1, width=1)
    np.testing.assert_allclose(ours.mean((1, 2)), fine[:, 0, 0], atol=1e-6)
    assert abs(ours.sum(0) - 1).max() < 0.02


def test_the_whole_box_at_its_own_size_changes_nothing():
    maps = draw_maps(0, 24, 8)
    same = crop_maps(maps, (0, 0, 384, 128), image=(384, 128), height=24, width=8)
    np.testing.assert_allclose(same, maps / 255, atol=1e-6)


def test_image_and_maps_stay_on_each_other():
    """A picture painted by its own labels, cropped and shrunk as a picture, equals the cropped maps."""
    maps = painted(32, 16, r1=(4, 6, 8, 10), r2=(8, 4, 17, 12), r3=(17, 5, 25, 11))
    picture = np.kron(maps[1:4].transpose(1, 2, 0), np.ones((4, 4, 1), np.uint8))  # (128, 64, 3)
    box = automatic_crop(maps, 128, 64, visible=by([0.03, 0.1, 0.1, 0.02]))
    assert box == (11, 14, 105, 50)
    cut = crop_image(picture, box)
    assert cut.shape == (94, 36, 3)
    ours = crop_maps(maps, box, image=(128, 64), height=32, width=16)
    shrunk = cv2.resize(cut.astype(np.float32), (16, 32), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(ours[1:4], shrunk, atol=1e-5)
    assert np.shares_memory(cut, picture)  # a view: cropping copies nothing


def test_medians_are_those_of_a_loop():
    pictures = [(draw_maps(seed, 8, 4), 128, 64 + seed) for seed in range(12)]
    pictures += [(painted(8, 4), 128, 64), (np.zeros((5, 8, 4), np.uint8), 128, 64)]
    whole, cropped = training_medians(lambda: iter(pictures), visible_by=by)
    raw: list[list[float]] = [[] for _ in range(4)]
    for maps, _, _ in pictures:
        for i in range(4):
            if any(np.argmax(maps[:, y, x]) == 1 + i for y in range(8) for x in range(4)):
                raw[i].append(float(maps[1 + i].astype(float).mean()) / 255)
    assert np.abs(whole - [statistics.median(values) for values in raw]).max() < 1e-10
    cut: list[list[float]] = [[] for _ in range(4)]
    for maps, height, width in pictures:
        s = [min(float(maps[1 + i].astype(float).mean()) / 255 / whole[i], 1) for i in range(4)]
        top, left, bottom, right = exact_box(maps, [value > 0.2 for value in s], height, width)
        for i in range(4):
            inside = [(y, x) for y in range(8) for x in range(4)
                      if (y + 1) * height > top * 8 and y * height < bottom * 8
                      and (x + 1) * width > left * 4 and x * width < right * 4]
            if any(np.argmax(maps[:, y, x]) == 1 + i for y, x in inside):
                box = (top, left, bottom, right)
                cut[i].append(covered(maps, box, (height, width), 1, 1, 1 + i, 0, 0))
    assert np.abs(cropped - [statistics.median(values) for values in cut]).max() < 1e-10


def test_pictures_without_a_region_do_not_move_its_median():
    with_head = [(painted(32, 16, r1=(2, 5, 4 + n, 11)), 128, 64) for n in range(5)]
    without = [(painted(32, 16, r2=(8, 2, 20, 14)), 128, 64) for _ in range(9)]
    alone, together = (training_medians(lambda: iter(pictures), visible_by=by)[0]  # noqa: B023
                       for pictures in (with_head, with_head + without))
    assert alone[0] == together[0] == 6 * 4 / 512 and alone[1] == 0 and together[3] == 0


def test_cropping_makes_a_region_larger_in_the_frame():
    pictures = [(painted(32, 16, r2=(8, 4, 16, 12), r3=(16, 4, 24, 12)), 128, 64)] * 3
    whole, cropped = training_medians(lambda: iter(pictures), visible_by=by)
    # Two regions of 32 x 32 pixels in a box of 64 x 32 and 3.2 and 1.6 on each side, outwards.
    assert whole.tolist() == [0, 1 / 8, 1 / 8, 0]
    np.testing.assert_allclose(cropped, [0, 1024 / (72 * 36), 1024 / (72 * 36), 0], atol=1e-12)


@pytest.mark.parametrize("place", [(30, 6, 31, 7), (8, 0, 9, 1)])
def test_a_region_outside_the_box_does_not_count_for_the_cropped_median(place):
    """A stray foot, under its threshold, is cut off; what probability it has inside is not a foot's."""
    stray = painted(32, 16, r2=(4, 4, 16, 12), r4=place)
    feet = painted(32, 16, r2=(4, 4, 16, 12), r4=(20, 4, 24, 12))
    for maps in (stray, feet):
        maps[4, 4:16, 4:12] = 10
    pictures = [(feet, 128, 64)] * 3 + [(stray, 128, 64)] * 3
    box = automatic_crop(feet, 128, 64, visible=by([0, 0.1, 0, 0.07]))
    exact = covered(feet, box, (128, 64), 1, 1, 4, 0, 0)
    cropped = training_medians(lambda: iter(pictures), visible_by=lambda medians: by(medians, (0.2, 0.2, 0.2, 0.5)))[1]
    assert abs(cropped[3] - exact) < 1e-12


def test_no_picture_is_one_sentence():
    with pytest.raises(InputError, match="need training images and there are none"):
        training_medians(lambda: iter([]), visible_by=by)
