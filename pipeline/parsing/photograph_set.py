"""Photographs with labels as a parser's training and held-out samples: one person each, at the network's size."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import fit, nearest, read_image
from pipeline.base.progress import progress
from pipeline.parsing.augmentation import Sample
from pipeline.parsing.label_map import label_map_sha256, read_label_map
from pipeline.parsing.parse_png import read_label_png
from pipeline.parsing.published_sets import Labelled, Layout, pick_labelled

MARGIN = 0.05  # of the person's height and width, on each side
KEPT_BYTES = 2**28  # samples of a small set stay in memory: decoding one takes longer than a step of training on it


class Photographs:
    """The photographs of one part (train | val) of a folder in a layout of pipeline/parsing/published_sets.py.

    Their labels become LIP-20. Where a layout says whose a pixel is, the person with most pixels counts and everybody
    else is background. Layouts that are no crops of people are cut to the person: see `person_box`. InputError where
    the folder is not as the layout has it, an image or a label is damaged, or their sizes differ.
    """

    def __init__(self, folder: Path, part: str, *, layout: str, height: int, width: int) -> None:
        self.layout = pick_labelled(layout)
        self.folder, self.part = Path(folder), part
        self.height, self.width = height, width
        self.map = read_label_map(self.layout.labels)
        self.taxonomy, self.uv = self.map.taxonomy, False
        self.hidden: np.ndarray | None = None  # nobody labelled what hides people
        self.files = self.layout.files(self.folder, part)
        self.paths = [entry.image.relative_to(self.folder).as_posix() for entry in self.files]
        self.body = np.zeros(256, bool)  # which of the layout's ids belong to a person
        self.body[:len(self.map.targets)] = np.array(self.map.targets) > 0
        self.kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.files)

    def remark(self) -> str:
        """What a user should hear: that the part is not what was published; "" where it is."""
        return remark(self.layout, self.part, len(self))

    def sample(self, place: int) -> Sample:
        """Photograph number `place` of this part."""
        if place not in self.kept:
            sample = self._read(self.files[place])
            if len(self.kept) * sum(array.nbytes for array in sample) > KEPT_BYTES:
                return sample
            self.kept[place] = sample
        return self.kept[place]

    def _read(self, entry: Labelled) -> Sample:
        image, labels = read_labelled(self.layout, entry)
        if self.layout.crop:
            box = person_box(self.body[labels], aspect=self.height / self.width)
            image, labels = image[box], labels[box]

        try:
            native = self.map.native(nearest(np.ascontiguousarray(labels), self.height, self.width))
        except ValueError as error:
            raise InputError(f"{os.fspath(entry.labels)!r}: {error}") from error

        return fit(image, self.height, self.width), native, np.zeros((self.height, self.width, 2), np.uint8)

    def sha256(self) -> str:
        """Of this part's images and labels, and of the label map."""
        return labelled_sha256(self.layout, self.folder, self.files)


def remark(layout: Layout, part: str, count: int) -> str:
    """What a user should hear: that a part is not what was published; "" where it is."""
    published = layout.published[part]
    return "" if count == published else (f"{part}: {count} photographs are here, published are {published}; scores "
                                          "will not compare")


def read_labelled(layout: Layout, entry: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (h, w, 3) RGB and the ids of its layout's label map (h, w), both uint8; of several people the one
    with most pixels counts and the others are background. InputError: see `Photographs`."""
    image, labels = read_image(entry.image), layout.read(entry.labels)
    _same_size(image, labels, entry.image, entry.labels)
    if entry.people is not None:
        people = read_label_png(entry.people)
        _same_size(image, people, entry.image, entry.people)
        labels = np.where(people == largest(people), labels, 0)
    return image, labels


def labelled_sha256(layout: Layout, folder: Path, files: Sequence[Labelled]) -> str:
    """Of photographs and labels, and of the label map."""
    digest = hashlib.sha256(label_map_sha256(layout.labels).encode())
    for entry in progress(files, "hash", unit="images"):
        for path in (entry.image, entry.labels, *([entry.people] if entry.people else [])):
            digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def largest(people: np.ndarray) -> int:
    """The number of the person with most pixels in a map (h, w) of whose each is; 0 and 255 are nobody."""
    counts = np.bincount(people.ravel(), minlength=256)
    counts[[0, 255]] = 0
    return int(counts.argmax()) if counts.any() else 256


def person_box(body: np.ndarray, *, aspect: float) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around `body` (h, w) bool with MARGIN on each side, widened or heightened
    about its middle to `aspect` (height / width) and cut where it leaves the image; all of it without a body."""
    rows, columns = (np.flatnonzero(body.any(axis)) for axis in (1, 0))
    if not len(rows):
        return slice(None), slice(None)

    (top, bottom), (left, right) = ((places[0], places[-1] + 1) for places in (rows, columns))
    height, width = ((end - start) * (1 + 2 * MARGIN) for start, end in ((top, bottom), (left, right)))
    height, width = max(height, width * aspect), max(width, height / aspect)
    return _around((top + bottom) / 2, height, body.shape[0]), _around((left + right) / 2, width, body.shape[1])


def _around(middle: float, size: float, end: int) -> slice:
    return slice(max(round(middle - size / 2), 0), min(max(round(middle + size / 2), 1), end))


def _same_size(image: np.ndarray, labels: np.ndarray, image_path: Path, path: Path) -> None:
    if image.shape[:2] != labels.shape:
        raise InputError(f"{os.fspath(path)!r}: is {labels.shape[0]}x{labels.shape[1]} where {os.fspath(image_path)!r} "
                         f"is {image.shape[0]}x{image.shape[1]}; fetch both again")
