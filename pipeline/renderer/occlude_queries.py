"""Occluded queries: things put before a data set's query images, where few are occluded, to see who can stand it.

What is put there are the renderer's objects, in the colours of its test pictures. Where the body is in a picture is
not known: it is taken to fill a detector's box, an ellipse as high as the picture and 0.6 of its width.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, write_bytes
from pipeline.base.images import read_bytes, read_image, write_image
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.renderer.occluders import draw_kind, draw_sprite, push

FOLDERS = {"query": "query", "gallery": "bounding_box_test"}
BODY_WIDTH = 0.6   # of the picture's, the widest row of the ellipse taken for the body
FINE = 2           # objects are drawn so many times finer than the picture and averaged
TRIES = 8
JPEG_QUALITY = 92


def occlude(image: np.ndarray, *, low: float, high: float, draw: np.random.Generator) -> tuple[np.ndarray, float]:
    """Put an object in front of a person's picture (H, W, 3) uint8: the picture, and the share of the body it hides.

    The share lies in [low, high], 0 to 1; the object comes from a side, from above or from below. It is as light as
    the picture.
    """
    height, width = image.shape[0] * FINE, image.shape[1] * FINE
    body = _body(height, width)
    target = draw.uniform(low, high)

    miss, front, colour, share = np.inf, np.zeros_like(body), np.zeros((height, width, 3)), 0.0
    for attempt in range(TRIES):
        kind = draw_kind(draw, "test") if attempt < TRIES - 1 else "box"
        if kind == "person":     # another person would need the renderer's scene
            kind = "pillar"
        sprite = draw_sprite(kind, draw, "test", height, width)
        side = str(draw.choice(sprite.sides)) if attempt < TRIES - 1 else "bottom"
        mask, paint, hidden = push(sprite, side, body, 0, target, draw)
        if abs(hidden - target) < miss:
            miss, front, colour, share = abs(hidden - target), mask, paint, hidden
        if low <= share <= high:
            break

    light = 2 * image.mean() / 255
    alpha = cv2.resize(front.astype(np.float64), image.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None]
    object_ = cv2.resize(colour * front[..., None] * light, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    mixed = image * (1 - alpha) + np.clip(object_, 0, alpha) * 255
    return mixed.round().astype(np.uint8), share


def _body(height: int, width: int) -> np.ndarray:
    """(height, width) bool: the ellipse that a box's person is taken to fill."""
    y = (np.arange(height)[:, None] + .5) / height * 2 - 1
    x = ((np.arange(width)[None] + .5) / width * 2 - 1) / BODY_WIDTH
    return x ** 2 + y ** 2 <= 1


def occlude_queries(frame: pd.DataFrame, raw: str | os.PathLike, folder: str | os.PathLike, *, key: str, seed: int,
                    low: float, high: float) -> int:
    """Write a data set in Market-1501's layout: the index's queries occluded, its gallery as it is, nothing to train.

    frame: an index whose paths lie in `raw`; folder: replaced only when everything is done; key, seed: name the
    streams that are drawn from. labels.h5 beside the pictures holds their `path` and `occlusion`, 0 in the gallery.
    Returns the number of queries. InputError: shares that are no range in 0 to 1, no query, two pictures that would
    bear one name.
    """
    if not 0 < low <= high < 1:
        raise InputError(f"occlude.{key}: hides from {low} to {high} of the body; write 0 < low <= high < 1")

    frame = frame[frame["split"].isin(list(FOLDERS))]
    names = [f"{FOLDERS[split]}/{Path(path).name}" for split, path in zip(frame["split"], frame["path"], strict=True)]
    if len(set(names)) != len(names) or "query" not in set(frame["split"]):
        raise InputError(f"occlude.{key}: the data set in {os.fspath(raw)!r} has no query, or two pictures of a name; "
                         "name a data set in Market-1501's layout")

    with new_folder(folder) as work:
        for name in FOLDERS.values():
            (work / name).mkdir()
        shares = [*_pictures(frame, names, Path(raw), work, key=key, seed=seed, low=low, high=high)]
        labels = io.BytesIO()  # HDF5 itself crashes the process where a full disk does not let it close so small a file
        with h5py.File(labels, "w") as file:
            file.create_dataset("path", data=names, dtype=h5py.string_dtype("utf-8"))
            file.create_dataset("occlusion", data=np.array(shares, np.float32))
        write_bytes(work / "labels.h5", labels.getvalue())

    return int((frame["split"] == "query").sum())


def _pictures(frame: pd.DataFrame, names: list[str], raw: Path, folder: Path, *, key: str, seed: int, low: float,
              high: float) -> Iterator[float]:
    rows = zip(names, frame["path"], frame["split"], strict=True)
    for name, path, split in progress(rows, f"occlude {key}", total=len(names), unit="pictures"):
        if split == "query":
            image, share = occlude(read_image(raw / path), low=low, high=high, draw=rng(seed, "occlude", key, name))
            write_image(folder / name, image, JPEG_QUALITY)
            yield share
        else:
            write_bytes(folder / name, read_bytes(raw / path))
            yield 0.0
