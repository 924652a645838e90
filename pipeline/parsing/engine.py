"""Parsing engine: images, or a box of each, through a parser, whole batches at a time, into parts.h5 or crops.h5.

The images are hashed first; rows of an older file with the same image, box, maker and code are kept. The others are
decoded, parsed and quantised batch by batch (a batch is a unit of pipeline/caches/resumable.py), then all rows are
packed in the index's order. The bytes of the file depend on the images and the maker alone: not on what was kept, on
interruptions or on the number of ranks. docs/caches.md says what is in it and when "the same bytes" holds.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.body_parts import PARTS4, PARTS8, PARTS8_TO_PARTS4, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256, write_text
from pipeline.base.hdf5 import HeldError
from pipeline.base.images import Box, crop_image, decode_image, fit, read_bytes
from pipeline.base.processors import processors
from pipeline.base.progress import progress
from pipeline.caches.cache import Cache, Row, compress, write_cache
from pipeline.caches.parts_layout import CELL, STEP, parts_arrays, parts_columns
from pipeline.caches.resumable import Save, ahead, clean, run_units
from pipeline.parsing.letterbox import letterbox, on_whole_images

NOBODY = "no person"  # the status of such an image
MADE_BY = "made-by"  # in the scratch folder: SHA-256 of the finished file and of the code that made it
TOGETHER = 8  # batches that are parsed, or decoded and compressed, before it is the other's turn
KEPT = 2**25 - 2**16  # bytes, just under the most that glibc's malloc will learn from

# images (batch,3,H,W) uint8 RGB and their paths ("" for padding) -> native (batch,H,W) uint8,
# parts8 (batch,8,H,W) probabilities and, where there are, parts4 (batch,5,H,W), uv (batch,H,W,2) in [0,1]
Forward = Callable[[Tensor, list[str]], dict[str, Tensor]]
# row numbers, why each failed or "", images, paths, the place of each row's image in what the parser sees
Decoded = tuple[np.ndarray, list[str], Tensor, list[str], list[Box]]
Parsed = tuple[np.ndarray, list[str], dict[str, np.ndarray]]  # row numbers, why each failed or "", quantised maps


@dataclass(frozen=True)
class Job:
    """What is to be parsed and how. `raw` + path is an image's file; `uv`: whether the parser gives u,v; `boxes`: what
    of each image is parsed, a column of crops.h5; None is all of it, and there is no such column; fit: whether what the
    parser sees is stretched to height x width or keeps its proportions (pipeline/parsing/letterbox.py). Rows describe
    all of it at height x width in either case. code: SHA-256 of what makes rows (pipeline/base/code.py): those that
    other code made are made again; "" where nothing is kept from one run to the next."""

    keys: Sequence[str]
    paths: Sequence[str]
    raw: Path
    maker: str
    taxonomy: str
    uv: bool
    height: int
    width: int
    batch: int
    device: str
    boxes: Sequence[Box] | None = None
    fit: str = "stretch"  # or keep
    code: str = ""


def parse_images(job: Job, forward: Forward, path: Path, *, scratch: Path, rank: int = 0, world: int = 1
                 ) -> list[tuple[str, str]] | None:
    """Parse what is stale in `path` (parts.h5, crops.h5) and write it anew. None if that is left to another rank.

    Returns the images that could not be parsed, their key and status. InputError if the input size is no multiple of
    4, another process is at it, an image changes meanwhile or the disk is full; finished units are kept.
    """
    if job.height % CELL or job.width % CELL:
        raise InputError(f"the parser's input size {job.height}x{job.width} is no multiple of {CELL}; choose a height "
                         "and a width that are")

    # glibc keeps twice the largest piece it saw freed, less at first than what a batch takes. Getting that from the
    # system and giving it back for every batch was a tenth of all time; nothing of this piece is ever touched.
    np.empty(KEPT, np.uint8)

    hashes = [image_sha256(job.raw / name) for name in progress(job.paths, "hash", unit="images")]
    old = Cache(path)
    kept = reusable_rows(old, job, hashes)
    made_by = scratch / MADE_BY
    if job.code and (kept >= 0).any() and _text(made_by) != f"{file_sha256(path)} {job.code}":
        print(f"{os.fspath(path)!r}: was made by other code or on another machine; all images are parsed anew")
        kept[:] = -1
    stale = np.flatnonzero(kept < 0)
    if not len(stale) and np.array_equal(kept, np.arange(len(old))):
        clean(scratch)
        return []

    batches = [stale[start:start + job.batch] for start in range(0, len(stale), job.batch)]
    failed: list[tuple[str, str]] = []

    def produce(numbers: list[int], save: Save) -> None:
        for number, rows in zip(numbers, parse_batches(job, forward, [batches[n] for n in numbers], hashes),
                                strict=True):
            save(number, rows)

    def pack(fresh: Iterator[Row]) -> None:
        rows = _merge(job, hashes, old, kept, fresh, failed)
        write_cache(path, count=len(kept), arrays=parts_arrays(job.height, job.width, uv=job.uv),
                    columns=parts_columns(job.keys, box=job.boxes is not None), rows=rows, maker=job.maker)
        if job.code:
            write_text(made_by, f"{file_sha256(path)} {job.code}")

    packed = run_units(scratch, identity=_identity(job, stale, hashes), count=len(batches), rank=rank, world=world,
                       what=repr(str(path)), produce=produce, pack=pack)
    old.close()
    return failed if packed else None


def image_sha256(path: Path) -> str:
    """SHA-256 of an image file, "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


