"""Precomputed parses in a parser's place: label PNGs (SCHP, LIP), DensePose's IUV PNGs and its JSON results.

| labels | source | what |
|---|---|---|
| a label map's name or file | folder | PNGs whose palette index or grey value is the label |
| iuv | folder | as DensePose's tools wrote IUV through OpenCV: a reader of RGB finds I in blue, U in green, V in red |
| iuv-rgb | folder | I in red, U in green, V in blue |
| json | file | DensePose's results (pipeline/parsing/densepose_json.py) |

The PNG of the image `query/0001.jpg` is `query/0001.png` or `query/0001.jpg.png` in the folder, for iuv also
`query/0001_IUV.png`. It is as large as its picture, `scale` times as large where that is said.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.base.body_parts import TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.images import image_size, nearest, read_bytes
from pipeline.parsing.densepose_json import Detection, match_pictures, out_of_frame, read_detections, surest
from pipeline.parsing.label_map import LabelMap, read_label_map
from pipeline.parsing.lip_to_parts import parts_of
from pipeline.parsing.parse_png import no_iuv, no_labels, read_header, read_iuv, read_label_png

IUV = ("iuv", "iuv-rgb", "json")
SHOWN = 3  # parses that an error names

Size = tuple[int, int]  # height, width


class Precomputed:
    """Looks parses up by an image's path; called like any parser (pipeline/parsing/engine.py: Forward).

    source, labels: see the table above; raw: the images' folder, paths: all images (relative to it); height, width: of
    what is returned; min_score: the least score of a JSON's detections; scale: the pixels of the pictures that the tool
    saw over those of the images here. Of several detections in an image the surest is taken, and an image without any
    has nobody.

    At once, before anything is parsed, each image's parse is looked for and what its header says is compared with the
    image: InputError names how many are missing or none of theirs, the first of them, and the remedy.
    """

    def __init__(self, source: str | os.PathLike, *, labels: str, raw: Path, paths: Sequence[str], height: int,
                 width: int, min_score: float = 0.5, scale: float = 1) -> None:
        self.source, self.labels, self.raw = Path(source), labels, Path(raw)
        self.paths = list(dict.fromkeys(paths))  # one file may stand in two rows of the index
        self.height, self.width, self.min_score, self.scale = height, width, min_score, scale
        self.map: LabelMap | None = None if labels in IUV else read_label_map(labels)
        self.taxonomy = self.map.taxonomy if self.map else "densepose24"
        self.uv = self.map is None

        self.sizes: dict[str, Size | None] = {path: _size(self.raw / path) for path in self.paths}  # None: unreadable
        self.files: dict[str, Path] = {}
        self.detections: dict[str, list[Detection]] = {}
        self.strangers: list[str] = []  # names in a JSON that are of no image here
        if labels == "json":
            self._match()
        else:
            self.files = find_files(self.source, self.paths, raw=self.raw, iuv=self.uv)
        self._check()

    def __call__(self, images: Tensor, paths: list[str]) -> dict[str, Tensor]:
        """The batch as the engine wants it: native, parts8, parts4 and, from DensePose's formats, uv."""
        rows = [self._maps(path) for path in paths]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(images.device) for name in rows[0]}

    def remark(self) -> str:
        """What a user should hear of a JSON: names of other pictures, pictures without a detection; "" of PNGs."""
        if self.labels != "json":
            return ""
        nobody = sum(not any(one.score >= self.min_score for one in self.detections.get(path, []))
                     for path in self.paths)
        said = []
        if nobody:
            said.append(f"{nobody} of {len(self.paths)} images have no detection of score {self.min_score:g} or more, "
                        "and so no person")
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
        """InputError for parses that cannot be those of their images."""
        wrong = [why for path in self.paths if (size := self.sizes[path]) and (why := self._wrong(path, size))]
        if wrong:
            more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            raise InputError(f"{str(self.source)!r}: {len(wrong)} of {len(self.paths)} parses are not their images': "
                             f"{'; '.join(wrong[:SHOWN])}{more}; make them of these images, and where the tool saw "
                             f"them larger or smaller say by `scale` how much (it is {self.scale:g})")

    def _wrong(self, path: str, size: Size) -> str:
        """Why an image of this size cannot have its parse, or ""; headers are read, no pixels."""
        if self.labels == "json":
            why = out_of_frame(self.detections.get(path, []), *self._seen(size))
            return f"{why} where {path!r} is {size[0]}x{size[1]}" if why else ""

        place = self.files[path]
        try:
            header = read_header(place)
        except InputError as error:
            return str(error)
        if why := (no_labels if self.map else no_iuv)(header):
            return f"{str(place)!r} {why}"
        if not self._fits((header.height, header.width), size):
            return f"{str(place)!r} is {header.height}x{header.width} where {path!r} is {size[0]}x{size[1]}"
        return f"{str(place)!r} is the image {path!r} itself" if _same(place, self.raw / path) else ""

    def _seen(self, size: Size) -> Size:
        """The size at which the tool saw an image of this size."""
        return round(size[0] * self.scale), round(size[1] * self.scale)

    def _fits(self, parse: Size, image: Size) -> bool:
        """Whether a parse has `scale` times its image's size, whichever of the two was rounded."""
        return all(min(abs(one - other * self.scale), abs(one / self.scale - other)) < 1
                   for one, other in zip(parse, image, strict=True))

    def _maps(self, path: str) -> dict[str, np.ndarray]:
        native, uv = self._native(path)
        shares = label_shares(native, len(TAXONOMIES[self.taxonomy]), self.height, self.width)
        fitted = shares.argmax(0).astype(np.uint8)
        parts8, parts4 = parts_of(fitted, shares, self.taxonomy)
        maps = {"native": fitted, "parts8": parts8, "parts4": parts4}
        return maps | {"uv": fit_uv(native, uv, fitted)} if self.uv else maps

    def _native(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels (h, w) and u,v x 255 (h, w, 2), uint8, at the parse's own size; nobody for padding."""
        size = self.sizes[path] if path else None
        if path and size is None and _size(self.raw / path):
            raise InputError(f"{str(self.raw / path)!r}: could not be read before and now it can; run again")
        if size is None:  # padding, or an image that cannot be read: that is the engine's to say
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


def find_files(source: Path, paths: Sequence[str], *, raw: Path, iuv: bool) -> dict[str, Path]:
    """Each image's PNG in a folder. InputError where one is missing, could be another's, or is an image itself."""
    files: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    missing = []
    images: dict[tuple[int, int] | None, str] = {}
    for path in paths:
        if number := _file_number(raw / path):
            images[number] = path

    for path in paths:
        places = [place for place in _places(source, path, iuv=iuv) if _file_number(place)]
        if not places:
            missing.append(path)
            continue

        place = places[0]
        if len(places) > 1:
            raise InputError(f"{str(place)!r}: and {str(places[1])!r} could both be the parse of {path!r}; take one "
                             "away")
        if other := images.get(_file_number(place)):
            raise InputError(f"{str(place)!r}: is the image {other!r} itself, and is looked for as the parse of "
                             f"{path!r}; put the parses into a folder of their own")
        if place in owners:
            raise InputError(f"{str(place)!r}: could be the parse of {owners[place]!r} and of {path!r}; call it after "
                             f"its image's whole name, as {str(source / path) + '.png'!r}, and have one for each")
        owners[place], files[path] = path, place

    if missing:
        raise InputError(f"{str(source)!r}: holds no parse of {missing[0]!r} ({len(missing)} of {len(paths)} are "
                         f"missing; looked for {str(next(_places(source, missing[0], iuv=iuv)))!r}); add them, or drop "
                         "the images from the index")
    return files


def _places(source: Path, path: str, *, iuv: bool) -> Iterator[Path]:
    """Where an image's parse may lie."""
    place = (source / path).with_suffix(".png")
    yield place
    if iuv:
        yield place.with_stem(f"{place.stem}_IUV")
    yield source / PurePosixPath(f"{path}.png")


def _file_number(path: Path) -> tuple[int, int] | None:
    """The disk's own number of a file, whatever name leads to it, or None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: no name of a file
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


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
