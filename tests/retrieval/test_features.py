"""features.h5: its checksum against one made by hand, flipped bits, files of before."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.retrieval.features import read_features, write_features
from tests.helpers.features_file import MAKER

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, *, count: int = 24, width: int = 16, dtype: str = "float32") -> Path:
    draw = np.random.default_rng(0)
    pid = np.repeat(np.arange(count // 4), 4)
    split = np.tile(["query", "gallery", "gallery", "gallery"], count // 4)
    centres = draw.normal(size=(count // 4, width))
    frame = pd.DataFrame({"image": [f"{part}/{who:04d}_ü{row}.jpg" for row, (part, who) in enumerate(
        zip(split, pid, strict=True))], "pid": pid, "camid": np.tile([1, 1, 2, 2], count // 4), "split": split,
        "occlusion": draw.random(count)})
    write_features(path, frame=frame, features=centres[pid] + 0.9 * draw.normal(size=(count, width)),
                   visibility=draw.random((count, 2)).round(1), sizes=(width // 2, width // 2), provenance=MAKER,
                   dtype=dtype)
    return path


def test_the_checksum_is_that_of_the_content(tmp_path):
    path = write(tmp_path / "f.h5", dtype="float16")
    with h5py.File(path) as file:
        told, made = file.attrs["sha256"].decode(), file.attrs["maker"].decode()
        text = json.dumps([3, made])
        assert json.loads(made) == MAKER and file.attrs["format"] == 3
        parts = [text.encode()]
        for name in ("camid", "features", "key", "occlusion", "pid", "sizes", "split", "visibility"):
            values = file[name][:]
            if name in ("key", "split"):
                parts += [json.dumps([name, "text", [24], [len(value) for value in values]]).encode(), *values]
            else:
                kind = {"features": "<f2", "occlusion": "<f4", "visibility": "<f4"}.get(name, "<i8")
                parts += [json.dumps([name, kind, list(values.shape)]).encode(), values.astype(kind).tobytes()]
    assert told == hashlib.sha256(b"".join(parts)).hexdigest()


def test_every_column_and_attribute_has_it(tmp_path):
    """One value changed by another program, which leaves the HDF5 file sound."""
    for name in ("camid", "features", "key", "occlusion", "pid", "sizes", "split", "visibility", "maker", "sha256"):
        path = write(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            if name == "maker":
                file.attrs[name] = np.bytes_(json.dumps(MAKER | {"seed": 4}, sort_keys=True))
            elif name == "sha256":
                file.attrs[name] = np.bytes_("0" * 64)
            elif name == "sizes":
                file[name][:] = 7, 9
            else:
                texts = {"key": b"gallery/other.jpg", "split": b"query"}
                file[name][1] = texts[name] if name in texts else file[name][1] + 1
        with pytest.raises(InputError, match=f"{name}.h5': is damaged, its content does not have the checksum"):
            read_features(path)

    path = write(tmp_path / "column.h5")
    with h5py.File(path, "r+") as file:
        del file["occlusion"]
    with pytest.raises(InputError, match="is damaged"):
        read_features(path)


def test_a_flipped_bit_changes_no_metric(tmp_path):
    path = write(tmp_path / "f.h5")
    done = subprocess.run([sys.executable, "-m", "tests.helpers.flipped_bits", str(path), "200"], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = Counter(line.split()[0] for line in done.stdout.splitlines())
    assert found["other"] == 0, done.stdout
    assert found["refused"] > 20 and found.total() == 200, found


def test_a_file_of_before_is_refused_with_the_way_to_a_new_one(tmp_path):
    path = write(tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["format"], file.attrs["sha256"]
    with pytest.raises(InputError, match=r"old.h5': has format 1, and this version reads format 3.*`dvc repro`"):
        read_features(path)


def test_no_text_has_any_length(tmp_path):
    """A damaged one may end the process inside the HDF5 library: neither written nor read."""
    with h5py.File(write(tmp_path / "f.h5")) as file:
        assert Path(file.filename).read_bytes().count(b"OHDR") == 1 + len(file)  # headers that end in a checksum
        found = {name: file[name].dtype.kind for name in file}
        found |= {name: file.attrs.get_id(name).dtype.kind for name in file.attrs}
    assert "O" not in found.values() and found["key"] == found["maker"] == "S"

    for name in ("key", "split", "maker", "sha256", "format"):
        path = write(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            if name in file:
                texts = file[name][:].tolist()
                del file[name]
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype("utf-8"))
            else:
                file.attrs[name] = "3" if name == "format" else file.attrs[name].decode()
        expected = {"format": "has format 1", "key": "'key' holds object", "split": "'split' holds object"}
        with pytest.raises(InputError, match=f"{name}.h5': .*{expected.get(name, 'no texts of fixed length')}"):
            read_features(path)


def test_the_same_values_give_the_same_bytes_and_marks_come_from_keys(tmp_path):
    one, two = write(tmp_path / "a.h5"), write(tmp_path / "b.h5")
    assert one.read_bytes() == two.read_bytes()
    found = read_features(one)
    expected = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
                for key in found.gallery_key]
    assert found.gallery.mark.tolist() == expected and found.gallery_key[0] == "gallery/0000_ü1.jpg"
