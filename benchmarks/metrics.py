"""CMC and mAP from a given distance matrix at Market-1501's size: this engine against torchreid's Cython evaluation.

    python -m benchmarks.metrics [--torchreid FOLDER --threads 2 --queries 3368 --gallery 15913 --people 750]

FOLDER holds torchreid's compiled rank_cy*.so, at any depth: in a clone of KaiyangZhou/deep-person-reid, with Cython and
setuptools, `cd torchreid/metrics/rank_cylib && python setup.py build_ext --inplace`. Without it the rival is the usual
numpy evaluation, which sorts every row (torchreid's Python way). One random float32 matrix (a person's images lie
nearer to each other), one process, alternating, best of `--repeats`. Both must agree in rank-1, rank-10 and mAP, or the
benchmark stops. Wall and CPU time of each and their ratios; the rivals use one thread, this engine `--threads` (1 for
one against one). Besides: PR-AUC's own time. The defaults take about 20 s and 1.5 GB. Asked of them, against the
Cython: a ratio of 10 with one thread each.
"""

import argparse
import time
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import torch

from pipeline.base.seeds import rng
from pipeline.retrieval.metrics import average_precision
from pipeline.retrieval.ranking import evaluate_matrix

RANKS = 50
Labels = dict[str, np.ndarray]


def problem(queries: int, gallery: int, people: int) -> tuple[np.ndarray, Labels]:
    """Distances (Q, G) float32 and the identities and cameras of both sides, six cameras."""
    draw = rng(0, "benchmark", "matrix")
    labels = {f"{name}_{column}": draw.integers(1, count, size) for name, size in (("query", queries),
                                                                                   ("gallery", gallery))
              for column, count in (("pid", people + 1), ("camid", 7))}
    distances = draw.random((queries, gallery), dtype=np.float32)
    for number, row in enumerate(distances):
        row[labels["gallery_pid"] == labels["query_pid"][number]] *= draw.random(dtype=np.float32) ** 4
    return distances, labels


def ours(distances: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
    scores = evaluate_matrix(distances, **labels)
    return scores.cmc(RANKS), float(scores.precision[scores.first > 0].mean())


def by_sorting(distances: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
    """As most projects do it: sort every row, drop the query's own camera, look where the matches are."""
    order = np.argsort(distances, axis=1)
    cmc, precision = [], []
    for number, row in enumerate(order):
        match = labels["gallery_pid"][row] == labels["query_pid"][number]
        hits = match[~(match & (labels["gallery_camid"][row] == labels["query_camid"][number]))]
        if hits.any():
            places = np.flatnonzero(hits) + 1
            cmc.append(places[0] <= np.arange(1, RANKS + 1))
            precision.append(average_precision(places))
    return np.mean(cmc, axis=0), float(np.mean(precision))


def compiled(folder: Path) -> Callable[[np.ndarray, Labels], tuple[np.ndarray, float]]:
    """torchreid's evaluation, loaded by its file: importing the package would need all that it depends on."""
    found = sorted(folder.rglob("rank_cy*.so"))
    if not found:
        raise SystemExit(f"{str(folder)!r}: holds no compiled rank_cy*.so; build it there or leave --torchreid out")
    loader = ExtensionFileLoader("rank_cy", str(found[0]))
    spec = spec_from_loader("rank_cy", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)

    def evaluate(distances: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
        return module.evaluate_cy(distances, labels["query_pid"], labels["gallery_pid"], labels["query_camid"],
                                  labels["gallery_camid"], RANKS)

    return evaluate


def timed(action: Callable[[], tuple[np.ndarray, float]]) -> tuple[np.ndarray, tuple[np.ndarray, float]]:
    """(wall, CPU) seconds and the result."""
    start = np.array([time.perf_counter(), time.process_time()])
    found = action()
    return np.array([time.perf_counter(), time.process_time()]) - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchreid", type=Path, help="the folder with torchreid's compiled rank_cy*.so")
    for name, value in (("queries", 3368), ("gallery", 15913), ("people", 750), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rival = compiled(given.torchreid) if given.torchreid else by_sorting
    title = "torchreid's Cython" if given.torchreid else "numpy, sorting every row"
    distances, labels = problem(given.queries, given.gallery, given.people)
    times: dict[str, list[np.ndarray]] = {title: [], "ours": []}
    for _ in range(given.repeats):
        spent, theirs = timed(lambda: rival(distances, labels))
        times[title].append(spent)
        spent, mine = timed(lambda: ours(distances, labels))
        times["ours"].append(spent)
        if abs(mine[1] - theirs[1]) > 1e-5 or np.abs(mine[0] - theirs[0])[[0, 9]].max() > 1e-5:
            raise SystemExit(f"the two disagree: mAP {mine[1]} and {theirs[1]}, rank-1 {mine[0][0]} and {theirs[0][0]}")
    best = {name: np.min(spent, axis=0) for name, spent in times.items()}
    print(f"{given.queries} x {given.gallery} float32, {torch.get_num_threads()} threads, mAP {100 * mine[1]:.2f}")
    for name, (wall, cpu) in best.items():
        print(f"{name}: {wall:.3f} s, {cpu:.3f} s CPU")
    wall, cpu = best[title] / best["ours"]
    print(f"ratio {wall:.2f}, of CPU times {cpu:.2f}")
    (wall, cpu), _ = timed(lambda: (np.empty(0), float(evaluate_matrix(distances, **labels, pairs=True).area or 0)))
    print(f"with PR-AUC: {wall:.3f} s, {cpu:.3f} s CPU")


if __name__ == "__main__":
    main()
