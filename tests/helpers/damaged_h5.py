"""Run by test_fuzz: every reader of HDF5 files on files with changed bytes and with changed contents.

`python damaged_h5.py FOLDER READERS SEED COUNT` prints "<reader> <right | other | refused> <change>" for each case, and
before each the case to stderr, so that a crash of the HDF5 library names it. A process of its own, because no Python
code can catch that, nor a loop in C. READERS: names with commas between, or all.
"""

import faulthandler
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from pipeline.base.errors import InputError
from pipeline.caches.cache import Cache
from pipeline.datasets.cuhk import read_cuhk03_labeled
from pipeline.datasets.joints import read_joints
from pipeline.datasets.layouts import add_occlusion
from pipeline.inspection.soundness import inspect_cache
from pipeline.parsing.engine import parse_images
from pipeline.parsing.oracle import Oracle
from pipeline.parsing.rendered_set import ParsingSet
from pipeline.retrieval.features import read_features
from tests.caches.test_cache import KEYS
from tests.caches.test_cache import write as write_parts
from tests.datasets.test_cuhk import CONFIG, _save_release, _save_split
from tests.helpers.alarm import within
from tests.helpers.features_file import write_features
from tests.helpers.parsed_set import make_job, soft_forward
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

SECONDS = 20  # for one case; a reader takes milliseconds
ROWS = 6
MAKER = json.dumps({"parser": "fake", "taxonomy": "densepose24", "height": HEIGHT, "width": WIDTH})
PATHS = [f"query/{row:04d}_c1s1_{row:06d}_00.jpg" for row in range(ROWS)]


def labels(folder: Path) -> Path:
    """A rendered set with everything that a labels.h5 has."""
    write_set(folder, ROWS)
    random = np.random.default_rng(1)
    with h5py.File(folder / "raw/labels.h5", "r+") as file:
        file["joints"] = random.random((ROWS, 18, 3)).astype(np.float32)
        file["occlusion"] = random.random(ROWS).astype(np.float32)
        file["lip"] = random.integers(0, 20, (ROWS, HEIGHT, WIDTH)).astype(np.uint8)
    return folder / "raw/labels.h5"


def read_cache(path: Path) -> object:
    cache = Cache(path)
    rows = [[cache.read(name, int(row)) for name in ("labels", "probs/parts8", "visibility")]
            for row in cache.rows(KEYS[:ROWS])]
    assert isinstance(cache.maker, dict)  # read, but not compared: its text alone has no checksum
    return [cache.column("image_sha256").tolist(), rows]


def parts(folder: Path) -> Path:
    return write_parts(folder / "parts.h5", ROWS)


def parsed(folder: Path) -> Path:
    """A parts.h5 that inspection finds sound."""
    write_set(folder, ROWS)
    parse_images(make_job(folder, maker=MAKER), soft_forward, folder / "parts.h5", scratch=folder / "scratch")
    return folder / "parts.h5"


def read_split(path: Path) -> object:
    shutil.rmtree(path.parent / "images_labeled", ignore_errors=True)
    return read_cuhk03_labeled(path.parent).to_dict()


def release(folder: Path) -> Path:
    _save_split(folder / CONFIG.format("labeled"))
    _save_release(folder / "cuhk-03.mat")
    return folder / "cuhk-03.mat"


def features(folder: Path) -> Path:
    return write_features(folder / "features.h5", occlusion=np.full(24, 0.5, np.float32), trial=np.repeat([0, 1], 12))


def read_oracle(path: Path) -> object:
    oracle = Oracle(path, height=HEIGHT, width=WIDTH)
    found = oracle(torch.zeros(ROWS), PATHS)
    return {name: maps.numpy() for name, maps in found.items()}


def read_parsing(path: Path) -> object:
    pictures = ParsingSet(path.parent, "query", taxonomy="lip20", uv=True, height=HEIGHT, width=WIDTH)
    return [pictures.hidden, *(pictures.sample(place) for place in range(len(pictures)))]


def read_occlusion(path: Path) -> object:
    return add_occlusion(pd.DataFrame({"path": PATHS}), path.parent).to_dict()


def inspected(path: Path) -> object:
    return [check.wrong for check in inspect_cache(path).checks]


