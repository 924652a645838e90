"""Reading for training: the loader against bare JPEG decoding and against masks in single files, and codecs. Markdown.

    python -m benchmarks.loading [--set synth-holistic --raw FOLDER --size 128x64 --images 8000 --workers 1]

Reads the set's pictures, data/index/SET.csv and data/cache/SET, which `dvc repro` or `dvc pull` brings. "decode" reads
and decodes the files and delivers them as they are, bytes. The others are the training loader
(pipeline/loading/dataset.py): flip, pad 10 and erase, resized to `--size`, with what each network reads beside the
image: from the caches, or from one .npy or PNG file for each image and array. Everything goes through the same
DataLoader in batches of 64, and what the training process does to a batch (bytes become numbers) is in the time; the
clock starts with the first batch, so that starting a process is not in it. The training process has one thread, so that
its threads do not keep the loading processes waiting; with more processes than cores the figures say little. Beside it
stands the processor time of one image of a batch, to load and to finish, in this process alone, which other work on the
machine changes little. Last, of each array of the caches: bytes on disk and processor time to write and read a row with
the codecs h5py has built in, one row a chunk (shuffle moves a number's bytes, and here a number is one byte), and to
read gzip 4 as the loader does, by libdeflate. Asked: loader / decode >= 0.7 a worker; labels, probs and entropy
together at most a fifth of their size. The defaults take about five minutes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import deflate
import h5py
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.base.hdf5 import LIBVER
from pipeline.base.images import decode_image, read_bytes
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.loading.augmentation import Chance
from pipeline.loading.collate import as_it_is
from pipeline.loading.dataset import MAPS as NAMES
from pipeline.loading.dataset import Images, training_rows
from pipeline.loading.device_batch import finished

CHANCE = Chance(seed=0, flip=0.5, pad=10, erase=0.5, fill="imagenet")
BATCH = 64
BATCHES = 8  # whose processor time is taken
# What networks read: the cache, the arrays of a batch and what these are in the file.
KINDS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "picture alone": (None, ()), "labels": ("parts.h5", ("labels",)), "probs4": ("parts.h5", ("probs4",)),
    "probs8, entropy": ("parts.h5", ("probs8", "entropy")), "dsap, valid": ("dsap.h5", ("dsap",))}
CODECS: dict[str, dict] = {
    "none": {}, "lzf": {"compression": "lzf"}, "gzip 1": {"compression": "gzip", "compression_opts": 1},
    "gzip 4": {"compression": "gzip", "compression_opts": 4}, "gzip 9": {"compression": "gzip", "compression_opts": 9},
    "gzip 4, shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True}}


class Decoded(Dataset):
    """The pictures alone, as bytes."""

    def __init__(self, pictures: Images):
        self.paths = pictures.paths

    def load(self, items: list[tuple[int, int]]) -> list[torch.Tensor]:
        paths = [self.paths[row] for _, row in items]
        return [torch.from_numpy(decode_image(read_bytes(path), path)) for path in paths]

    def __getitems__(self, items: list[tuple[int, int]]) -> torch.Tensor | list[torch.Tensor]:
        images = self.load(items)  # of one size they travel as one
        return torch.stack(images) if len({image.shape for image in images}) == 1 else images


Data = Decoded | Images
Plan = list[list[tuple[int, int]]]


class Files:
    """A cache's arrays as one file for each image and array, read as a `Cache` is."""

    def __init__(self, folder: Path, ending: str):
        self.folder, self.ending = folder, ending

    def path(self, name: str, row: int) -> Path:
        return self.folder / f"{row:06d}-{name.replace('/', '-')}.{self.ending}"

    def write(self, name: str, row: int, array: np.ndarray) -> None:
        if self.ending == "npy":
            np.save(self.path(name, row), array)
        else:  # maps and parts below each other
            cv2.imwrite(str(self.path(name, row)), array.reshape(-1, *array.shape[-2:]) if name == "dsap" else
                        array.reshape(-1, array.shape[-1]))

    def read(self, name: str, row: int) -> np.ndarray:
        if self.ending == "npy":
            return np.load(self.path(name, row))
        image = cv2.imread(str(self.path(name, row)), cv2.IMREAD_UNCHANGED)
        parts = {"probs/parts8": 8, "probs/parts4": 5, "dsap": 24, "valid": 24}.get(name)
        return image if parts is None else image.reshape(parts, -1, *image.shape[1:])


def stored_names(arrays: tuple[str, ...]) -> list[str]:
    return [stored for name in arrays for stored in (("dsap", "valid") if name == "dsap" else (NAMES.get(name, name),))]


def with_files(pictures: Images, ending: str, folder: Path) -> Images:
    """The same pictures, their maps from single files made of the cache."""
    files = Files(folder, ending)
    assert pictures.cache is not None and pictures.places is not None
    for row in pictures.places.tolist():
        for name in stored_names(pictures.arrays):
            files.write(name, row, pictures.cache.read(name, row))
    pictures.cache = files  # type: ignore[assignment] # all that a picture needs of it is `read`
    return pictures


def datasets(options: argparse.Namespace, frame: pd.DataFrame, folder: Path) -> dict[tuple[str, str], Data]:
    """What is read, and from where -> the data set that reads it."""
    height, width = map(int, options.size.split("x"))

    def pictures(cache: str | None, arrays: tuple[str, ...]) -> Images:
        return Images(frame, raw=options.raw or Path("data/raw") / options.set, arrays=arrays, height=height,
                      width=width, cache=cache and Path("data/cache") / options.set / cache, chance=CHANCE)

    found: dict[tuple[str, str], Data] = {("decode", ""): Decoded(pictures(None, ()))}
    for name, (cache, arrays) in KINDS.items():
        found[name, "cache" if cache else ""] = pictures(cache, arrays)
        for ending in ("npy", "png") if cache else ():
            found[name, ending] = with_files(pictures(cache, arrays), ending, folder)
    return found


