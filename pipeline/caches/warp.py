"""Warps (DSAP images): a person's pixels carried to the 24 surface charts (Zhang et al. 2019, DSA-reID 3.1)."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.base.body_parts import SURFACE_PARTS
from pipeline.base.errors import InputError
from pipeline.base.hdf5 import text
from pipeline.base.images import decode_image, fit, nearest, read_bytes
from pipeline.base.processors import processors
from pipeline.base.progress import progress
from pipeline.caches.cache import SHA256, Cache, Row, compress, write_cache
from pipeline.caches.resumable import Save, ahead, run_units

UNIT_ROWS = 64
ALIGNMENTS = ("dsap", "csa")


def warp(image: np.ndarray, index: np.ndarray, uv: np.ndarray, *, texels: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8, part ids (H, W) 0-24 and u,v (H, W, 2) uint8 -> dsap (24, S, S, 3), valid (24, S, S) 0|1.

    Rows are U, columns V; a pixel goes to (min(floor(u S), S - 1), min(floor(v S), S - 1)), u = byte / 255. Of two
    pixels on one texel the later in row-major order stays; texels without one are 0 and not valid.
    """
    place = np.minimum(np.arange(256) * texels // 255, texels - 1)  # floor(byte / 255 * S), in whole numbers
    part = index.reshape(-1)
    body = np.flatnonzero(part)
    coordinates = uv.reshape(-1, 2)[body]
    texel = (part[body].astype(np.int64) - 1) * texels * texels
    texel += place[coordinates[:, 0]] * texels
    texel += place[coordinates[:, 1]]
    dsap = np.zeros((SURFACE_PARTS * texels * texels, 3), np.uint8)
    valid = np.zeros(SURFACE_PARTS * texels * texels, np.uint8)
    dsap[texel] = image.reshape(-1, 3)[body]  # numpy assigns in order: the last one stays
    valid[texel] = 1

    return dsap.reshape(SURFACE_PARTS, texels, texels, 3), valid.reshape(SURFACE_PARTS, texels, texels)


def part_crops(image: np.ndarray, index: np.ndarray, *, texels: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarsely aligned parts, CSA (DSA-reID 4.4): each part's tight bounding box, resized.

    Image (H, W, 3) uint8 and part ids (H, W) 0-24 -> crops (24, S, S, 3), 0 for parts that are not seen, and valid
    (24, S, S) 0|1, the same over a whole crop.
    """
    crops = np.zeros((SURFACE_PARTS, texels, texels, 3), np.uint8)
    valid = np.zeros((SURFACE_PARTS, texels, texels), np.uint8)
    for part in np.unique(index[index > 0]):
        rows, columns = (np.flatnonzero((index == part).any(axis)) for axis in (1, 0))
        box = np.ascontiguousarray(image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])
        crops[part - 1], valid[part - 1] = fit(box, texels, texels), 1

    return crops, valid


def warp_images(parts: Cache, keys: Sequence[str], paths: Sequence[str], raw: Path, path: Path, *, maker: str,
                height: int, width: int, texels: int, alignment: str = "dsap", scratch: Path, code: str = "",
                rank: int = 0, world: int = 1) -> bool:
    """Warp every image of an index with the u,v of parts.h5 into `path` (dsap.h5), resumable. Whether it was packed.

    raw + path is an image's file; alignment: dsap, or csa for `part_crops` in the warps' place; code: as in a parse's
    Job. Images without a parse get empty warps. InputError if the cache has no u,v or lacks an image, or an image is
    not the one that was parsed.
    """
    if alignment not in ALIGNMENTS:
        raise InputError(f"unknown alignment {alignment!r}; it is {' or '.join(ALIGNMENTS)}")

    parts.require("uv")
    rows = parts.rows(keys)
    hashes, status = parts.column("image_sha256"), parts.column("status")
    arrays = {"dsap": (SURFACE_PARTS, texels, texels, 3), "valid": (SURFACE_PARTS, texels, texels)}

    def warp_row(place: int) -> Row:
        row = rows[place]
        if status[row] == "parsed":
            image = _read(raw / paths[place], hashes[row], parts)
            index, uv = (nearest(parts.read(name, row), height, width) for name in ("native", "uv"))
            image = fit(image, height, width)
            dsap, valid = (warp(image, index, uv, texels=texels) if alignment == "dsap"
                           else part_crops(image, index, texels=texels))
        else:
            dsap, valid = (np.zeros(shape, np.uint8) for shape in arrays.values())

        return {"key": keys[place], "image_sha256": hashes[row], "dsap": compress(dsap), "valid": compress(valid)}

    def produce(numbers: list[int], save: Save) -> None:
        def warp_unit(number: int) -> None:
            start = number * UNIT_ROWS
            save(number, [warp_row(place) for place in range(start, min(start + UNIT_ROWS, len(keys)))])
        with ThreadPoolExecutor(processors()) as pool:
            units = ahead(pool, warp_unit, numbers)
            for _ in progress(units, "warp", total=len(numbers), unit=f"times {UNIT_ROWS} images"):
                pass

    def pack(fresh: Iterator[Row]) -> None:
        write_cache(path, count=len(keys), arrays=arrays, maker=maker, rows=fresh,
                    columns={"key": (text(keys), ()), "image_sha256": (SHA256, ())})

    return run_units(scratch, identity=[maker, code, *keys, *paths], count=-(-len(keys) // UNIT_ROWS), rank=rank,
                     world=world, what=repr(str(path)), produce=produce, pack=pack)


def _read(path: Path, sha256: str, parts: Cache) -> np.ndarray:
    data = read_bytes(path)
    present = hashlib.sha256(data).hexdigest()
    if present != sha256:
        raise InputError(f"{str(path)!r}: has SHA-256 {present[:12]}... where {str(parts.path)!r} was made from "
                         f"{sha256[:12]}...; run the stage parse again")
    return decode_image(data, path)
