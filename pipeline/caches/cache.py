"""Cache files, parts.h5, crops.h5 and dsap.h5: what parsers and warps left behind, one chunk per image and array.

`Cache` reads them, `write_cache` writes them, always the same bytes for the same rows. docs/caches.md lists what is in
them.
"""

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deflate
import h5py
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import new_file
from pipeline.base.hdf5 import LIBVER, open_h5
from pipeline.base.progress import progress

FORMAT = 2  # of these files, in their attributes and their maker; 1 had probabilities and entropy in steps of 1
LEVEL = 4  # zlib's; benchmarks/parsing.py measures the others
COLUMN_ROWS = 1024  # rows of a chunk of the small columns
# What h5py and deflate raise on damaged files, and what follows from a file that holds other things than it should.
DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
          deflate.DeflateError)

HEAD = 1 << 16  # bytes within which write_cache puts the maker's text; 2,048 in fact

SHA256 = np.dtype("S64")  # hexadecimal
STATUS_BYTES = 256  # a longer status is cut

Row = Mapping[str, Any]  # array name -> compressed bytes, column name -> value


def compress(array: np.ndarray) -> bytes:
    """One image's uint8 array as the chunk that is stored."""
    return zlib.compress(array.tobytes(), LEVEL)


def write_cache(path: str | os.PathLike, *, count: int, arrays: Mapping[str, tuple[int, ...]],
                columns: Mapping[str, tuple[Any, tuple[int, ...]]], rows: Iterable[Row], maker: str) -> None:
    """Write `count` rows, in order, under a temporary name, and rename: the same rows give the same bytes.

    arrays: name -> shape of one image's uint8 array, stored as one chunk per row; columns: name -> (dtype, shape) of
    one row's small value, stored in blocks of rows. Memory does not grow with `count`.
    """
    with new_file(path, kept="what is finished is kept") as temporary:
        with h5py.File(temporary, "w", libver=LIBVER, track_order=False) as file:
            _create(file, count, arrays, columns, maker)
            told = progress(rows, f"write {Path(path).name}", total=count, unit="rows")
            written = _write_rows(file, arrays, columns, told)
        if written != count:
            raise RuntimeError(f"{os.fspath(path)}: {written} rows were given for {count}")

        with open(temporary, "rb") as done:
            os.fsync(done.fileno())


def _create(file: h5py.File, count: int, arrays: Mapping[str, tuple[int, ...]],
            columns: Mapping[str, tuple[Any, tuple[int, ...]]], maker: str) -> None:
    file.attrs["maker"], file.attrs["format"] = maker, FORMAT
    for name, shape in arrays.items():
        file.create_dataset(name, (count, *shape), np.uint8, chunks=(1, *shape), compression="gzip",
                            compression_opts=LEVEL, track_times=False)

    for name, (dtype, shape) in columns.items():
        file.create_dataset(name, (count, *shape), dtype, chunks=(min(count, COLUMN_ROWS), *shape), compression="gzip",
                            compression_opts=LEVEL, track_times=False)


def _write_rows(file: h5py.File, arrays: Mapping[str, tuple[int, ...]], columns: Iterable[str],
                rows: Iterable[Row]) -> int:
    chunks = {name: (file[name].id, (0,) * len(shape)) for name, shape in arrays.items()}
    block: list[Row] = []
    row = -1
    for row, content in enumerate(rows):
        for name, (dataset, rest) in chunks.items():
            dataset.write_direct_chunk((row, *rest), content[name])
        block.append({name: content[name] for name in columns})
        if len(block) == COLUMN_ROWS:
            _write_block(file, row + 1, block)
            block = []

    if block:
        _write_block(file, row + 1, block)

    return row + 1


def _write_block(file: h5py.File, end: int, block: Sequence[Row]) -> None:
    for name in block[0]:
        dataset, kind = file[name], file[name].dtype
        values = [content[name] for content in block]
        if kind.kind == "S":
            values = [_cut(value, kind.itemsize) for value in values]
        dataset[end - len(block):end] = np.array(values, kind)


def _cut(value: str, size: int) -> bytes:
    """UTF-8 of at most `size` bytes, no character cut in two."""
    data = value.encode()
    return data if len(data) <= size else data[:size].decode(errors="ignore").encode()


