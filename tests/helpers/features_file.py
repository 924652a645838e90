"""A small features file, as `embed` leaves it."""

import json
from pathlib import Path

import h5py
import numpy as np

from pipeline.retrieval.features import checksum

MAKER = {"run": "toy-net", "result": "toy-net", "dataset": "toy", "model": "net", "distance": "cosine",
         "reduction": "mean", "seed": 3,
         "image_steps": 640, "init": "none", "train_on": "toy", "protocol": "market", "versions": {"torch": "2"},
         "caches": {}, "weights_sha256": "0", "index_sha256": "0"}


def write_features(path: Path, **changes) -> Path:
    """A small features file: six people in two cameras, noisy around a centre each; `changes` replaces columns."""
    draw = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 7), 4)
    split = np.tile(["query", "gallery", "gallery", "gallery"], 6)
    columns = {"pid": pid, "camid": np.tile([1, 1, 2, 2], 6), "sizes": np.array([8, 8]),
               "key": [f"{s}/{p:04d}_{n}.jpg".encode() for n, (p, s) in enumerate(zip(pid, split, strict=True))],
               "split": [name.encode() for name in split], "visibility": np.ones((24, 2), np.float32),
               "features": (np.repeat(draw.standard_normal((6, 16)), 4, axis=0)
                            + 0.9 * draw.standard_normal((24, 16))).astype(np.float32)} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        made = json.dumps(columns.pop("maker", MAKER))
        file.attrs["maker"] = np.bytes_(made)
        for name, values in columns.items():
            file[name] = np.asarray(values)  # texts of fixed length
        file.attrs["format"] = 3
        file.attrs["sha256"] = np.bytes_(checksum({name: file[name][:] for name in columns}, made))
    return path
