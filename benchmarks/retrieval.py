"""Streaming retrieval against the bare matrix product, at Market-1501's size.

    python -m benchmarks.retrieval [--queries 3368 --gallery 15913 --parts 4 --size 2048 --repeats 3]

Random features of 750 people in 6 cameras (a place-holder for a trained network: a person's images lie nearer to each
other). In one process, alternating: `features[query] @ features[gallery].T` in float32, and the whole evaluation
(distances, CMC, mAP, mINP). Prints the best wall and CPU time of each, their ratios, and the peak memory that
evaluation took above the features. On a machine that others use too the CPU times are the ones to compare, with
OMP_WAIT_POLICY=passive, which keeps waiting threads from counting. The defaults take about a minute on two cores and
1.3 GB; expected: ratio 1.3-1.4, about 310 MB (cosine) and 110 MB (Euclidean) above the features.
"""

import argparse
import resource
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.retrieval import Matching, Side, evaluate
from pipeline.seeds import rng


def people(name: str, count: int, parts: int, size: int, visible: float) -> Side:
    """`count` images of 750 people in 6 cameras; each part of an image is visible with probability `visible`."""
    draw = rng(0, "benchmark", name)
    pid = draw.integers(1, 751, count)
    camid = draw.integers(1, 7, count)
    features = draw.standard_normal((count, parts * size), dtype=np.float32)
    centres = rng(0, "benchmark", "centres").standard_normal((751, parts * size), dtype=np.float32)
    for start in range(0, count, 1024):
        features[start:start + 1024] += 0.15 * centres[pid[start:start + 1024]]
        block = features[start:start + 1024].reshape(-1, parts, size)
        block /= np.linalg.norm(block, axis=2, keepdims=True)
    visibility = (draw.random((count, parts)) < visible).astype(np.float32)
    visibility[:, 0] = 1
    return Side(features, visibility, pid, camid)


def resident() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak(action: Callable[[], object]) -> float:
    """MB by which memory in use rose at most while `action` ran (sampled every 2 ms)."""
    before, highest, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    action()
    done.set()
    watcher.join()
    return (highest - before) / 1e6


def seconds(action: Callable[[], object]) -> np.ndarray:
    """(wall, CPU) seconds of `action`."""
    start = np.array([time.perf_counter(), time.process_time()])
    action()
    return np.array([time.perf_counter(), time.process_time()]) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("queries", 3368), ("gallery", 15913), ("parts", 4), ("size", 2048), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bare", type=int, default=1, help="0 leaves the matrix product out")
    given = parser.parse_args()
    query = people("query", given.queries, given.parts, given.size, 0.6)
    gallery = people("gallery", given.gallery, given.parts, given.size, 0.9)
    print(f"{given.queries} x {given.gallery}, {given.parts} parts x {given.size}, {torch.get_num_threads()} threads")
    for distance in ("cosine", "euclidean"):
        matching = Matching((given.size,) * given.parts, distance, "mean")
        memory = peak(lambda matching=matching: evaluate(query, gallery, matching))  # type: ignore[misc]
        bare, whole = [], []
        for _ in range(given.repeats):
            if given.bare:
                bare.append(seconds(lambda: torch.from_numpy(query.features) @ torch.from_numpy(gallery.features).T))
            whole.append(seconds(lambda matching=matching: evaluate(query, gallery, matching)))  # type: ignore[misc]
        wall, cpu = np.min(whole, axis=0)
        print(f"{distance}: evaluation {wall:.2f} s, {cpu:.2f} s CPU; peak memory above the features {memory:.0f} MB; "
              f"mAP {evaluate(query, gallery, matching).summary()['mAP']}")
        if bare:
            bare_wall, bare_cpu = np.min(bare, axis=0)
            print(f"  bare product {bare_wall:.2f} s, {bare_cpu:.2f} s CPU; ratio {wall / bare_wall:.2f}, of CPU times "
                  f"{cpu / bare_cpu:.2f}")


if __name__ == "__main__":
    main()
