"""Ranking of a gallery for each query, streamed: visibility-weighted part distances and where true matches stand.

The distance of every model (v a part's visibility, f_p its feature, D = 1 - cos or Euclidean):

    d(q, g) = sum_p w_p D(f_p^q, f_p^g) / sum_p w_p,    w_p = v_p^q v_p^g     (`sum`: without the divisor)

Pairs that share no part stand behind all others, among themselves by D of the part that holds the whole body, where
the model has one. Equal distances stand in gallery order. Of the Q x G distances only a strip of some queries exists at
a time.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import new_file
from pipeline.retrieval.metrics import (
    average_precision,
    inverse_negative_penalty,
    pooled_precision,
    trapezoid_precision,
)
from pipeline.retrieval.scores import Scores

JUNK = -1  # the identity of images that belong to nobody (Market-1501's detector errors)
SHARED = 1e-12  # a pair whose weights sum to no more shares no part
BEHIND = 2.0**80  # a strip's numbers from here on are pairs that share no part; distances are nowhere near it
FAR = 2.0**100  # times a whole-body distance of at least NEAREST: behind, and in the same order to the last bit
NEAREST = 1e-6
MEGABYTES = 128  # of distances that exist at a time
GALLERY_BLOCK = 2048  # gallery images of a tile
CPU_ROWS = 64  # queries of a tile that are worked on at once
FEW = 8  # matches of a query up to which counting what stands before each is faster than sorting


@dataclass(frozen=True)
class Side:
    """Queries or gallery: `features` (N, sum D_p) float16/32/64, `visibility` (N, P) in 0..1, `pid`, `camid` (N,).

    occlusion (N,): the share of each body that is hidden, 0..1, where known.
    """
    features: np.ndarray
    visibility: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    occlusion: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pid)

    def take(self, rows: np.ndarray | slice) -> "Side":
        """Some of its images; a slice copies nothing."""
        return Side(self.features[rows], self.visibility[rows], self.pid[rows], self.camid[rows],
                    None if self.occlusion is None else self.occlusion[rows])


@dataclass(frozen=True)
class Matching:
    """How two images are compared: the parts' `sizes` D_p, `distance` cosine | euclidean, `reduction` mean | sum.

    whole_body: the part that orders the pairs which share none, whatever its visibility; None where the model has none.
    """
    sizes: tuple[int, ...]
    distance: str
    reduction: str
    double: bool = False  # float64 instead of float32 arithmetic
    whole_body: int | None = None

    def __post_init__(self) -> None:
        if self.distance not in ("cosine", "euclidean"):
            raise InputError(f"the part distance is {self.distance!r}; it is one of cosine, euclidean")
        if self.reduction not in ("mean", "sum"):
            raise InputError(f"the reduction over parts is {self.reduction!r}; it is one of mean, sum")
        if self.whole_body is not None and self.whole_body not in range(len(self.sizes)):
            raise InputError(f"the whole body is part {self.whole_body!r}; it is one of the {len(self.sizes)} parts, "
                             "counted from 0")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.double else torch.float32


# Query, gallery -> (first query, distances of some queries to all gallery images), as `strips` yields them.
Source = Callable[[Side, Side], Iterator[tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class _Block:
    """A block of one side, ready for products."""
    features: Tensor  # (N, sum D_p)
    weights: Tensor  # (N, P) the parts' visibilities
    squares: Tensor  # (N, P) squared length of each part's feature
    whole: Tensor | None  # (N, D_p) the whole body's feature, for cosine at length 1


def pair_distances(query: Side, gallery: Side, matching: Matching, device: str = "cpu") -> np.ndarray:
    """All distances of two small sets, (Q, G); infinite where a pair shares no part."""
    (_, strip), = strips(query, gallery, matching, device=device, megabytes=np.inf)
    return np.where(strip < BEHIND, strip, np.inf)


def paired_distances(one: Side, two: Side, matching: Matching) -> np.ndarray:
    """The distance of image i of one set to image i of another, (N,); infinite where they share no part."""
    def load(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(matching.dtype)

    top = bottom = torch.zeros(len(one), dtype=matching.dtype)
    parts = zip(load(one.features).split(matching.sizes, 1), load(two.features).split(matching.sizes, 1), strict=True)
    weights = load(one.visibility) * load(two.visibility)  # (N, P)

    for weight, (a, b) in zip(weights.T, parts, strict=True):
        if matching.distance == "cosine":
            lengths = a.norm(dim=1) * b.norm(dim=1)
            distance = 1 - torch.where(lengths > 0, (a * b).sum(dim=1) / lengths, 0)
        else:
            distance = (a - b).square().sum(dim=1).clamp(min=1e-12).sqrt()
        top, bottom = top + weight * distance, bottom + weight

    total = top / bottom if matching.reduction == "mean" else top
    return torch.where(bottom > SHARED, total, torch.inf).numpy()


def strips(query: Side, gallery: Side, matching: Matching, *, device: str = "cpu",
           megabytes: float = MEGABYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first query, distances (B, G)) strip after strip; a strip takes at most `megabytes`, at least one row.

    The array is used again for the next strip. No shared part: a number from BEHIND on, the largest finite one of its
    type where there is no whole body to tell such pairs apart.
    """
    height = max(1, min(len(query), int(min(megabytes * 2**20 / (len(gallery) * matching.dtype.itemsize), 2**31))))
    height = -(-len(query) // -(-len(query) // height))  # equal strips: no short last one
    strip = torch.empty(height, len(gallery), dtype=matching.dtype, device=device)
    work = torch.empty(height, min(GALLERY_BLOCK, len(gallery)), dtype=matching.dtype, device=device)
    squares = _squares(gallery, matching, device)

    for start in range(0, len(query), height):
        part = query.take(slice(start, start + height))
        rows = _load(part, _squares(part, matching, device), matching)

        for first in range(0, len(gallery), GALLERY_BLOCK):
            columns = slice(first, first + GALLERY_BLOCK)
            block = _load(gallery.take(columns), squares[columns], matching)
            _fill(strip[:len(part), columns], work[:len(part), :len(block.weights)], rows, block, matching)
        yield start, strip[:len(part)].numpy(force=True)


def _squares(side: Side, matching: Matching, device: str) -> Tensor:
    """Squared length of every part's feature, (N, P), made from some images at a time."""
    squares = torch.empty(len(side), len(matching.sizes), dtype=matching.dtype, device=device)
    for start in range(0, len(side), 256):
        block = torch.from_numpy(side.features[start:start + 256]).to(device=device, dtype=matching.dtype)
        for number, part in enumerate(block.split(matching.sizes, dim=1)):
            torch.sum(part * part, dim=1, out=squares[start:start + 256, number])
    return squares


def _load(side: Side, squares: Tensor, matching: Matching) -> _Block:
    """Move a block to the device; for cosine each part is scaled to length 1 times its visibility.

    sum_p w_p cos_p is then one product of the concatenated parts, as fast as a single feature.
    """
    cosine = matching.distance == "cosine"
    features = torch.from_numpy(side.features).to(device=squares.device, dtype=matching.dtype, copy=cosine)
    weights = torch.from_numpy(side.visibility).to(squares)

    whole = None
    if matching.whole_body is not None:
        whole = features.split(matching.sizes, dim=1)[matching.whole_body]
        if cosine:
            whole = whole / squares[:, matching.whole_body, None].sqrt().clamp(min=torch.finfo(squares.dtype).tiny)

    if cosine:
        scale = torch.where(squares > 0, weights / squares.sqrt(), 0)
        for number, part in enumerate(features.split(matching.sizes, dim=1)):
            part.mul_(scale[:, number, None])

    return _Block(features, weights, squares, whole)


def _fill(out: Tensor, work: Tensor, query: _Block, gallery: _Block, matching: Matching) -> None:
    """Write the distances of two blocks into `out` (Q, G), with `work` (Q, G) as scratch.

    Element by element work goes through CPU_ROWS queries at a time, which stay in the processor's cache.
    """
    pieces = range(0, len(out), CPU_ROWS if out.device.type == "cpu" else len(out))

    if matching.distance == "cosine":
        # sum_p w_p (1 - cos_p) = sum_p w_p - (scaled q) . (scaled g)
        torch.mm(query.weights, gallery.weights.T, out=out)
        out.addmm_(query.features, gallery.features.T, alpha=-1)
    else:
        out.zero_()
        parts = zip(query.features.split(matching.sizes, 1), gallery.features.split(matching.sizes, 1), strict=True)
        for number, (q, g) in enumerate(parts):
            torch.mm(q, g.T, out=work)
            for rows in (slice(start, start + pieces.step) for start in pieces):
                squared = torch.add(gallery.squares[None, :, number], work[rows], alpha=-2, out=work[rows])
                distance = squared.add_(query.squares[rows, number, None]).clamp_(min=1e-12).sqrt_()
                distance.mul_(query.weights[rows, number, None])
                out[rows].addcmul_(distance, gallery.weights[None, :, number])

    for rows in (slice(start, start + pieces.step) for start in pieces):
        total = torch.mm(query.weights[rows], gallery.weights.T, out=work[rows])
        if matching.reduction == "mean":
            out[rows].div_(total)
        apart = total <= SHARED
        out[rows].masked_fill_(apart, torch.finfo(out.dtype).max)
        if query.whole is not None and bool(apart.any()):
            out[rows] = torch.where(apart, _far(work[rows], query, rows, gallery, matching), out[rows])


def _far(work: Tensor, query: _Block, rows: slice, gallery: _Block, matching: Matching) -> Tensor:
    """Whole-body distances of some queries to a block of the gallery, times FAR; made in `work`."""
    assert query.whole is not None and gallery.whole is not None and matching.whole_body is not None
    torch.mm(query.whole[rows], gallery.whole.T, out=work)
    if matching.distance == "cosine":
        distance = work.neg_().add_(1)
    else:
        squared = work.mul_(-2).add_(gallery.squares[None, :, matching.whole_body])
        distance = squared.add_(query.squares[rows, matching.whole_body, None]).clamp_(min=1e-12).sqrt_()
    return distance.clamp_(min=NEAREST).mul_(FAR).clamp_(max=torch.finfo(work.dtype).max)


def save_distances(path: str | os.PathLike, query: Side, gallery: Side, matching: Matching, *, device: str = "cpu",
                   megabytes: float = MEGABYTES) -> None:
    """Write all Q x G distances as a .npy file, strip by strip; infinite where a pair shares no part."""
    kind = np.float64 if matching.double else np.float32
    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (len(query), len(gallery))}

    with new_file(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, strip in strips(query, gallery, matching, device=device, megabytes=megabytes):
            file.write(np.where(strip < BEHIND, strip, kind(np.inf)).tobytes())


def evaluate(query: Side, gallery: Side, matching: Matching, *, device: str = "cpu", megabytes: float = MEGABYTES,
             trapezoid: bool = False, pairs: bool = False) -> Scores:
    """Score every query by Market-1501's rule: gallery images of its identity and camera are removed first.

    Images with pid -1 are dropped; a query with no match left is skipped and counted. InputError if a side is empty or
    no query has a match. trapezoid: average precision as Market-1501's own code has it, not the step sum; pairs: PR-AUC
    too, for which the distances are made a second time.
    """
    def source(query: Side, gallery: Side) -> Iterator[tuple[int, np.ndarray]]:
        return strips(query, gallery, matching, device=device, megabytes=megabytes)

    return score(query, gallery, source, trapezoid=trapezoid, pairs=pairs)


def evaluate_matrix(distances: np.ndarray, *, query_pid: np.ndarray, query_camid: np.ndarray, gallery_pid: np.ndarray,
                    gallery_camid: np.ndarray, trapezoid: bool = False, pairs: bool = False) -> Scores:
    """`evaluate` on given distances (Q, G), which are left as they are; lower is nearer, infinite: no shared part.

    InputError if one is not a number.
    """
    def side(pid: np.ndarray, camid: np.ndarray) -> Side:  # an image's feature is its row or column of the matrix
        return Side(np.arange(len(pid)), np.empty((len(pid), 0)), np.asarray(pid), np.asarray(camid))

    def source(query: Side, gallery: Side) -> Iterator[tuple[int, np.ndarray]]:
        whole, step = len(gallery) == distances.shape[1], CPU_ROWS * torch.get_num_threads()
        for start in range(0, len(query), step):
            strip = distances[query.features[start:start + step]]
            strip = strip if whole else strip[:, gallery.features]
            strip = strip if strip.dtype.kind == "f" else strip.astype(np.float64)
            np.minimum(strip, np.finfo(strip.dtype).max, out=strip)  # infinite is what is removed
            if np.isnan(strip.min()):
                raise InputError(f"the distances of queries {start} to {start + len(strip) - 1} hold a value that is "
                                 "no number; make them again")
            yield start, strip

    query, gallery = side(query_pid, query_camid), side(gallery_pid, gallery_camid)
    if distances.shape != (len(query), len(gallery)):
        raise InputError(f"the distances are {distances.shape}, and there are {len(query)} queries and {len(gallery)} "
                         "gallery images; give a row for each query and a column for each gallery image")

    return score(query, gallery, source, trapezoid=trapezoid, pairs=pairs)


def score(query: Side, gallery: Side, source: Source, *, trapezoid: bool = False, pairs: bool = False) -> Scores:
    """`evaluate` on the distances that `source` gives, once, or twice where `pairs` is asked; its strips are changed.

    They must be finite.
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

    for _ in _in_groups(judge, source(query, gallery)):
        pass
    if not first.any():
        raise InputError(f"none of the {len(query)} queries has a match in the gallery from another camera; check the "
                         "identities and cameras of the index")

    area = None
    if pairs:
        distances, positives = np.unique(np.concatenate([part for part in true if len(part)]), return_counts=True)
        area = pooled_precision(positives, _negatives(query, source(query, gallery), distances, first > 0, same))
    return Scores(first, precision, penalty, len(gallery), query.occlusion, area)


def _negatives(query: Side, strips: Iterator[tuple[int, np.ndarray]], distances: np.ndarray, scored: np.ndarray,
               same: dict[int, np.ndarray]) -> np.ndarray:
    """How many images of other people the scored queries have at each of the ascending `distances` or nearer; (T,).

    Pairs that share no part are behind all others, one group where no whole body tells them apart.
    """
    def count(start: int, block: np.ndarray) -> np.ndarray:
        for number, row in enumerate(block, start):
            row[same[int(query.pid[number])] if scored[number] else slice(None)] = np.inf
        return np.searchsorted(np.sort(block, axis=None), distances, side="right")

    total = np.zeros(len(distances), np.int64)
    for part in _in_groups(count, strips):
        total += part
    return total


def _in_groups(work: Callable[[int, np.ndarray], object], strips: Iterator[tuple[int, np.ndarray]]) -> Iterator:
    """work(first query, rows) on some rows of each strip at a time, on all threads; its results in order."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start, strip in strips:
            firsts = range(0, len(strip), CPU_ROWS)
            yield from pool.map(work, (start + row for row in firsts), (strip[row:row + CPU_ROWS] for row in firsts))


def nearest(query: Side, gallery: Side, matching: Matching, count: int, *,
            device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Each query's first `count` gallery images by the rule of `evaluate`: gallery rows and distances, (Q, count).

    Where fewer are left the row is -1; the distance is infinite where a pair shares no part. pid -1 is not dropped from
    the queries.
    """
    same = _rows_of(gallery.pid)

    rows = np.full((len(query), count), -1)
    distances = np.full((len(query), count), np.inf)

    for start, strip in strips(query, gallery, matching, device=device):
        for number, row in enumerate(strip, start):
            _remove_own_camera(row, query.pid[number], query.camid[number], gallery.camid, same)
            row[gallery.pid == JUNK] = np.inf

            limit = np.partition(row, min(count, len(row)) - 1)[min(count, len(row)) - 1]
            candidates = np.flatnonzero((row <= limit) & (row < np.inf))
            best = candidates[np.argsort(row[candidates], kind="stable")[:count]]

            rows[number, :len(best)] = best
            distances[number, :len(best)] = np.where(row[best] < BEHIND, row[best], np.inf)
    return rows, distances


def match_places(row: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Ascending places (1 is first) of the gallery rows `matches` when `row` (G,) is sorted, ties in gallery order.

    >>> match_places(np.array([0.5, 0.1, 0.5, 0.9]), np.array([2, 3]))
    array([3, 4])
    """
    if len(matches) > FEW:
        true = np.sort(row[matches])
        # Only what stands before the last match counts; where that is not most, sorting it alone is faster.
        near = row <= true[-1]
        ahead = np.sort(row if 2 * np.count_nonzero(near) > len(row) else row.take(np.flatnonzero(near)))
        places = ahead.searchsorted(true) + 1
        if np.array_equal(places, ahead.searchsorted(true, side="right")):  # no match ties with anything
            return places
    return _counted_places(row, matches)


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
