"""Re-ranking by k-reciprocal neighbours, in blocks: images whose neighbours agree move together.

Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017 (equation numbers are
theirs). Among queries and gallery together, image i is described by the images that are its neighbours and that have
it as theirs; two images are near if these descriptions overlap. Of the (Q + G)^2 distances only strips exist, and each
description is a sparse row. Test labels play no part.

The distance that is mixed and put into weights is the squared Euclidean one divided by the row's largest, as in the
authors' code: d^2 for a Euclidean part distance, d itself for cosine, which is half of it at length 1. Pairs that share
no part are nobody's neighbours and stay behind all others.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from pipeline.base.errors import InputError
from pipeline.base.progress import progress
from pipeline.retrieval.distances import MEGABYTES, paired_distances, strips
from pipeline.retrieval.matching import Matching, Side, settle
from pipeline.retrieval.ranking import score
from pipeline.retrieval.scores import Scores
from pipeline.retrieval.unshared import beyond

ROWS = 2048  # images whose sparse rows are worked on at once
PAIRS = 2**22  # feature numbers of a block of listed pairs


@dataclass(frozen=True)
class Reranking:
    """k1 neighbours describe an image, the descriptions of its k2 nearest are averaged, the old distance has share
    `weight` (lambda); the paper's values."""
    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        for name, value, good in (("k1", self.k1, self.k1 >= 1), ("k2", self.k2, self.k2 >= 1),
                                  ("lambda", self.weight, 0 <= self.weight <= 1)):
            if not good:
                raise InputError(f"re-ranking: {name} is {value}; k1 and k2 are whole numbers from 1 on, lambda lies "
                                 "in 0..1")


@dataclass(frozen=True)
class _Described:
    """Descriptions V of the Q queries, (Q, N) sparse, and of the gallery, transposed: (N, G); N = Q + G images.

    largest (Q,): each query's largest squared distance to any image.
    """
    query: csr_array
    gallery: csr_array
    largest: np.ndarray


def evaluate_reranked(query: Side, gallery: Side, matching: Matching, reranking: Reranking, *, device: str = "cpu",
                      megabytes: float = MEGABYTES, trapezoid: bool = False, pairs: bool = False) -> Scores:
    """`ranking.evaluate` after re-ranking; images with pid -1 are dropped before it."""
    matching = settle(query, gallery, matching)
    described: list[_Described] = []  # once for both passes

    def source(query: Side, gallery: Side) -> Iterator[tuple[int, np.ndarray]]:
        if not described:
            described.append(_describe(query, gallery, matching, reranking, device, megabytes))
        return reranked_strips(query, gallery, matching, reranking, device=device, megabytes=megabytes,
                               described=described[0])

    return score(query, gallery, source, trapezoid=trapezoid, pairs=pairs)


def reranked_strips(query: Side, gallery: Side, matching: Matching, reranking: Reranking, *, device: str = "cpu",
                    megabytes: float = MEGABYTES, described: _Described | None = None
                    ) -> Iterator[tuple[int, np.ndarray]]:
    """`ranking.strips` with d* = (1 - lambda) d_J + lambda d in place of d, Eq. (12); 0..1, nearer is lower."""
    matching = settle(query, gallery, matching)
    known = described or _describe(query, gallery, matching, reranking, device, megabytes)

    def mix(number: int, row: np.ndarray) -> None:
        shared = row < beyond(row.dtype)
        overlap = _overlaps(known, number)  # the sum of minima; that of maxima is 2 minus it, as rows of V sum to 1
        jaccard = 1 - overlap / (2 - overlap)  # Eq. (10)

        old = _squared(row[shared], matching) / known.largest[number]
        row[shared] = (1 - reranking.weight) * jaccard[shared] + reranking.weight * old

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start, strip in strips(query, gallery, matching, device=device, megabytes=megabytes):
            for _ in pool.map(mix, range(start, start + len(strip)), strip):
                pass
            yield start, strip


def _overlaps(described: _Described, number: int) -> np.ndarray:
    """sum_j min(V_qj, V_gj) of one query with each gallery image, (G,)."""
    ends = described.query.indptr[number:number + 2]
    others, weights = (part[slice(*ends)] for part in (described.query.indices, described.query.data))
    met = described.gallery[others]  # who else is described by these images
    least = np.minimum(met.data, np.repeat(weights, np.diff(met.indptr)))
    return np.bincount(met.indices, least, minlength=met.shape[1])


def _squared(distances: np.ndarray, matching: Matching) -> np.ndarray:
    return distances ** 2 if matching.distance == "euclidean" else distances


def _describe(query: Side, gallery: Side, matching: Matching, reranking: Reranking, device: str,
              megabytes: float) -> _Described:
    """Encode every image by its k-reciprocal neighbours, Eq. (3)-(7), and average over its nearest, Eq. (11)."""
    count = len(query) + len(gallery)
    nearest, largest = _neighbours(query, gallery, matching, min(reranking.k1 + 1, count), device, megabytes)
    members = _reciprocal(nearest)
    few = _reciprocal(nearest[:, :int(np.around(reranking.k1 / 2)) + 1])

    rows = [_encode(query, gallery, matching, _expand(members[start:start + ROWS], few), start, largest)
            for start in range(0, count, ROWS)]
    encoded = csr_array((np.concatenate([row.data for row in rows]), np.concatenate([row.indices for row in rows]),
                         np.cumsum(np.concatenate([[0], *(np.diff(row.indptr) for row in rows)]))), (count, count))

    if reranking.k2 > 1:  # Eq. (11)
        listed = _listed(nearest[:, :reranking.k2], np.float64)
        shares = np.repeat(1 / np.maximum(np.diff(listed.indptr), 1), np.diff(listed.indptr))
        encoded = csr_array((shares, listed.indices, listed.indptr), listed.shape) @ encoded

    return _Described(encoded[:len(query)], encoded[len(query):].T.tocsr(), largest[:len(query)])


