"""CUHK03 in its new protocol, from MATLAB files or images, and CUHK01 in seeded splits."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder
from pipeline.base.hdf5 import HeldError, open_h5
from pipeline.base.images import write_image
from pipeline.base.matlab import read_mat
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.datasets.market_like import MARKET_FOLDERS, market_folders, read_market
from pipeline.datasets.scan import PART, Row, as_frame, images_below, locate, named, subfolders

RELEASE = "cuhk-03.mat"
CUHK03_NAME = re.compile(r"([1-5])_(\d{3})_([12])_(\d{2})\.png", re.ASCII)
CUHK03_SPLITS = {"train_idx": "train", "query_idx": "query", "gallery_idx": "gallery"}
CUHK01_NAME = re.compile(r"(\d{4})(\d{3})", re.ASCII)


def read_cuhk03_labeled(root: str | os.PathLike) -> pd.DataFrame:
    """CUHK03, boxes drawn by hand, new protocol: 767 people to train, 700 to test, from one of

    - cuhk03_new_protocol_config_labeled.mat beside images_labeled/ (or cuhk03_labeled/, labeled/) with files like
      1_001_1_01.png: camera pair, person in it, camera, image;
    - the same split file and the release, cuhk03_release/cuhk-03.mat (or cuhk-03.mat), whose images are then written
      to images_labeled/ under `root`, once;
    - CUHK03-NP: labeled/ with Market-1501's three folders.

    Person and camera are the split file's `labels` and `camId`.

    Source: Li et al., DeepReID, CVPR 2014; the protocol is Zhong et al., Re-ranking Person Re-identification with
    k-reciprocal Encoding, CVPR 2017 (github.com/zhunzhong07/person-re-ranking). Given out for academic research.
    InputError: none of the three is there, a file is damaged, or an image that the split names is missing.
    """
    return _read_cuhk03(Path(root), "labeled")


def read_cuhk03_detected(root: str | os.PathLike) -> pd.DataFrame:
    """CUHK03, boxes of a detector; source, terms and files as `read_cuhk03_labeled`, `detected` for `labeled`."""
    return _read_cuhk03(Path(root), "detected")


def _read_cuhk03(root: Path, boxes: str) -> pd.DataFrame:
    config = f"cuhk03_new_protocol_config_{boxes}.mat"
    base = locate(root, lambda folder: (folder / config).is_file() or _market(folder, boxes) is not None,
                  f"neither {config} (beside images_{boxes}/ or {RELEASE}) nor {boxes}/ with "
                  f"{', '.join(MARKET_FOLDERS)}; CUHK03's new protocol needs one of them")
    market, folder, release = _market(base, boxes), _image_folder(base, boxes), _release(base)
    if market is not None and not ((base / config).is_file() and (folder or release)):
        place = market.relative_to(root).as_posix()
        frame = read_market(market)
        return frame.assign(path=[f"{place}/{path}" for path in frame["path"]])
    if folder is None and release is None:
        raise InputError(f"{os.fspath(base)!r}: holds neither images_{boxes}/ (cuhk03_{boxes}/, {boxes}/) nor "
                         f"{RELEASE} (cuhk03_release/{RELEASE}); put CUHK03's images or its release there")

    split = _read_split(base / config)
    if folder is None and release is not None:
        folder = _extract(release, base / f"images_{boxes}", boxes, split["image"].tolist())

    return _cuhk03_rows(root, folder or base, split, base / config)


def _market(folder: Path, boxes: str) -> Path | None:
    """CUHK03-NP's folder for these boxes, or None."""
    place = named(folder, [boxes])
    return place if place is not None and market_folders(place) else None


def _release(base: Path) -> Path | None:
    return next((folder / RELEASE for folder in [base, *subfolders(base)] if (folder / RELEASE).is_file()), None)


def _image_folder(base: Path, boxes: str) -> Path | None:
    places = [named(base, [name]) for name in (f"images_{boxes}", f"cuhk03_{boxes}", boxes)]
    return next((place for place in places if place is not None and _market(base, boxes) != place), None)


def _read_split(path: Path) -> pd.DataFrame:
    """The protocol's file -> image, pid, camid, split, one line per image that the protocol uses, in its order."""
    try:
        mat: dict[str, Any] = read_mat(path)
        # A cell array of strings; one saved from Python may be a padded character array.
        images = [str(np.asarray(cell).item()).strip() for cell in mat["filelist"].ravel()]
        pids, camids = (_whole(mat[name]) for name in ("labels", "camId"))
        chosen = {split: _whole(mat[name]) - 1 for name, split in CUHK03_SPLITS.items()}
    except Exception as error:  # a damaged file makes loadmat raise almost anything
        raise InputError(f"{os.fspath(path)!r}: is no split file of CUHK03's new protocol "
                         f"({type(error).__name__}: {error}); download it again") from error

    rows = np.concatenate(list(chosen.values()))
    known = len(rows) == 0 or 0 <= rows.min() <= rows.max() < len(images)
    if not (known and len(images) == len(pids) == len(camids)):
        raise InputError(f"{os.fspath(path)!r}: lists {len(images)} images, {len(pids)} people, {len(camids)} cameras, "
                         f"and uses {len(rows)} images that do not all stand among them; download it again")

    wrong = next((image for image in images if not CUHK03_NAME.fullmatch(image)), None)
    if wrong is not None:
        raise InputError(f"{os.fspath(path)!r}: names an image {wrong!r}, where names are like 1_001_1_01.png; "
                         "download it again")

    splits = np.repeat(list(chosen), [len(part) for part in chosen.values()])
    return pd.DataFrame({"image": np.array(images, dtype=object)[rows], "pid": pids[rows], "camid": camids[rows],
                         "split": splits})


