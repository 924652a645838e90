"""Does a method help? Its runs against others' of the same seeds: python -m benchmarks.paired

Reads data/results. For each data set, method and metric: the difference of each pair of runs that share a seed, their
mean and two 95 % intervals of it. Over seeds (Student's t, from three seeds) it is of other trainings on the same
people, over people (bootstrap over identities, both methods and all seeds on the same draws) of other people asked for
with the same networks. Where one of them holds 0, or with fewer than three seeds, the difference is "undecided". "-":
fewer than three seeds, or results of before the bootstrap over identities. Runs of earlier code (`code` in their
provenance) are not put beside those of the present one. Seconds.
"""

import json
from typing import NamedTuple

import numpy as np

from pipeline.config import paths
from pipeline.reporting.paper_tables import interval
from pipeline.retrieval.paired import difference_intervals
from pipeline.retrieval.scores import sums_of

SEEDS = (0, 1, 2)
METRICS = {"rank1": "rank-1", "mAP": "mAP"}


class Study(NamedTuple):
    """Methods held against others: `first` is the experiment with their runs under seed 0, `more` with KEY-seed1, .."""
    first: str
    more: str
    datasets: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]  # a run, and the run without what it is about


REAL = "-real-market"
PARTIAL = ("real-partial-reid-occluded", "real-partial-reid", "real-partial-ilids")
STUDIES = (
    Study("default", "seeds", ("synth-occluded",),
          tuple((method, "baseline") for method in ("esa", "sgsfa", "sgam", "dsa", "sorn"))),
    Study("market", "market-seeds", ("market1501-dev", "market1501-dev-occluded"),
          (*((f"market-{method}", "market-baseline") for method in ("strong", "esa", "sgsfa", "sgam", "dsa", "sorn")),
           ("market-sorn-global", "market-baseline"), ("market-sorn", "market-sorn-global"),
           ("market-sorn-occlude", "market-sorn"),
           ("market-strong-occlude", "market-strong"))),
    Study("partial", "partial-seeds", PARTIAL,
          tuple((f"{method}{REAL}", f"{other}{REAL}") for method, other in (
              ("esa", "esa-baseline"), ("sgsfa", "sgsfa-plain"), ("sgam", "sgam-resnet50"), ("sorn", "sorn-global"),
              ("strong", "baseline")))),
    Study("partial-rows", "partial-seeds", PARTIAL,
          ((f"sorn{REAL}", f"sorn-unmasked{REAL}"),
           (f"esa-cache{REAL}", f"esa{REAL}"), (f"esa-cache{REAL}", f"esa-baseline{REAL}"),
           (f"sgsfa-all{REAL}", f"sgsfa{REAL}"), (f"sgsfa-all{REAL}", f"sgsfa-plain{REAL}"),
           *((f"{full}-{row}{REAL}", f"{full}{REAL}") for full, rows in (
               ("esa", ("g", "w", "d", "gated")), ("sgam", ("1", "2", "no-crop", "resnet50-crop")),
               ("sorn", ("no-ls", "no-spc", "no-semantic", "global-semantic", "local-semantic"))) for row in rows))),
    Study("partial-curve", "partial-curve", PARTIAL,
          tuple((f"sorn{REAL}-{seen}", f"sorn-global{REAL}-{seen}") for seen in (6400, 12800, 51200, 102400))),
    Study("partial-large", "partial-large", PARTIAL,
          (*((f"{method}-large{REAL}", f"{method}{REAL}") for method in ("baseline", "sgam", "sorn")),
           *((f"{method}-large{REAL}", f"{other}-large{REAL}") for method, other in (
               ("sgam", "sgam-resnet50"), ("sorn", "sorn-global"), ("sorn", "sorn-unmasked"))))),
    Study("vit", "vit", ("market1501-dev",), (("vit-tiny", "vit-cnn"),)),
)


def sections_of(study: Study, run: str, dataset: str) -> dict[int, dict]:
    """What the results hold on the data set under each seed that was made."""
    places = {seed: (study.more, f"{run}-seed{seed}") if seed else (study.first, run) for seed in SEEDS}
    if not paths.metrics(*places[0]).is_dir():
        places[0] = (study.more, run)
    files = {seed: paths.metrics(*place) / f"{dataset}.json" for seed, place in places.items()}
    found = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items() if file.is_file()}
    return {seed: section for seed, section in found.items() if code_of(section) == code_of(found[min(found)])}


def code_of(section: dict) -> str:
    """Which earlier code made it, "" for the present one."""
    return section["provenance"][0].get("code", "")


def over_people(base: list[dict], method: list[dict], metric: str) -> tuple[float, float] | None:
    """Ends of the 95 % interval over identities of the mean difference; None where a result does not hold them."""
    if not all("by_identity" in section for section in (*base, *method)):
        return None

    keys, sums = zip(*(sums_of(section["by_identity"]) for section in (*method, *base)), strict=True)
    if any(asked != keys[0] for asked in keys):
        raise SystemExit("two results were not asked for the same people: make them again on one data set")

    low, high = difference_intervals(sums[:len(method)], sums[len(method):])[metric]
    return round(low, 2), round(high, 2)


def over_seeds(differences: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean of paired differences (n,), as the papers' tables have it; None of fewer than three.

    >>> over_seeds(np.array([1.0, 2.0, 3.0])), over_seeds(np.array([1.0, 2.0]))
    ((-0.48, 4.48), None)
    """
    low, high = interval(differences.tolist())
    return None if np.isnan(low) else (round(low, 2), round(high, 2))


def verdict(seeds: tuple[float, float] | None, people: tuple[float, float] | None) -> str:
    """
    >>> verdict((0.5, 2.0), (0.1, 3.0)), verdict((-2.0, -1.0), None)
    ('better', 'worse')
    >>> verdict((0.5, 2.0), (-0.1, 3.0)), verdict(None, (1.0, 2.0))
    ('undecided', 'undecided')
    """
    if seeds is None:
        return "undecided"
    known = [seeds] if people is None else [seeds, people]
    return ("better" if all(low > 0 for low, _ in known) else
            "worse" if all(high < 0 for _, high in known) else "undecided")


def main() -> None:
    print("| data set | run | against | metric | seeds | each | each of the other | difference | over seeds | "
          "over people | |")
    print("|---|---|---|---|---|---|---|---:|---|---|---|")
    for study in STUDIES:
        for dataset in study.datasets:
            for run, other in study.pairs:
                found, base = sections_of(study, run, dataset), sections_of(study, other, dataset)
                seeds = [seed for seed in SEEDS if seed in found and seed in base]
                if seeds and code_of(found[seeds[0]]) == code_of(base[seeds[0]]):
                    print_rows(dataset, run, other, seeds, [found[seed] for seed in seeds],
                               [base[seed] for seed in seeds])


def print_rows(dataset: str, run: str, other: str, seeds: list[int], found: list[dict], base: list[dict]) -> None:
    for metric, label in METRICS.items():
        values, others = (np.array([section[metric] for section in each]) for each in (found, base))
        intervals = over_seeds(values - others), over_people(base, found, metric)
        shown = " | ".join("-" if ends is None else "{:+.1f} to {:+.1f}".format(*ends) for ends in intervals)
        each = " | ".join(", ".join(f"{value:.1f}" for value in those) for those in (values, others))
        print(f"| {dataset} | {run} | {other} | {label} | {', '.join(map(str, seeds))} | {each} | "
              f"{(values - others).mean():+.1f} | {shown} | {verdict(*intervals)} |")


if __name__ == "__main__":
    main()
