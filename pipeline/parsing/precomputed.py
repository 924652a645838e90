"""Precomputed parses in a parser's place: label PNGs (SCHP, LIP), DensePose's IUV PNGs and its JSON results, BPBreID's
confidence fields, KPR's key points.

| labels | source | what |
|---|---|---|
| a label map's name or file | folder | PNGs whose palette index or grey value is the label |
| iuv | folder | as DensePose's tools wrote IUV through OpenCV: a reader of RGB finds I in blue, U in green, V in red |
| iuv-rgb | folder | I in red, U in green, V in blue |
| json | file | DensePose's results (pipeline/parsing/densepose_json.py) |
| a label map of `fields` | folder | .npy of confidences (pipeline/parsing/confidence_fields.py) |
| keypoints | folder | KPR's JSON (pipeline/parsing/keypoint_json.py), drawn (keypoint_fields.py) and read as pifpaf36 |

Which file is whose says pipeline/parsing/find_parses.py. A PNG is as large as its picture, `scale` times as large where
that is said; fields have its proportions; key points lie in it.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.base.body_parts import TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.images import image_size, nearest, read_bytes
from pipeline.parsing.confidence_fields import fields_fit, fit_fields, no_fields, read_fields, read_fields_header
from pipeline.parsing.densepose_json import Detection, match_pictures, out_of_frame, read_detections, surest
from pipeline.parsing.find_parses import find_files, strangers
from pipeline.parsing.keypoint_fields import draw_fields
from pipeline.parsing.keypoint_json import outside, reach, read_target
from pipeline.parsing.label_map import LabelMap, read_label_map
from pipeline.parsing.lip_to_parts import parts_of
from pipeline.parsing.parse_png import no_iuv, no_labels, read_header, read_iuv, read_label_png

IUV = ("iuv", "iuv-rgb", "json")
KEYPOINTS = "keypoints"
DRAWN = "pifpaf36"  # the label map of what is drawn of key points
SHOWN = 3  # parses that an error names

Size = tuple[int, int]  # height, width


class Precomputed:
    """Looks parses up by an image's path; called like any parser (pipeline/parsing/engine.py: Forward).

    source, labels: see the table above; raw: the images' folder, paths: all images (relative to it); height, width: of
    what is returned; min_score: the least score of a JSON's detections, or of a key point that counts; scale: the
    pixels of the pictures that the tool saw over those of the images here (fields have their own). Of several
    detections in an image the surest is taken, and an image without any has nobody.

    At once, before anything is parsed, each image's parse is looked for and what its header says is compared with the
    image: InputError names how many are missing or none of theirs, the first of them, and the remedy.
    """

    def __init__(self, source: str | os.PathLike, *, labels: str, raw: Path, paths: Sequence[str], height: int,
                 width: int, min_score: float = 0.5, scale: float = 1) -> None:
        self.source, self.labels, self.raw = Path(source), labels, Path(raw)
        self.paths = list(dict.fromkeys(paths))  # one file may stand in two rows of the index
        self.height, self.width, self.min_score, self.scale = height, width, min_score, scale
        self.map: LabelMap | None = None if labels in IUV else read_label_map(DRAWN if labels == KEYPOINTS else labels)
        self.kind = (KEYPOINTS if labels == KEYPOINTS else "iuv" if not self.map else
                     "fields" if self.map.fields else "labels")
        self.taxonomy = self.map.taxonomy if self.map else "densepose24"
        self.uv = self.map is None

        self.sizes: dict[str, Size | None] = {path: _size(self.raw / path) for path in self.paths}  # None: unreadable
        self.files: dict[str, Path] = {}
        self.detections: dict[str, list[Detection]] = {}
        self.odd = ""  # what looks odd of key points
        self.strangers: list[str] = []  # names in a JSON, or files, that are of no image here
        if labels == "json":
            self._match()
        else:
            self.files = find_files(self.source, self.paths, raw=self.raw, kind=self.kind)
            if self.kind in ("fields", KEYPOINTS):
                self.strangers = [str(place) for place in strangers(self.source, self.files, self.kind)]
        self._check()

    def __call__(self, images: Tensor, paths: list[str]) -> dict[str, Tensor]:
        """The batch as the engine wants it: native, parts8, parts4 and, from DensePose's formats, uv."""
        rows = [self._maps(path) for path in paths]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(images.device) for name in rows[0]}

    def remark(self) -> str:
        """What a user should hear: names of other pictures, pictures without a detection, points that end too high; ""
        where there are none."""
        nobody = 0 if self.labels != "json" else sum(
            not any(one.score >= self.min_score for one in self.detections.get(path, [])) for path in self.paths)
        said = []
        if nobody:
            said.append(f"{nobody} of {len(self.paths)} images have no detection of score {self.min_score:g} or more, "
                        "and so no person")
        if self.odd:
            said.append(self.odd)
        if self.strangers:
            said.append(f"{len(self.strangers)} of its names are of no image in the index, the first "
                        f"{self.strangers[0]!r}")
        return f"{str(self.source)!r}: {'; '.join(said)}" if said else ""

    def _match(self) -> None:
        """Each image's detections."""
        found = read_detections(self.source)
        matched = match_pictures(found, self.paths, raw=self.raw, source=self.source)
        if self.paths and not matched:
            raise InputError(f"{str(self.source)!r}: none of its {len(found)} names is of an image of the index, such "
                             f"as {self.paths[0]!r}; an image_id is the image's path, or the end of it that is its own")
        self.detections = {path: found[name] for name, path in matched.items()}
        self.strangers = [name for name in found if name not in matched]

    def _check(self) -> None:
        """InputError for parses that are none, and for such that cannot be those of their images."""
        bad, wrong = [], []
        targets: dict[str, np.ndarray] = {}  # key points, of images that have a person
        for path in self.paths:
            if size := self.sizes[path]:
                try:
                    wrong += [why for why in [self._wrong(path, size, targets)] if why]
                except InputError as error:
                    bad.append(str(error))
        if bad:
            more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise InputError(f"{str(self.source)!r}: {len(bad)} of {len(self.paths)} parses cannot be read: "
                             f"{'; '.join(bad[:SHOWN])}{more}")
        if wrong:
            more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            scaled = "" if self.kind == "fields" else (", and where the tool saw them larger or smaller say by `scale` "
                                                       f"how much (it is {self.scale:g})")
            raise InputError(f"{str(self.source)!r}: {len(wrong)} of {len(self.paths)} parses are not their images': "
                             f"{'; '.join(wrong[:SHOWN])}{more}; make them of these images{scaled}")
        seen = [self._seen(size) for path in targets if (size := self.sizes[path])]
        why, self.odd = reach(list(targets.values()), seen)
        if why:
            raise InputError(f"{str(self.source)!r}: {why}")

    def _wrong(self, path: str, size: Size, targets: dict[str, np.ndarray]) -> str:
        """Why an image of this size cannot have its parse, or ""; headers are read, no pixels. Key points go to
        `targets`. InputError where it is none."""
        if self.labels == "json":
            why = out_of_frame(self.detections.get(path, []), *self._seen(size))
            return f"{why} where {path!r} is {size[0]}x{size[1]}" if why else ""

        place = self.files[path]
        if self.kind == KEYPOINTS:
            target, _ = read_target(place)
            if target is None:
                return ""
            targets[path] = target
            why = outside(target, *self._seen(size))
            return f"{str(place)!r}: {why}, and {path!r} is {size[0]}x{size[1]}" if why else ""
        if self.map and self.map.fields:
            header = read_fields_header(place)
            if why := no_fields(place, header, len(self.map.names)):
                raise InputError(f"{str(place)!r} {why}")
            return "" if fields_fit(header.shape[1:], size) else (
                f"{str(place)!r} has fields of {header.shape[1]}x{header.shape[2]}, which are not the proportions of "
                f"{size[0]}x{size[1]}, those of {path!r}")
        png = read_header(place)
        if why := (no_labels if self.map else no_iuv)(png):
            return f"{str(place)!r} {why}"
        if not self._fits((png.height, png.width), size):
            return f"{str(place)!r} is {png.height}x{png.width} where {path!r} is {size[0]}x{size[1]}"
        return f"{str(place)!r} is the image {path!r} itself" if _same(place, self.raw / path) else ""

    def _seen(self, size: Size) -> Size:
        """The size at which the tool saw an image of this size."""
        return round(size[0] * self.scale), round(size[1] * self.scale)

    def _fits(self, parse: Size, image: Size) -> bool:
        """Whether a parse has `scale` times its image's size, whichever of the two was rounded."""
        return all(min(abs(one - other * self.scale), abs(one / self.scale - other)) < 1
                   for one, other in zip(parse, image, strict=True))

    def _maps(self, path: str) -> dict[str, np.ndarray]:
        if self.map and self.map.fields:
            return self._field_maps(self.map, path)
        native, uv = self._native(path)
        shares = label_shares(native, len(TAXONOMIES[self.taxonomy]), self.height, self.width)
        fitted = shares.argmax(0).astype(np.uint8)
        parts8, parts4 = parts_of(fitted, shares, self.taxonomy)
        maps = {"native": fitted, "parts8": parts8, "parts4": parts4}
        return maps | {"uv": fit_uv(native, uv, fitted)} if self.uv else maps

    def _field_maps(self, label_map: LabelMap, path: str) -> dict[str, np.ndarray]:
        """From confidences or key points; nobody for padding, and where an image cannot be read."""
        size, others = self._readable(path), None
        fields = np.zeros((len(label_map.names), self.height, self.width), np.float32)
        if size and self.kind == KEYPOINTS:
            target, people = read_target(self.files[path])
            if target is not None:
                fields = self._drawn(target, size)
                others = np.max([self._drawn(points, size).max(0) for points in people], axis=0) if people else None
        elif size:
            fields = fit_fields(read_fields(self.files[path], len(label_map.names)), self.height, self.width)

        native, parts8, parts4 = label_map.field_parts(fields, others)
        return {"native": native, "parts8": parts8, "parts4": parts4}

    def _drawn(self, points: np.ndarray, size: Size) -> np.ndarray:
        """Fields (36, height, width) of a person in an image of this size; drawn at the image's own proportions."""
        points = points / [self.scale, self.scale, 1]
        return fit_fields(draw_fields(points, *size, least=self.min_score), self.height, self.width)

    def _readable(self, path: str) -> Size | None:
        """An image's size; None for padding, or an image that cannot be read, which is the engine's to say."""
        size = self.sizes[path] if path else None
        if path and size is None and _size(self.raw / path):
            raise InputError(f"{str(self.raw / path)!r}: could not be read before and now it can; run again")
        return size

    def _native(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels (h, w) and u,v x 255 (h, w, 2), uint8, at the parse's own size; nobody for padding."""
        size = self._readable(path)
        if size is None:
            return np.zeros((self.height, self.width), np.uint8), np.zeros((self.height, self.width, 2), np.uint8)

        if self.labels == "json":
            iuv = surest(self.detections.get(path, []), *self._seen(size), min_score=self.min_score, source=self.source)
            return iuv[..., 0], iuv[..., 1:]

        place = self.files[path]
        if self.map:
            labels = self._labels(self.map, place)
            uv = np.zeros((*labels.shape, 2), np.uint8)
        else:
            labels, uv = read_iuv(place, red_first=self.labels == "iuv-rgb")
        if not self._fits(labels.shape, size):
            raise InputError(f"{str(place)!r}: changed while it was being read; run again")
        return labels, uv

    def _labels(self, label_map: LabelMap, place: Path) -> np.ndarray:
        try:
            return label_map.native(read_label_png(place))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{str(place)!r}: {error}") from error


def _size(path: Path) -> Size | None:
    try:
        return image_size(path)
    except InputError:
        return None


def _same(place: Path, image: Path) -> bool:
    """Whether a parse has its image's bytes."""
    return os.path.getsize(place) == os.path.getsize(image) and read_bytes(place) == read_bytes(image)


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
