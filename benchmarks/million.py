"""Memory and time of a parse of very many images: python -m benchmarks.million [--rows 1000000 --height 32 --width 16]

An index of `--rows` keys over 48 made-up pictures is written, read and parsed by a network that costs next to nothing
(how bright a pixel is decides its label), on one thread, in batches of 16; so what is measured is the engine: hashing,
parsing (decoding, quantising, compressing, one unit file a batch) and packing. Prints, for each of the three, images/s
over its first and its last tenth and this process's resident memory when it began, after a tenth and at its end; then
the whole and what a row of the index costs in memory. Asked: neither grows with the rows. About 200 us a row on a quiet
core, five minutes and 3 GB of disk (`--folder`) for a million rows; 20,000 show the same in seconds.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.base.images import write_image
from pipeline.caches import resumable
from pipeline.datasets.index import read_index, write_index
from pipeline.parsing import engine
from pipeline.parsing.engine import Job, parse_images

PICTURES, BATCH, TENTHS = 48, 16, 10


def resident() -> float:
    """MB of this process in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class Phase:
    """Time and memory at each tenth of `rows` things that are done one after another."""

    def __init__(self, name: str, rows: int):
        self.name, self.rows, self.done = name, rows, 0
        self.marks: list[tuple[float, float, int]] = []

    def watch(self, function: Callable, count: Callable[[Any], int]) -> Callable:
        """`function`, each call of which does count(result) of the rows."""
        def watched(*arguments):
            if not self.marks:
                self.mark()
            result = function(*arguments)
            self.done += count(result)
            if self.done * TENTHS >= len(self.marks) * self.rows:
                self.mark()
            return result
        return watched

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), resident(), self.done))

    def line(self) -> str:
        rates = [(end[2] - start[2]) / (end[0] - start[0])
                 for start, end in (self.marks[:2], self.marks[-2:])]
        memory = [self.marks[place][1] for place in (0, 1, -1)]
        return f"{self.name:>8} " + " ".join(f"{rate:16.0f}" for rate in rates) + \
            " ".join(f"{megabytes:12.1f}" for megabytes in memory)


def write_set(folder: Path, rows: int, height: int, width: int) -> None:
    """folder/raw with PICTURES files, folder/index.csv with `rows` keys that take turns with them."""
    (folder / "raw").mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        blocks = random.integers(0, 256, (4, 2, 3)).astype(np.float32)
        write_image(folder / f"raw/{number:02d}.jpg", cv2.resize(blocks, (width, height)).astype(np.uint8))
    numbers = np.arange(rows)
    write_index(pd.DataFrame({"image": [f"train/{number:08d}.jpg" for number in numbers],
                              "path": [f"{number % PICTURES:02d}.jpg" for number in numbers],
                              "pid": numbers % 1000, "camid": 1, "split": "train"}), folder / "index.csv")


@torch.inference_mode()
def forward(images: Tensor, paths: list[str]) -> dict[str, Tensor]:
    """A parser that takes brightness for body parts."""
    bright = images[:, 1].float() / 255
    parts8 = torch.zeros(len(images), 8, *images.shape[2:])
    parts8[:, 0], parts8[:, 2] = 1 - bright, bright
    return {"native": (images[:, 1] > 127).to(torch.uint8), "parts8": parts8,
            "uv": images[:, 1:].permute(0, 2, 3, 1).float() / 255}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 1_000_000), ("height", 32), ("width", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, help="where to work; a folder of its own is made in it and removed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    hashing, parse, packing = (Phase(name, given.rows) for name in ("hashing", "parsing", "packing"))
    engine.image_sha256 = hashing.watch(engine.image_sha256, lambda sha: 1)
    resumable.load_unit = packing.watch(resumable.load_unit, len)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        write_set(folder, given.rows, given.height, given.width)
        start, before = time.perf_counter(), resident()
        index = read_index(folder / "index.csv")
        job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=folder / "raw", maker="{}",
                  taxonomy="densepose24", uv=True, height=given.height, width=given.width, batch=BATCH, device="cpu")
        failed = parse_images(job, parse.watch(forward, lambda maps: len(maps["native"])), folder / "parts.h5",
                              scratch=folder / "scratch")
        seconds = time.perf_counter() - start
        size = (folder / "parts.h5").stat().st_size
    if failed:
        raise SystemExit(f"{len(failed)} images have no parse, the first {failed[0]}")
    print(f"{given.rows} rows, {given.height} x {given.width}; images/s of a tenth, resident MB\n")
    print(f"{'':8} {'first tenth':>16} {'last tenth':>16}{'begins':>12} {'10 %':>12} {'100 %':>12}")
    for phase in (hashing, parse, packing):
        print(phase.line())
    print(f"\nall: {given.rows / seconds:.0f} images/s, {seconds:.0f} s, parts.h5 {size / given.rows:.0f} bytes a row; "
          f"index, keys, paths and hashes {1e6 * (parse.marks[0][1] - before) / given.rows:.0f} bytes a row")


if __name__ == "__main__":
    main()
