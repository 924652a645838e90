"""Pictures and label maps at another size."""

import cv2
import numpy as np


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a picture (H, W, 3) uint8: mean over areas where it shrinks, bilinear else."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize labels or u,v (H, W) or (H, W, 2) uint8: those of the nearest pixel, so that they stay together."""
    if values.shape[:2] == (height, width):
        return values
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
