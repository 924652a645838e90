"""Is it flat? 100,000 images through every step of stage one, the loader and an embedding; a search in a million.

    python -m benchmarks.scale [--count 100000 --gallery 1000000 --queries 1000 --ranks 4 --folder DIR]
    python -m benchmarks.scale --count 2000 --gallery 20000 --queries 100          # a minute or two

Images of 32 x 16 in Market-1501's layout, hard links to 48 made-up pictures, parsed by a network that costs next to
nothing (benchmarks/million.py), embedded by the colour histogram: what is measured is the pipeline. Each step runs with
one thread, and one loading process, in a process of its own, on a tenth of the images and on all; where it loads, the
clock starts with the first batch. Prints images/s and the most memory (of the step's process and of its loading
process) of both, and how many bytes each image more took. Then parse and warp by `--ranks` processes against one, and
whether the bytes are the same. Then `--queries` searched (ranked and scored) in a tenth of `--gallery` images and in
all, 4 parts of 512 numbers, float16: time per pair, and memory above the features, which take 4.1 GB for a million.

Asked: time per image and per pair within a tenth of each other, memory that grows by no more than the lists that are
kept for each image, about 0.5 kB (in `embed` by the features too, 0.9 kB). Small counts show that it runs, not that it
is flat. The whole takes some minutes and 3 GB of disk, the search 5 GB of memory.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.million import forward
from benchmarks.retrieval import peak
from models.histogram import Histogram
from pipeline.base.images import write_image
from pipeline.base.seeds import rng
from pipeline.caches.cache import Cache
from pipeline.caches.warp import warp_images
from pipeline.datasets.index import read_index, write_index
from pipeline.datasets.market_like import read_market
from pipeline.loading.augmentation import Chance
from pipeline.loading.dataset import Images, embedding_rows, ordered_batches, training_batches, training_rows
from pipeline.loading.samplers import Batches
from pipeline.parsing.engine import Job, parse_images
from pipeline.retrieval.features import embed_images, read_features, write_features
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate

PICTURES, HEIGHT, WIDTH, TEXELS, BATCH = 48, 32, 16, 16, 64
PARTS, SIZE = 4, 512
FEWEST = 10_000  # of a gallery in whose tenth most queries find someone
LEAST = 2000  # images, of whose tenth half are for training
CPU = torch.device("cpu")
SPLITS = {"bounding_box_train": 0.5, "query": 0.05, "bounding_box_test": 0.45}
CHANCE = Chance(seed=0, flip=0.5, pad=2, erase=0.5, fill="imagenet")


def write_set(folder: Path, count: int) -> None:
    """folder/raw: `count` images of Market-1501's layout, of each person 20."""
    (folder / "pictures").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        blocks = random.integers(0, 256, (4, 2, 3)).astype(np.float32)
        write_image(folder / f"pictures/{number}.jpg", cv2.resize(blocks, (WIDTH, HEIGHT)).astype(np.uint8))

    number = 0
    for split, share in SPLITS.items():
        (folder / "raw" / split).mkdir(parents=True)
        for place in range(round(share * count)):
            name = f"{1 + place // 20:05d}_c{1 + place % 6}s1_{number:07d}_00.jpg"
            os.link(folder / f"pictures/{number % PICTURES}.jpg", folder / "raw" / split / name)
            number += 1


def index(folder: Path) -> None:
    write_index(read_market(folder / "raw"), folder / "index.csv")


def parse(folder: Path, rank: int = 0, world: int = 1) -> None:
    frame, target = read_index(folder / "index.csv"), cache(folder, "parts", world)
    job = Job(keys=frame["image"].tolist(), paths=frame["path"].tolist(), raw=folder / "raw", maker="{}",
              taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH, batch=16, device="cpu")
    failed = parse_images(job, forward, target, scratch=folder / f"parse-{world}", rank=rank, world=world)
    if failed:
        raise SystemExit(f"{len(failed)} images have no parse, the first {failed[0]}")


