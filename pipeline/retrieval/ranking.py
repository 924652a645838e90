"""Ranking of a gallery for each query, streamed: where its true matches stand, and the scores made from that.

Distances come strip by strip from pipeline/retrieval/distances.py. Equal distances stand in gallery order, pairs that
share no part behind all others in an order of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.base.progress import progress
from pipeline.retrieval.distances import MEGABYTES, as_given, strips
from pipeline.retrieval.matching import Matching, Side, settle
from pipeline.retrieval.metrics import (
    average_precision,
    inverse_negative_penalty,
    pooled_precision,
    trapezoid_precision,
)
from pipeline.retrieval.scores import Scores
from pipeline.retrieval.unshared import beyond, unshared_places

JUNK = -1  # the identity of images that belong to nobody (Market-1501's detector errors)
ROWS = 64  # queries that are judged at once
FEW = 8  # matches of a query up to which counting what stands before each is faster than sorting

# Query, gallery -> (first query, distances of some queries to all gallery images), as `strips` yields them.
Source = Callable[[Side, Side], Iterator[tuple[int, np.ndarray]]]


def evaluate(query: Side, gallery: Side, matching: Matching, *, device: str = "cpu", megabytes: float = MEGABYTES,
             trapezoid: bool = False, pairs: bool = False) -> Scores:
    """Score every query by Market-1501's rule: gallery images of its identity and camera are removed first.

    Images with pid -1 are dropped; a query with no match left is skipped and counted. InputError if a side is empty,
    no query has a match or features cannot be compared. trapezoid: average precision as Market-1501's own code has it,
    not the step sum; pairs: PR-AUC too, for which the distances are made a second time.
    """
    matching = settle(query, gallery, matching)

    def source(query: Side, gallery: Side) -> Iterator[tuple[int, np.ndarray]]:
        return strips(query, gallery, matching, device=device, megabytes=megabytes)

    return score(query, gallery, source, trapezoid=trapezoid, pairs=pairs)


def evaluate_matrix(distances: np.ndarray, *, query_pid: np.ndarray, query_camid: np.ndarray, gallery_pid: np.ndarray,
                    gallery_camid: np.ndarray, trapezoid: bool = False, pairs: bool = False) -> Scores:
    """`evaluate` on given distances (Q, G), which are left as they are; lower is nearer, infinite: no shared part.

    InputError if one is not a number or too large for its type.
    """
    def side(pid: np.ndarray, camid: np.ndarray) -> Side:  # an image's feature is its row or column of the matrix
        return Side(np.arange(len(pid)), np.empty((len(pid), 0)), np.asarray(pid), np.asarray(camid))

    def source(query: Side, gallery: Side) -> Iterator[tuple[int, np.ndarray]]:
        whole, step = len(gallery) == distances.shape[1], ROWS * torch.get_num_threads()
        kind = distances.dtype if distances.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        for start in range(0, len(query), step):
            strip = distances[query.features[start:start + step]]
            strip = strip if whole else strip[:, gallery.features]
            strip = strip.astype(kind, copy=False)

            high = strip.max()
            if not high < beyond(kind):
                _set_apart(strip, query.mark[start:start + step], gallery.mark, start)
            yield start, strip

    query, gallery = side(query_pid, query_camid), side(gallery_pid, gallery_camid)
    if distances.shape != (len(query), len(gallery)):
        raise InputError(f"the distances are {distances.shape}, and there are {len(query)} queries and {len(gallery)} "
                         "gallery images; give a row for each query and a column for each gallery image")

    return score(query, gallery, source, trapezoid=trapezoid, pairs=pairs)


def _set_apart(strip: np.ndarray, query: np.ndarray, gallery: np.ndarray, start: int) -> None:
    """Pairs of infinite distance behind all others, by their marks: infinite is what is removed."""
    rows, columns = np.nonzero(~(strip < beyond(strip.dtype)))
    bad = rows[strip[rows, columns] != np.inf]
    if len(bad):
        raise InputError(f"the distances of query {start + bad[0]} hold a value that is no number, or beyond "
                         f"{beyond(strip.dtype):.0e}; make them again")
    strip[rows, columns] = unshared_places(query[rows], gallery[columns], strip.dtype)


def score(query: Side, gallery: Side, source: Source, *, trapezoid: bool = False, pairs: bool = False) -> Scores:
    """`evaluate` on the distances that `source` gives, once, or twice where `pairs` is asked; its strips are changed.

    They must be finite; those of pairs that share no part are from `beyond` their type on.
    """
    query, gallery = _kept(query, "query"), _kept(gallery, "gallery")
    same = _rows_of(gallery.pid)
    average = trapezoid_precision if trapezoid else average_precision

    first, precision, penalty = np.zeros(len(query), np.int64), *np.full((2, len(query)), np.nan)
    true: list[np.ndarray] = [np.empty(0)] * len(query)  # distances of each query's matches

    def judge(start: int, block: np.ndarray) -> None:
        for number, row in enumerate(block, start):
            matches = _remove_own_camera(row, query.pid[number], query.camid[number], gallery.camid, same)

            if len(matches):
                places = match_places(row, matches)
                first[number] = places[0]
                precision[number] = average(places)
                penalty[number] = inverse_negative_penalty(places)
                if pairs:
                    true[number] = row[matches]

    for _ in _in_groups(judge, source(query, gallery), len(query)):
        pass
    if not first.any():
        raise InputError(f"none of the {len(query)} queries has a match in the gallery from another camera; check the "
                         "identities and cameras of the index")

    area = None
    if pairs:
        every = np.concatenate([part for part in true if len(part)])
        every[every >= beyond(every.dtype)] = np.finfo(every.dtype).max  # one group, with all that is as far
        distances, positives = np.unique(every, return_counts=True)
        area = pooled_precision(positives, _negatives(query, source(query, gallery), distances, first > 0, same))
    return Scores(first, precision, penalty, query.pid, len(gallery), query.occlusion, area)


def _negatives(query: Side, strips: Iterator[tuple[int, np.ndarray]], distances: np.ndarray, scored: np.ndarray,
               same: dict[int, np.ndarray]) -> np.ndarray:
    """How many images of other people the scored queries have at each of the ascending `distances` or nearer; (T,).

    Pairs that share no part are one group behind all others: the last distance is their largest.
    """
    def count(start: int, block: np.ndarray) -> np.ndarray:
        for number, row in enumerate(block, start):
            row[same[int(query.pid[number])] if scored[number] else slice(None)] = np.inf
        return np.searchsorted(np.sort(block, axis=None), distances, side="right")

    total = np.zeros(len(distances), np.int64)
    for part in _in_groups(count, strips, len(query)):
        total += part
    return total


def _in_groups(work: Callable[[int, np.ndarray], object], strips: Iterator[tuple[int, np.ndarray]], total: int
               ) -> Iterator:
    """work(first query, rows) on some rows of each strip at a time, on all threads; its results in order.

    total: of the queries, to show how far it is.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, progress(what="rank", total=total, unit="queries") as bar:
        for start, strip in strips:
            firsts = range(0, len(strip), ROWS)
            yield from pool.map(work, (start + row for row in firsts), (strip[row:row + ROWS] for row in firsts))
            bar.update(len(strip))


