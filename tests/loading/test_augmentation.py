"""Augmentation: a picture whose colours encode its labels must still encode them after any move."""

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.base.body_parts import DENSEPOSE24_FLIP
from pipeline.base.erasing import draw_rectangle
from pipeline.base.seeds import rng
from pipeline.caches.warp import warp
from pipeline.loading.augmentation import (
    Augmentation,
    draw,
    flip_parts,
    inside,
    mean_colour,
    move,
    move_cells,
    moved_maps,
)
from pipeline.loading.device_batch import CELLS, area_majority, finished, normalise

H, W = 48, 24
CPU = torch.device("cpu")
COLOURS = np.stack([np.arange(25) * 10, np.arange(25)[::-1] * 10, np.arange(25) * 7 % 25 * 10], 1).astype(np.uint8)


def _seen(drawn: Augmentation, rgb: np.ndarray | None = None, *, fill: bool = False, **arrays: np.ndarray
          ) -> dict[str, np.ndarray]:
    """What a network gets of one H x W picture, its labels (H, W) and its maps (K, H/4, W/4)."""
    image = np.full((H, W, 3), 77, np.uint8)  # what is left of it is blank
    rgb = np.zeros_like(image) if rgb is None else rgb
    move(rgb, drawn, image)
    loaded = {"image": image, "flip": np.array(drawn.flip), "inside": np.array(inside(drawn, H, W)),
              "erased": np.array(drawn.erased or (0, 0, 0, 0))}
    if fill:
        loaded["fill"] = mean_colour(rgb)
    for name, array in arrays.items():
        if name in CELLS:
            loaded[name] = np.full((H, W), 7, np.uint8)
            move(array, drawn, loaded[name])
        else:
            loaded[name] = np.zeros((len(array), H // 4 + 1, W // 4 + 1), array.dtype)
            loaded[name][0] = (255 if array.dtype == np.uint8 else 1) * (len(array) > 1)
            move_cells(array, drawn, loaded[name])
    batch = finished({name: torch.from_numpy(array)[None] for name, array in loaded.items()}, CPU)
    return {name: tensor[0].numpy() for name, tensor in batch.items()}


def _blocks(number: int, labels: int = 25) -> np.ndarray:
    return rng(number, "blocks").integers(0, labels, (H // 6, W // 6)).repeat(6, 0).repeat(6, 1).astype(np.uint8)


def _decoded(image: np.ndarray, labels: int) -> np.ndarray:
    """(3, H, W) normalised -> the label whose colour each pixel shows, 0 where it is filled (exactly 0)."""
    table = torch.tensor(COLOURS[:labels] / 255.0).float()
    table = (table - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    distance = torch.cdist(torch.from_numpy(image).flatten(1).T[None], table[None])[0]
    nearest = distance.argmin(1).reshape(H, W).numpy()
    return np.where((image == 0).all(0), 0, nearest)


def _majority(labels: np.ndarray, cell: int = 4) -> np.ndarray:
    """The naive loop: most frequent of a cell's pixels, all at once, the smaller one of equals."""
    height, width = labels.shape[0] // cell, labels.shape[1] // cell
    out = np.zeros((height, width), np.uint8)
    for row in range(height):
        for column in range(width):
            pixels = labels[cell * row:cell * row + cell, cell * column:cell * column + cell]
            count = Counter(pixels.ravel().tolist())
            out[row, column] = min(count, key=lambda label: (-count[label], label))
    return out


@pytest.mark.parametrize("number", range(40))
def test_image_and_labels_move_together(number):
    labels = _blocks(number, 8)
    drawn = draw(rng(number, "draw"), height=H, width=W, flip=0.5, pad=5, erase=0.7)
    seen = _seen(drawn, COLOURS[labels], labels=labels)
    np.testing.assert_array_equal(seen["labels"], _majority(_decoded(seen["image"], 8)))


@pytest.mark.parametrize("cell", [4, 16])
def test_the_majority_of_any_labels(cell):
    labels = rng(0, "majority").integers(0, 8, (300, 48, 32)).astype(np.uint8)
    labels[0], labels[1] = 7, 0
    found = area_majority(torch.from_numpy(labels), cell)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found[:40].numpy(), [_majority(each, cell) for each in labels[:40]])
    counts = (labels.reshape(300, 48 // cell, cell, 32 // cell, cell, 1) == np.arange(8)).sum((2, 4))
    np.testing.assert_array_equal(found.numpy(), counts.argmax(-1))


def test_a_majority_of_all_pixels_is_none_of_majorities():
    """A foot has 9 of 16 pixels in 9 of 16 cells: most of the cells are mostly foot, and 175 of 256 pixels are not."""
    labels = np.zeros((1, 16, 16), np.uint8)
    lines = np.arange(12)[np.arange(12) % 4 < 3]
    labels[0, lines[:, None], lines] = 7
    assert (area_majority(torch.from_numpy(labels), 4) == 7).sum() == 9
    assert area_majority(torch.from_numpy(labels), 16).item() == 0


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
        moved = np.zeros_like(labels)
        move(labels, Augmentation(shift=(down, right)), moved)
        np.testing.assert_array_equal(moved, crop)


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


def test_erased_rectangles_are_as_often_upright_as_the_algorithm_says():
    """Height over width is uniform in 0.3-3.33, so more are upright than lie; of those that fit, counted on a grid."""
    areas, aspects = np.meshgrid(np.linspace(0.02, 0.4, 400), np.linspace(0.3, 1 / 0.3, 400))
    fits = (areas * aspects < 1) & (areas / aspects < 1)
    drawn = [draw_rectangle(rng(number, "square"), height=200, width=200) for number in range(3000)]
    upright = np.mean([bottom - top > right - left for top, left, bottom, right in drawn])
    assert abs(upright - (aspects > 1)[fits].mean()) < 0.03 and upright > 0.6


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
    assert _seen(drawn, rgb)["image"].tobytes() == expected.tobytes()
    for name, count, background in (("probs8", 8, [1, *[0] * 7]), ("probs4", 5, [1, 0, 0, 0, 0])):
        maps = draws.integers(0, 256, (count, H // 4, W // 4)).astype(np.uint8)
        exact = _means(maps, drawn, np.multiply(background, 255))
        assert _seen(drawn, **{name: maps})[name].tobytes() == exact.tobytes()
        cropped = (maps / 255).astype(np.float32)
        np.testing.assert_allclose(_seen(drawn, **{name: cropped})[name], exact, atol=2.4e-7)  # two last bits of 1
    entropy = draws.integers(0, 256, (1, H // 4, W // 4)).astype(np.uint8)
    assert _seen(drawn, entropy=entropy)["entropy"].tobytes() == _means(entropy, drawn, [0]).tobytes()
    dsap, valid = draws.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8), draws.integers(0, 2, (24, 8, 8)) == 1
    expected = np.where(valid[..., None], (dsap.astype(np.float32) / np.float32(255) - mean) / std, np.float32(0))
    assert _warped(dsap, valid, flip=False)["dsap"].tobytes() == expected.transpose(0, 3, 1, 2).tobytes()


def _means(maps: np.ndarray, drawn: Augmentation, background: list[int]) -> np.ndarray:
    """(K, h, w) of every cell's 16 pixels, bytes, each moved by itself: the float32 next to their mean over 255."""
    moved = _moved(maps.repeat(4, 1).repeat(4, 2).transpose(1, 2, 0), drawn, np.array(background))
    planes = np.ascontiguousarray(moved.transpose(2, 0, 1))
    total = planes.reshape(len(maps), H // 4, 4, W // 4, 4).sum((2, 4), dtype=np.int64)
    return total.astype(np.float32) / np.float32(16 * 255)


def _warped(dsap: np.ndarray, valid: np.ndarray, **how: bool) -> dict[str, np.ndarray]:
    """What a network gets of one picture's warps (24, S, S, 3) and their flags."""
    loaded = {"image": np.zeros((4, 4, 3), np.uint8), "inside": np.array((0, 0, 4, 4)), "erased": np.zeros(4, int),
              "flip": np.array(how.pop("flip"))}
    places = torch.from_numpy(np.flatnonzero(valid))
    warps = {"texels": torch.from_numpy(dsap[valid == 1]), "places": places, "side": dsap.shape[1]}
    batch = finished({name: torch.from_numpy(array)[None] for name, array in loaded.items()} | warps, CPU, **how)
    return {name: tensor[0].numpy() for name, tensor in batch.items()}


@pytest.mark.parametrize("shift", [(0, 0), (1, -1), (-13, 9), (4, -8), (-60, 3), (2, 40)])
def test_maps_may_go_any_way(shift):
    """Also out of the picture."""
    drawn = Augmentation(flip=True, shift=shift)
    maps = rng(0, "ways").integers(0, 256, (5, H // 4, W // 4)).astype(np.uint8)
    frames = np.zeros((5, H // 4 + 1, W // 4 + 1), np.uint8)
    frames[0] = 255
    move_cells(maps, drawn, frames)
    go, nothing = torch.tensor([shift]) % 4, torch.zeros(1, 4)
    found = moved_maps(torch.from_numpy(frames)[None], go, nothing)[0].numpy()
    np.testing.assert_array_equal(found, _means(maps, drawn, [255, 0, 0, 0, 0]))


def test_a_picture_that_stands_still_keeps_its_maps():
    maps = (rng(0, "still").random((5, H // 4, W // 4)) / 3).astype(np.float32)
    assert _seen(Augmentation(), probs4=maps)["probs4"].tobytes() == maps.tobytes()


def test_what_is_erased_can_become_the_mean_of_the_picture():
    """The mean of the whole picture, before it is moved; what came from outside stays ImageNet's mean, 0."""
    rgb = rng(0, "mean").integers(0, 256, (H, W, 3)).astype(np.uint8)
    drawn = Augmentation(flip=True, shift=(5, -3), erased=(2, 4, 20, 23))
    plain = _seen(Augmentation(True, (5, -3)), rgb)["image"]
    found = _seen(drawn, rgb, fill=True)["image"]
    erased = np.zeros((H, W), bool)
    erased[2:20, 4:23] = True
    np.testing.assert_array_equal(found[:, ~erased], plain[:, ~erased])
    assert (found[:, :2] == 0).all() and (found[:, 20:, -3:] == 0).all()
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        total = sum(int(level) for level in rgb[..., channel].ravel())
        np.testing.assert_allclose(found[channel][erased], (total / (H * W) / 255 - mean) / std, atol=1e-5)


def test_labels_that_do_not_divide_are_refused():
    for cell, said in ((4, "30 x 24 pixels do not divide into cells of 4 x 4"), (16, "cells of 16 x 16")):
        with pytest.raises(ValueError, match=said):
            area_majority(torch.zeros(1, 30, 24, dtype=torch.uint8), cell)


def test_normalisation_is_imagenet_s():
    rgb = rng(0, "rgb").integers(0, 256, (5, 7, 3)).astype(np.uint8)
    oracle = (rgb / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalise(torch.from_numpy(rgb)).numpy(), oracle.transpose(2, 0, 1), atol=1e-6)


def test_dsap_of_the_mirrored_picture():
    """Warp a picture whose pixels all fall on texels of their own, and its mirror image: flipping joins the two."""
    random = rng(0, "surface")
    texels = random.permutation(24 * 32 * 32)[:96 * 64].reshape(96, 64)
    index = (texels // 1024 + 1).astype(np.uint8)
    # The byte in the middle of a texel, so that 255 - byte is in the middle of the mirrored one.
    uv = ((np.stack([texels % 1024 // 32, texels % 32], 2) * 2 + 1) * 255 // 64).astype(np.uint8)
    image = random.integers(0, 256, (96, 64, 3)).astype(np.uint8)
    mirrored_index, mirrored_uv = DENSEPOSE24_FLIP[index[:, ::-1]], uv[:, ::-1].copy()
    torso, ends = np.isin(mirrored_index, (1, 2)), np.isin(mirrored_index, (3, 4, 5, 6, 23, 24))  # hands, feet, head
    mirrored_uv[torso, 1], mirrored_uv[ends, 0] = 255 - mirrored_uv[torso, 1], 255 - mirrored_uv[ends, 0]
    dsap, valid = warp(image, index, uv, texels=32)
    expected, expected_valid = warp(image[:, ::-1], mirrored_index, mirrored_uv, texels=32)
    assert valid.sum() == 96 * 64
    for before, after in ((dsap, expected), (valid, expected_valid)):
        two = flip_parts(torch.from_numpy(np.stack([before] * 2)), torch.tensor([True, False]))
        np.testing.assert_array_equal(two.numpy(), np.stack([after, before]))
    found = _warped(dsap, valid, flip=True)
    assert {name: found[name].tobytes() for name in ("dsap", "valid")} == {
        name: _warped(expected, expected_valid, flip=False)[name].tobytes() for name in ("dsap", "valid")}


def test_dsap_is_zero_where_not_valid():
    random = rng(0, "dsap")
    dsap = random.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    valid = random.integers(0, 2, (24, 32, 32)).astype(np.uint8)
    found = _warped(dsap, valid, flip=False)
    values, mask = found["dsap"], found["valid"]
    np.testing.assert_array_equal(mask, valid == 1)
    assert (values.transpose(0, 2, 3, 1)[~mask] == 0).all()
    np.testing.assert_allclose(values[5, 1][mask[5]], (dsap[5, ..., 1][mask[5]] / 255 - 0.456) / 0.224, atol=1e-6)