def reusable_rows(old: Cache, job: Job, hashes: Sequence[str]) -> np.ndarray:
    """The row of `old` that each image can keep, int64, or -1: image, box, maker unchanged, parsed, chunks intact."""
    kept = np.full(len(job.keys), -1, np.int64)
    if not old.path.exists():
        return kept

    try:
        if old.maker != json.loads(job.maker) or ("box" in old) != (job.boxes is not None):
            return kept
        columns = [old.column(name) for name in ("key", "image_sha256", "status", "visibility")]
        boxes = None if job.boxes is None else old.column("box").tolist()
        if len({len(column) for column in columns}) > 1 or len(boxes or columns[0]) != len(columns[0]):
            raise InputError(f"{str(old.path)!r}: is damaged (its columns differ in length)")
    except HeldError:
        raise
    except InputError as error:
        print(f"{error}; all images are parsed anew")
        return kept

    places = {key: (row, sha) for row, (key, sha, status) in enumerate(zip(*columns[:3], strict=True))
              if not status.startswith("failed")}
    for row, (key, sha) in enumerate(progress(zip(job.keys, hashes, strict=True), "look for old rows",
                                              total=len(job.keys), unit="rows")):
        place, old_sha = places.get(key, (-1, ""))
        same = boxes is None or job.boxes is None or boxes[place] == list(job.boxes[row])
        if sha and sha == old_sha and same and _intact(old, place, job):
            kept[row] = place

    return kept


def _intact(old: Cache, row: int, job: Job) -> bool:
    try:
        for name in parts_arrays(job.height, job.width, uv=job.uv):
            old.chunk(name, row)
    except InputError as error:
        print(f"{error}; its row {row} is parsed anew")
        return False

    return True


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _identity(job: Job, rows: Iterable[int], hashes: Sequence[str]) -> Iterator[str]:
    yield from (job.maker, job.code)
    for row in rows:
        yield from (job.keys[row], job.paths[row], hashes[row])
        if job.boxes is not None:
            yield str(job.boxes[row])


