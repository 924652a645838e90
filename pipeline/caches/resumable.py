"""Resumable work: numbered units in a scratch folder, shared over ranks, packed in order by whoever finds them all.

The folder is named by a hash of everything the units depend on, so that nothing stale is ever taken up again. A unit
is written whole or not at all; ranks take units by modulo and exchange nothing but files.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import InputError
from pipeline.base.files import new_file, writing
from pipeline.caches.cache import Row

KEPT = "finished units are kept"  # by every failure to write
AHEAD = 3  # units waiting in front of and behind whoever works on one
Save = Callable[[int, list[Row]], None]


def run_units(home: Path, *, identity: Iterable[str], count: int, rank: int, world: int, what: str,
              produce: Callable[[list[int], Save], None], pack: Callable[[Iterator[Row]], None]) -> bool:
    """Produce this rank's missing units of `count`; if all ranks' are there then, pack them. Whether it was packed.

    home: the scratch folder of one output; identity: all that the rows depend on, hashed into the units' folder;
    what: the output's name, for the InputError a second writer gets; produce(numbers, save) calls save(number, rows)
    for each. Afterwards `home` holds only locks.
    """
    folder = home / digest(identity)
    with hold(home / f"lock-{rank}", what):
        with writing(folder, kept=KEPT):
            folder.mkdir(parents=True, exist_ok=True)
        produce(missing_units(folder, range(rank, count, world)),
                lambda number, rows: save_unit(folder / f"{number:08d}.unit", rows))
        with hold(home / "lock-pack", what, wait=True):
            if missing_units(folder, range(count)):
                return False  # another rank is still at it, or has packed and cleaned up already
            pack(unit_rows(folder, count))
            clean(home)

    return True


def digest(identity: Iterable[str]) -> str:
    """SHA-256 (32 hexadecimal digits of it) over strings, none of which can be confused with two."""
    state = hashlib.sha256()
    for part in identity:
        data = part.encode("utf-8", "surrogateescape")
        state.update(b"%d:" % len(data) + data)
    return state.hexdigest()[:32]


def missing_units(folder: Path, numbers: Iterable[int]) -> list[int]:
    """The units of `numbers` that are not in the folder."""
    there = {name for name in os.listdir(folder) if name.endswith(".unit")} if folder.is_dir() else set()
    return [number for number in numbers if f"{number:08d}.unit" not in there]


def save_unit(path: Path, rows: list[Row]) -> None:
    """Write rows whose values are chunks (bytes) and small values (text, lists of numbers). Whole or not at all."""
    chunks = [name for name, value in rows[0].items() if isinstance(value, bytes)]
    header = json.dumps({
        "rows": [{name: value for name, value in row.items() if name not in chunks} for row in rows],
        "lengths": {name: [len(row[name]) for row in rows] for name in chunks}}).encode()

    data = b"%08d" % len(header) + header + b"".join(row[name] for name in chunks for row in rows)

    # Where a second process is at the same unit, neither may rename what the other is still writing.
    with new_file(path, shared=True, kept=KEPT) as temporary:
        temporary.write_bytes(b"%08x" % zlib.crc32(data) + data)


def load_unit(path: Path) -> list[Row]:
    """The rows of `save_unit`. InputError, and the unit is removed, if a bit of it is not as it was written."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error.strerror}); run again, only what is missing is made"
                         ) from error

    data = memoryview(stored)[8:]
    if stored[:8] != b"%08x" % zlib.crc32(data):
        path.unlink()
        raise InputError(f"{str(path)!r}: this unit of unfinished work was damaged and is removed; run again, only it "
                         "is made again")

    place = 8 + int(data[:8])
    header = json.loads(bytes(data[8:place]))
    for name, lengths in header["lengths"].items():
        for row, length in zip(header["rows"], lengths, strict=True):
            row[name] = bytes(data[place:place + length])
            place += length

    return header["rows"]


def unit_rows(folder: Path, count: int) -> Iterator[Row]:
    """All rows of all units in order, one unit in memory at a time."""
    for number in range(count):
        yield from load_unit(folder / f"{number:08d}.unit")


def ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """map(function, items), computed in the pool up to AHEAD results before they are asked for."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()

    while waiting:
        yield waiting.popleft().result()


def clean(home: Path) -> None:
    """Remove all units of an output, those of earlier parameters too."""
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)  # another rank may be removing it too


@contextmanager
def hold(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends. InputError names who holds it, unless `wait`."""
    with writing(path, kept=KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115  closed below, and the lock with it

    with file:
        _lock(file, path, what, wait)
        holder = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        with writing(path, kept=KEPT):
            file.truncate(0)
            file.write(holder.encode())
        yield


def _lock(file: IO[bytes], path: Path, what: str, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip() or "another process"
        raise InputError(f"{what}: is being made by {holder}; wait for it, or stop it and run again") from error
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be locked ({error.strerror}); its file system must know locks "
                         "(docs/caches.md): mount it with them, or link the folder to one that has them") from error
