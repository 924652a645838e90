"""Data sets of occluded or cut probes against whole people: two folders, the person in a file's name.

Probes are camera 0 and the gallery is camera 1, so that the evaluation's camera rule removes nothing.
"""

import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.datasets.scan import DIGITS, Row, as_frame, images_below, locate, named

PARTIAL = ("partial_body_images", "query", "probe")
OCCLUDED = ("occluded_body_images", "query", "probe")
UNCROPPED = ("partial_iLIDS_Probe_nocrop", "probe_nocrop", "occluded_body_images")
WHOLE = ("whole_body_images", "gallery")
LEADING = re.compile(rf"({DIGITS})_", re.ASCII)
ALONE = re.compile(DIGITS, re.ASCII)


def read_partial_reid_partial(root: str | os.PathLike) -> pd.DataFrame:
    """Partial-REID with the cut probes: partial_body_images/ against whole_body_images/, 60 people of 5 + 5 images.

    query/ or Probe/ and gallery/ or Gallery/ are taken too; files are like 001_01.jpg, person first.

    Source: Zheng et al., Partial Person Re-Identification, ICCV 2015; no licence comes with it: for research, ask its
    authors (Sun Yat-sen University) for more.
    """
    return _read_pair(root, PARTIAL)


def read_partial_reid_occluded(root: str | os.PathLike) -> pd.DataFrame:
    """Partial-REID with the uncut probes: occluded_body_images/ against whole_body_images/.

    Otherwise, source and terms too, `read_partial_reid_partial`.
    """
    return _read_pair(root, OCCLUDED)


def read_partial_ilids(root: str | os.PathLike) -> pd.DataFrame:
    """Partial-iLIDS: Probe/ against Gallery/ (or query/, gallery/, partial_body_images/, whole_body_images/).

    One image of each of 119 people on each side; a file's name is the person: 12.jpg, 012.jpg or 012_1.jpg.

    Source: He et al., Deep Spatial Feature Reconstruction for Partial Person Re-identification, CVPR 2018, from
    Zheng et al., Person Re-identification by Probabilistic Relative Distance Comparison, CVPR 2011; the images are
    the i-LIDS scenario's, for research.
    """
    return _read_pair(root, ("probe", "query", "partial_body_images", "occluded_body_images"))


def read_partial_ilids_uncropped(root: str | os.PathLike) -> pd.DataFrame:
    """Partial-iLIDS with its probes as they were before they were cropped: partial_iLIDS_Probe_nocrop/ (or
    probe_nocrop/, occluded_body_images/) against Gallery/.

    Otherwise, source and terms too, `read_partial_ilids`.
    """
    return _read_pair(root, UNCROPPED)


def read_occluded_reid(root: str | os.PathLike) -> pd.DataFrame:
    """Occluded-REID: occluded_body_images/001/001_01.tif against whole_body_images/001/001_01.tif.

    query/ or Probe/ and gallery/ are taken too, and images without folders of each person.

    Source: Zhuo et al., Occluded Person Re-identification, ICME 2018; for academic or educational, not commercial use.
    """
    return _read_pair(root, OCCLUDED)


def read_p_duke(root: str | os.PathLike) -> pd.DataFrame:
    """P-DukeMTMC-reID: test/occluded_body_images/ against test/whole_body_images/, train/ with both to train on.

    Files are DukeMTMC-reID's, 0005_c2_f0046985.jpg, in folders of each person. Occluded images are camera 0 and whole
    ones camera 1 in the training part too. Without train/ (the unsupervised setting) there are no training rows.

    Source: Zhuo et al., Occluded Person Re-identification, ICME 2018; for academic or educational, not commercial use;
    the images are DukeMTMC's, which its authors withdrew in 2019.
    """
    root = Path(root)
    base = locate(root, lambda folder: _test(folder) is not None,
                  "no test/occluded_body_images/ and test/whole_body_images/; P-DukeMTMC-reID has these, and train/ "
                  "with the same two")
    query, gallery = _test(base) or (base, base)
    rows = _rows(root, query, "query", 0) + _rows(root, gallery, "gallery", 1)
    train = named(base, ["train"])
    if train is not None:
        pair = _pair(train, OCCLUDED)
        if pair is None:
            raise InputError(f"{os.fspath(train)!r}: holds no {OCCLUDED[0]}/ and {WHOLE[0]}/; unpack P-DukeMTMC-reID's "
                             "training part there, or remove the folder")
        rows += [row for number, folder in enumerate(pair)
                 for row in _rows(root, folder, "train", number, prefix=f"{folder.name}/")]

    return as_frame(rows, root)


def _test(folder: Path) -> tuple[Path, Path] | None:
    test = named(folder, ["test"])
    return None if test is None else _pair(test, OCCLUDED)


def _read_pair(root: str | os.PathLike, probes: tuple[str, ...]) -> pd.DataFrame:
    root = Path(root)
    base = locate(root, lambda folder: _pair(folder, probes) is not None,
                  f"no probes ({', '.join(probes)}) beside a gallery ({', '.join(WHOLE)}); the layout is two folders")
    query, gallery = _pair(base, probes) or (base, base)
    return as_frame(_rows(root, query, "query", 0) + _rows(root, gallery, "gallery", 1), root)


def _pair(folder: Path, probes: tuple[str, ...]) -> tuple[Path, Path] | None:
    """The folders of probes and gallery in `folder`, or None."""
    query, gallery = named(folder, probes), named(folder, WHOLE)
    return None if query is None or gallery is None else (query, gallery)


def _rows(root: Path, folder: Path, split: str, camid: int, prefix: str = "") -> list[Row]:
    place = PurePosixPath(folder.relative_to(root))
    return [(f"{split}/{prefix}{path}", str(place / path), _person(folder, path), camid, split)
            for path in images_below(folder)]


def _person(folder: Path, path: PurePosixPath) -> int:
    """001_01.tif -> 1; 12.jpg -> 12, but in a folder of its own, 001/12.jpg -> 1."""
    match = LEADING.match(path.name)
    if match:
        return int(match[1])

    name = path.parent.name if len(path.parts) > 1 else path.stem
    if not ALONE.fullmatch(name):
        raise InputError(f"{os.fspath(folder / path)!r}: the name does not say the person; rename it like 001_01.jpg "
                         "or move it away")

    return int(name)