def _merge(job: Job, hashes: Sequence[str], old: Cache, kept: np.ndarray, fresh: Iterator[Row],
           failed: list[tuple[str, str]]) -> Iterator[Row]:
    """Kept rows (as the chunks they are) and fresh ones in the index's order; notes failures in `failed`."""
    statuses = old.column("status") if (kept >= 0).any() else np.empty(0, object)
    boxes = [None] * len(kept) if job.boxes is None else job.boxes
    for key, sha, place, box in zip(job.keys, hashes, kept, boxes, strict=True):
        if place < 0:
            row = next(fresh)
        else:
            row = {"key": key, "image_sha256": sha, "status": statuses[place],
                   "visibility": old.read("visibility", place),
                   **{name: old.chunk(name, place) for name in parts_arrays(job.height, job.width, uv=job.uv)}}
        if row["status"].startswith("failed"):
            failed.append((row["key"], row["status"]))
        yield row if box is None else {**row, "box": box}


def parse_batches(job: Job, forward: Forward, batches: Sequence[np.ndarray], hashes: Sequence[str]
                  ) -> Iterator[list[Row]]:
    """Rows of parts.h5 or crops.h5, without their boxes, for each batch of row numbers.

    Where cores are left over, decoding and compression run beside the network. A network that has threads on all of
    them waits for its slowest thread: taking a core from one stops the others too. There they take turns.
    """
    cores = processors()
    spare = cores - torch.get_num_threads() if job.device == "cpu" else cores - 1
    run = _beside(job, forward, batches, hashes, threads=spare) if spare > 0 else \
        _in_turns(job, forward, batches, hashes, threads=cores)
    with progress(what="parse", total=sum(map(len, batches)), unit="images") as bar:
        for rows in run:
            yield rows
            bar.update(len(rows))


def _beside(job: Job, forward: Forward, batches: Sequence[np.ndarray], hashes: Sequence[str], *, threads: int
            ) -> Iterator[list[Row]]:
    with ThreadPoolExecutor(threads) as decoder, ThreadPoolExecutor(threads) as compressor:
        decoded = ahead(decoder, lambda rows: _decode(job, rows, hashes), batches)
        parsed = (_parse(job, forward, part) for part in decoded)
        yield from ahead(compressor, lambda part: _compress(job, hashes, *part), parsed)


def _in_turns(job: Job, forward: Forward, batches: Sequence[np.ndarray], hashes: Sequence[str], *, threads: int
              ) -> Iterator[list[Row]]:
    parsed: list[Parsed] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(batches) + TOGETHER, TOGETHER):  # the last round only compresses
            rows = [pool.submit(_compress, job, hashes, *part) for part in parsed]
            decoded = [pool.submit(_decode, job, batch, hashes) for batch in batches[start:start + TOGETHER]]
            for done in rows:
                yield done.result()  # saved while others are compressed and decoded
            wait(decoded)
            parsed = [_parse(job, forward, done.result()) for done in decoded]


def _parse(job: Job, forward: Forward, decoded: Decoded) -> Parsed:
    rows, failures, images, paths, places = decoded
    return rows, failures, quantise(on_whole_images(forward(images.to(job.device), paths), places))


def _decode(job: Job, rows: np.ndarray, hashes: Sequence[str]) -> Decoded:
    """Row numbers -> those, why each failed or "", images (batch,3,H,W) uint8 with zeros for padding, paths, places."""
    images = np.zeros((job.batch, job.height, job.width, 3), np.uint8)
    failures = [""] * len(rows)
    places = [(0, 0, job.height, job.width)] * len(rows)
    for place, row in enumerate(rows):
        path = job.raw / job.paths[row]
        try:
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() != hashes[row]:
                raise RuntimeError
            image = decode_image(data, path)
            seen = image if job.boxes is None else crop_image(image, job.boxes[row])
            if job.fit == "keep":
                images[place], places[place] = letterbox(seen, job.height, job.width)
            else:
                images[place] = fit(seen, job.height, job.width)
        except InputError as error:
            failures[place] = str(error).removeprefix(f"{os.fspath(path)!r}: ")
        except RuntimeError as error:
            raise InputError(f"{os.fspath(path)!r}: changed while it was being parsed; run again") from error

    paths = [job.paths[row] for row in rows] + [""] * (job.batch - len(rows))
    return rows, failures, torch.from_numpy(images).permute(0, 3, 1, 2), paths, places


