"""A made-up data set for tests of training and embedding: people of two colours, their labels, caches of both kinds."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.body_parts import PARTS8_TO_PARTS4
from pipeline.base.files import file_sha256
from pipeline.base.hdf5 import text
from pipeline.base.images import write_image
from pipeline.base.seeds import rng
from pipeline.caches.cache import SHA256, compress, write_cache
from pipeline.datasets.index import write_index

HEIGHT, WIDTH = 32, 16
LEVELS = np.array([0, 30, 70, 105, 140, 175, 215, 250], np.uint8)  # grey of each of the 8 parts


def write_fake_set(raw: Path, index: Path, *, ids: int = 6, images: int = 4) -> pd.DataFrame:
    """`images` pictures of each of `ids` people in train and, of as many others, in gallery, one of each in query."""
    rows = []
    for split, first, count in (("train", 0, images), ("query", ids, 1), ("gallery", ids, images)):
        (raw / split).mkdir(parents=True, exist_ok=True)
        for pid in range(first, first + ids):
            for number in range(count):
                path = f"{split}/{pid:04d}_c{number % 3 + 1}s1_{number:06d}_00.png"
                write_image(raw / path, _person(pid, path))
                rows.append((path.replace(".png", ".jpg"), path, pid, number % 3 + 1, split))
    frame = pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"])
    index.parent.mkdir(parents=True, exist_ok=True)
    write_index(frame, index)
    return frame


def _person(pid: int, path: str) -> np.ndarray:
    colours = rng(pid, "colours").integers(0, 256, (2, 3)).repeat(HEIGHT // 2, 0)[:, None]
    noise = rng(0, path).integers(-30, 31, (HEIGHT, WIDTH, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def write_fake_caches(folder: Path, raw: Path, frame: pd.DataFrame, *, warps_maker: str = '{"parser": "fake"}'
                      ) -> None:
    """parts.h5 and dsap.h5 for the pictures; labels are random blocks, one set a picture, and certain."""
    keys = frame["image"].tolist()
    parts = ({"key": key, "image_sha256": file_sha256(raw / path), "labels": compress(fake_labels(key)),
              "entropy": compress(fake_entropy(key)),
              "probs/parts8": compress(np.ascontiguousarray(fake_probabilities(key, np.arange(8)))),
              "probs/parts4": compress(np.ascontiguousarray(fake_probabilities(key, PARTS8_TO_PARTS4)))}
             for key, path in zip(keys, frame["path"], strict=True))
    cells = (HEIGHT // 4, WIDTH // 4)
    warps = ({"key": key, "dsap": compress(dsap), "valid": compress(valid)}
             for key in keys for dsap, valid in [fake_dsap(key)])
    arrays = {"labels": (HEIGHT, WIDTH), "entropy": cells, "probs/parts8": (8, *cells), "probs/parts4": (5, *cells)}
    write_cache(folder / "parts.h5", count=len(keys), arrays=arrays, rows=parts,
                columns={"key": (text(keys), ()), "image_sha256": (SHA256, ())}, maker='{"parser": "fake"}')
    write_cache(folder / "dsap.h5", count=len(keys), arrays={"dsap": (24, 32, 32, 3), "valid": (24, 32, 32)},
                rows=warps, columns={"key": (text(keys), ())}, maker=warps_maker)


def fake_labels(key: str) -> np.ndarray:
    blocks = rng(0, "labels", key).integers(0, 8, (HEIGHT // 4, WIDTH // 4))
    return blocks.repeat(4, 0).repeat(4, 1).astype(np.uint8)


def fake_probabilities(key: str, groups: np.ndarray) -> np.ndarray:
    """(G, H/4, W/4) uint8, p x 255: all of it in the label's group."""
    return (np.eye(groups.max() + 1, dtype=np.uint8)[groups[fake_labels(key)[::4, ::4]]] * 255).transpose(2, 0, 1)


def fake_entropy(key: str) -> np.ndarray:
    return fake_labels(key)[::4, ::4] * 30


def fake_dsap(key: str) -> tuple[np.ndarray, np.ndarray]:
    generator = rng(0, "dsap", key)
    valid = generator.integers(0, 2, (24, 32, 32)).astype(np.uint8)
    return generator.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8) * valid[..., None], valid
