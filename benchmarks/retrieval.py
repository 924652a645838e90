"""Streaming retrieval against the bare matrix product, at Market-1501's size.

    python -m benchmarks.retrieval [--queries 3368 --gallery 15913 --parts 4 --size 2048 --repeats 3]

Random features of 750 people in 6 cameras (a place-holder for a trained network: a person's images lie nearer to each
other). In one process, alternating: `features[query] @ features[gallery].T` in float32, the whole evaluation
(distances, CMC, mAP, mINP), and its distances alone. Prints the best wall and CPU time of each, their ratios, and the
peak memory that evaluation took above the features. On a machine that others use too the CPU times are the ones to
compare, with OMP_WAIT_POLICY=passive, which keeps waiting threads from counting. The defaults take about two minutes on
two cores and 1.3 GB.

MSMT17's size, memory alone: `--queries 11659 --gallery 82161 --repeats 0`. The features take 3.1 GB there; the bare
product, which `--repeats 1` adds, another 3.8 GB. It is 20 times the work of the defaults. Asked of both sizes: at most
500 MB above the features; of the defaults a ratio of at most 1.15.
"""

import argparse
import resource
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.base.seeds import rng
from pipeline.retrieval.distances import strips
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import Scores


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
    before = highest = resident()
    done = threading.Event()

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
    parser.add_argument("--threads", type=int, help="instead of as many as there are cores")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    query = people("query", given.queries, given.parts, given.size, 0.6)
    gallery = people("gallery", given.gallery, given.parts, given.size, 0.9)
    print(f"{given.queries} x {given.gallery}, {given.parts} parts x {given.size}, {torch.get_num_threads()} threads, "
          f"features {(query.features.nbytes + gallery.features.nbytes) / 1e6:.0f} MB", flush=True)
    for distance in ("cosine", "euclidean"):
        compare(query, gallery, Matching((given.size,) * given.parts, distance, "mean"), given)


def compare(query: Side, gallery: Side, matching: Matching, given: argparse.Namespace) -> None:
    """Print memory and, of `given.repeats`, the best times of an evaluation and of the bare product."""
    scores: list[Scores] = []
    memory = peak(lambda: scores.append(evaluate(query, gallery, matching)))
    print(f"{matching.distance}: peak memory above the features {memory:.0f} MB; mAP {scores[0].summary()['mAP']}",
          flush=True)
    bare, distances, whole = [], [], []
    for _ in range(given.repeats):
        if given.bare:
            bare.append(seconds(lambda: torch.from_numpy(query.features) @ torch.from_numpy(gallery.features).T))
        distances.append(seconds(lambda: sum(len(strip) for _, strip in strips(query, gallery, matching))))
        whole.append(seconds(lambda: evaluate(query, gallery, matching)))
    for name, times in (("evaluation", whole), ("its distances", distances), ("bare product", bare)):
        if times:
            wall, cpu = np.min(times, axis=0)
            print(f"  {name} {wall:.2f} s, {cpu:.2f} s CPU", flush=True)
    if bare:
        for name, times in (("", whole), (" of its distances", distances)):
            wall, cpu = np.min(times, axis=0) / np.min(bare, axis=0)
            print(f"  ratio{name} {wall:.2f}, of CPU times {cpu:.2f}", flush=True)


if __name__ == "__main__":
    main()
