"""Resizing of pictures, compared with sums over pixels that are written out."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.base.images import fit
from tests.helpers.plain_resize import axis_weights, plain_resize

SIZES = st.integers(1, 33)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_ramp_that_shrinks_on_one_side_and_grows_on_the_other():
    """12 rows of 0, 23, 46 ... and 30 columns -> 24 and 20: bilinear, where the nearest pixel was 0, 0, 23, 23."""
    ramp = (23 * np.arange(12, dtype=np.uint8))[:, None, None] * np.ones((1, 30, 3), np.uint8)
    result = fit(ramp, 24, 20)
    assert result.shape == (24, 20, 3) and (result == result[:, :1, :1]).all()
    assert result[:, 0, 0].tolist()[:7] == [0, 6, 17, 29, 40, 52, 63]
    assert np.array_equal(fit(ramp.transpose(1, 0, 2), 20, 24), result.transpose(1, 0, 2))


def test_the_written_out_weights_are_torch_s():
    """The oracle's own oracle, where torch has the same: bilinear growing, and means of whole pixels."""
    values = torch.from_numpy(np.random.default_rng(0).random((1, 1, 9)))
    for size in (9, 10, 13, 30):
        grown = torch.nn.functional.interpolate(values, size=size, mode="linear", align_corners=False)
        np.testing.assert_allclose(axis_weights(9, size) @ values[0, 0].numpy(), grown[0, 0].numpy(), atol=1e-12)
    np.testing.assert_allclose(axis_weights(9, 3) @ values[0, 0].numpy(), values.reshape(3, 3).mean(1).numpy())
    for old, new in ((30, 20), (7, 3), (64, 24), (12, 24), (1, 5), (5, 1)):
        np.testing.assert_allclose(axis_weights(old, new).sum(1), 1)


@settings(max_examples=300, deadline=None)
@example(height=12, width=30, new_height=24, new_width=20)
@example(height=160, width=60, new_height=128, new_width=64)
@example(height=1, width=33, new_height=33, new_width=1)
@given(height=SIZES, width=SIZES, new_height=SIZES, new_width=SIZES)
def test_every_pair_of_sizes_is_each_axis_by_itself(height, width, new_height, new_width):
    image = noise(height, width)
    off = np.abs(fit(image, new_height, new_width) - plain_resize(image, new_height, new_width))
    mixed = (new_height - height) * (new_width - width) < 0
    assert off.max() <= (0.5001 if mixed else 1)  # OpenCV grows bytes in whole 1/2048


@pytest.mark.parametrize(("size", "flag"), [
    ((64, 32), cv2.INTER_AREA), ((100, 64), cv2.INTER_AREA), ((128, 20), cv2.INTER_AREA),
    ((256, 128), cv2.INTER_LINEAR), ((128, 100), cv2.INTER_LINEAR), ((300, 64), cv2.INTER_LINEAR)])
def test_where_both_sides_shrink_or_both_grow_the_bytes_are_opencv_s(size, flag):
    image = noise(128, 64)
    np.testing.assert_array_equal(fit(image, *size), cv2.resize(image, size[::-1], interpolation=flag))


def test_a_picture_of_the_right_size_is_left_alone():
    image = noise(20, 10)
    assert fit(image, 20, 10) is image
