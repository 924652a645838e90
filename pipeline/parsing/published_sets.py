"""Published sets of photographs whose clothes and limbs are labelled pixel by pixel, as folders.

| layout | what lies in the folder | train, held out |
|---|---|---|
| `lip` | `TrainVal_images/train_images/1_1.jpg`, `TrainVal_parsing_annotations/train_segmentations/1_1.png`, the same with `val`; `train_id.txt`, `val_id.txt` | 30,462, 10,000 |
| `cihp` | `Training/Images/0000006.jpg`, `Training/Category_ids/0000006.png`, `Training/Human_ids/0000006.png`, the same in `Validation`; `Training/train_id.txt`, `Validation/val_id.txt` | 28,280, 5,000 |
| `ccp` | `photos/0001.jpg`, `annotations/pixel-level/0001.mat` | 804, 200 of 1,004 |

Folders that an archive puts around these may stay (pipeline/datasets/scan.py: DEPTH). The lists of names may be missing.
"""  # noqa: E501 (a table's lines cannot be broken)

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.matlab import read_mat
from pipeline.base.seeds import rng
from pipeline.datasets.scan import image_names, locate, named, read_lines
from pipeline.parsing.parse_png import read_label_png

NON_COMMERCIAL = "non-commercial research"
HELD_OUT = 5  # one of so many photographs, where nobody published a split


@dataclass(frozen=True)
class Labelled:
    """A photograph, the labels of its pixels and, where several people are in one, whose each pixel is."""

    image: Path
    labels: Path
    people: Path | None = None


@dataclass(frozen=True)
class Layout:
    """`files`: a folder and a part (train | val) -> its photographs, by name; `read`: a labels file -> ids (h, w) of
    the label map `labels`; `crop`: whether the person is to be cut out; `published`: photographs of each part;
    `licence`: its terms."""

    files: Callable[[Path, str], list[Labelled]]
    read: Callable[[Path], np.ndarray]
    labels: str
    crop: bool
    published: dict[str, int]
    licence: str


