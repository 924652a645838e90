"""A made-up rendered set for tests of the caches: pictures, labels.h5 and an index, small and seeded."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from pipeline.base.images import write_image
from pipeline.datasets.index import write_index

HEIGHT, WIDTH = 32, 16


def write_set(root: Path, count: int, *, nobody: int = 2) -> pd.DataFrame:
    """`count` pictures under root/raw with random blocks for parts, root/index.csv; picture `nobody` has no person."""
    random = np.random.default_rng(0)
    names = [f"query/{number:04d}_c1s1_{number:06d}_00.jpg" for number in range(count)]
    native = random.integers(0, 25, (count, HEIGHT // 4, WIDTH // 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    native[nobody] = 0
    uv = random.integers(0, 256, (count, HEIGHT, WIDTH, 2)).astype(np.uint8) * (native > 0)[..., None]
    (root / "raw/query").mkdir(parents=True)
    for name in names:
        write_image(root / "raw" / name, random.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    with h5py.File(root / "raw/labels.h5", "w") as file:
        file["path"], file["index"], file["uv"] = names, native, uv
    index = pd.DataFrame({"image": [f"query/{Path(name).name}" for name in names], "path": names,
                          "pid": np.arange(count), "camid": 1, "split": "query"})
    write_index(index, root / "index.csv")
    return index
