"""Does a method help? Its runs under three seeds against the baseline's under the same: python -m benchmarks.paired

Reads data/results/seeds (rendered people) and data/results/study-market (real people). For each data set, method and
metric: the difference of each pair of runs that share a seed, their mean and two 95 % intervals of it. Over seeds
(Student's t) it is of other trainings on the same people, over people (bootstrap over identities, both methods and all
seeds on the same draws) of other people asked for with the same networks. Where one of them holds 0 the difference is
"undecided". Results of before the bootstrap over identities have none of the second: "-". Seconds.
"""

import json
from pathlib import Path

import numpy as np
from scipy.stats import t

from pipeline.config import paths
from pipeline.retrieval.paired import difference_intervals
from pipeline.retrieval.scores import sums_of

SEEDS = (0, 1, 2)
HOMES = {"seeds": "default", "study-market": "market"}  # which has the runs under seed 0
STUDIES = {"seeds": ("baseline", "esa", "sgsfa", "sgam", "dsa", "sorn"),  # experiment -> runs, the baseline first
           "study-market": ("market-baseline", "market-sorn", "market-sgam")}
DATASETS = {"seeds": ("synth-occluded",), "study-market": ("market1501-dev", "market1501-dev-occluded")}
METRICS = {"rank1": "rank-1", "mAP": "mAP"}


def sections_of(experiment: str, run: str, dataset: str) -> list[dict] | None:
    """What the results hold on the data set under each seed; None where a run is missing."""
    folders = [paths.metrics(experiment, f"{run}-seed{seed}") if seed else _first(experiment, run) for seed in SEEDS]
    files = [folder / f"{dataset}.json" for folder in folders]
    if not all(file.is_file() for file in files):
        return None
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _first(experiment: str, run: str) -> Path:
    own = paths.metrics(experiment, run)
    return own if own.is_dir() else paths.metrics(HOMES[experiment], run)


def over_people(base: list[dict], method: list[dict], metric: str) -> tuple[float, float] | None:
    """Ends of the 95 % interval over identities of the mean difference; None where a result does not hold them."""
    if not all("by_identity" in section for section in (*base, *method)):
        return None

    keys, sums = zip(*(sums_of(section["by_identity"]) for section in (*method, *base)), strict=True)
    if any(asked != keys[0] for asked in keys):
        raise SystemExit("two results were not asked for the same people: make them again on one data set")

    low, high = difference_intervals(sums[:len(method)], sums[len(method):])[metric]
    return round(low, 2), round(high, 2)


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences (n,) and the ends of its 95 % interval.

    >>> interval(np.array([1.0, 2.0, 3.0]))
    (2.0, -0.48, 4.48)
    """
    mean, spread = differences.mean(), differences.std(ddof=1) / len(differences) ** .5
    half = t.ppf(.975, len(differences) - 1) * spread
    return tuple(round(float(value), 2) for value in (mean, mean - half, mean + half))  # type: ignore[return-value]


def verdict(*intervals: tuple[float, float] | None) -> str:
    """
    >>> verdict((0.5, 2.0), (0.1, 3.0)), verdict((0.5, 2.0), (-0.1, 3.0)), verdict((-2.0, -1.0), None)
    ('better', 'undecided', 'worse')
    """
    known = [ends for ends in intervals if ends is not None]
    return ("better" if all(low > 0 for low, _ in known) else
            "worse" if all(high < 0 for _, high in known) else "undecided")


def main() -> None:
    print("| data set | network | metric | seeds 0, 1, 2 | mean | over the baseline | over seeds | over people | |")
    print("|---|---|---|---|---:|---:|---|---|---|")
    for experiment, (baseline, *methods) in STUDIES.items():
        for dataset in DATASETS[experiment]:
            for run in (baseline, *methods):
                base, method = (sections_of(experiment, name, dataset) for name in (baseline, run))
                if base is None or method is None:
                    continue

                for metric, label in METRICS.items():
                    values, others = (np.array([section[metric] for section in each]) for each in (method, base))
                    mean, *ends = interval(values - others)
                    people = over_people(base, method, metric)
                    shown = [f"{low:+.1f} to {high:+.1f}" for low, high in (ends, people or ends)]
                    over = " | | | |" if run == baseline else (
                        f" {mean:+.1f} | {shown[0]} | {shown[1] if people else '-'} | "
                        f"{verdict((ends[0], ends[1]), people)} |")
                    each = ", ".join(f"{value:.1f}" for value in values)
                    print(f"| {dataset} | {run} | {label} | {each} | {values.mean():.1f} |{over}")


if __name__ == "__main__":
    main()
