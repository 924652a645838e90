"""What a ranking is worth: pure functions of the places where a query's true matches stand (1 is the first place)."""

import numpy as np


def average_precision(places: np.ndarray) -> float:
    """Mean over the true matches of the precision at their place (the step sum, not Market-1501's trapezoid), 0..1.

    `places` (M,) are the ascending places of one query's M >= 1 matches among its valid gallery images.

    >>> average_precision(np.array([1, 2, 3]))
    1.0
    >>> average_precision(np.array([1, 4]))  # (1/1 + 2/4) / 2
    0.75
    """
    return float(np.mean(np.arange(1, len(places) + 1) / places))


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