def processor_time(work: Callable[[int], object], count: int) -> float:
    """Microseconds of this thread's processor time a call, the median of calls."""
    spent = []
    for number in range(count):
        start = time.thread_time()
        work(number)
        spent.append(time.thread_time() - start)
    return 1e6 * float(np.median(spent))


def rate(data: Data, plan: Plan, workers: int, context: str) -> float:
    """Images a second from the first batch to the last."""
    loader = DataLoader(data, batch_sampler=plan, num_workers=workers, collate_fn=as_it_is,
                        multiprocessing_context=context)
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    for batch in batches:
        done(data, batch)
    return BATCH * (len(plan) - 1) / (time.perf_counter() - start)


def done(data: Data, batch: Any) -> None:
    if isinstance(data, Images):
        finished(batch, torch.device("cpu"))


def print_readers(found: dict[tuple[str, str], Data], options: argparse.Namespace, rows: int) -> None:
    plan = [[(number, number % rows) for number in range(start, start + BATCH)]
            for start in range(0, options.images, BATCH)]
    ways = [(context, workers) for context in ("fork", "spawn") for workers in options.workers]
    print(f"images/s to {options.size}, and of `decode`; us: processor time of one image to load and to finish, in one "
          "process\n")
    print("| | from | us | " + " | ".join(f"{context} {workers}" for context, workers in ways) + " |")
    print("|---|---|---" + "|---" * len(ways) + "|")
    bare: dict[tuple[str, int], float] = {}
    for (name, source), data in found.items():
        loaded = [data.load(items) for items in plan[:BATCHES]]
        load = processor_time(lambda number, data=data: data.load(plan[number]), BATCHES) / BATCH
        finish = processor_time(lambda number, data=data, of=loaded: done(data, of[number]), BATCHES) / BATCH
        cells = [f"{load:.0f} + {finish:.0f}"]
        for context, workers in ways:
            speed = rate(data, plan, workers, context)
            bare.setdefault((context, workers), speed)
            cells.append(f"{speed:.0f}, {speed / bare[context, workers]:.2f}")
        print(f"| {name} | {source} | " + " | ".join(cells) + " |", flush=True)


def print_codecs(cache: Cache, folder: Path, count: int) -> None:
    """Of every array with a chunk for each row: bytes, share, and microseconds to write and read, by codec."""
    with h5py.File(cache.path, "r", locking=False) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.chunks[0] == 1
                        and item.ndim > 1 else None)
        stored = {name: (file[name].id.get_storage_size(), file[name].size) for name in names}
    for name in names:
        values = [cache.read(name, row) for row in range(min(count, len(cache)))]
        cells = [f"{name} ({values[0].size})"]
        for number, codec in enumerate(CODECS.values()):
            cells.append(one_codec(folder / f"{number}-{name.replace('/', '-')}.h5", values, codec))
        print("| " + " | ".join(cells) + " |", flush=True)
    kept = [stored[name] for name in ("labels", "probs/parts8", "probs/parts4", "entropy") if name in stored]
    if kept:
        part, whole = map(sum, zip(*kept, strict=True))
        print(f"\nlabels, probs and entropy of {cache.path}: {100 * part / whole:.1f} % of their size\n")


def one_codec(path: Path, values: list[np.ndarray], codec: dict) -> str:
    with h5py.File(path, "w", libver=LIBVER, rdcc_nbytes=0) as file:
        data = file.create_dataset("x", (len(values), *values[0].shape), np.uint8, chunks=(1, *values[0].shape),
                                   track_times=False, **codec)
        write = processor_time(lambda row: data.__setitem__(row, values[row]), len(values))
        file.flush()
        size = data.id.get_storage_size() / len(values)
    with h5py.File(path, "r", locking=False, rdcc_nbytes=0) as file:
        data = file["x"]
        read = processor_time(lambda row: data[row], len(values))
        fast = ""
        if codec == CODECS["gzip 4"]:
            fast = f" / {processor_time(lambda row: inflate(data, row, values[0].size), len(values)):.0f}"
    path.unlink()
    return f"{size:.0f}, {100 * size / values[0].size:.0f} %, {write:.0f} / {read:.0f}{fast}"


def inflate(data: h5py.Dataset, row: int, size: int) -> bytes:
    mask, chunk = data.id.read_direct_chunk((row, *[0] * (data.ndim - 1)))
    return chunk if mask else deflate.zlib_decompress(chunk, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="synth-holistic", help="a data set with an index and both caches")
    parser.add_argument("--raw", type=Path, help="the folder of its pictures; data/raw/SET unless given")
    parser.add_argument("--size", default="128x64", help="height x width of the network's input")
    parser.add_argument("--images", type=int, default=8000, help="images that are loaded for each figure")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame = training_rows(read_index(Path("data/index") / f"{options.set}.csv"), max_ids=0)
    with tempfile.TemporaryDirectory() as temporary:
        print_readers(datasets(options, frame, Path(temporary)), options, len(frame))
        print("\nbytes of a row, their share, us to write / read one\n\n| (bytes) | " + " | ".join(CODECS) + " |")
        print("|---" * (1 + len(CODECS)) + "|")
        for cache in ("parts.h5", "dsap.h5"):
            print_codecs(Cache(Path("data/cache") / options.set / cache), Path(temporary), 500)


if __name__ == "__main__":
    main()
