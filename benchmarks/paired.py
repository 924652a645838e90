"""Does a method help? Its runs under three seeds against the baseline's under the same: python -m benchmarks.paired

Reads metrics/default of profiles `seeds` (rendered people, prefix "") and `study-market` (real people, prefix
"market-"). For each data set, method and figure: the difference of each pair of runs that share a seed, their mean and
its 95 % interval (Student's t over the seeds); an interval that holds 0 is "undecided". Seconds.
"""

import json
from pathlib import Path

import numpy as np
from scipy.stats import t

SEEDS = (0, 1, 2)
STUDIES = {"": ("esa", "sgsfa", "sgam", "dsa", "sorn"), "market-": ("sorn", "sgam")}
DATASETS = {"": ("default-synth-occluded",), "market-": ("default-market1501-dev", "default-market1501-dev-occluded")}
FIGURES = {"rank1": "rank-1", "mAP": "mAP"}


def figures(run: str, dataset: str, figure: str) -> np.ndarray | None:
    """The figure of each seed, percent (3,); None where a run is missing."""
    paths = [Path("metrics/default") / f"default-{run}{f'-seed{seed}' if seed else ''}.json" for seed in SEEDS]
    if not all(path.is_file() for path in paths):
        return None
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not all(dataset in content for content in found):
        return None
    return np.array([content[dataset][figure] for content in found])


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
    print("| data set | network | figure | seeds 0, 1, 2 | mean | over the baseline (95 % interval) | |")
    print("|---|---|---|---|---:|---|---|")
    for prefix, methods in STUDIES.items():
        for dataset in DATASETS[prefix]:
            for name in ("baseline", *methods):
                for figure, label in FIGURES.items():
                    base, values = (figures(prefix + run, dataset, figure) for run in ("baseline", name))
                    if base is None or values is None:
                        continue
                    mean, low, high = interval(values - base)
                    over = f"{mean:+.1f} ({low:+.1f} to {high:+.1f}) | {verdict(low, high)}"
                    each = ", ".join(f"{value:.1f}" for value in values)
                    print(f"| {dataset.removeprefix('default-')} | {name} | {label} | {each} | {values.mean():.1f} | "
                          f""
                          f"{'|' if name == 'baseline' else over} |")


if __name__ == "__main__":
    main()