class Cache:
    """Reads parts.h5, crops.h5 or dsap.h5: opened when first asked, once per process, read-only.

    It can be pickled and inherited over a fork. InputError names the file and the remedy where it is missing, damaged
    or lacks what is asked for.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._shapes: dict[str, tuple[int, ...] | None] = {}
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def __len__(self) -> int:
        return self._dataset("key").shape[0]

    def __contains__(self, name: str) -> bool:
        with self.reading() as file:
            return name in file

    @property
    def maker(self) -> dict[str, Any]:
        """What made the file: parser, weights' SHA-256, taxonomy, sizes, versions."""
        with self.reading() as file:
            maker = json.loads(file.attrs["maker"])
            if not isinstance(maker, dict):
                raise ValueError("its maker is no JSON object")
            return maker

    def column(self, name: str) -> np.ndarray:
        """A small column whole: `key`, `status`, `image_sha256` (str objects), `visibility` (N, 8) uint8, `box` (N, 4)
        int32."""
        dataset = self._dataset(name)
        with self.reading():
            return dataset[()] if name in ("visibility", "box") else dataset.asstr()[()]

    def require(self, name: str) -> None:
        """InputError if the file holds no `name`."""
        if name not in self:
            raise InputError(f"{str(self.path)!r}: holds no {name!r}: its parser {self.maker.get('parser')!r} gives "
                             "none; use a cache whose parser does (for `uv`: labels densepose24 with a u,v head)")

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """The row (int64) of each image key. InputError names the file and the first key it lacks."""
        places = {key: row for row, key in enumerate(self.column("key"))}
        asked = list(keys)
        missing = [key for key in asked if key not in places]
        if missing:
            raise InputError(f"{str(self.path)!r}: holds no row for {missing[0]!r} ({len(missing)} of {len(asked)} "
                             f"images of the index are missing among its {len(places)} rows): it was made for "
                             f"another index; make it again with the stage {self._stage()}")

        return np.array([places[key] for key in asked], np.int64)

    def read(self, name: str, row: int) -> np.ndarray:
        """One image's `name`: uint8, the shape docs/caches.md lists."""
        dataset, shape = self._dataset(name), self._shapes[name]
        try:  # `reading` takes as long as finding a row
            # libdeflate takes a third of the time of HDF5's zlib, and checks the same sum (benchmarks/loading.py)
            return dataset[row] if shape is None else _inflated(dataset, row, shape)[1]
        except DAMAGE as error:
            raise self._damaged(error) from error

    def chunk(self, name: str, row: int) -> bytes:
        """One image's `name` as it is stored, found intact: what `compress` gave. InputError if it is damaged."""
        dataset, shape = self._dataset(name), self._shapes[name]
        with self.reading():
            if shape is None:
                raise ValueError(f"{name} has no compressed chunk for each row")
            return _inflated(dataset, row, shape)[0]

    def close(self) -> None:
        """Let the file go; the next read opens it again."""
        file, self._file, self._datasets = self._file, None, {}
        if file is not None and self._process == os.getpid():
            file.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._datasets or self._process != os.getpid():
            self.require(name)
            with self.reading() as file:
                dataset = file[name]
                if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
                    raise ValueError(f"{name} has no rows")
                self._shapes[name] = dataset.shape[1:] if _by_rows(dataset) else None
                self._datasets[name] = dataset

        return self._datasets[name]

    @contextmanager
    def reading(self) -> Iterator[h5py.File]:
        """The open file; whatever a damaged one makes h5py raise becomes one sentence."""
        try:
            if self._file is None or self._process != os.getpid():  # a handle from before a fork reads wrong data
                self._datasets = {}
                self._file = self._opened()
                self._process = os.getpid()
            yield self._file
        except InputError:  # HeldError too: a file in another process's hands is not damaged
            raise
        except FileNotFoundError as error:
            raise InputError(f"{str(self.path)!r}: no such cache; make it with the stage {self._stage()}") from error
        except DAMAGE as error:
            raise self._damaged(error) from error

    def _opened(self) -> h5py.File:
        file = open_h5(self.path, head=HEAD)
        held = file.attrs.get("format", 1)  # nothing said so in 1
        if held != FORMAT and "maker" in file.attrs:
            file.close()
            raise InputError(f"{str(self.path)!r}: has format {held}, and this version reads format {FORMAT}; make it "
                             f"anew with `dvc repro` or `python -m stages.{self._stage()} {self.path.parent.name}`")
        return file

    def _damaged(self, error: Exception) -> InputError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return InputError(f"{str(self.path)!r}: is damaged or no cache ({reason}); remove it and make it again with "
                          f"the stage {self._stage()}")

    def _stage(self) -> str:
        return {"dsap": "warp", "crops": "parse_crops"}.get(self.path.stem, "parse")


def _by_rows(dataset: h5py.Dataset) -> bool:
    """Whether each row is one chunk of bytes that zlib's format holds and no other filter has touched."""
    filters = dataset.id.get_create_plist()
    return (dataset.dtype == np.uint8 and dataset.ndim > 1 and dataset.chunks == (1, *dataset.shape[1:])
            and filters.get_nfilters() == 1 and filters.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE)


def _inflated(dataset: h5py.Dataset, row: int, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    """A row's chunk as it is stored, and what it holds. ValueError or DeflateError where it is damaged."""
    mask, data = dataset.id.read_direct_chunk((row, *(0 for _ in shape)))
    size = math.prod(shape)
    values = data if mask else deflate.zlib_decompress(data, size)  # a filter may be left out of a chunk
    if len(values) != size:
        raise ValueError(f"row {row} of {dataset.name} has another length")
    return data, np.frombuffer(values, np.uint8).reshape(shape)
