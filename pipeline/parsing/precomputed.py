"""Precomputed parses in a parser's place: label PNGs (SCHP, LIP), DensePose's IUV PNGs and its JSON results.

| labels | source | what |
|---|---|---|
| a label map's name or file | folder | PNGs whose palette index or grey value is the label |
| iuv | folder | as DensePose's tools wrote IUV through OpenCV: a reader of RGB finds I in blue, U in green, V in red |
| iuv-rgb | folder | I in red, U in green, V in blue |
| json | file | DensePose's results: a list of detections with image_id, bbox, score, uv_shape and uv_data |

The PNG of the image `query/0001.jpg` is `query/0001.png` in the folder, for iuv also `query/0001_IUV.png`.
"""

import base64
import binascii
import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.base.body_parts import DENSEPOSE24, TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.images import decode_image, nearest, read_bytes, read_image
from pipeline.parsing.label_map import LabelMap, read_label_map
from pipeline.parsing.lip_to_parts import parts_of

IUV = ("iuv", "iuv-rgb", "json")


@dataclass(frozen=True)
class Detection:
    """One person of a JSON: corner in pixels of the image, score, `data` the PNG of I, U, V over the box."""

    x: int
    y: int
    score: float
    data: bytes


class Precomputed:
    """Looks parses up by an image's path; called like any parser (pipeline/parsing/engine.py: Forward).

    source, labels: see the table above; raw: the images' folder, paths: all images (relative to it), looked for at
    once; height, width: of what is returned; min_score: the least score of a JSON's detections. Of several detections
    in an image the surest is taken, and an image without any has nobody. InputError names the file and the remedy.
    """

    def __init__(self, source: str | os.PathLike, *, labels: str, raw: Path, paths: Sequence[str], height: int,
                 width: int, min_score: float = 0.5) -> None:
        self.source, self.labels, self.raw = Path(source), labels, Path(raw)
        self.height, self.width = height, width
        self.map: LabelMap | None = None if labels in IUV else read_label_map(labels)
        self.taxonomy = self.map.taxonomy if self.map else "densepose24"
        self.uv = self.map is None
        self.detections = read_detections(self.source, min_score) if labels == "json" else {}
        missing = [path for path in paths if not self._has(path)]
        if labels == "json" and paths and len(missing) == len(paths):
            raise InputError(f"{str(source)!r}: none of its image_ids is an image of the index, such as {paths[0]!r}; "
                             "an image_id is the image's path, its name, that without ending, or the number in it")
        if labels != "json" and missing:
            raise InputError(f"{str(source)!r}: holds no parse of {missing[0]!r} ({len(missing)} of {len(paths)} are "
                             f"missing; looked for {str(self._places(missing[0])[0])!r}); add them, or drop the images "
                             "from the index")

    def __call__(self, images: Tensor, paths: list[str]) -> dict[str, Tensor]:
        """The batch as the engine wants it: native, parts8, parts4 and, from DensePose's formats, uv."""
        rows = [self._maps(path) for path in paths]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(images.device) for name in rows[0]}

    def _maps(self, path: str) -> dict[str, np.ndarray]:
        uv = None
        if not path:  # padding
            native = np.zeros((self.height, self.width), np.uint8)
            uv = np.zeros((self.height, self.width, 2), np.uint8) if self.uv else None
        elif self.map:
            native = self._labels(self.map, self._place(path))
        else:
            native, uv = self._detected(path) if self.labels == "json" else read_iuv(
                self._place(path), red_first=self.labels == "iuv-rgb")

        shares = label_shares(native, len(TAXONOMIES[self.taxonomy]), self.height, self.width)
        fitted = shares.argmax(0).astype(np.uint8)
        parts8, parts4 = parts_of(fitted, shares, self.taxonomy)
        maps = {"native": fitted, "parts8": parts8, "parts4": parts4}
        return maps if uv is None else maps | {"uv": fit_uv(native, uv, fitted)}

    def _labels(self, label_map: LabelMap, place: Path) -> np.ndarray:
        try:
            return label_map.native(read_label_png(place))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{str(place)!r}: {error}") from error

    def _has(self, path: str) -> bool:
        if self.labels == "json":
            return any(name in self.detections for name in _names(path))
        return any(place.is_file() for place in self._places(path))

    def _places(self, path: str) -> list[Path]:
        place = (self.source / path).with_suffix(".png")
        return [place] if self.map else [place, place.with_stem(f"{place.stem}_IUV")]

    def _place(self, path: str) -> Path:
        places = self._places(path)
        return next((place for place in places if place.is_file()), places[0])

    def _detected(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """The surest detection on a canvas of the image's size. An image that cannot be read is the engine's."""
        try:
            height, width = read_image(self.raw / path).shape[:2]
        except InputError:
            height, width = self.height, self.width

        person = max((self.detections[name] for name in _names(path) if name in self.detections),
                     key=lambda detection: detection.score, default=None)
        canvas = np.zeros((height, width, 3), np.uint8)
        if person:
            iuv = _split(decode_image(person.data, self.source), self.source, red_first=True)
            paste(canvas, iuv, person.x, person.y)

        return canvas[..., 0], canvas[..., 1:]


def _names(path: str) -> list[str]:
    """What a JSON may call an image: path, name, stem, and the number at the stem's end (COCO)."""
    pure = PurePosixPath(path)
    names = [path, str(pure.with_suffix("")), pure.name, pure.stem]
    digits = pure.stem.rsplit("_", 1)[-1]
    return list(dict.fromkeys([*names, str(int(digits))] if digits.isascii() and digits.isdigit() else names))


def paste(canvas: np.ndarray, iuv: np.ndarray, x: int, y: int) -> None:
    """Lay a box's I, U, V (h, w, 3) on a canvas (H, W, 3), its corner at column x, row y; what sticks out is cut."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + iuv.shape[0], canvas.shape[0]), min(x + iuv.shape[1], canvas.shape[1])
    if top < bottom and left < right:
        canvas[top:bottom, left:right] = iuv[top - y:bottom - y, left - x:right - x]


def read_label_png(path: Path) -> np.ndarray:
    """A label map (H, W) uint8: palette indices or grey values. InputError names the file."""
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in ("P", "L", "1"):
                raise InputError(f"{str(path)!r}: holds colours ({image.mode}), not labels; write PNGs of one channel "
                                 "whose palette index or grey value is the label")
            return np.array(image.convert("L") if image.mode == "1" else image, np.uint8)
    except InputError:
        raise
    except Exception as error:  # PIL raises many kinds on damaged files
        raise InputError(f"{str(path)!r}: is damaged or no PNG ({type(error).__name__}); make it again") from error


def read_iuv(path: Path, *, red_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """An IUV PNG -> labels (H, W) and u,v x 255 (H, W, 2), uint8. InputError names the file."""
    iuv = _split(decode_image(read_bytes(path), path), path, red_first=red_first)
    return iuv[..., 0], iuv[..., 1:]


def _split(rgb: np.ndarray, path: Path, *, red_first: bool) -> np.ndarray:
    """RGB (H, W, 3) -> I, U, V with u,v 0 on background."""
    iuv = rgb if red_first else rgb[..., ::-1]
    if iuv[..., 0].max(initial=0) >= len(DENSEPOSE24):
        order, other = ("iuv-rgb", "iuv") if red_first else ("iuv", "iuv-rgb")
        raise InputError(f"{str(path)!r}: holds the part {int(iuv[..., 0].max())} where DensePose knows "
                         f"{len(DENSEPOSE24) - 1}, read as {order}; its channels are in another order, try {other}")
    return np.where(iuv[..., :1] > 0, iuv, 0).astype(np.uint8)


def read_detections(path: Path, min_score: float) -> dict[str, Detection]:
    """A JSON's surest detection of each image_id (as text), those below `min_score` left out."""
    try:
        entries = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: is no JSON ({str(error)[:80]}); name DensePose's results") from error

    if not isinstance(entries, list):
        raise InputError(f"{str(path)!r}: is no list of detections; name DensePose's results")

    best: dict[str, Detection] = {}
    for number, entry in enumerate(entries):
        try:
            name, detection = str(entry["image_id"]), _detection(entry)
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise InputError(f"{str(path)!r}: detection {number} is not as DensePose writes it "
                             f"({type(error).__name__}: {str(error)[:60]}); it has image_id, bbox, score, uv_shape and "
                             "uv_data") from error
        if detection.score >= min_score and (name not in best or detection.score > best[name].score):
            best[name] = detection

    return best


def _detection(entry: Any) -> Detection:
    x, y = (math.floor(float(value)) for value in entry["bbox"][:2])
    score = float(entry["score"])
    data = base64.b64decode(entry["uv_data"])
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        raise ValueError("uv_data is no PNG")

    shape = [3, int.from_bytes(data[20:24]), int.from_bytes(data[16:20])]  # height and width stand in its header
    if entry["uv_shape"] != shape or not math.isfinite(score):
        raise ValueError("uv_shape or score is off")

    return Detection(x, y, score, data)


def label_shares(labels: np.ndarray, count: int, height: int, width: int) -> np.ndarray:
    """Labels (h, w) < count -> the share of each in every pixel of another size (count, height, width) float32: by area
    where the map shrinks, that of the nearest pixel else. Each pixel's sum to 1."""
    if labels.shape[0] < height or labels.shape[1] < width:
        labels = nearest(labels, max(height, labels.shape[0]), max(width, labels.shape[1]))
    shares = np.zeros((count, height, width), np.float32)
    for label in np.unique(labels):
        shares[label] = _area((labels == label).astype(np.float32), height, width)
    return shares / shares.sum(0)


def fit_uv(labels: np.ndarray, uv: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """u,v x 255 (h, w, 2) of labels (h, w) -> in [0, 1] (H, W, 2) float32 for `fitted` (H, W): the mean over those of
    a pixel's area that have its label, because u,v of two charts have no mean. 0 on background."""
    height, width = fitted.shape
    if labels.shape[0] < height or labels.shape[1] < width:
        size = max(height, labels.shape[0]), max(width, labels.shape[1])
        labels, uv = nearest(labels, *size), nearest(np.ascontiguousarray(uv), *size)

    result = np.zeros((height, width, 2), np.float32)
    for label in np.unique(fitted[fitted > 0]):
        mask = (labels == label).astype(np.float32)
        share, chosen = _area(mask, height, width), fitted == label
        for channel in (0, 1):
            mean = _area(mask * uv[..., channel], height, width)[chosen] / share[chosen]
            result[chosen, channel] = mean / 255

    return result.clip(0, 1)


def _area(values: np.ndarray, height: int, width: int) -> np.ndarray:
    if values.shape == (height, width):
        return values
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)


def source_sha256(source: str | os.PathLike) -> str:
    """SHA-256 of a file, or of a folder's files: names and contents, sorted, whatever order the disk lists them in."""
    root = Path(source)
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]

    state = hashlib.sha256()
    try:
        for file in files:
            if root.is_dir():
                state.update(f"{file.relative_to(root).as_posix()}\0".encode("utf-8", "surrogateescape"))
            with open(file, "rb") as content:
                digest = hashlib.file_digest(content, "sha256")
            if not root.is_dir():
                return digest.hexdigest()
            state.update(digest.digest())
    except OSError as error:
        raise InputError(f"{os.fspath(error.filename or source)!r}: cannot be read ({error.strerror}); name the "
                         "parser's `source`") from error

    return state.hexdigest()
