"""Hubs: gallery images that stand among the first of many queries, and so answer many of them wrongly.

In spaces of many dimensions the k-occurrence N_k of an image, how many queries have it among their first k, is skewed:
a few images have most. Source: Radovanovic, Nanopoulos, Ivanovic: Hubs in Space, JMLR 2010.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import skew

from pipeline.base.errors import InputError
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import JUNK, nearest

FIRST = 10  # k of the k-occurrence
LEAST = 3  # queries that a hub answers wrongly at rank 1


@dataclass(frozen=True)
class Occurrences:
    """Of each gallery image (G,): how many queries have it among their first FIRST, and how many of other people have
    it as their first. answers: queries whose first is wrong."""
    among: np.ndarray
    wrong: np.ndarray
    answers: int

    def skewness(self) -> float:
        """Of N_k over the gallery: near 0 where all are found alike, above 1 where a few have most; 0 where none
        differs."""
        return float(skew(self.among)) if np.ptp(self.among) else 0.0

    def hubs(self) -> np.ndarray:
        """Rows of the hubs, those that answer most queries wrongly first."""
        order = np.argsort(-self.wrong, kind="stable")
        return order[self.wrong[order] >= LEAST]


def occurrences(query: Side, gallery: Side, matching: Matching) -> Occurrences:
    """Counts over the queries of known people, by the rule of `ranking.evaluate`. InputError if a side has nobody."""
    for name, side in (("query", query), ("gallery", gallery)):
        if (side.pid == JUNK).all():  # of no image too
            raise InputError(f"there is no {name} image of anybody to rank, identity {JUNK} being nobody; give some, "
                             f"or check the identities of the split {name!r}")
    query = query.take(np.flatnonzero(query.pid != JUNK))
    rows, _ = nearest(query, gallery, matching, FIRST)
    among = np.bincount(rows[rows >= 0], minlength=len(gallery))
    answered = rows[:, 0] >= 0
    first, asked = rows[answered, 0], query.pid[answered]

    # A query without a match in the gallery cannot be answered rightly, so that it tells nothing of a hub.
    cameras = query.camid[answered]
    matched = np.array([bool(((gallery.pid == pid) & (gallery.camid != camid)).any())
                        for pid, camid in zip(asked, cameras, strict=True)])
    wrong = first[matched & (gallery.pid[first] != asked)]
    return Occurrences(among, np.bincount(wrong, minlength=len(gallery)), len(wrong))