def warp(folder: Path, rank: int = 0, world: int = 1) -> None:
    frame = read_index(folder / "index.csv")
    warp_images(Cache(cache(folder, "parts", 1)), frame["image"].tolist(), frame["path"].tolist(), folder / "raw",
                cache(folder, "dsap", world), maker="{}", height=HEIGHT, width=WIDTH, texels=TEXELS,
                scratch=folder / f"warp-{world}", rank=rank, world=world)


def cache(folder: Path, name: str, world: int) -> Path:
    return folder / str(world) / f"{name}.h5"


def load(folder: Path, name: str, arrays: tuple[str, ...]) -> float:
    """As many images as the set has, drawn from its training images; when the first batch was there."""
    frame = read_index(folder / "index.csv")
    count, frame = len(frame), training_rows(frame, max_ids=0)
    images = Images(frame, raw=folder / "raw", cache=cache(folder, name, 1), arrays=arrays, height=HEIGHT, width=WIDTH,
                    chance=CHANCE)
    draws = Batches(frame["target"].to_numpy(), batch=BATCH, ids_per_batch=0, seed=0)
    began: list[float] = []
    for _ in noted(training_batches(images, draws, start=0, stop=-(-count // BATCH), workers=1, device=CPU), began):
        pass
    return began[0]


def noted(batches: Iterable, began: list[float]) -> Iterator:
    """The batches; `began` gets the time at which the first is there: starting a process is not counted."""
    for batch in batches:
        began.append(time.perf_counter())
        yield batch


def load_parts(folder: Path) -> float:
    return load(folder, "parts", ("probs8", "entropy"))


def load_dsap(folder: Path) -> float:
    return load(folder, "dsap", ("dsap",))


def embed(folder: Path) -> float:
    """Query and gallery, half of the set, twice: embedded, written, read back; when the first batch was there."""
    frame = embedding_rows(read_index(folder / "index.csv"))
    frame = pd.concat([frame, frame.assign(image="again/" + frame["image"])], ignore_index=True)
    images = Images(frame, raw=folder / "raw", cache=None, height=HEIGHT, width=WIDTH)
    network = Histogram(match="all", stripes=4, bins=8)
    began: list[float] = []
    batches = noted(ordered_batches(images, batch=BATCH, workers=1, device=CPU), began)
    features, visibility = embed_images(network, batches, count=len(frame), device=CPU)
    made = {"run": "histogram", "dataset": "scale", "distance": network.distance, "reduction": network.reduction}
    write_features(folder / "features.h5", frame=frame, features=features, visibility=visibility, sizes=network.sizes,
                   provenance=made, dtype="float32")
    read_features(folder / "features.h5")
    return began[0]


STEPS: dict[str, Callable[[Path], float | None]] = {
    "index": index, "parse": parse, "warp": warp, "loader, parts.h5": load_parts, "loader, dsap.h5": load_dsap,
    "embed": embed}
LOADING = ("loader, parts.h5", "loader, dsap.h5", "embed")  # in a process beside their own


def alone(name: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of a step in this process, the most memory of it and of its loading process, MB."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    begun = STEPS[name](folder) or start
    seconds = time.perf_counter() - begun
    own, child = (resource.getrusage(who).ru_maxrss / 1000 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return seconds, own, child if name in LOADING else 0.0


def print_steps(folders: dict[int, Path]) -> None:
    tenth, count = folders
    print("| step | images/s of a tenth | of all | ratio | peak MB of a tenth, own + loading | of all | bytes a row |")
    print("|---" * 7 + "|")
    for name in STEPS:
        found = []
        for folder in folders.values():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found.append(pool.submit(alone, name, folder).result())
        (first, own, child), (whole, owned, childs) = found
        slope = 1e6 * (owned - own + childs - child) / (count - tenth)
        print(f"| {name} | {tenth / first:.0f} | {count / whole:.0f} | {count / whole * first / tenth:.2f} | "
              f"{own:.0f} + {child:.0f} | {owned:.0f} + {childs:.0f} | {slope:.0f} |", flush=True)


def ranked(step: Callable, folder: Path, rank: int, world: int, ready: object) -> None:
    torch.set_num_threads(1)
    ready.wait()  # type: ignore[attr-defined] # all have imported what they need
    step(folder, rank, world)


def together(step: Callable, folder: Path, world: int) -> float:
    """Seconds of a step shared by so many processes."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(world + 1)
    processes = [context.Process(target=ranked, args=(step, folder, rank, world, ready)) for rank in range(world)]
    for process in processes:
        process.start()

    ready.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"{step.__name__}: one of {world} ranks failed")
    return time.perf_counter() - start


def print_ranks(folder: Path, count: int, ranks: int) -> None:
    print(f"\n| step | images/s, 1 rank | {ranks} ranks | ratio | same bytes |\n|---|---|---|---|---|")
    for name, step, kind in (("parse", parse, "parts"), ("warp", warp, "dsap")):
        before = hashlib.sha256(cache(folder, kind, 1).read_bytes()).digest()
        cache(folder, kind, 1).unlink()
        one, several = (together(step, folder, world) for world in (1, ranks))
        digests = {hashlib.sha256(cache(folder, kind, world).read_bytes()).digest() for world in (1, ranks)}
        same = "yes" if digests == {before} else "NO"
        print(f"| {name} | {count / one:.0f} | {count / several:.0f} | {one / several:.2f} | {same} |", flush=True)


def side(name: str, count: int) -> Side:
    """`count` images of 750 people in 6 cameras: a person's are nearer to each other; made some at a time."""
    centres = rng(0, "scale", "centres").standard_normal((751, PARTS * SIZE), dtype=np.float32)
    draw = rng(0, "scale", name)
    pid, features = draw.integers(1, 751, count), np.empty((count, PARTS * SIZE), np.float16)
    for start in range(0, count, 4096):
        own = pid[start:start + 4096]
        block = draw.standard_normal((len(own), PARTS * SIZE), dtype=np.float32) + 0.3 * centres[own]
        block = block.reshape(-1, PARTS, SIZE)
        features[start:start + 4096] = (block / np.linalg.norm(block, axis=2, keepdims=True)).reshape(len(own), -1)
    visibility = (draw.random((count, PARTS)) < 0.8).astype(np.float32)
    visibility[:, 0] = 1
    return Side(features, visibility, pid, draw.integers(1, 7, count))


def print_search(queries: int, gallery: int) -> None:
    query, whole = side("query", queries), side("gallery", gallery)
    print(f"\n{queries} queries, {PARTS} parts of {SIZE}, float16, {torch.get_num_threads()} threads\n")
    print("| gallery | seconds | ns a pair | MB above the features | mAP |\n|---|---|---|---|---|")
    for count in (gallery // 10, gallery):
        found: list[float] = []
        start = time.perf_counter()
        memory = peak(lambda rows=slice(0, count), found=found: found.append(
            evaluate(query, whole.take(rows), Matching((SIZE,) * PARTS, "cosine", "mean")).summary()["mAP"]))
        seconds = time.perf_counter() - start
        print(f"| {count} | {seconds:.1f} | {1e9 * seconds / queries / count:.1f} | {memory:.0f} | {found[0]} |",
              flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("count", 100_000), ("queries", 1000), ("gallery", 1_000_000), ("ranks", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, help="where to work; a folder of its own is made in it and removed")
    given = parser.parse_args()
    if given.count < LEAST or given.gallery < FEWEST:
        print(f"error: --count is {given.count} and --gallery {given.gallery}; a tenth of them must fill a batch and "
              f"hold someone to find: give at least {LEAST} and {FEWEST}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folders = {count: Path(temporary) / str(count) for count in (given.count // 10, given.count)}
        for count, folder in folders.items():
            write_set(folder, count)
        print(f"{given.count} images of {HEIGHT} x {WIDTH}, {os.cpu_count()} cores\n", flush=True)
        print_steps(folders)
        print_ranks(folders[given.count], given.count, given.ranks)
    print_search(given.queries, given.gallery)


if __name__ == "__main__":
    main()