def pick_labelled(name: str) -> Layout:
    """The layout of this name. InputError lists the choices."""
    if name not in LAYOUTS:
        raise InputError(f"unknown layout {name!r} of labelled photographs; it is one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def files_lip(root: Path, part: str) -> list[Labelled]:
    """Look into Person's single people (Gong et al. 2017)."""
    images, labels = (
        _inside(root, f"{part}_{kind}", f"{archive}.zip") for kind, archive in (
            ("images", "TrainVal_images"), ("segmentations", "TrainVal_parsing_annotations")))
    names = _list(root, f"{part}_id.txt", images.parent)
    return [Labelled(image, label) for image, label in _pairs(images, labels, names)]


def files_cihp(root: Path, part: str) -> list[Labelled]:
    """Crowd Instance-level Human Parsing (Gong et al. 2018)."""
    archive = "instance-level_human_parsing.tar.gz"
    folder = _inside(root, {"train": "Training", "val": "Validation"}[part], archive)
    images, labels, people = (_child(folder, name, archive) for name in ("Images", "Category_ids", "Human_ids"))
    names = _list(root, f"{part}_id.txt", folder)
    whose = dict(_pairs(images, people, names))
    return [Labelled(image, label, whose[image]) for image, label in _pairs(images, labels, names)]


def files_ccp(root: Path, part: str) -> list[Labelled]:
    """Clothing Co-Parsing (Yang et al. 2014). Its first 1,004 of 2,098 photographs have labelled pixels; every fifth
    of these, drawn once for all, is held out."""
    images = _inside(root, "photos", "the repository bearpaw/clothing-co-parsing")
    annotations = _child(images.parent, "annotations", "the same repository")
    labels = _child(annotations, "pixel-level", "the same repository")
    names = sorted(path.stem for path in labels.glob("*.mat"))
    if not names:
        raise InputError(f"{os.fspath(labels)!r}: holds no .mat, so no photograph has labels of its pixels; unpack "
                         "bearpaw/clothing-co-parsing there, or change `raw`")
    pairs = _pairs(images, labels, names, suffix=".mat")

    order = rng(0, "labelled", "ccp", "split").permutation(len(pairs))
    chosen = order[:len(pairs) // HELD_OUT] if part == "val" else order[len(pairs) // HELD_OUT:]
    return [Labelled(*pairs[place]) for place in sorted(chosen)]


def read_ccp(path: Path) -> np.ndarray:
    """A pixel-level annotation: `groundtruth`, ids (h, w) of label_list.mat, from 0. InputError names the file."""
    try:
        mat: dict[str, Any] = read_mat(path, ["groundtruth"])
        labels = np.asarray(mat["groundtruth"])
    except Exception as error:  # a damaged file makes loadmat raise almost anything
        raise InputError(f"{os.fspath(path)!r}: is no pixel-level annotation ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:80]}); fetch it again") from error

    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() > 255:
        raise InputError(f"{os.fspath(path)!r}: its `groundtruth` is {labels.dtype} of shape {labels.shape}, not a "
                         "photograph's labels; fetch it again")

    return labels.astype(np.uint8)


def _child(folder: Path, name: str, archive: str) -> Path:
    """The folder `name` in `folder`, upper and lower case being one."""
    child = named(folder, [name])
    if child is None:
        raise InputError(f"{os.fspath(folder)!r}: holds no folder {name!r}; unpack {archive} there, or change `raw`")
    return child


def _inside(root: Path, name: str, archive: str) -> Path:
    """The same in `root` or in one of the folders that an archive put around it."""
    return _child(locate(root, lambda folder: named(folder, [name]) is not None,
                         f"no folder {name!r}; unpack {archive} there, or change `raw`"), name, archive)


def _list(root: Path, name: str, folder: Path) -> list[str] | None:
    """The names in the list `name` of `folder` or of one above it, up to `root`; None where there is none."""
    above = [folder, *folder.parents]
    place = next((below / name for below in above[:above.index(root) + 1] if (below / name).is_file()), None)
    return None if place is None else sorted({Path(line).stem for _, line in read_lines(place)})


def _pairs(images: Path, labels: Path, names: list[str] | None, suffix: str = ".png") -> list[tuple[Path, Path]]:
    """Images and their labels by name: of `names`, or of all images. InputError counts and names what is missing."""
    by_name: dict[str, Path] = {}
    for name in image_names(images):
        other = by_name.setdefault(Path(name).stem, images / name)
        if other.name != name:
            raise InputError(f"{os.fspath(images)!r}: {other.name!r} and {name!r} would have the same labels; take one "
                             "away")

    listed = sorted(by_name) if names is None else names
    if not listed:
        raise InputError(f"{os.fspath(images)!r}: holds no image; unpack the data set there, or change `raw`")

    pairs = {name: (by_name.get(name), labels / f"{name}{suffix}") for name in listed}
    for what, folder, missing in (
            ("image", images, [name for name, (image, _) in pairs.items() if not image]),
            (f"{suffix} of labels", labels, [name for name, (_, label) in pairs.items() if not os.path.isfile(label)])):
        if missing:
            raise InputError(f"{os.fspath(folder)!r}: holds no {what} {missing[0]!r} ({len(missing)} of "
                             f"{len(listed)} are missing); unpack the data set again")

    return [(image, label) for image, label in pairs.values() if image]


LAYOUTS = {
    "lip": Layout(files_lip, read_label_png, "lip20", False, {"train": 30462, "val": 10000}, NON_COMMERCIAL),
    "cihp": Layout(files_cihp, read_label_png, "cihp20", True, {"train": 28280, "val": 5000}, NON_COMMERCIAL),
    # the LICENSE file of bearpaw/clothing-co-parsing, the repository that holds photographs and labels
    "ccp": Layout(files_ccp, read_ccp, "ccp59", True, {"train": 804, "val": 200}, "Apache-2.0"),
}