def _whole(values: np.ndarray) -> np.ndarray:
    """MATLAB numbers -> (N,) int64. ValueError if one is not whole."""
    whole = values.ravel().astype(np.int64)
    if (whole != values.ravel()).any():
        raise ValueError("a number is not whole")
    return whole


def _cuhk03_rows(root: Path, folder: Path, split: pd.DataFrame, config: Path) -> pd.DataFrame:
    names = {path.stem: path for path in images_below(folder)}
    missing = [name for name in split["image"] if Path(name).stem not in names]
    if missing:
        raise InputError(f"{os.fspath(folder)!r}: lacks {len(missing)} of the {len(split)} images that "
                         f"{config.name!r} names, {missing[0]!r} first; complete the folder, or remove it and prepare "
                         f"again from {RELEASE}; {PART}")

    place = folder.relative_to(root).as_posix()
    files = [names[Path(name).stem] for name in split["image"]]
    rows = zip([f"{part}/{file}" for part, file in zip(split["split"], files, strict=True)],
               [f"{place}/{file}" for file in files], split["pid"], split["camid"], split["split"], strict=True)
    return as_frame(rows, root)


def _extract(release: Path, folder: Path, boxes: str, images: list[str]) -> Path:
    """Write the images of cuhk-03.mat to `folder` as PNG and return it.

    They appear under that name only when all are there: a killed run starts over.
    """
    with new_folder(folder) as work:
        for name, rgb in progress(_images(release, boxes, images), f"write {folder.name}", total=len(images),
                                  unit="images"):
            write_image(work / name, rgb)
    return folder


def _images(release: Path, boxes: str, images: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels (H, W, 3) uint8 of each image, from boxes{pair}{person, image} of the MATLAB 7.3 file."""
    try:
        file = open_h5(release)
    except HeldError:
        raise
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{os.fspath(release)!r}: is no MATLAB 7.3 file, or is damaged ({error}); download CUHK03's "
                         "release again") from error

    with file:
        for name in images:
            pair, person, _, number = (int(part) for part in Path(name).stem.split("_"))
            place = f"{os.fspath(release)!r}: {boxes}{{{pair}}}{{{person},{number}}}"
            yield name, _image(file, boxes, pair, person, number, place)


def _image(file: h5py.File, boxes: str, pair: int, person: int, number: int, place: str) -> np.ndarray:
    """One image. HDF5 holds MATLAB's arrays transposed: cells as (image, person), an image as (3, W, H)."""
    try:
        cells = file[file[boxes][0, pair - 1]]
        image = file[cells[number - 1, person - 1]][:].T
    except Exception as error:
        raise InputError(f"{place} cannot be read ({error}); download CUHK03's release again") from error

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"{place} is no image ({image.dtype} {image.shape}), and the split file names it; "
                         "download both again, for the same boxes")

    return image


def read_cuhk01(root: str | os.PathLike, *, trial: int, test_people: int = 486, shots: int = 1) -> pd.DataFrame:
    """CUHK01, one of the seeded splits: campus/0001001.png .. 0971004.png, person then image; images 1 and 2 are camera
    1, images 3 and 4 camera 2.

    trial: which split, 0 .. 9; test_people: 486 (485 to train) or 100 (871); queries are the test people's images of
    camera 1; gallery: one of each one's images of camera 2, drawn at random (shots 1), or both (shots 2). The `trial`
    column says which split it is; the protocol's figure is the mean over the ten, each with a model of its own.

    Source: Li et al., Human Reidentification with Transferred Metric Learning, ACCV 2012; given out for academic
    research. The splits are drawn here: the papers' own were not published.
    """
    root = Path(root)
    folder = locate(root, lambda place: place.name.lower() == "campus" or named(place, ["campus"]) is not None,
                    "no campus/ with files like 0001001.png; unpack CUHK01 there")
    folder = named(folder, ["campus"]) or folder
    people = _cuhk01_people(folder)
    if len(people) <= test_people:
        raise InputError(f"{os.fspath(folder)!r}: holds {len(people)} people, and {test_people} of them are to be "
                         f"tested on; unpack all of CUHK01 (971 people); {PART}")

    order = rng(0, "cuhk01", test_people, trial, "people").permutation(sorted(people))
    tested = set(order[:test_people].tolist())
    place = folder.relative_to(root).as_posix()

    rows: list[Row] = []
    draws = rng(0, "cuhk01", test_people, trial, "gallery")
    for pid, images in sorted(people.items()):
        drawn = set(draws.permutation(images[2])[:shots].tolist())
        for camid in (1, 2):
            for name in images[camid]:
                split = "train" if pid not in tested else "query" if camid == 1 else "gallery"
                if split != "gallery" or name in drawn:
                    rows.append((f"{split}/{name}", name if place == "." else f"{place}/{name}", pid, camid, split))

    return as_frame(rows, root).assign(trial=trial)


def _cuhk01_people(folder: Path) -> dict[int, dict[int, list[str]]]:
    """Person -> camera -> files, relative to the folder."""
    people: dict[int, dict[int, list[str]]] = {}
    for path in images_below(folder):
        match = CUHK01_NAME.fullmatch(path.stem)
        if not match or not 1 <= int(match[2]) <= 4:
            raise InputError(f"{os.fspath(folder / path)!r}: the name is not person (4 digits) and image (001 to 004), "
                             "like 0001001.png; move it away")
        people.setdefault(int(match[1]), {1: [], 2: []})[1 if int(match[2]) <= 2 else 2].append(str(path))

    return people
