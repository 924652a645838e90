"""Run by test_fuzz and benchmarks/fuzz.py: every reader of outside formats but HDF5 (damaged_h5.py) on damaged files.

`python damaged_files.py FOLDER READERS SEED COUNT` prints "<reader> <right | refused> <change>" for each case, and
before each the case to stderr, so that a crash or a hang in a library names it. Right: the answer fits what else is
known of the file; refused: one sentence that names the file. READERS: names with commas between, or all.
"""

import csv
import faulthandler
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
import yaml
from PIL import Image

from pipeline.base.body_parts import DENSEPOSE24
from pipeline.base.errors import InputError
from pipeline.config.loader import load_params
from pipeline.config.schema import Params
from pipeline.datasets.cuhk import read_cuhk03_labeled
from pipeline.datasets.custom import FILE, read_csv
from pipeline.datasets.index import read_index
from pipeline.parsing.label_map import SHIPPED, read_label_map
from pipeline.parsing.precomputed import Precomputed, read_iuv, read_label_png
from pipeline.parsing.published_sets import read_ccp
from pipeline.retrieval.external_features import read_external
from tests.datasets.test_cuhk import CONFIG, IMAGES, _save_split
from tests.helpers.alarm import within
from tests.parsing.test_densepose_json import detection
from tests.stages.test_score import arrays, save_mat

SECONDS = 20  # for one case; a reader takes milliseconds
ROOT = Path(__file__).resolve().parents[2]
# What stands in a text file in place of one of its words.
WORDS = [b"", b" ", b"nan", b"-1", b"1.5", b"9" * 20, b"-" + b"9" * 20, b"1e400", b"1e-5", b"0x1", b"1_0", b"true",
         b"null", b"~", b"[]", b"{}", b"[[]]", b'"', b"'", b"\\", b"\0", b"\xff\xfe", "é".encode(), "\u2028".encode(),
         b"\xef\xbb\xbf", b"../x", b"/", b"!!int ''", b"!!timestamp x", b"&a [*a]", b"*b", b"<<", b"? ", b"%",
         b"[" * 400, b"query", b"NaN", b"Infinity", b"\r", b"\n", b"\t", b",", b":", b"a: 1"]


# Changes -------------------------------------------------------------------------------------------


def change_bytes(data: bytes, random: np.random.Generator) -> tuple[bytes, str]:
    """A few bytes changed, most often near the beginning where headers are; some zeroed, left out or cut off."""
    result = bytearray(data)
    kind = str(random.choice(["flip", "flip", "set", "set", "zero", "out", "twice", "cut"]))
    reach = len(data) if random.random() < 0.5 else min(len(data), 400)
    place = int(random.integers(reach))
    stretch = result[place:place + int(random.integers(1, 200))]
    if kind == "cut":
        del result[place:]
    elif kind == "zero":
        result[place:place + len(stretch)] = bytes(len(stretch))
    elif kind == "out":
        del result[place:place + len(stretch)]
    elif kind == "twice":
        result[place:place] = stretch
    else:
        for _ in range(int(random.integers(1, 5))):
            place = int(random.integers(reach))
            flipped = result[place] ^ 1 << int(random.integers(8))
            result[place] = flipped if kind == "flip" else int(random.integers(256))
    return bytes(result), f"{kind} {place}"


def change_words(data: bytes, random: np.random.Generator) -> tuple[bytes, str]:
    """One to three words of a text, and what stands between them, made others."""
    parts, told = _words(data), []
    for _ in range(int(random.integers(1, 4))):
        place, word = int(random.integers(len(parts))), WORDS[int(random.integers(len(WORDS)))]
        told.append(f"{parts[place]!r} -> {word[:20]!r}")
        parts[place] = word
    return b"".join(parts), ", ".join(told)


def _words(data: bytes) -> list[bytes]:
    """Words and separators by turns; a long run of base64 is one word."""
    parts, word = [], b""
    for byte in data:
        if bytes([byte]) in b" ,:\n[]{}\"'":
            parts += [word, bytes([byte])]
            word = b""
        else:
            word += bytes([byte])
    return [part for part in [*parts, word] if part]


# Readers: a writer of a right file, and a reader that asserts what is right ------------------------------


