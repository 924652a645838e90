"""Images: files to arrays and back with errors that name the file, sizes, and ImageNet's normalisation."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes

# Of RGB in [0, 1]. models/pretrained.py has its own, because pipeline and models import neither each other.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

ORIENTATION = 0x0112  # EXIF's tag: 1 is upright

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels; bottom and right lie outside


def read_bytes(path: str | os.PathLike) -> bytes:
    """The file's bytes. InputError if it is missing, unreadable or empty."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise InputError(f"{os.fspath(path)!r}: cannot be read ({getattr(error, 'strerror', error)}); restore it or "
                         "drop it from the index") from error

    if not data:
        raise InputError(f"{os.fspath(path)!r}: is empty (0 bytes); restore it or drop it from the index")

    return data


def decode_image(data: bytes, name: str | os.PathLike) -> np.ndarray:
    """Encoded bytes -> (H, W, 3) uint8 RGB; grey, 16-bit and EXIF-rotated files included. InputError names `name`."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{os.fspath(name)!r}: cannot be decoded ({error.err}); restore or remove it") from error

    if bgr is None:
        raise InputError(f"{os.fspath(name)!r}: is not an image that can be decoded ({len(data)} bytes); "
                         "restore it or drop it from the index")

    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file -> (H, W, 3) uint8 RGB. InputError if it is missing, empty or no image."""
    return decode_image(read_bytes(path), path)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width that `read_image` gives, from the file's header where that is enough. InputError as there."""
    try:
        with Image.open(path) as image:
            if image.getexif().get(ORIENTATION, 1) == 1:  # else it lies on its side, or OpenCV finds that it does
                return image.height, image.width
    except Exception:  # PIL raises many kinds; whether it is an image OpenCV says
        pass
    return read_image(path).shape[:2]


def write_image(path: str | os.PathLike, rgb: np.ndarray, quality: int = 92) -> None:
    """(H, W, 3) uint8 RGB -> a file, whole or not at all; the ending chooses the format, `quality` (0-100) counts for
    JPEG. InputError if it cannot be written."""
    ending = Path(path).suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if ending in (".jpg", ".jpeg") else []

    ok, data = cv2.imencode(ending, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise InputError(f"{os.fspath(path)!r}: no encoder for this ending; use .jpg or .png")

    write_bytes(path, data.tobytes())


def crop_image(image: np.ndarray, box: Box) -> np.ndarray:
    """(H, W, ...) -> the box of it."""
    top, left, bottom, right = box
    return image[top:bottom, left:right]


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image (H, W, 3) uint8, each axis by itself: mean over areas where it shrinks, bilinear where it grows.

    The one rule for pictures. OpenCV's INTER_AREA takes the nearest pixel on all axes as soon as one grows, so one
    that grows is never given to it.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if rows <= height and columns <= width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rows >= height and columns >= width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    shrunk = cv2.resize(image.astype(np.float32), (min(columns, width), min(rows, height)),
                        interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR).round().astype(np.uint8)


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize labels or u,v (H, W) or (H, W, 2) uint8: those of the nearest pixel, so that they stay together."""
    if values.shape[:2] == (height, width):
        return values
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