def _neighbours(query: Side, gallery: Side, matching: Matching, count: int, device: str,
                megabytes: float) -> tuple[np.ndarray, np.ndarray]:
    """Each image's `count` nearest of all, itself among them, nearest first, ties in order, and its largest squared
    distance to any: (N, count) and (N,). Queries are 0 .. Q - 1. -1 where fewer share a part with it."""
    total = len(query) + len(gallery)
    nearest, largest = np.full((total, count), -1), np.ones(total)

    def find(number: int, row: np.ndarray) -> None:
        limit = np.partition(row, count - 1)[count - 1]
        near = np.flatnonzero((row <= limit) & (row < beyond(row.dtype)))
        best = near[np.argsort(row[near], kind="stable")[:count]]
        nearest[number, :len(best)] = best

        finite = row[row < beyond(row.dtype)]
        if len(finite) and finite.max() > 0:
            largest[number] = _squared(finite.max(), matching)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool, \
         progress(what="neighbours", total=total, unit="images") as bar:
        for start, rows in _all_rows(query, gallery, matching, device, megabytes):
            for _ in pool.map(find, range(start, start + len(rows)), rows):
                pass
            bar.update(len(rows))
    return nearest, largest


def _all_rows(query: Side, gallery: Side, matching: Matching, device: str,
              megabytes: float) -> Iterator[tuple[int, np.ndarray]]:
    """Distances of some images to queries and gallery, (B, Q + G), block after block."""
    width = (len(query) + len(gallery)) * matching.dtype.itemsize
    height = int(max(1, min(megabytes / 2 * 2**20 / width, 2**31)))  # half: the block is put together from two strips
    offset = 0
    for side in (query, gallery):
        for start in range(0, len(side), height):
            part = side.take(slice(start, start + height))
            yield offset + start, np.concatenate(
                [strip for other in (query, gallery)
                 for _, strip in strips(part, other, matching, device=device, megabytes=np.inf)], axis=1)
        offset += len(side)


def _listed(nearest: np.ndarray, kind: type) -> csr_array:
    """(N, k) lists, -1 for none -> (N, N) sparse ones."""
    keep = nearest >= 0
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    ones = csr_array((np.ones(ends[-1], kind), nearest[keep], ends), (len(nearest), len(nearest)))
    ones.sort_indices()
    return ones


def _reciprocal(nearest: np.ndarray) -> csr_array:
    """R(i, k): the neighbours of i that have i among theirs, (N, N) sparse ones, Eq. (3)."""
    listed = _listed(nearest, np.int32)
    return listed.multiply(listed.T.tocsr()).tocsr()


def _expand(members: csr_array, few: csr_array) -> csr_array:
    """R*(i): R(i, k1) and R(j, k1 / 2) of each member j that has more than two thirds of its own in R(i, k1), Eq. (4).

    members (B, N), few (N, N) -> (B, N), positive where a member.
    """
    shared = (members @ few.T.tocsr()).multiply(members).tocsr()  # |R(i, k1) and R(j, k1 / 2)|
    sizes = np.diff(few.indptr)
    agree = csr_array(((3 * shared.data > 2 * sizes[shared.indices]).astype(np.int32), shared.indices, shared.indptr),
                      shared.shape)
    return (members + agree @ few).tocsr()


def _encode(query: Side, gallery: Side, matching: Matching, members: csr_array, start: int,
            largest: np.ndarray) -> csr_array:
    """V of some images from the member lists (B, N): exp(-d) of each member, Eq. (7), rows summing to 1."""
    members.eliminate_zeros()
    members.sort_indices()
    rows = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
    weights = np.empty(len(rows))

    step = max(1, PAIRS // sum(matching.sizes))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        far = paired_distances(_pick(query, gallery, rows[part] + start), _pick(query, gallery, members.indices[part]),
                               matching)
        weights[part] = np.exp(-_squared(far.astype(np.float64), matching) / largest[rows[part] + start])

    totals = np.bincount(rows, weights, minlength=members.shape[0])
    shares = np.divide(weights, totals[rows], out=np.zeros_like(weights), where=totals[rows] > 0)
    return csr_array((shares, members.indices, members.indptr), members.shape)


def _pick(query: Side, gallery: Side, numbers: np.ndarray) -> Side:
    """Images of both sides by their number, queries first."""
    mine = numbers < len(query)
    first, second = query.take(numbers[mine]), gallery.take(numbers[~mine] - len(query))

    def join(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        whole = np.empty((len(numbers), *one.shape[1:]), np.result_type(one, two))
        whole[mine], whole[~mine] = one, two
        return whole

    return Side(join(first.features, second.features), join(first.visibility, second.visibility),
                join(first.pid, second.pid), join(first.camid, second.camid))
