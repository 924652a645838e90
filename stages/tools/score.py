"""Scores of features that someone else computed: python -m stages.tools.score pytorch_result.mat

Reads .npz and .mat files (docs/evaluation.md has their layouts) and features.h5 files of this project. Prints rank-k,
mAP, mINP and PR-AUC with 95 % intervals, and the protocol they were made by; needs neither params.yaml nor a data set.
--ignore leaves listed pictures out (docs/trust.md).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_json
from pipeline.reporting.protocol import protocol_line
from pipeline.retrieval.distances import save_distances
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.opening import open_features, zeros
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.reranking import Reranking, evaluate_reranked
from pipeline.retrieval.scores import INTERVALS, LEVELS, Scores, data_set_metrics
from stages import sentences
from stages.shared.ignoring import IDENTITIES, add_ignore_options, leave_out, scorable

RERANKED = {"k1": "k1", "k2": "k2", "lambda": "weight"}  # option: what it is in `Reranking`
NAMES = {"mAP": "mAP", "mINP": "mINP", "PR_AUC": "PR-AUC"}


def run(given: argparse.Namespace) -> None:
    """Score `given.file`, print the metrics and write what else is asked for."""
    idle = [f"--{name}" for name in RERANKED if getattr(given, name) is not None]
    if idle and not given.rerank:
        raise InputError(f"{', '.join(idle)}: of re-ranking, and nothing is re-ranked; add --rerank or leave "
                         f"{'it' if len(idle) == 1 else 'them'} out")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: is cuda, and torch finds no GPU here; leave it out")
    for path in filter(None, (given.json, given.save_distances)):
        writable(path)
    embedded = open_features(given.file, distance=given.distance, reduction=given.reduction)
    scorable(embedded, given.file, IDENTITIES)
    embedded, excluded = leave_out(embedded, given)
    for sentence in zeros(embedded, given.file):
        print(sentence, file=sys.stderr)
    trials = embedded.trials()
    if given.save_distances is not None:
        if len(trials) > 1:
            raise InputError(f"{str(given.file)!r}: has {len(trials)} trials, and --save-distances writes one matrix; "
                             "leave it out")
        save_distances(given.save_distances, embedded.query, embedded.gallery, embedded.matching, device=given.device)
    scores = [_score(trial, given) for trial in trials]
    metrics = data_set_metrics(scores)
    cmc = np.mean([trial.cmc(max(given.ranks)) for trial in scores], axis=0)
    metrics |= {f"rank{rank}": round(100 * float(cmc[rank - 1]), 2) for rank in given.ranks}

    print("\n".join(_lines(metrics | metrics["details"][0], given.ranks)))
    if excluded is not None:
        print(excluded.sentence())
    print(_protocol(embedded, given))
    if given.json is not None:
        write_json(given.json, metrics | _how(embedded, given)
                   | ({} if excluded is None else {"ignored": excluded.content()}))


def _score(trial: Embedded, given: argparse.Namespace) -> Scores:
    options: dict[str, Any] = {"device": given.device, "trapezoid": given.trapezoid, "pairs": True}
    if given.rerank:
        return evaluate_reranked(trial.query, trial.gallery, trial.matching, _reranking(given), **options)
    return evaluate(trial.query, trial.gallery, trial.matching, **options)


def _protocol(embedded: Embedded, given: argparse.Namespace) -> str:
    matching, reranking = embedded.matching, _reranking(given)
    return protocol_line(
        [embedded.provenance | {"distance": matching.distance, "reduction": matching.reduction}],
        average_precision="trapezoid" if given.trapezoid else "step sum",
        reranking=f"k-reciprocal (k1 {reranking.k1}, k2 {reranking.k2}, lambda {reranking.weight})" if given.rerank
        else "none")


def _reranking(given: argparse.Namespace) -> Reranking:
    """The paper's, but for what is given."""
    said = {field: getattr(given, option) for option, field in RERANKED.items()}
    return Reranking(**{field: value for field, value in said.items() if value is not None})


def _how(embedded: Embedded, given: argparse.Namespace) -> dict[str, Any]:
    """What the metrics rest on, for the JSON."""
    matching = embedded.matching
    reranking = {option: getattr(_reranking(given), field) for option, field in RERANKED.items()} \
        if given.rerank else None
    return {"distance": matching.distance, "reduction": matching.reduction, "sizes": list(matching.sizes),
            "average_precision": "trapezoid" if given.trapezoid else "step", "reranking": reranking,
            "intervals": INTERVALS, "protocol": _protocol(embedded, given)}


def _lines(metrics: dict[str, float | int], ranks: Sequence[int]) -> list[str]:
    names = {f"rank{rank}": f"rank-{rank}" for rank in ranks} | NAMES
    width = max(map(len, names.values()))
    lines = []
    for name, shown in names.items():
        interval = f"  95 % interval {metrics[f'{name}_low']:.2f} - {metrics[f'{name}_high']:.2f}" \
            if f"{name}_low" in metrics else ""
        lines.append(f"{shown:{width}} {metrics[name]:6.2f}{interval}")
    for low, high in LEVELS:
        if f"queries_hidden_{low}_{high}" in metrics:
            rank1, mean, count = (metrics[f"{name}_hidden_{low}_{high}"] for name in ("rank1", "mAP", "queries"))
            lines.append(f"{low}-{high} % of the body hidden: rank-1 {rank1:.2f}, mAP {mean:.2f} ({count} queries)")
    trials = f" in {metrics['trials']} trials, means over them" if "trials" in metrics else ""
    lines.append(f"percent; {metrics['queries']} queries scored, {metrics['skipped']} skipped, {metrics['gallery']} "
                 f"gallery images{trials}; intervals: bootstrap over {metrics['identities']} people")
    return lines


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="features: .npz, .mat or features.h5")
    parser.add_argument("--json", type=Path, help="write the metrics here too")
    parser.add_argument("--distance", choices=["cosine", "euclidean"], help="of two parts' features (cosine)")
    parser.add_argument("--reduction", choices=["mean", "sum"], help="over parts (mean)")
    parser.add_argument("--ranks", type=_rank, nargs="+", default=[1, 5, 10], help="places k of rank-k (1 5 10)")
    parser.add_argument("--trapezoid", action="store_true",
                        help="average precision as Market-1501's own code has it, 0.1-1.3 points below the step sum")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking before scoring")
    parser.add_argument("--k1", type=int, help="its neighbours (20)")
    parser.add_argument("--k2", type=int, help="its neighbours averaged over (6)")
    parser.add_argument("--lambda", type=float, help="share of the old distance in it, 0..1 (0.3)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where products are computed (cpu)")
    add_ignore_options(parser)
    parser.add_argument("--save-distances", type=Path, metavar="FILE.npy",
                        help="write all distances, before re-ranking, queries by gallery, float32")
    return parser.parse_args(words)


def _rank(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is no place; the first is 1")
    return int(word)


if __name__ == "__main__":
    arguments = parse_arguments()
    with sentences():
        run(arguments)
