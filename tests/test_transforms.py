"""Augmentation: a picture whose colours encode its labels must still encode them after any move."""

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.seeds import rng
from pipeline.taxonomy import DENSEPOSE24_FLIP, LIP20_FLIP
from pipeline.transforms import (
    Augmentation,
    area_majority,
    draw,
    draw_rectangle,
    dsap_for_network,
    flip_parts,
    image_for_network,
    labels_for_network,
    maps_for_network,
    move,
    normalise,
)
from pipeline.warping import warp

H, W = 48, 24
COLOURS = np.stack([np.arange(25) * 10, np.arange(25)[::-1] * 10, np.arange(25) * 7 % 25 * 10], 1).astype(np.uint8)


def _blocks(number: int, labels: int = 25) -> np.ndarray:
    return rng(number, "blocks").integers(0, labels, (H // 6, W // 6)).repeat(6, 0).repeat(6, 1).astype(np.uint8)


def _decoded(image: np.ndarray) -> np.ndarray:
    """(3, H, W) normalised -> the label whose colour each pixel shows, -1 where it is filled (exactly 0)."""
    table = torch.tensor(COLOURS / 255.0).float()
    table = (table - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    distance = torch.cdist(torch.from_numpy(image).flatten(1).T[None], table[None])[0]
    nearest = distance.argmin(1).reshape(H, W).numpy()
    return np.where((image == 0).all(0), -1, nearest)


def _majority(labels: np.ndarray) -> np.ndarray:
    """The naive loop: most frequent of 4 x 4, the smaller one of equals."""
    out = np.zeros((H // 4, W // 4), np.uint8)
    for row in range(H // 4):
        for column in range(W // 4):
            count = Counter(labels[4 * row:4 * row + 4, 4 * column:4 * column + 4].ravel().tolist())
            out[row, column] = min(count, key=lambda label: (-count[label], label))
    return out


@pytest.mark.parametrize("number", range(40))
def test_image_and_labels_move_together(number):
    labels = _blocks(number)
    drawn = draw(rng(number, "draw"), height=H, width=W, flip=0.5, pad=5, erase=0.7)
    seen = _decoded(image_for_network(COLOURS[labels], height=H, width=W, augmentation=drawn))
    expected = DENSEPOSE24_FLIP[np.maximum(seen, 0)] if drawn.flip else np.maximum(seen, 0)
    expected = np.where(seen < 0, 0, expected)
    found = labels_for_network(labels, height=H, width=W, augmentation=drawn, exchange=DENSEPOSE24_FLIP)
    np.testing.assert_array_equal(found, _majority(expected))


def test_all_kinds_of_augmentation_were_drawn():
    drawn = [draw(rng(number, "draw"), height=H, width=W, flip=0.5, pad=5, erase=0.7) for number in range(40)]
    assert {each.flip for each in drawn} == {True, False}
    assert {each.erased is None for each in drawn} == {True, False}
    for axis in (0, 1):
        shifts = {each.shift[axis] for each in drawn}
        assert shifts >= {-4, -1, 1, 4} and max(map(abs, shifts)) == 5


def test_a_shift_is_a_crop_of_the_padded_picture():
    labels = _blocks(0)
    for down, right in ((5, -3), (0, 0), (-5, 5)):
        padded = np.pad(labels, 5)
        crop = padded[5 - down:5 - down + H, 5 - right:5 - right + W]
        np.testing.assert_array_equal(move(labels, Augmentation(shift=(down, right)), 0), crop)


def test_switched_off_augmentation_changes_nothing():
    for number in range(20):
        assert draw(rng(number), height=H, width=W, flip=0.0, pad=0, erase=0.0) == Augmentation()


def test_flip_and_erase_have_their_probabilities():
    drawn = [draw(rng(number), height=H, width=W, flip=0.5, pad=0, erase=0.3) for number in range(2000)]
    assert abs(np.mean([each.flip for each in drawn]) - 0.5) < 0.04
    assert abs(np.mean([each.erased is not None for each in drawn]) - 0.3) < 0.04


def test_erased_rectangles_keep_to_area_and_aspect():
    areas, aspects = [], []
    for number in range(2000):
        top, left, bottom, right = draw_rectangle(rng(number), height=256, width=128)
        assert 0 <= top < bottom <= 256 and 0 <= left < right <= 128
        areas.append((bottom - top) * (right - left) / (256 * 128))
        aspects.append((bottom - top) / (right - left))
    assert 0.018 < min(areas) < 0.03 and 0.38 < max(areas) < 0.41
    assert 0.28 < min(aspects) < 0.5 and 2.8 < max(aspects) < 3.6


def _moved(pixels: np.ndarray, drawn: Augmentation, fill: np.ndarray) -> np.ndarray:
    """The naive loop over pixels (H, W, K): where each comes from, or `fill` (K,)."""
    moved = np.empty_like(pixels)
    for y, x in np.ndindex(*pixels.shape[:2]):
        source = y - drawn.shift[0], x - drawn.shift[1]
        inside = 0 <= source[0] < pixels.shape[0] and 0 <= source[1] < pixels.shape[1]
        if drawn.erased is not None:
            top, left, bottom, right = drawn.erased
            inside &= not (top <= y < bottom and left <= x < right)
        column = pixels.shape[1] - 1 - source[1] if drawn.flip else source[1]
        moved[y, x] = pixels[source[0], column] if inside else fill
    return moved


@pytest.mark.parametrize("number", range(12))
def test_pictures_maps_and_warps_to_the_last_bit(number):
    """Trained weights hang on the last bits of their inputs: formulas and means of pixels as numpy gives them."""
    draws, mean, std = rng(number, "bits"), np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    drawn = draw(rng(number, "draw"), height=H, width=W, flip=0.5, pad=9, erase=0.7)
    rgb = draws.integers(0, 256, (H, W, 3)).astype(np.uint8)
    expected = _moved((rgb.astype(np.float32) / np.float32(255) - mean) / std, drawn, np.zeros(3)).transpose(2, 0, 1)
    assert image_for_network(rgb, height=H, width=W, augmentation=drawn).tobytes() == expected.tobytes()
    for count, background in ((8, [1, *[0] * 7]), (5, [1, 0, 0, 0, 0]), (1, [0])):
        maps = (draws.integers(0, 256, (count, H // 4, W // 4)) / 255).astype(np.float32)
        moved = _moved(maps.repeat(4, 1).repeat(4, 2).transpose(1, 2, 0), drawn, np.array(background))
        planes = np.ascontiguousarray(moved.transpose(2, 0, 1))
        cells = planes.reshape(count, H // 4, 4, W // 4, 4).mean((2, 4), dtype=np.float32)
        assert maps_for_network(maps, augmentation=drawn).tobytes() == cells.tobytes()
    dsap, valid = draws.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8), draws.integers(0, 2, (24, 8, 8)) == 1
    expected = (dsap.astype(np.float32) / np.float32(255) - mean) / std * valid[..., None]
    assert dsap_for_network(dsap, valid, flip=False)[0].tobytes() == expected.transpose(0, 3, 1, 2).tobytes()


def test_what_is_erased_can_become_the_mean_of_the_picture():
    """The mean of the whole picture, before it is moved; what came from outside stays ImageNet's mean, 0."""
    rgb = rng(0, "mean").integers(0, 256, (H, W, 3)).astype(np.uint8)
    drawn = Augmentation(flip=True, shift=(5, -3), erased=(2, 4, 20, 23))
    plain = image_for_network(rgb, height=H, width=W, augmentation=Augmentation(True, (5, -3)))
    found = image_for_network(rgb, height=H, width=W, augmentation=drawn, fill="image")
    erased = np.zeros((H, W), bool)
    erased[2:20, 4:23] = True
    np.testing.assert_array_equal(found[:, ~erased], plain[:, ~erased])
    assert (found[:, :2] == 0).all() and (found[:, 20:, -3:] == 0).all()
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        total = sum(int(level) for level in rgb[..., channel].ravel())
        np.testing.assert_allclose(found[channel][erased], (total / (H * W) / 255 - mean) / std, atol=1e-5)


def test_native_labels_change_sides():
    left_arm, right_shoe = 14, 19
    labels = np.zeros((4, 8), np.uint8)
    labels[:, :4], labels[:, 4:] = left_arm, right_shoe
    found = labels_for_network(labels, height=4, width=8, augmentation=Augmentation(flip=True), exchange=LIP20_FLIP)
    np.testing.assert_array_equal(found, [[18, 15]])


def test_labels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="30 x 24"):
        area_majority(np.zeros((30, 24), np.uint8), 4)


def test_normalisation_is_imagenet_s():
    rgb = rng(0, "rgb").integers(0, 256, (5, 7, 3)).astype(np.uint8)
    oracle = (rgb / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalise(rgb), oracle, atol=1e-6)


def test_dsap_of_the_mirrored_picture():
    """Warp a picture whose pixels all fall on texels of their own, and its mirror image: flipping joins the two."""
    random = rng(0, "surface")
    texels = random.permutation(24 * 32 * 32)[:96 * 64].reshape(96, 64)
    index = (texels // 1024 + 1).astype(np.uint8)
    # The byte in the middle of a texel, so that 255 - byte is in the middle of the mirrored one.
    uv = ((np.stack([texels % 1024 // 32, texels % 32], 2) * 2 + 1) * 255 // 64).astype(np.uint8)
    image = random.integers(0, 256, (96, 64, 3)).astype(np.uint8)
    mirrored_index, mirrored_uv = DENSEPOSE24_FLIP[index[:, ::-1]], uv[:, ::-1].copy()
    torso, head = np.isin(mirrored_index, (1, 2)), np.isin(mirrored_index, (23, 24))
    mirrored_uv[torso, 1], mirrored_uv[head, 0] = 255 - mirrored_uv[torso, 1], 255 - mirrored_uv[head, 0]
    dsap, valid = warp(image, index, uv, texels=32)
    expected, expected_valid = warp(image[:, ::-1], mirrored_index, mirrored_uv, texels=32)
    assert valid.sum() == 96 * 64
    np.testing.assert_array_equal(flip_parts(dsap), expected)
    np.testing.assert_array_equal(flip_parts(valid), expected_valid)


def test_dsap_is_zero_where_not_valid():
    random = rng(0, "dsap")
    dsap = random.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    valid = random.integers(0, 2, (24, 32, 32)).astype(np.uint8)
    values, mask = dsap_for_network(dsap, valid, flip=False)
    np.testing.assert_array_equal(mask, valid == 1)
    assert (values.transpose(0, 2, 3, 1)[~mask] == 0).all()
    np.testing.assert_allclose(values[5, 1][mask[5]], (dsap[5, ..., 1][mask[5]] / 255 - 0.456) / 0.224, atol=1e-6)
