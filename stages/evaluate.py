"""Metrics of a result's features on its data sets, with CMC curve and rank lists: python -m stages.evaluate sorn"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable, write_json, write_text
from pipeline.base.progress import progress
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import ListedEvaluatePlan
from pipeline.retrieval.exclusions import read_exclusions, without
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.ranking import evaluate, nearest
from pipeline.retrieval.scores import INTERVALS, Scores, data_set_metrics
from stages import main
from stages.shared.ranking_device import ranking_device

CURVE = 50  # ranks of the CMC curve
SHOWN_QUERIES, SHOWN_RANKS = 20, 10
PROVENANCE = ("run", "model", "seed", "image_steps", "init", "train_on", "caches", "distance", "reduction", "protocol",
              "versions")
OPTIONAL = ("flip", "checkpoint", "ignored")  # where there is something to say


@dataclass(frozen=True)
class _Judged:
    """What one features file gave: its trials' scores and the rank lists of the first."""

    dataset: str
    provenance: dict[str, Any]
    scores: list[Scores]
    ranks: list[tuple]


def run(experiment: Experiment, key: str) -> None:
    """Write the result's metrics, one JSON per data set, its CMC curves and its rank lists.

    Data sets that are trials of one protocol (cuhk01-0 .. cuhk01-9, each with a network of its own) have one file
    together, named without the number.
    """
    plan = pick(experiment.plan.evaluations, key, "plan.evaluate")
    if not plan.datasets:
        raise InputError(f"plan.evaluate.{key}.datasets: is empty; give the result a data set in eval_on")
    for path in (paths.curve(experiment.name, key), paths.ranks(experiment.name, key)):
        writable(path)
    writable(paths.metrics(experiment.name, key), folder=True)
    device = ranking_device(experiment.params.device)

    judged: dict[str, list[_Judged]] = {}
    for dataset in progress(plan.datasets, f"evaluate {key}", unit="data sets"):
        embedded = _read(Path(plan.features) / f"{dataset}.h5", key, dataset)
        if isinstance(plan, ListedEvaluatePlan) and dataset in plan.listed:
            embedded, excluded = without(embedded, read_exclusions(paths.ignored(dataset)))
            embedded = replace(embedded, provenance=embedded.provenance | {"ignored": excluded.content()})
        trials = embedded.trials()
        scores = [evaluate(trial.query, trial.gallery, trial.matching, device=device, pairs=True) for trial in trials]
        others = judged.setdefault(embedded.protocol(), [])
        others.append(_Judged(dataset, embedded.provenance, scores, [] if others else _rank_lists(dataset, trials[0])))
    sets = {name if len(parts) > 1 else parts[0].dataset: parts for name, parts in judged.items()}

    metrics: dict[str, dict[str, Any]] = {}
    curves: list[tuple] = []
    for dataset, parts in sets.items():
        scores = [trial for part in parts for trial in part.scores]
        made = {field: parts[0].provenance.get(field) for field in PROVENANCE} | {"intervals": INTERVALS}
        made |= {field: value for field, value in parts[0].provenance.items() if field in OPTIONAL}
        metrics[dataset] = data_set_metrics(scores) | {"provenance": [made]}  # DVC shows no lists
        cmc = np.mean([trial.cmc(CURVE) for trial in scores], axis=0)
        curves += [(key, dataset, rank, f"{share:.4f}") for rank, share in enumerate(cmc, 1)]
    ranks = [row for parts in sets.values() for row in parts[0].ranks]

    write_text(paths.curve(experiment.name, key), _csv(curves, ["run", "dataset", "rank", "cmc"]))
    write_text(paths.ranks(experiment.name, key),
               _csv(ranks, ["dataset", "query", "position", "gallery", "distance", "match"]))
    with new_folder(paths.metrics(experiment.name, key)) as folder:
        for dataset, content in metrics.items():
            write_json(folder / f"{dataset}.json", content)


def _read(path: Path, result: str, dataset: str) -> Embedded:
    embedded = read_features(path)
    for field, expected in (("result", result), ("dataset", dataset)):
        if embedded.provenance.get(field) != expected:
            raise InputError(f"{str(path)!r}: was made for {field} {embedded.provenance.get(field)!r}, not "
                             f"{expected!r}; delete it and run `dvc repro`")
    return embedded


def _rank_lists(dataset: str, embedded: Embedded) -> list[tuple]:
    """The nearest gallery images of queries spread evenly over the sorted keys, one row per gallery image."""
    count = min(SHOWN_QUERIES, len(embedded.query))
    places = np.linspace(0, len(embedded.query) - 1, count).round().astype(int)
    chosen = np.argsort(embedded.query_key)[places]
    rows, distances = nearest(embedded.query.take(chosen), embedded.gallery, embedded.matching, SHOWN_RANKS)

    lines = []
    for query, best, far in zip(chosen, rows, distances, strict=True):
        for position, (row, distance) in enumerate(zip(best, far, strict=True), 1):
            if row >= 0:
                match = int(embedded.gallery.pid[row] == embedded.query.pid[query])
                lines.append((dataset, embedded.query_key[query], position, embedded.gallery_key[row],
                              f"{distance:.4f}", match))
    return lines


def _csv(rows: list[tuple], columns: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


if __name__ == "__main__":
    main(run)
