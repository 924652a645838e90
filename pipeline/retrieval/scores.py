"""Scores of every query in an evaluation, and the metrics made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.seeds import rng
from pipeline.retrieval.metrics import cumulative_matches, resampled_counts

SHOWN = ("rank1", "mAP", "mINP")  # in DVC's tables; all else lies among the details
RESAMPLES = 1000
INTERVAL = {"low": 0.025, "high": 0.975}  # quantiles of the resampled means
INTERVALS = f"95 % bootstrap over identities, {RESAMPLES} draws"  # what results say of theirs
JUDGED = ("rank1", "mAP")  # metrics with an interval: means over queries of what each query has by itself
LEVELS = ((0, 10), (10, 30), (30, 50), (50, 100))  # percent of a query's body that is hidden; the last holds its end


@dataclass(frozen=True)
class Scores:
    """One entry per query: place of the `first` match (0: skipped), average `precision`, inverse `penalty` (else NaN),
    and whose picture it is (`pid`).

    gallery: number of its images; occlusion (Q,): the share of the query's body that is hidden, 0..1 or NaN, where
    known; area: PR-AUC, where asked.
    """
    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    pid: np.ndarray
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
        scored = self.first > 0
        cmc = self.cmc(10)
        return {"rank1": cmc[0], "rank5": cmc[4], "rank10": cmc[9], "mAP": self.precision[scored].mean(),
                "mINP": self.penalty[scored].mean()}

    def _counts(self) -> dict[str, int]:
        scored = self.first > 0
        return {"queries": int(scored.sum()), "skipped": int((~scored).sum()), "gallery": self.gallery}

    def _judged(self) -> np.ndarray:
        """Hit at rank 1 (0 | 1) and average precision of the scored queries, (Q', 2)."""
        scored = self.first > 0
        return np.stack([self.first[scored] == 1, self.precision[scored]], axis=1).astype(np.float64)

    def _sums(self, identities: np.ndarray) -> np.ndarray:
        """Of each of some identities the number of its scored queries and the sums of what is `_judged`, (I, 3)."""
        places = np.searchsorted(identities, self.pid[self.first > 0])
        judged = self._judged()
        columns = (np.ones(len(judged)), *judged.T)
        return np.stack([np.bincount(places, column, len(identities)) for column in columns], axis=1)


def data_set_metrics(trials: Sequence[Scores]) -> dict[str, Any]:
    """All metrics of one data set: rank1, mAP, mINP, and in lists, which DVC leaves out of its tables, `details`: the
    rest of what `summary` holds, PR_AUC where asked, intervals and levels of occlusion, and `by_identity`: what
    intervals, of differences too, are made from.

    Percent with two decimals. Metrics are means over the trials, `queries` and `skipped` sums, `gallery` the first
    trial's; for more than one there are among the details `trials`, their number, and their `spread`.

    >>> scores = Scores(np.array([1, 2]), np.array([1.0, 0.5]), np.array([1.0, 0.5]), np.array([7, 8]), gallery=9)
    >>> metrics = data_set_metrics([scores])
    >>> metrics["rank1"], metrics["mAP"], metrics["mINP"], metrics["details"][0]["rank5"]
    (50.0, 75.0, 75.0, 100.0)
    """
    shares = [scores._shares() for scores in trials]
    counts = [scores._counts() for scores in trials]
    areas = [scores.area for scores in trials if scores.area is not None]

    means = {name: _percent(np.mean([trial[name] for trial in shares])) for name in shares[0]}
    details: dict[str, Any] = {name: mean for name, mean in means.items() if name not in SHOWN}
    details |= {name: sum(trial[name] for trial in counts) for name in ("queries", "skipped")}
    details["gallery"] = counts[0]["gallery"]
    if areas:
        details["PR_AUC"] = _percent(np.mean(areas))
    if len(trials) > 1:
        details |= {"trials": len(trials)} | spread(trials)

    return {name: means[name] for name in SHOWN} | {"details": [details | intervals(trials) | levels(trials)],
                                                    "by_identity": by_identity(trials)}


def spread(trials: Sequence[Scores]) -> dict[str, float]:
    """Standard deviation over two or more trials (with n - 1) of each metric, in percentage points: rank1_sd, mAP_sd.

    It holds what differs between trials: people, gallery images and, where each has one of its own, networks. The
    mean's own standard error is this over the root of the number of trials.
    """
    shares = [scores._shares() for scores in trials]
    areas = [scores.area for scores in trials if scores.area is not None]

    deviations = {f"{name}_sd": _percent(np.std([trial[name] for trial in shares], ddof=1)) for name in shares[0]}
    return deviations | ({"PR_AUC_sd": _percent(np.std(areas, ddof=1))} if len(areas) > 1 else {})


def intervals(trials: Sequence[Scores]) -> dict[str, float | int]:
    """95 % bootstrap intervals of rank1 and mAP, in percent: rank1_low, rank1_high, mAP_low, mAP_high; and how many
    `identities` they are over.

    Identities are drawn anew with replacement, each with all of its scored queries in all trials, because images of one
    person are alike. They say how far the metric depends on which people were asked for; not on the training's chance,
    nor on the gallery.
    """
    identities = _identities(trials)
    means = resampled(np.stack([scores._sums(identities) for scores in trials]))
    return {"identities": len(identities)} | {
        f"{name}_{end}": _percent(np.quantile(means[:, column], share))
        for column, name in enumerate(JUDGED) for end, share in INTERVAL.items()}


def resampled(sums: np.ndarray) -> np.ndarray:
    """Resampled means over trials of means over queries, from sums (T, I, 1 + K): of each identity in each trial its
    number of queries and sums over them; (RESAMPLES, K). Who has the same identities has the same draws."""
    counts = resampled_counts(sums.shape[1], rng(0, "bootstrap", "identities"), RESAMPLES)
    totals = counts @ sums  # (T, RESAMPLES, 1 + K)
    asked = totals[..., :1] > 0  # not where a draw has none of the people of a trial
    means = np.divide(totals[..., 1:], totals[..., :1], out=np.zeros_like(totals[..., 1:]), where=asked)
    return means.sum(axis=0) / np.maximum(asked.sum(axis=0), 1)


def by_identity(trials: Sequence[Scores]) -> list[str]:
    """A line for each identity in each trial with scored queries: trial, identity, queries, hits at rank 1 and summed
    average precision, with blanks between. `sums_of` reads them."""
    identities = _identities(trials)
    return [f"{number} {identity} {queries:.0f} {hits:.0f} {precision:.4f}"
            for number, scores in enumerate(trials)
            for identity, (queries, hits, precision) in zip(identities.tolist(), scores._sums(identities), strict=True)
            if queries]


def sums_of(lines: Sequence[str]) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Lines of `by_identity` -> (trial, identity, queries) of each, and what `resampled` takes, (T, I, 3)."""
    rows = [line.split() for line in lines]
    keys = [(int(trial), int(identity), int(queries)) for trial, identity, queries, *_ in rows]
    identities = sorted({identity for _, identity, _ in keys})
    sums = np.zeros((max(trial for trial, *_ in keys) + 1, len(identities), 3))
    for (trial, identity, _), row in zip(keys, rows, strict=True):
        sums[trial, np.searchsorted(identities, identity)] = [float(number) for number in row[2:]]
    return keys, sums


def _identities(trials: Sequence[Scores]) -> np.ndarray:
    """Who has scored queries in any trial, ascending."""
    return np.unique(np.concatenate([scores.pid[scores.first > 0] for scores in trials]))


def levels(trials: Sequence[Scores]) -> dict[str, float | int]:
    """rank1, mAP (percent) and number of the queries of each level of occlusion that has any, where occlusion is known.

    Names end in `_hidden_10_30` for queries of which 10 % or more and less than 30 % of the body is hidden.
    """
    metrics: dict[str, float | int] = {}
    for low, high in LEVELS:
        judged = [part for scores in trials if len(part := _at_level(scores, low, high))]
        if judged:
            rank1, precision = np.mean([part.mean(axis=0) for part in judged], axis=0)
            name = f"hidden_{low}_{high}"
            metrics |= {f"rank1_{name}": _percent(rank1), f"mAP_{name}": _percent(precision),
                        f"queries_{name}": sum(map(len, judged))}
    return metrics


def _at_level(scores: Scores, low: int, high: int) -> np.ndarray:
    if scores.occlusion is None:
        return np.empty((0, 2))

    hidden = scores.occlusion[scores.first > 0]
    inside = (hidden >= low / 100) & ((hidden < high / 100) | (high == 100))
    return scores._judged()[inside]


def _percent(share: float | np.floating) -> float:
    """With two decimals. InputError for what no share can be: such a number is not a metric and may not be shown."""
    percent = round(100 * float(share), 2)
    if not 0 <= percent <= 100:
        raise InputError(f"a metric came out as {percent}, which is outside 0..100; the distances that it is made "
                         "from cannot be right: make the features again")
    return percent
