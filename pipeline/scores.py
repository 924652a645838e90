"""What an evaluation found of every query, and the figures made from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.metrics import cumulative_matches, resampled_means
from pipeline.seeds import rng

RESAMPLES = 1000
INTERVAL = {"low": 0.025, "high": 0.975}  # quantiles of the resampled means
LEVELS = ((0, 10), (10, 30), (30, 50), (50, 100))  # percent of a query's body that is hidden; the last holds its end


@dataclass(frozen=True)
class Scores:
    """One entry a query: place of the `first` match (0: skipped), average `precision`, inverse `penalty` (else NaN).

    occlusion (Q,): the share of the query's body that is hidden, 0..1 or NaN, where known; area: PR-AUC, where asked.
    """
    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    gallery: int
    occlusion: np.ndarray | None = None
    area: float | None = None

    def cmc(self, ranks: int) -> np.ndarray:
        """Share of the queries, skipped ones left out, matched within 1..ranks places; (ranks,), 0..1."""
        return cumulative_matches(self.first[self.first > 0], ranks)

    def summary(self) -> dict[str, float | int]:
        """rank1, rank5, rank10, mAP, mINP in percent with two decimals over the scored `queries`, and the counts."""
        return {name: _percent(share) for name, share in self._shares().items()} | self._counts()

    def _shares(self) -> dict[str, float]:
        found = self.first > 0
        cmc = self.cmc(10)
        return {"rank1": cmc[0], "rank5": cmc[4], "rank10": cmc[9], "mAP": self.precision[found].mean(),
                "mINP": self.penalty[found].mean()}

    def _counts(self) -> dict[str, int]:
        found = self.first > 0
        return {"queries": int(found.sum()), "skipped": int((~found).sum()), "gallery": self.gallery}

    def _judged(self) -> np.ndarray:
        """Hit at rank 1 (0 | 1) and average precision of the scored queries, (Q', 2)."""
        found = self.first > 0
        return np.stack([self.first[found] == 1, self.precision[found]], axis=1).astype(np.float64)


def figures(trials: Sequence[Scores]) -> dict[str, Any]:
    """All figures of one data set: what `summary` holds, PR_AUC where asked, and as `details` intervals and levels of
    occlusion, in a list, which DVC leaves out of its tables.

    Percent with two decimals. Figures are means over the trials, `queries` and `skipped` sums, `gallery` the first
    trial's; for more than one there are `trials`, their number, and among the details their `spread`.
    """
    shares = [scores._shares() for scores in trials]
    counts = [scores._counts() for scores in trials]
    found: dict[str, Any] = {name: _percent(np.mean([each[name] for each in shares])) for name in shares[0]}
    found |= {name: sum(each[name] for each in counts) for name in ("queries", "skipped")}
    found["gallery"] = counts[0]["gallery"]
    areas = [scores.area for scores in trials if scores.area is not None]
    if areas:
        found["PR_AUC"] = _percent(np.mean(areas))
    details = intervals(trials) | levels(trials)
    if len(trials) > 1:
        found["trials"] = len(trials)
        details |= spread(trials)
    return found | {"details": [details]}


def spread(trials: Sequence[Scores]) -> dict[str, float]:
    """Standard deviation over two or more trials (with n - 1) of each figure, in percentage points: rank1_sd, mAP_sd.

    It holds what differs between trials: people, gallery images and, where each has one of its own, networks. The
    mean's own standard error is this over the root of the number of trials.
    """
    shares = [scores._shares() for scores in trials]
    found = {f"{name}_sd": _percent(np.std([each[name] for each in shares], ddof=1)) for name in shares[0]}
    areas = [scores.area for scores in trials if scores.area is not None]
    return found | ({"PR_AUC_sd": _percent(np.std(areas, ddof=1))} if len(areas) > 1 else {})


def intervals(trials: Sequence[Scores]) -> dict[str, float]:
    """95 % bootstrap intervals of rank1 and mAP, in percent: rank1_low, rank1_high, mAP_low, mAP_high.

    Scored queries are drawn anew with replacement within each trial. They say how far the figure depends on which
    queries were asked; not on the training's chance, nor on the gallery. Images of one person are alike, so that the
    interval is somewhat narrower than one over people would be.
    """
    means = np.mean([resampled_means(scores._judged(), rng(0, "bootstrap", "queries", number), RESAMPLES)
                     for number, scores in enumerate(trials)], axis=0)
    return {f"{name}_{end}": _percent(np.quantile(means[:, column], share))
            for column, name in enumerate(("rank1", "mAP")) for end, share in INTERVAL.items()}


def levels(trials: Sequence[Scores]) -> dict[str, float | int]:
    """rank1, mAP (percent) and number of the queries of each level of occlusion that has any, where occlusion is known.

    Names end in `_hidden_10_30` for queries of which 10 % or more and less than 30 % of the body is hidden.
    """
    found: dict[str, float | int] = {}
    for low, high in LEVELS:
        judged = [part for scores in trials if len(part := _at_level(scores, low, high))]
        if judged:
            rank1, precision = np.mean([part.mean(axis=0) for part in judged], axis=0)
            name = f"hidden_{low}_{high}"
            found |= {f"rank1_{name}": _percent(rank1), f"mAP_{name}": _percent(precision),
                      f"queries_{name}": sum(map(len, judged))}
    return found


def _at_level(scores: Scores, low: int, high: int) -> np.ndarray:
    if scores.occlusion is None:
        return np.empty((0, 2))
    hidden = scores.occlusion[scores.first > 0]
    inside = (hidden >= low / 100) & ((hidden < high / 100) | (high == 100))
    return scores._judged()[inside]


def _percent(share: float | np.floating) -> float:
    return round(100 * float(share), 2)
