"""Score a run's features on its data sets: metrics JSON, CMC curve and rank lists.

    python -m stages.evaluate default-sorn
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.features import Embedded, read_features
from pipeline.params import EmbedParams, Params, pick
from pipeline.retrieval import evaluate, nearest
from pipeline.scores import Scores, figures
from stages import main

CURVE = 50  # ranks of the CMC curve
SHOWN_QUERIES, SHOWN_RANKS = 20, 10
ABOUT_RUN = ("run", "model", "seed", "image_steps", "init", "train_on", "caches", "distance", "reduction", "protocol",
             "versions")


@dataclass(frozen=True)
class _Judged:
    """What one features file gave: its trials' scores and the rank lists of the first."""
    dataset: str
    maker: dict[str, Any]
    scores: list[Scores]
    ranks: list[tuple]


def run(params: Params, key: str) -> None:
    """Write metrics/SCALE/KEY.json, curves/SCALE/KEY.csv and ranks/SCALE/KEY.csv.

    Data sets that are trials of one protocol (cuhk01-0 .. cuhk01-9, each with a network of its own) have one entry
    together, named without the number.
    """
    wanted = pick(params.evaluate, key, "evaluate")
    if not wanted.features:
        raise InputError(f"evaluate.{key}.features: is empty; name at least one key of `embed`")
    # Figures have two decimals, in which it cannot be seen what device multiplied.
    device = "cuda" if params.device != "cpu" and torch.cuda.is_available() else "cpu"
    judged: dict[str, list[_Judged]] = {}
    for name in tqdm(wanted.features, desc=f"evaluate {key}"):
        source = pick(params.embed, name, "embed")
        found = _read(source)
        trials = found.trials()
        scores = [evaluate(trial.query, trial.gallery, trial.matching, device=device, pairs=True) for trial in trials]
        others = judged.setdefault(found.protocol(), [])
        others.append(_Judged(source.dataset, found.maker, scores,
                              [] if others else _rank_lists(source.dataset, trials[0])))
    sets = {name if len(parts) > 1 else parts[0].dataset: parts for name, parts in judged.items()}
    metrics: dict[str, Any] = {"_made": [_made(sets)]}  # DVC shows no lists
    curves: list[tuple] = []
    for dataset, parts in sets.items():
        scores = [each for part in parts for each in part.scores]
        metrics[dataset] = figures(scores)
        cmc = np.mean([each.cmc(CURVE) for each in scores], axis=0)
        curves += [(key, dataset, rank, f"{share:.4f}") for rank, share in enumerate(cmc, 1)]
    ranks = [row for parts in sets.values() for row in parts[0].ranks]
    _write(Path("metrics", wanted.scale, f"{key}.json"), json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    _write(Path("curves", wanted.scale, f"{key}.csv"), _csv(curves, ["run", "dataset", "rank", "cmc"]))
    _write(Path("ranks", wanted.scale, f"{key}.csv"),
           _csv(ranks, ["dataset", "query", "position", "gallery", "distance", "match"]))


def _read(source: EmbedParams) -> Embedded:
    path = Path("features", source.result, f"{source.dataset}.h5")
    found = read_features(path)
    for field, expected in (("run", source.run), ("result", source.result), ("dataset", source.dataset)):
        if found.maker[field] != expected:
            raise InputError(f"{str(path)!r}: was made for {field} {found.maker[field]!r}, not {expected!r}; "
                             "delete it and run `dvc repro embed`")
    return found


def _made(sets: dict[str, list[_Judged]]) -> dict[str, Any]:
    """What made the figures: the first file's maker, and each data set's protocol where they differ."""
    makers = {dataset: parts[0].maker for dataset, parts in sets.items()}
    about = {field: next(iter(makers.values())).get(field) for field in ABOUT_RUN}
    protocols = {dataset: maker.get("protocol") for dataset, maker in makers.items()}
    return about | ({"protocols": protocols} if len(set(protocols.values())) > 1 else {})


def _rank_lists(dataset: str, found: Embedded) -> list[tuple]:
    """The nearest gallery images of queries spread evenly over the sorted keys, one row a gallery image."""
    count = min(SHOWN_QUERIES, len(found.query))
    chosen = np.argsort(found.query_key)[np.linspace(0, len(found.query) - 1, count).round().astype(int)]
    rows, distances = nearest(found.query.take(chosen), found.gallery, found.matching, SHOWN_RANKS)
    lines = []
    for query, best, far in zip(chosen, rows, distances, strict=True):
        for position, (row, distance) in enumerate(zip(best, far, strict=True), 1):
            if row >= 0:
                match = int(found.gallery.pid[row] == found.query.pid[query])
                lines.append((dataset, found.query_key[query], position, found.gallery_key[row], f"{distance:.4f}",
                              match))
    return lines


def _csv(rows: list[tuple], columns: list[str]) -> str:
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main(run)
