"""DSAP warps a second on one core: python benchmarks/warping.py [RENDERED_SET]

`warp`: from u,v and picture in memory. `cached`: u,v read from parts.h5, the picture in memory. `stage`: pictures
decoded from disk, checked, warped, compressed and packed into dsap.h5 (with every core). `loop`: the paper's, pixel by
pixel. RENDERED_SET is a folder with labels.h5; without it figures of random blocks are made. Target: 2,000 a second of
`cached`. Takes ten seconds.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch

from pipeline.base.images import read_image, write_image
from pipeline.caches.cache import Cache
from pipeline.caches.warp import warp, warp_images
from pipeline.parsing.engine import Job, parse_images
from pipeline.parsing.oracle import Oracle


def made_up(folder: Path, count: int = 500) -> None:
    """A person's share of a crop (45 %), smooth u,v, 128x64."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    with h5py.File(folder / "labels.h5", "w") as file:
        index = np.zeros((count, 128, 64), np.uint8)
        index[:, 8:120, 16:48] = random.integers(1, 25, (count, 14, 4)).repeat(8, 1).repeat(8, 2)
        smooth = np.stack(np.meshgrid(ramp, ramp.repeat(2)), -1)
        uv = np.broadcast_to(smooth, (count, 128, 64, 2)) * (index > 0)[..., None]
        file["path"], file["index"], file["uv"] = [f"{number:05d}.jpg" for number in range(count)], index, uv
    for number in range(count):
        blocks = random.integers(0, 256, (16, 8, 3)).astype(np.float32)
        write_image(folder / f"{number:05d}.jpg", cv2.resize(blocks, (64, 128)).astype(np.uint8))


def rate(work: Callable[[int], object], count: int) -> float:
    """Calls a second of this thread's processor time: others on the machine do not count."""
    start = time.thread_time()
    for number in range(count):
        work(number)
    return count / (time.thread_time() - start)


def loop(image: np.ndarray, index: np.ndarray, uv: np.ndarray, texels: int) -> np.ndarray:
    dsap = np.zeros((24, texels, texels, 3), np.uint8)
    for row, column in zip(*np.nonzero(index), strict=True):
        u, v = (min(math.floor(byte / 255 * texels), texels - 1) for byte in uv[row, column])
        dsap[index[row, column] - 1, u, v] = image[row, column]
    return dsap


def measure(raw: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    with h5py.File(raw / "labels.h5", "r", locking=False) as file:
        paths = file["path"].asstr()[:500].tolist()
        height, width = file["index"].shape[1:]
    job = Job(keys=paths, paths=paths, raw=raw, maker='{"parser": "oracle"}', taxonomy="densepose24", uv=True,
              height=height, width=width, batch=16, device="cpu")
    parse_images(job, Oracle(raw / "labels.h5", height=height, width=width), folder / "parts.h5",
                 scratch=folder / "scratch")
    cache = Cache(folder / "parts.h5")
    images = [read_image(raw / path) for path in paths]
    maps = [(cache.read("native", row), cache.read("uv", row)) for row in range(len(paths))]
    print(f"{len(paths)} images of {height}x{width}, {100 * np.mean([index > 0 for index, _ in maps]):.0f} % body")
    rates = {"warp": rate(lambda row: warp(images[row], *maps[row], texels=32), len(paths)),
              "cached": rate(lambda row: warp(images[row], cache.read("native", row), cache.read("uv", row), texels=32),
                            len(paths)),
             "loop": rate(lambda row: loop(images[row], *maps[row], 32), 20)}
    start = time.perf_counter()
    warp_images(cache, paths, paths, raw, folder / "dsap.h5", maker="{}", height=height, width=width, texels=32,
                scratch=folder / "units")
    rates["stage"] = len(paths) / (time.perf_counter() - start)
    print("  ".join(f"{name} {value:.0f} images/s" for name, value in rates.items()),
          f" dsap.h5 {(folder / 'dsap.h5').stat().st_size / len(paths) / 1000:.1f} kB an image")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("raw", type=Path, nargs="?", help="a rendered set's folder, with labels.h5")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if given.raw is None:
            made_up(Path(temporary))
        measure(given.raw or Path(temporary), Path(temporary))
