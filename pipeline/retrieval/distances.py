"""Distances of queries to gallery images, strip by strip: parts weighted by visibility, in the frame of the matching.

The distance of every model (v a part's visibility, f_p its feature, D = 1 - cos or Euclidean):

    d(q, g) = sum_p w_p D(f_p^q, f_p^g) / sum_p w_p,    w_p = v_p^q v_p^g     (`sum`: without the divisor)

A feature of zeros has no direction: its cosine with any other is 0. Pairs that share no part stand behind all others,
among themselves by D of the part that holds the whole body, where the model has one. Of the Q x G distances only a
strip of some queries exists at a time.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import new_file
from pipeline.retrieval.matching import Matching, Side, settle, unit_parts
from pipeline.retrieval.unshared import beyond, ordered_places, unshared_places

SHARED = 1e-12  # a pair whose weights sum to no more shares no part
MEGABYTES = 256  # of distances that exist at a time
GALLERY_BLOCK = 2048  # gallery images of a tile
CPU_ROWS = 64  # queries of a tile that are worked on at once
NEAR = 2.0**-14  # squared distances below this share of the squared lengths have lost too much in the subtraction
MENDED = 2**20  # feature numbers of the differences that are made at once
SQUARES = {torch.float32: (1e-24, 1e36), torch.float64: (1e-280, 1e300)}  # squared lengths that lose nothing


@dataclass(frozen=True)
class _Block:
    """A block of one side, ready for products."""
    features: Tensor  # (N, sum D_p)
    weights: Tensor  # (N, P) the parts' visibilities
    squares: Tensor  # (N, P) squared length of each part's feature; cosine: 0 where it is out of the type's range
    side: Side  # its images


def as_given(distances: np.ndarray, matching: Matching) -> np.ndarray:
    """Distances as the features give them, not the frame; infinite where a pair shares no part. float64 where the frame
    has another unit."""
    found = np.where(distances < beyond(distances.dtype), distances, np.inf)
    exponent = matching.frame.exponent if matching.frame else 0
    return np.ldexp(found.astype(np.float64), exponent) if exponent else found


def paired_distances(one: Side, two: Side, matching: Matching) -> np.ndarray:
    """The distance of image i of one set to image i of another, (N,), in the frame of the matching; infinite where they
    share no part."""
    matching = settle(one, two, matching)
    a, b = (_load(side, _squares(side, matching, "cpu"), matching) for side in (one, two))
    weights = a.weights * b.weights  # (N, P)
    bottom = weights.sum(dim=1)

    if matching.distance == "cosine":
        top = bottom - (a.features * b.features).sum(dim=1)
    else:
        top = torch.zeros_like(bottom)
        parts = zip(a.features.split(matching.sizes, 1), b.features.split(matching.sizes, 1), strict=True)
        for number, (f, g) in enumerate(parts):
            top += weights[:, number] * (f - g).square().sum(dim=1).clamp(min=1e-12).sqrt()

    total = top / bottom if matching.reduction == "mean" else top
    return torch.where(bottom > SHARED, total, torch.inf).numpy()


def strips(query: Side, gallery: Side, matching: Matching, *, device: str = "cpu",
           megabytes: float = MEGABYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first query, distances (B, G)) strip after strip; a strip takes at most `megabytes`, at least one row.

    The array is used again for the next strip. Distances are in the frame of the matching, and no shared part is a
    number from `beyond` its type on.
    """
    matching = settle(query, gallery, matching)
    height = max(1, min(len(query), int(min(megabytes * 2**20 / (len(gallery) * matching.dtype.itemsize), 2**31))))
    height = -(-len(query) // -(-len(query) // height))  # equal strips: no short last one
    strip = torch.empty(height, len(gallery), dtype=matching.dtype, device=device)
    work = torch.empty(height, min(GALLERY_BLOCK, len(gallery)), dtype=matching.dtype, device=device)
    room = None  # of a block's features, where they cannot be read where they lie
    if matching.distance == "cosine" or torch.from_numpy(gallery.features[:0]).dtype != matching.dtype:
        room = torch.empty(work.shape[1], sum(matching.sizes), dtype=matching.dtype, device=device)
    squares = _squares(gallery, matching, device)

    for start in range(0, len(query), height):
        part = query.take(slice(start, start + height))
        rows = _load(part, _squares(part, matching, device), matching)

        for first in range(0, len(gallery), GALLERY_BLOCK):
            columns = slice(first, first + GALLERY_BLOCK)
            block = _load(gallery.take(columns), squares[columns], matching, room)
            _fill(strip[:len(part), columns], work[:len(part), :len(block.weights)], rows, block, matching)
        yield start, strip[:len(part)].numpy(force=True)


def _squares(side: Side, matching: Matching, device: str) -> Tensor:
    """Squared length of every part's feature, (N, P), made from some images at a time."""
    squares = torch.empty(len(side), len(matching.sizes), dtype=matching.dtype, device=device)
    for start in range(0, len(side), 256):
        block = _framed(side.features[start:start + 256], matching, device)
        for number, part in enumerate(block.split(matching.sizes, dim=1)):
            torch.sum(part * part, dim=1, out=squares[start:start + 256, number])

    if matching.distance == "cosine":
        low, high = SQUARES[matching.dtype]
        squares[~((squares > low) & (squares < high))] = 0
    return squares


def _framed(features: np.ndarray, matching: Matching, device: str | torch.device, room: Tensor | None = None) -> Tensor:
    """Features as numbers of the matching's type, moved and stretched into its frame: in `room` where one is given,
    which is used again and again, since memory that is new each time costs as much as they do."""
    frame = matching.frame
    if frame is None or frame.plain:
        framed = torch.from_numpy(features)
    else:
        moved = features.astype(np.float64)
        if frame.centre is not None:
            moved -= frame.centre
        framed = torch.from_numpy(np.ldexp(moved, -frame.exponent, out=moved))

    if room is None:
        return framed.to(device=device, dtype=matching.dtype)
    return room[:len(framed)].copy_(framed)


def _load(side: Side, squares: Tensor, matching: Matching, room: Tensor | None = None) -> _Block:
    """Move a block to the device; for cosine each part is scaled to length 1 times its visibility.

    sum_p w_p cos_p is then one product of the concatenated parts, as fast as a single feature.
    """
    cosine = matching.distance == "cosine"
    if cosine and room is None:
        room = torch.empty(len(side), sum(matching.sizes), dtype=matching.dtype, device=squares.device)
    features = _framed(side.features, matching, squares.device, room)
    weights = torch.from_numpy(side.visibility).to(squares)

    if cosine:
        scale = torch.where(squares > 0, weights / squares.sqrt(), 0)
        for number, part in enumerate(features.split(matching.sizes, dim=1)):
            part.mul_(scale[:, number, None])

        odd = (squares == 0).any(dim=1).nonzero().squeeze(1)  # zeros, or numbers too large or small to be squared
        if len(odd):
            units = unit_parts(side.features[odd.numpy(force=True)].astype(np.float64), matching.sizes)
            sizes = torch.tensor(matching.sizes, device=squares.device)
            features[odd] = torch.from_numpy(units).to(squares) * weights[odd].repeat_interleave(sizes, dim=1)

    return _Block(features, weights, squares, side)


def _fill(out: Tensor, work: Tensor, query: _Block, gallery: _Block, matching: Matching) -> None:
    """Write the distances of two blocks into `out` (Q, G), with `work` (Q, G) as scratch.

    Element by element work goes through CPU_ROWS queries at a time, which stay in the processor's cache.
    """
    step = CPU_ROWS if out.device.type == "cpu" else len(out)
    pieces = [slice(start, start + step) for start in range(0, len(out), step)]

    if matching.distance == "cosine":
        # sum_p w_p (1 - cos_p) = sum_p w_p - (scaled q) . (scaled g)
        torch.mm(query.weights, gallery.weights.T, out=out)
        out.addmm_(query.features, gallery.features.T, alpha=-1)
    else:
        out.zero_()
        parts = zip(query.features.split(matching.sizes, 1), gallery.features.split(matching.sizes, 1), strict=True)
        near = (NEAR * (query.squares.amax(dim=0) + gallery.squares.amax(dim=0))).tolist()
        for number, (q, g) in enumerate(parts):
            torch.mm(q, g.T, out=work)
            for rows in pieces:
                squared = torch.add(gallery.squares[None, :, number], work[rows], alpha=-2, out=work[rows])
                squared.add_(query.squares[rows, number, None])
                if float(squared.amin()) < near[number]:
                    _mend(squared, q[rows], g, query.squares[rows, number], gallery.squares[:, number])
                distance = squared.clamp_(min=1e-12).sqrt_()
                distance.mul_(query.weights[rows, number, None])
                out[rows].addcmul_(distance, gallery.weights[None, :, number])

    for rows in pieces:
        total = torch.mm(query.weights[rows], gallery.weights.T, out=work[rows])
        if matching.reduction == "mean":
            out[rows].div_(total)
        if float(total.amin()) <= SHARED:
            _set_unshared(out[rows], total <= SHARED, query.side.take(rows), gallery.side, matching)


def _mend(squared: Tensor, query: Tensor, gallery: Tensor, query_squares: Tensor, gallery_squares: Tensor) -> None:
    """Squared distances (Q, G) that |q|^2 + |g|^2 - 2 q g leaves few digits of, from the differences themselves."""
    rows, columns = (squared < NEAR * (query_squares[:, None] + gallery_squares)).nonzero(as_tuple=True)
    step = max(1, MENDED // query.shape[1])
    for start in range(0, len(rows), step):
        row, column = rows[start:start + step], columns[start:start + step]
        squared[row, column] = (query[row] - gallery[column]).square().sum(dim=1)


def _set_unshared(out: Tensor, apart: Tensor, query: Side, gallery: Side, matching: Matching) -> None:
    """Put the pairs that share no part behind all others, by their whole bodies or by their marks."""
    places = apart.nonzero(as_tuple=True)
    rows, columns = (place.numpy(force=True) for place in places)
    kind = np.float64 if out.dtype == torch.float64 else np.float32
    if matching.whole_body is None:
        found = unshared_places(query.mark[rows], gallery.mark[columns], kind)
    else:
        found = ordered_places(_whole_bodies(query, gallery, rows, columns, matching), kind)
    out[places] = torch.from_numpy(found).to(out)


def _whole_bodies(query: Side, gallery: Side, rows: np.ndarray, columns: np.ndarray, matching: Matching) -> np.ndarray:
    """D of the whole body's part for the listed pairs, (N,) float64, whatever its visibility."""
    assert matching.whole_body is not None
    end = sum(matching.sizes[:matching.whole_body + 1])
    size = matching.sizes[matching.whole_body]
    exponent = matching.frame.exponent if matching.frame else 0
    step, found = max(1, MENDED // size), np.empty(len(rows))

    for start in range(0, len(rows), step):
        pairs = slice(start, start + step)
        one, two = (np.ldexp(side.features[places[pairs], end - size:end].astype(np.float64), -exponent)
                    for side, places in ((query, rows), (gallery, columns)))
        if matching.distance == "cosine":
            one, two = unit_parts(one, (size,)), unit_parts(two, (size,))
            found[pairs] = 1 - (one * two).sum(axis=1)
        else:
            found[pairs] = np.linalg.norm(one - two, axis=1)
    return np.maximum(found, 0)


def save_distances(path: str | os.PathLike, query: Side, gallery: Side, matching: Matching, *, device: str = "cpu",
                   megabytes: float = MEGABYTES) -> None:
    """Write all Q x G distances as a .npy file, strip by strip; infinite where a pair shares no part.

    InputError if one is beyond the file's float32, or float64 where the matching says so.
    """
    kind = np.dtype(np.float64 if matching.double else np.float32)
    least, most = (float(end) for end in (np.finfo(str(kind)).tiny, np.finfo(str(kind)).max))
    header = {"descr": kind.str, "fortran_order": False, "shape": (len(query), len(gallery))}
    matching = settle(query, gallery, matching)

    with new_file(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start, strip in strips(query, gallery, matching, device=device, megabytes=megabytes):
            found = as_given(strip, matching)
            shared = found < np.inf
            ends = [float(end) for end in (found.min(where=shared, initial=np.inf),
                                           found.max(where=shared, initial=-np.inf))]
            if ends[1] > most or 0 < ends[1] < least:
                raise InputError(f"{os.fspath(path)!r}: the distances of queries {start} to {start + len(strip) - 1} "
                                 f"lie in {ends[0]:.0e}..{ends[1]:.0e}, which {kind} cannot hold; divide the features "
                                 "by their usual length")
            file.write(found.astype(kind).tobytes())
