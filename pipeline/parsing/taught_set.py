"""Photographs whose parts a teacher divides, as a parser's samples, and their mixture with rendered people."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import fit, nearest
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.caches.cache import Cache
from pipeline.parsing.augmentation import Sample
from pipeline.parsing.label_map import read_label_map
from pipeline.parsing.photograph_set import labelled_sha256, person_box, read_labelled, remark
from pipeline.parsing.published_sets import Labelled, pick_labelled
from pipeline.parsing.rendered_set import AUGMENTATIONS, ParsingSet, as_tensors
from pipeline.parsing.surveillance import surveil
from pipeline.parsing.taught_labels import divide, may_be

TALL = 224  # pixels of a kept picture's person: surveillance crops are smaller
AROUND = 0.4  # of the person's height: what is kept of the surroundings, on each side
KEPT_BYTES = 2**29  # of pictures in memory; a photograph takes longer to decode than a step to learn from


class NobodyError(InputError):
    """A photograph whose labels show nobody."""


class TaughtPhotographs:
    """The photographs of one part (train | val) of a folder in a layout of pipeline/parsing/published_sets.py, with
    DensePose-24 labels of which `teacher`, a parts.h5 of the same photographs, divides what the hand's leave open.

    As a sequence they are pictures of the person and AROUND, TALL high at most; `sample` cuts the person out at
    height x width. Those whose labels show nobody are left out. InputError where the folder is not as the layout has
    it, a file is damaged, or the cache has other labels or was made of other photographs.
    """

    taxonomy, uv = "densepose24", False
    hidden: np.ndarray | None = None  # nobody labelled what hides people

    def __init__(self, folder: Path, part: str, *, layout: str, teacher: Path, height: int, width: int) -> None:
        self.layout, self.folder, self.teacher = pick_labelled(layout), Path(folder), Cache(teacher)
        self.height, self.width, self.part = height, width, part
        self.allowed = may_be(read_label_map(self.layout.labels))
        self.files = self.layout.files(self.folder, part)
        self.paths = [entry.image.relative_to(self.folder).as_posix() for entry in self.files]
        self.rows = teacher_rows(self.teacher, self.files)
        self.kept: list[Sample] = []
        empty: list[int] = []
        size = 0
        for place, entry in enumerate(progress(self.files, f"photographs ({part})", unit="images")):
            try:
                picture = self._read(entry, place)
            except NobodyError:
                empty.append(place)
                continue
            size += picture[0].nbytes + picture[1].nbytes
            if size > KEPT_BYTES:
                break
            self.kept.append(picture)
        self._leave_out(empty)

    def _leave_out(self, empty: list[int]) -> None:
        """Photographs whose labels show nobody: Clothing Co-Parsing was published with one."""
        self.empty = [self.paths[place] for place in empty]
        self.files = [entry for place, entry in enumerate(self.files) if place not in empty]
        self.paths = [path for path in self.paths if path not in self.empty]
        self.rows = np.delete(self.rows, empty)
        if not self.files:
            raise InputError(f"{os.fspath(self.folder)!r}: the labels of all {len(empty)} photographs ({self.part}) "
                             "show nobody, only background; check that the label files belong to the layout")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Sample:
        if place >= len(self):
            raise IndexError(place)
        return self.kept[place] if place < len(self.kept) else self._read(self.files[place], place)

    def remark(self) -> str:
        """What a user should hear: that the part is not what was published, or shows nobody; "" where all is well."""
        nobody = (f"{self.part}: the labels of {len(self.empty)} photograph{'s' * (len(self.empty) > 1)} "
                  f"({self.empty[0]!r} first) show nobody, and are left out" if self.empty else "")
        return "; ".join(filter(None, (remark(self.layout, self.part, len(self) + len(self.empty)), nobody)))

    def sample(self, place: int) -> Sample:
        """Photograph number `place`, cut to the person."""
        image, labels, _ = self[place]
        box = person_box(labels > 0, aspect=self.height / self.width)
        size = self.height, self.width
        return fit(image[box], *size), nearest(np.ascontiguousarray(labels[box]), *size), _no_uv(*size)

    def _read(self, entry: Labelled, place: int) -> Sample:
        image, clothes = read_labelled(self.layout, entry)
        teacher = nearest(self.teacher.read("native", int(self.rows[place])), *clothes.shape)
        worn = np.asarray(self.allowed.any(axis=1))
        body = worn[clothes]
        if not body.any():
            raise NobodyError(f"{os.fspath(entry.labels)!r}: labels nobody, only background; take the photograph and "
                              "its labels away")

        rows, columns = (np.flatnonzero(body.any(axis)) for axis in (1, 0))
        tall = rows[-1] + 1 - rows[0]
        around = round(AROUND * tall)
        box = tuple(slice(max(found[0] - around, 0), found[-1] + 1 + around) for found in (rows, columns))
        scale = min(TALL / tall, 1)
        size = [max(round(side * scale), 1) for side in clothes[box].shape]
        clothes, teacher = (nearest(np.ascontiguousarray(labels[box]), *size) for labels in (clothes, teacher))
        return fit(image[box], *size), divide(clothes, teacher, self.allowed), _no_uv(*size)

    def sha256(self) -> str:
        """Of this part's images and labels, of the label map and of the teacher's cache."""
        return f"{labelled_sha256(self.layout, self.folder, self.files)} {file_sha256(self.teacher.path)}"


def teacher_rows(teacher: Cache, files: list[Labelled]) -> np.ndarray:
    """The row, int64, of each photograph in a teacher's cache, found by its SHA-256. InputError if it has other labels
    than DensePose's 24, or was made of other photographs."""
    taxonomy = teacher.maker.get("taxonomy")
    if taxonomy != "densepose24":
        raise InputError(f"{str(teacher.path)!r}: has the labels {taxonomy}, and a teacher divides the body into "
                         "densepose24; name another parser's cache as `teacher`")
    known = {sha: row for row, (sha, status) in enumerate(zip(teacher.column("image_sha256"), teacher.column("status"),
                                                              strict=True)) if not status.startswith("failed")}
    found = [known.get(file_sha256(entry.image), -1) for entry in progress(files, "hash", unit="images")]
    missing = [os.fspath(entry.image) for entry, row in zip(files, found, strict=True) if row < 0]
    if missing:
        raise InputError(f"{str(teacher.path)!r}: is a teacher's cache of other pictures: {missing[0]!r} is none of "
                         f"its {len(known)} ({len(missing)} of {len(files)} photographs are not); parse these "
                         "photographs, or name their cache as `teacher`")
    return np.array(found, np.int64)