def nearest(query: Side, gallery: Side, matching: Matching, count: int, *,
            device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Each query's first `count` gallery images by the rule of `evaluate`: gallery rows and distances, (Q, count).

    Where fewer are left the row is -1; the distance is infinite where a pair shares no part. pid -1 is not dropped from
    the queries.
    """
    matching = settle(query, gallery, matching)
    same = _rows_of(gallery.pid)

    rows = np.full((len(query), count), -1)
    distances = np.full((len(query), count), np.inf)

    ranked = ((number, row) for start, strip in strips(query, gallery, matching, device=device)
              for number, row in enumerate(strip, start))
    for number, row in progress(ranked, "rank", total=len(query), unit="queries"):
        _remove_own_camera(row, query.pid[number], query.camid[number], gallery.camid, same)
        row[gallery.pid == JUNK] = np.inf

        limit = np.partition(row, min(count, len(row)) - 1)[min(count, len(row)) - 1]
        candidates = np.flatnonzero((row <= limit) & (row < np.inf))
        best = candidates[np.argsort(row[candidates], kind="stable")[:count]]

        rows[number, :len(best)] = best
        distances[number, :len(best)] = as_given(row[best], matching)
    return rows, distances


def match_places(row: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Ascending places (1 is first) of the gallery rows `matches` when `row` (G,) is sorted, ties in gallery order.

    >>> match_places(np.array([0.5, 0.1, 0.5, 0.9]), np.array([2, 3]))
    array([3, 4])
    """
    if len(matches) <= FEW:
        return _counted_places(row, matches)

    matches = matches[np.argsort(row[matches], kind="stable")]
    true = row[matches]

    # Only what stands before the last match counts; where that is not most, sorting it alone is faster.
    near = row <= true[-1]
    ahead = np.sort(row if 2 * np.count_nonzero(near) > len(row) else row.take(np.flatnonzero(near)))
    before, until = ahead.searchsorted(true), ahead.searchsorted(true, side="right")

    for tied in np.flatnonzero(until - before > 1):
        before[tied] += np.count_nonzero(row[:matches[tied]] == true[tied])
    return before + 1


def _counted_places(row: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """`match_places` by counting what is nearer, or as near and earlier in the gallery, for each match."""
    before = np.empty(len(row), bool)
    places = []
    for match in matches.tolist():
        np.less_equal(row[:match], row[match], out=before[:match])
        np.less(row[match:], row[match], out=before[match:])
        places.append(np.count_nonzero(before) + 1)
    return np.array(sorted(places))


def _kept(side: Side, name: str) -> Side:
    kept = side if not (side.pid == JUNK).any() else side.take(np.flatnonzero(side.pid != JUNK))
    if not len(kept):
        raise InputError(f"there are no {name} images to score; check the index's split {name!r}")
    return kept


def _rows_of(pid: np.ndarray) -> dict[int, np.ndarray]:
    """Identity -> its ascending rows."""
    order = np.argsort(pid, kind="stable")
    names, starts = np.unique(pid[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _remove_own_camera(row: np.ndarray, pid: int, camid: int, cameras: np.ndarray,
                       same: dict[int, np.ndarray]) -> np.ndarray:
    """Set the distances to the same person in the same camera infinite; return the rows that are true matches."""
    rows: Sequence[int] | np.ndarray = same.get(int(pid), np.empty(0, np.int64))
    own = cameras[rows] == camid
    row[rows[own]] = np.inf
    return rows[~own]