@torch.inference_mode()
def quantise(output: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """A parser's output -> the arrays of parts.h5, (batch, ...) uint8, and `valid` (batch,) bool.

    A pooled probability is p x 255 in steps of 5, and a cell's sum to 255 (`shares`). Entropy, in steps of 5 too, is
    that of the pooled probabilities before rounding, over log 8 (ESA-ReID Eq. 1, 2 with E_max = log N). Not valid:
    NaN, or no sum of one.
    """
    parts8 = output["parts8"]
    pooled8 = F.avg_pool2d(parts8, CELL)
    if "parts4" in output:
        pooled4 = F.avg_pool2d(output["parts4"], CELL)
    else:
        groups = [np.flatnonzero(part == PARTS8_TO_PARTS4).tolist() for part in range(len(PARTS4))]
        pooled4 = torch.stack([pooled8[:, group].sum(1) for group in groups], 1)

    valid = ((pooled8.sum(1) - 1).abs() < 0.01).flatten(1).all(1)
    result = {"native": output["native"].cpu().numpy(), "probs/parts8": shares(pooled8),
              "probs/parts4": shares(pooled4), "visibility": _bytes(parts8.amax((2, 3))),
              "entropy": _bytes(torch.special.entr(pooled8).sum(1) / math.log(len(PARTS8)), STEP)}
    if "uv" in output:
        result["uv"] = _bytes(output["uv"])
        valid &= output["uv"].flatten(1).sum(1).isfinite()

    return result | {"valid": valid.cpu().numpy()}


def shares(probabilities: Tensor) -> np.ndarray:
    """(batch, K, h, w) that sum to one over K -> uint8 multiples of STEP that sum to 255.

    The largest remainders are rounded up, of equals the first ones: each is less than a STEP from p x 255.
    """
    levels = 255 // STEP
    scaled = probabilities * levels
    whole = scaled.floor()
    missing = (levels - whole.sum(1, keepdim=True)).round_()
    rest = scaled - whole

    before = torch.zeros(rest.shape, dtype=torch.uint8, device=rest.device)
    for place, one in enumerate(rest.split(1, 1)):  # how many come before each; sorting takes several times as long
        before[:, :place + 1] += (one > rest[:, :place + 1]).view(torch.uint8)
        before[:, place + 1:] += (one >= rest[:, place + 1:]).view(torch.uint8)

    whole += before < missing
    return whole.mul_(STEP).clamp_(0, 255).to(torch.uint8).cpu().numpy()


def _bytes(values: Tensor, step: int = 1) -> np.ndarray:
    return (values * (255 // step)).round_().mul_(step).clamp_(0, 255).to(torch.uint8).cpu().numpy()


def _compress(job: Job, hashes: Sequence[str], rows: np.ndarray, failures: list[str], maps: dict[str, np.ndarray]
              ) -> list[Row]:
    """One batch's rows of parts.h5."""
    return [_row(job, job.keys[row], hashes[row], {name: values[place] for name, values in maps.items()}, why)
            for place, (row, why) in enumerate(zip(rows, failures, strict=True))]


def _row(job: Job, key: str, sha: str, maps: dict[str, np.ndarray], why: str) -> Row:
    arrays = parts_arrays(job.height, job.width, uv=job.uv)
    if not why and not maps["valid"]:
        why = "the parser returned NaN or probabilities that do not sum to one; look at its weights"
    if why:
        maps = {"visibility": np.zeros(len(PARTS8), np.uint8),
                **{name: np.zeros(shape, np.uint8) for name, shape in arrays.items()}}
    else:
        maps["labels"] = parts8_from_native(maps["native"], job.taxonomy)

    status = f"failed: {why}" if why else "parsed" if maps["labels"].any() else NOBODY
    return {"key": key, "image_sha256": sha, "status": status, "visibility": maps["visibility"].tolist(),
            **{name: compress(maps[name]) for name in arrays}}