def extended(path: Path) -> object:
    """What a parse makes of an old cache: rows that are damaged are parsed anew."""
    folder = path.parent
    parse_images(make_job(folder, maker=MAKER), soft_forward, path, scratch=folder / "scratch")
    cache = Cache(path)
    names = ("native", "labels", "uv", "probs/parts8", "probs/parts4", "entropy", "visibility")
    return [cache.maker, *(cache.column(name).tolist() for name in ("key", "status", "image_sha256")),
            *([cache.read(name, row) for row in range(len(cache))] for name in names)]


# name -> a writer of a right file and a reader of it
READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "cache": (parts, read_cache), "inspect": (parsed, inspected), "append": (parsed, extended),
    "features": (features, lambda path: repr(read_features(path))),
    "cuhk03": (release, read_split), "oracle": (labels, read_oracle), "parsing": (labels, read_parsing),
    "joints": (labels, lambda path: read_joints(path).of(PATHS)),
    "audit": (labels, lambda path: read_joints(path).shares({name: name for name in PATHS})),
    "occlusion": (labels, read_occlusion)}


def change_bytes(path: Path, random: np.random.Generator) -> str:
    """A few bytes changed, a stretch zeroed, or the end cut off."""
    data = bytearray(path.read_bytes())
    kind = random.choice(["flip", "flip", "set", "zero", "cut"])
    place = int(random.integers(len(data)))
    if kind == "cut":
        del data[place:]
    elif kind == "zero":
        stretch = len(data[place:place + int(random.integers(1, 600))])
        data[place:place + stretch] = bytes(stretch)
    else:
        for _ in range(int(random.integers(1, 5))):
            place = int(random.integers(len(data)))
            data[place] = data[place] ^ 1 << int(random.integers(8)) if kind == "flip" else int(random.integers(256))
    path.write_bytes(data)
    return f"{kind} {place}"


def change_content(path: Path, random: np.random.Generator) -> str:
    """One object replaced by another kind, type or shape, or one attribute."""
    values = [None, "group", "dangling", 3, "text", np.zeros(0), np.zeros((0, 3), np.uint8), np.full(ROWS, np.nan),
              np.full((ROWS, 2), -1), np.full((ROWS, HEIGHT, WIDTH), 99, np.uint8), np.array([b"\xff\xfe"] * ROWS),
              np.array([b"same"] * ROWS), np.full(ROWS, 2**63, np.uint64), np.zeros((1, 1, 1, 1)), np.ones(24)]
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name, value = str(random.choice([*names, "@maker"])), values[int(random.integers(len(values)))]
        if name == "@maker":
            told = [None, b"\xff", "[]", "{}", "3", "{", 3.5, '{"height": 1e999, "width": 8, "taxonomy": "lip20"}',
                    '{"height": 8, "width": -8, "taxonomy": []}'][int(random.integers(9))]
            file.attrs.pop("maker", None)
            if told is not None:
                file.attrs["maker"] = told
            return f"maker {told!r}"
        shape = file[name].shape
        del file[name]
        if isinstance(value, str) and value in ("group", "dangling"):
            file[name] = h5py.SoftLink("/nowhere")
            if value == "group":
                del file[name]
                file.create_group(name)
        elif value is not None:
            file[name] = value
    return f"{name} {shape} -> {value!r}".replace("\n", " ")[:120]


def same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other)  # type: ignore[arg-type]


def main(folder: Path, reader: str, seed: int, count: int) -> None:
    make, read = READERS[reader]
    right = make(folder)
    whole, expected = right.read_bytes(), read(right)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        right.unlink()
        right.with_name(f".{right.name}.tmp").unlink(missing_ok=True)
        right.write_bytes(whole)
        changed = (change_content if number % 2 else change_bytes)(right, random)
        print(reader, number, changed, file=sys.stderr, flush=True)
        try:
            with within(SECONDS), redirect_stdout(sys.stderr):
                result = "right" if same(read(right), expected) else "other"
        except InputError as error:
            assert str(folder) in str(error) and "\n" not in str(error), str(error)
            result = "refused"
        print(reader, result, changed)


if __name__ == "__main__":
    faulthandler.enable()
    for name in READERS if sys.argv[2] == "all" else sys.argv[2].split(","):
        (Path(sys.argv[1]) / name).mkdir()
        main(Path(sys.argv[1]) / name, name, int(sys.argv[3]), int(sys.argv[4]))
