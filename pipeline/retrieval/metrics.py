"""Metrics of a ranking: pure functions of the places where a query's true matches stand (1 is the first place)."""

import numpy as np


def average_precision(places: np.ndarray) -> float:
    """Mean over the true matches of the precision at their place (the step sum, not Market-1501's trapezoid), 0..1.

    `places` (M,) are the ascending places of one query's M >= 1 matches among its valid gallery images.

    >>> average_precision(np.array([1, 2, 3]))
    1.0
    >>> average_precision(np.array([1, 4]))  # (1/1 + 2/4) / 2
    0.75
    """
    return float((np.arange(1, len(places) + 1) / places).sum() / len(places))  # np.mean's bits, half its time


def trapezoid_precision(places: np.ndarray) -> float:
    """Market-1501's own average precision, the area of trapezoids under the steps; 0..1 and at most the step sum.

    `places` as for `average_precision`. A match's trapezoid lies between the precision just before its place (1 before
    place 1) and the one at it.
    Source: Zheng et al., Scalable Person Re-identification: A Benchmark, 2015, the evaluation code beside it.

    >>> trapezoid_precision(np.array([1, 3]))  # ((1 + 1) / 2 + (1/2 + 2/3) / 2) / 2
    0.7916666666666666
    """
    matches = np.arange(1, len(places) + 1)
    before = np.where(places > 1, (matches - 1) / np.maximum(places - 1, 1), 1.0)
    return float(np.mean((before + matches / places) / 2))


def pooled_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    """PR-AUC of all pairs as binary decisions: sum of precision times gain in recall over the thresholds, 0..1.

    `positives` (T,): true pairs at each of T ascending distances at which there are any; `negatives` (T,): false pairs
    at that distance or nearer. All pairs at one distance are decided together, so their order cannot matter. This is
    the step sum that scikit-learn calls average precision, without interpolation. Source: ESA-ReID, Table 1.

    >>> pooled_precision(np.array([1, 2]), np.array([0, 3]))  # 1/3 * 1/1 + 2/3 * 3/6
    0.6666666666666666
    """
    true = np.cumsum(positives)
    return float(np.sum(positives / true[-1] * (true / (true + negatives))))


def resampled_counts(identities: int, draw: np.random.Generator, resamples: int) -> np.ndarray:
    """Bootstrap: how often each of some identities is drawn, where as many are drawn with replacement as there are;
    (resamples, identities).

    >>> resampled_counts(3, np.random.default_rng(0), 4).sum(axis=1).tolist()
    [3, 3, 3, 3]
    """
    drawn = draw.integers(identities, size=(resamples, identities)) + identities * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def inverse_negative_penalty(places: np.ndarray) -> float:
    """Matches over the place of the last one, 0..1: how much must be looked through to find all (mINP is its mean).

    Source: Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, 2021, Eq. 10.

    >>> inverse_negative_penalty(np.array([1, 4]))
    0.5
    """
    return float(len(places) / places[-1])


def cumulative_matches(first: np.ndarray, ranks: int) -> np.ndarray:
    """CMC: the share of queries whose first match stands at place k or before, for k = 1..ranks; (ranks,), 0..1.

    `first` (Q,) are the places of each query's first match.

    >>> cumulative_matches(np.array([1, 3, 9, 1]), 4).tolist()
    [0.5, 0.5, 0.75, 0.75]
    """
    return np.mean(np.asarray(first)[:, None] <= np.arange(1, ranks + 1), axis=0)
