"""Histogram of colours, against numpy's histogram and colorsys."""

import colorsys

import numpy as np
import pytest
import torch

from models.histogram import Histogram, denormalise, hsv
from models.losses import part_distance
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) as the networks get it."""
    rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (rgb - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def test_normalisation_is_undone_to_the_level():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), dtype=np.uint8)
    levels = denormalise(normalised(pixels)) * 255
    assert torch.equal(levels.round().to(torch.uint8), torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_hsv_is_colorsys():
    pixels = np.random.default_rng(1).integers(0, 256, (1, 16, 8, 3), dtype=np.uint8)
    pixels[0, 0, :4] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]
    ours = hsv(torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255)
    for y in range(16):
        for x in range(8):
            expected = colorsys.rgb_to_hsv(*(pixels[0, y, x] / 255))
            assert np.allclose(ours[0, :, y, x].numpy(), expected, atol=1e-12)


def test_the_histogram_counts_each_stripe():
    pixels = np.random.default_rng(2).integers(0, 256, (2, 13, 4, 3), dtype=np.uint8)
    model = Histogram(match="all", stripes=3, bins=4)
    features, visibility = model.embed({"image": normalised(pixels)})
    assert visibility.shape == (2, 3) and model.sizes == (24, 24, 24)
    ours = features.view(2, 3, 6, 4).square().numpy()

    for image in range(2):
        for stripe, (top, bottom) in enumerate([(0, 4), (4, 8), (8, 13)]):
            rgb = pixels[image, top:bottom].reshape(-1, 3) / 255
            both = np.concatenate([rgb, [colorsys.rgb_to_hsv(*row) for row in rgb]], 1)
            for channel in range(6):
                counts, _ = np.histogram(both[:, channel].astype(np.float32), bins=4, range=(0, 1))
                assert np.allclose(ours[image, stripe, channel], counts / (6 * len(rgb)), atol=1e-6)


def test_a_picture_is_at_no_distance_from_itself_and_far_from_other_colours():
    red, blue = np.zeros((1, 6, 4, 3), np.uint8), np.zeros((1, 6, 4, 3), np.uint8)
    red[..., 0], blue[..., 2] = 250, 250
    model = Histogram(match="all", stripes=2, bins=8)
    f, v = model.embed({"image": normalised(np.concatenate([red, red, blue]))})
    d, _ = part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)
    assert abs(float(d[0, 1])) < 1e-6
    assert abs(float(d[0, 2]) - 0.5) < 1e-6  # green, saturation and value agree; red, blue and hue do not


def test_the_histogram_refuses_training_and_has_no_parameters():
    model = Histogram(match="all", stripes=2, bins=4)
    assert list(model.parameters()) == []
    with pytest.raises(ValueError, match="image_steps 0"):
        model({})
    with pytest.raises(ValueError, match="unknown features 'global' for the histogram; it is one of all"):
        Histogram(match="global", stripes=2, bins=4)
