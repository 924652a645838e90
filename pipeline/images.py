"""Image files to arrays and back, with errors that name the file."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError


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


def write_image(path: str | os.PathLike, rgb: np.ndarray, quality: int = 92) -> None:
    """(H, W, 3) uint8 RGB -> a file; the ending chooses the format, `quality` (0-100) counts for JPEG."""
    ending = Path(path).suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if ending in (".jpg", ".jpeg") else []
    ok, data = cv2.imencode(ending, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise InputError(f"{os.fspath(path)!r}: no encoder for this ending; use .jpg or .png")
    Path(path).write_bytes(data.tobytes())


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal. InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r}: cannot be read ({getattr(error, 'strerror', error)})") from error
