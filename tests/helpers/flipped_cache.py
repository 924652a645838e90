"""Run by test_soundness: inspection of a cache with single flipped bits.

`python flipped_cache.py CACHE SEED COUNT [COLUMN]` flips COUNT bits, one at a time and drawn over the whole file or
over the column's bytes in it, and prints a line for each: "<byte> <bit> <right | other | refused> <same | maker>
<sound | unsound | refused>": what a reader gets of all columns and arrays, what of the maker, and what inspection says.
A process of its own, because the HDF5 library may crash where Python raises.
"""

import faulthandler
import sys
from pathlib import Path

import h5py
import numpy as np

from pipeline.base.errors import InputError
from pipeline.caches.cache import Cache
from pipeline.inspection.soundness import inspect_cache
from tests.helpers.alarm import within

SECONDS = 20


def contents(path: Path) -> tuple[list[object], object]:
    """Every column and array by name, and the maker, through the project's own reader."""
    cache = Cache(path)
    with cache.reading() as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    values: list[object] = []
    for name in sorted(names):
        text = name in ("key", "image_sha256", "status")
        values.append((name, cache.column(name).tolist() if text else
                       [cache.read(name, row).tobytes() for row in range(len(cache))]))
    return values, cache.maker


def stretch(path: Path, column: str) -> tuple[int, int]:
    """Where a column's one chunk begins and ends in the file; the whole file without a column."""
    if not column:
        return 0, path.stat().st_size
    with h5py.File(path, "r", locking=False) as file:
        chunk = file[column].id.get_chunk_info(0)
    return chunk.byte_offset, chunk.byte_offset + chunk.size


def main(path: Path, seed: int, count: int, column: str = "") -> None:
    whole, (right, maker), (start, stop) = path.read_bytes(), contents(path), stretch(path, column)
    places = np.random.default_rng(seed).permutation(np.arange(start * 8, stop * 8))[:count]
    for place in places.tolist():
        byte, bit = divmod(place, 8)
        data = bytearray(whole)
        data[byte] ^= 1 << bit
        path.unlink()
        path.write_bytes(data)
        print(byte, bit, file=sys.stderr, flush=True)
        with within(SECONDS):
            try:
                values, made = contents(path)
                read = f"{'right' if values == right else 'other'} {'same' if made == maker else 'maker'}"
            except InputError:
                read = "refused same"
            try:
                said = "sound" if inspect_cache(path).sound else "unsound"
            except InputError:
                said = "refused"
        print(byte, bit, read, said)


if __name__ == "__main__":
    faulthandler.enable()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