def _no_uv(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(0), (height, width, 2))


class Mixture(Dataset):
    """The endless training sequence of rendered people and photographs, so many of each in every batch; item i is
    always the same augmented image. Photographs become surveillance crops, rendered people vary as `augment` says;
    pieces of photographs may stand in front of either. Photographs have no u,v."""

    def __init__(self, rendered: ParsingSet, photographs: TaughtPhotographs, *, of_batch: int, batch: int, seed: int,
                 augment: str) -> None:
        self.sets, self.seed, self.augment = (photographs, rendered), seed, augment
        self.shares = (of_batch, batch - of_batch)
        self.batch = batch
        self.paths = [*photographs.paths, *rendered.paths]
        self.orders: list[tuple[int, np.ndarray]] = [(-1, np.zeros(0, int))] * 2

    def __getitem__(self, item: int) -> dict[str, Tensor] | InputError:
        """A bad file comes back as its error (pipeline/loading/collate.py)."""
        step, place = divmod(item, self.batch)
        which = int(place >= self.shares[0])
        row = self._row(which, step * self.shares[which] + place - which * self.shares[0])
        generator = rng(self.seed, "parser", "augment", item)
        photographs, rendered = self.sets
        try:
            if which == 0:
                image, labels, _ = surveil(photographs[row], "densepose24", generator, others=photographs,
                                           size=(rendered.height, rendered.width))
                sample = image, labels, _no_uv(*labels.shape)
            elif self.augment == "surveillance":
                sample = surveil(rendered.sample(row), "densepose24", generator, others=photographs)
            else:
                sample = AUGMENTATIONS[self.augment](rendered.sample(row), "densepose24", generator)
        except InputError as error:
            return error

        return as_tensors(sample) | {"row": torch.tensor(row + which * len(photographs)),
                                     "has_uv": torch.tensor(which == 1)}

    def _row(self, which: int, number: int) -> int:
        epoch, place = divmod(number, len(self.sets[which]))
        if self.orders[which][0] != epoch:
            names = ("parser", "order", ("photographs", "rendered")[which], epoch)
            self.orders[which] = (epoch, rng(self.seed, *names).permutation(len(self.sets[which])))
        return int(self.orders[which][1][place])
