"""Does a method help? Its runs under three seeds against the baseline's under the same: python -m benchmarks.paired

Reads data/results/seeds (rendered people) and data/results/study-market (real people). For each data set, method and
metric: the difference of each pair of runs that share a seed, their mean and its 95 % interval (Student's t over the
seeds); an interval that holds 0 is "undecided". Seconds.
"""

import json

import numpy as np
from scipy.stats import t

from pipeline.config import paths

SEEDS = (0, 1, 2)
STUDIES = {"seeds": ("baseline", "esa", "sgsfa", "sgam", "dsa", "sorn"),  # experiment -> runs, the baseline first
           "study-market": ("market-baseline", "market-sorn", "market-sgam")}
DATASETS = {"seeds": ("synth-occluded",), "study-market": ("market1501-dev", "market1501-dev-occluded")}
METRICS = {"rank1": "rank-1", "mAP": "mAP"}


def values_of(experiment: str, run: str, dataset: str, metric: str) -> np.ndarray | None:
    """The metric under each seed, percent (3,); None where a run is missing."""
    files = [paths.metrics(experiment, f"{run}-seed{seed}" if seed else run) / f"{dataset}.json" for seed in SEEDS]
    if not all(file.is_file() for file in files):
        return None
    return np.array([json.loads(file.read_text(encoding="utf-8"))[metric] for file in files])


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences (n,) and the ends of its 95 % interval.

    >>> interval(np.array([1.0, 2.0, 3.0]))
    (2.0, -0.48, 4.48)
    """
    mean, spread = differences.mean(), differences.std(ddof=1) / len(differences) ** .5
    half = t.ppf(.975, len(differences) - 1) * spread
    return tuple(round(float(value), 2) for value in (mean, mean - half, mean + half))  # type: ignore[return-value]


def verdict(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def main() -> None:
    print("| data set | network | metric | seeds 0, 1, 2 | mean | over the baseline (95 % interval) | |")
    print("|---|---|---|---|---:|---|---|")
    for experiment, (baseline, *methods) in STUDIES.items():
        for dataset in DATASETS[experiment]:
            for run in (baseline, *methods):
                for metric, label in METRICS.items():
                    base, values = (values_of(experiment, name, dataset, metric) for name in (baseline, run))
                    if base is None or values is None:
                        continue

                    mean, low, high = interval(values - base)
                    over = f"{mean:+.1f} ({low:+.1f} to {high:+.1f}) | {verdict(low, high)}"
                    each = ", ".join(f"{value:.1f}" for value in values)
                    print(f"| {dataset} | {run} | {label} | {each} | {values.mean():.1f} | "
                          f"{'|' if run == baseline else over} |")


if __name__ == "__main__":
    main()
