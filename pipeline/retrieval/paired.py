"""Paired comparison of two rankings of the same queries: differences, their intervals and how likely chance gives them.

Two networks are asked for the same people, so that what differs is taken person by person. Sums (T, I, 3) are, of each
of I identities in each of T trials, its number of scored queries, hits at rank 1 and summed average precision
(`scores.sums_of` reads them from a result). Several seeds of a network are several such sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.base.seeds import rng
from pipeline.retrieval.matching import Side
from pipeline.retrieval.ranking import JUNK
from pipeline.retrieval.scores import INTERVAL, JUDGED, Scores, resampled

FLIPS = 9999  # sign flips that are drawn
EXACT = 13  # people up to whom all sign flips are tried
BLOCK = 1000  # flips that are tried at once
SURE = 3  # standard deviations above chance that a trained network's rank-1 has


@dataclass(frozen=True)
class Difference:
    """Of one metric, in percent: means of both over their seeds, one - other, its 95 % interval over identities, and
    the permutation test's p, 0..1."""
    one: float
    other: float
    difference: float
    low: float
    high: float
    p: float


def identity_sums(trials: Sequence[Scores]) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """(trial, identity, queries) of whoever has scored queries, and the sums (T, I, 3), identities ascending."""
    identities = np.unique(np.concatenate([scores.pid[scores.first > 0] for scores in trials]))
    sums = np.zeros((len(trials), len(identities), 1 + len(JUDGED)))
    for trial, scores in zip(sums, trials, strict=True):
        scored = scores.first > 0
        places = np.searchsorted(identities, scores.pid[scored])
        np.add.at(trial, places, np.stack([np.ones(len(places)), scores.first[scored] == 1, scores.precision[scored]],
                                          axis=1))
    return [(number, int(identity), int(trial[place, 0])) for number, trial in enumerate(sums)
            for place, identity in enumerate(identities) if trial[place, 0]], sums


def means(sums: np.ndarray) -> np.ndarray:
    """rank-1 and mAP, 0..1, (2,): means over trials of means over queries."""
    totals = sums.sum(axis=1)
    return (totals[:, 1:] / totals[:, :1]).mean(axis=0)


def differences(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> dict[str, Difference]:
    """rank1 and mAP of `one` less those of `other`, each the sums of one seed or several, all of the same queries."""
    intervals = difference_intervals(one, other)
    first, second = (100 * np.mean([means(sums) for sums in each], axis=0) for each in (one, other))
    chances = flipped(np.mean(one, axis=0), np.mean(other, axis=0))
    return {name: Difference(float(first[place]), float(second[place]), float(first[place] - second[place]),
                             *intervals[name], p=float(chances[place]))
            for place, name in enumerate(JUDGED)}


def difference_intervals(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """95 % intervals over identities of the differences, in percent: who is drawn is drawn with all queries, in both
    and under all seeds, because the draws hang on the number of identities alone."""
    drawn = [np.mean([resampled(sums) for sums in each], axis=0) for each in (one, other)]
    low, high = (np.quantile(100 * (drawn[0] - drawn[1]), share, axis=0) for share in INTERVAL.values())
    return {name: (float(low[place]), float(high[place])) for place, name in enumerate(JUDGED)}


def flipped(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """p of the paired permutation test of each metric, (2,): the share of all ways to exchange the two for some people,
    a person's queries together, in which the difference is as large, either way, as it is.

    Up to EXACT people all ways are tried, else FLIPS random ones from a fixed seed, and the way it is counts as one.
    """
    queries = one[..., :1].sum(axis=1, keepdims=True)
    shares = ((one - other)[..., 1:] / queries).mean(axis=0)  # (I, 2): what each person adds to the difference
    # Ties with what was seen are equal sums in another order, of which floating point makes several numbers.
    least = abs(shares.sum(axis=0)) - 1e-12

    if len(shares) <= EXACT:
        every = 1 - 2 * (np.arange(2**len(shares))[:, None] >> np.arange(len(shares)) & 1)
        return (abs(every @ shares) >= least).mean(axis=0)
    draw, count = rng(0, "permutation", "identities"), np.ones(shares.shape[1])
    for start in range(0, FLIPS, BLOCK):
        some = 1.0 - 2 * draw.integers(2, size=(min(BLOCK, FLIPS - start), len(shares)))
        count += (abs(some @ shares) >= least).sum(axis=0)
    return count / (1 + FLIPS)


def exchanges(identities: int) -> str:
    """How many ways to exchange the two `flipped` looks at, in words."""
    return f"all {2**identities}" if identities <= EXACT else f"{FLIPS:,} random"


def changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where more than half of one's seeds have the query right at rank 1 and more than half of the other's have it
    wrong, -1 the other way round, else 0; (Q,), from first places (S, Q) of both, 0 of skipped queries."""
    right, others = ((first == 1).mean(axis=0) for first in (one, other))
    scored = (one > 0).all(axis=0) & (other > 0).all(axis=0)
    return np.where(scored, (right > .5) & (others < .5), 0) * 1 - np.where(scored, (right < .5) & (others > .5), 0) * 1


def chance(query: Side, gallery: Side) -> tuple[float, float]:
    """Rank-1 of a ranking by dice over the queries that have a match, 0..1, and its standard deviation."""
    gallery_pid, camid = (values[gallery.pid != JUNK] for values in (gallery.pid, gallery.camid))
    people, counts = np.unique(gallery_pid, return_counts=True)
    pairs, own = np.unique(np.stack([gallery_pid, camid], axis=1), axis=0, return_counts=True)
    of_person = dict(zip(people.tolist(), counts.tolist(), strict=True))
    of_camera = dict(zip(map(tuple, pairs.tolist()), own.tolist(), strict=True))

    shares = []
    for pid, camera in zip(query.pid.tolist(), query.camid.tolist(), strict=True):
        removed = of_camera.get((pid, camera), 0)
        matches = of_person.get(pid, 0) - removed
        if pid != JUNK and matches:
            shares.append(matches / (len(gallery_pid) - removed))
    share = np.array(shares)
    return float(share.mean()), float(np.sqrt((share * (1 - share)).sum()) / len(share))


def collapsed(rank1: Sequence[float], by_chance: tuple[float, float] | None = None) -> list[str]:
    """Of each seed's rank-1, 0..1, why it is that of a training that collapsed; empty where it is not.

    by_chance: `chance` of the same queries, where it is known.

    >>> collapsed([0.5, 0.1, 0.48])
    ['', 'less than half of the 49.00 of its siblings', '']
    >>> collapsed([0.02], (0.01, 0.005))
    ['no better than chance, which is 1.00']
    """
    found = []
    for place, value in enumerate(rank1):
        others = [sibling for number, sibling in enumerate(rank1) if number != place]
        if by_chance and value <= by_chance[0] + SURE * by_chance[1]:
            found.append(f"no better than chance, which is {100 * by_chance[0]:.2f}")
        elif others and value < np.median(others) / 2:
            found.append(f"less than half of the {100 * np.median(others):.2f} of its siblings")
        else:
            found.append("")
    return found
