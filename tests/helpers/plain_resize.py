"""Resizing written out: each axis by itself, area means where it shrinks, bilinear where it grows; float64, slow."""

import numpy as np


def axis_weights(old: int, new: int) -> np.ndarray:
    """(new, old): how much each old pixel counts in each new one."""
    weights, ratio = np.zeros((new, old)), old / new
    for pixel in range(new):
        if new < old:  # the part of the new pixel's stretch that lies on each old one
            for other in range(old):
                common = min((pixel + 1) * ratio, other + 1) - max(pixel * ratio, other)
                weights[pixel, other] = max(common, 0) / ratio
        else:  # between the middles of two old pixels; beyond the last middle its own
            place = min(max((pixel + 0.5) * ratio - 0.5, 0), old - 1)
            left = int(place)
            weights[pixel, left] += 1 - (place - left)
            weights[pixel, min(left + 1, old - 1)] += place - left
    return weights


def plain_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) -> (height, width, 3), not rounded."""
    rows, columns = axis_weights(image.shape[0], height), axis_weights(image.shape[1], width)
    return np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns)