def make_index(folder: Path) -> Path:
    (folder / "index.csv").write_text("image,path,pid,camid,split\nquery/a.jpg,a.jpg,1,2,query\n"
                                      "gallery/b.jpg,b.jpg,2,1,gallery\ntrain/é 3.jpg,é 3.jpg,0,5,train\n")
    return folder / "index.csv"


def check_index(path: Path) -> None:
    """Read as plain CSV."""
    frame = read_index(path)
    text = path.read_bytes().decode("utf-8-sig")
    expected = [row for row in csv.DictReader(io.StringIO(text, newline="")) if any(row.values())]
    for column in ("image", "path", "split"):
        assert frame[column].tolist() == [row[column] for row in expected]
    for column in {"pid", "camid", "trial"} & set(frame):
        assert frame[column].tolist() == [int(row[column]) for row in expected]


def make_images_csv(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "é 3.jpg"):
        (folder / name).touch()
    (folder / FILE).write_text("path,pid,camid,split,note\na.jpg,1,2,query,x\nb.jpg,2,1,gallery,y\n"
                               '"é 3.jpg",0,5,train,\nb.jpg,-1,1,train,"nobody, here"\n')
    return folder / FILE


def check_images_csv(path: Path) -> None:
    """The same rows as the csv module's, nobody left out, and every file there."""
    frame = read_csv(path.parent)
    lines = [cells for cells in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")) if cells]
    names = [cell.strip() for cell in lines[0]]
    records = [dict(zip(names, cells, strict=True)) for cells in lines[1:]]
    expected = [(str(Path(row["path"])), int(row["pid"]), int(row["camid"]), row["split"].strip()) for row in records]
    found = zip(frame["path"], frame["pid"], frame["camid"], frame["split"], strict=True)
    assert sorted(found) == sorted(row for row in expected if row[1] >= 0)
    assert all((path.parent / name).is_file() for name in frame["path"])


def make_features(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        if name.endswith("npz"):
            (np.savez_compressed if "small" in name else np.savez)(path, **arrays())
        else:
            save_mat(folder / "whole.mat", arrays())
            scipy.io.savemat(path, scipy.io.loadmat(folder / "whole.mat"), do_compression="small" in name)
        return path
    return make


def check_features(path: Path) -> None:
    found = read_external(path, distance="cosine", reduction="mean")
    for side in (found.query, found.gallery):
        assert side.features.shape == (len(side.pid), sum(found.matching.sizes)) and np.isfinite(side.features).all()
        assert side.pid.dtype == side.camid.dtype == np.int64 and side.camid.shape == side.pid.shape
        assert ((side.visibility >= 0) & (side.visibility <= 1)).all()


def make_cuhk03(folder: Path) -> Path:
    (folder / "images_labeled").mkdir(exist_ok=True)
    for name in IMAGES:
        (folder / "images_labeled" / Path(name).with_suffix(".png").name).touch()
    _save_split(folder / CONFIG.format("labeled"))
    return folder / CONFIG.format("labeled")


def check_cuhk03(path: Path) -> None:
    frame = read_cuhk03_labeled(path.parent)
    assert (frame["image"] == frame["split"] + "/" + frame["path"].str.removeprefix("images_labeled/")).all()
    assert all((path.parent / name).is_file() for name in frame["path"])


def make_ccp(folder: Path) -> Path:
    scipy.io.savemat(folder / "0001.mat", {"groundtruth": np.arange(48, dtype=np.uint8).reshape(8, 6)},
                     do_compression=True)
    return folder / "0001.mat"


def check_ccp(path: Path) -> None:
    found = read_ccp(path)
    assert found.dtype == np.uint8 and found.ndim == 2 and found.size


def _iuv() -> np.ndarray:
    random = np.random.default_rng(0)
    labels = random.integers(0, 25, (6, 4)).repeat(3, 0).repeat(3, 1)
    uv = random.integers(0, 256, (18, 12, 2))
    return np.concatenate([labels[..., None], np.where(labels[..., None] > 0, uv, 0)], -1).astype(np.uint8)


def make_iuv(folder: Path) -> Path:
    cv2.imwrite(str(folder / "0001_IUV.png"), _iuv())
    return folder / "0001_IUV.png"


def check_iuv(path: Path) -> None:
    labels, uv = read_iuv(path, red_first=False)
    assert labels.dtype == uv.dtype == np.uint8 and uv.shape == (*labels.shape, 2) and labels.ndim == 2
    assert labels.max() < len(DENSEPOSE24) and not uv[labels == 0].any()


def make_json(folder: Path) -> Path:
    cv2.imwrite(str(folder / "seven.jpg"), np.zeros((30, 20, 3), np.uint8))
    entries = [detection("seven.jpg", (3.5, 2), _iuv()), detection("seven.jpg", (0, 0), _iuv(), 0.3),
               detection("other.jpg", (1, 1), _iuv())]
    (folder / "results.json").write_text(json.dumps(entries))
    return folder / "results.json"


def check_json(path: Path) -> None:
    forward = Precomputed(path, labels="json", raw=path.parent, paths=["seven.jpg"], height=32, width=16)
    found = forward(torch.zeros(1, 3, 4, 4), ["seven.jpg"])
    assert found["native"].shape == (1, 32, 16) and found["native"].max() < len(DENSEPOSE24)
    assert found["uv"].isfinite().all() and torch.allclose(found["parts8"].sum(1), torch.ones(1, 32, 16), atol=1e-5)


def make_labels(folder: Path) -> Path:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 20, (24, 12)).astype(np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(folder / "0001.png")
    return folder / "0001.png"


def check_labels(path: Path) -> None:
    found = read_label_png(path)
    assert found.dtype == np.uint8 and found.ndim == 2 and found.size


def make_map(folder: Path) -> Path:
    (folder / "map.yaml").write_bytes((SHIPPED / "atr18.yaml").read_bytes())
    return folder / "map.yaml"


def check_map(path: Path) -> None:
    found, told = read_label_map(str(path)), yaml.safe_load(path.read_bytes())
    assert list(found.names) == [pair[0] for pair in told["labels"]] and len(found.targets) == len(found.names)
    assert found.taxonomy == told["taxonomy"] and set(found.void) == set(told.get("void") or ())


def make_params(folder: Path) -> Path:
    (folder / "params.yaml").write_bytes((ROOT / "experiments/ci/params.yaml").read_bytes())
    return folder / "params.yaml"


def check_params(path: Path) -> None:
    found = load_params(path)
    assert isinstance(found, Params) and found.runs and isinstance(found.threads, int)
    assert all(isinstance(run.optimizer.lr, float) and isinstance(run.image_steps, int) for run in found.runs.values())


Reader = tuple[Callable[[Path], Path], Callable[[Path], None], bool]  # the last: it is text
READERS: dict[str, Reader] = {
    "index": (make_index, check_index, True), "images-csv": (make_images_csv, check_images_csv, True),
    "plain-npz": (make_features("plain.npz"), check_features, False),
    "small-npz": (make_features("small.npz"), check_features, False),
    "plain-mat": (make_features("plain.mat"), check_features, False),
    "small-mat": (make_features("small.mat"), check_features, False),
    "cuhk03-mat": (make_cuhk03, check_cuhk03, False), "ccp-mat": (make_ccp, check_ccp, False),
    "iuv-png": (make_iuv, check_iuv, False), "json": (make_json, check_json, True),
    "label-png": (make_labels, check_labels, False), "label-map": (make_map, check_map, True),
    "params": (make_params, check_params, True)}


def main(folder: Path, reader: str, seed: int, count: int) -> None:
    make, check, is_text = READERS[reader]
    right = make(folder)
    whole = right.read_bytes()
    check(right)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        data, told = (change_words if is_text and number % 2 else change_bytes)(whole, random)
        right.write_bytes(data)
        print(reader, seed, number, told, file=sys.stderr, flush=True)
        try:
            with within(SECONDS):
                check(right)
            result = "right"
        except InputError as error:
            assert right.name in str(error) and "\n" not in str(error), str(error)
            result = "refused"
        print(reader, result, told, flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    for name in READERS if sys.argv[2] == "all" else sys.argv[2].split(","):
        (Path(sys.argv[1]) / name).mkdir(exist_ok=True)
        main(Path(sys.argv[1]) / name, name, int(sys.argv[3]), int(sys.argv[4]))
