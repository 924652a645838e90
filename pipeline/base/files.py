"""Files and folders, whole or not at all: write-then-rename, SHA-256, and one sentence for every failure to write.

What is being written stands beside its place under a hidden name, `.NAME.tmp`, which DVC and the scans of data sets
leave alone: a killed process leaves at most that, and the next one writes over it.
"""

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError

PROBE = 4096  # bytes, which a full disk does not take
HDF5_REASON = re.compile(r"error message = '([^']*)'")  # how HDF5 quotes the system, among several lines of its own


@contextmanager
def writing(path: str | os.PathLike, *, kept: str = "") -> Iterator[None]:
    """What a full disk, a closed folder or a file in the way makes Python raise, as one sentence about `path`.

    kept: what the failure leaves unharmed, for the sentence. h5py raises RuntimeError where a full disk does not let
    it close a file; every other RuntimeError passes.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        quoted = HDF5_REASON.search(str(error))
        if isinstance(error, RuntimeError) and not quoted:
            raise

        reason = quoted[1] if quoted else getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{os.fspath(path)!r}: cannot be written ({reason}); make room or mend the folder and run "
                         f"again{', ' + kept if kept else ''}") from error


def writable(path: str | os.PathLike, *, folder: bool = False) -> None:
    """InputError if a file (or a folder, put there whole) of this name cannot be written: for before the work begins.

    A few bytes are written where it will lie, or in the nearest folder above that is there, and removed again.
    """
    with writing(path):
        place = Path(os.path.realpath(path)) if folder else Path(path)
        probe = _folder_above(place, folder=folder) / f".probe-{socket.gethostname()}-{os.getpid()}.tmp"
        try:
            probe.write_bytes(bytes(PROBE))
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def new_file(path: str | os.PathLike, *, shared: bool = False, kept: str = "") -> Iterator[Path]:
    """A name beside `path` to write to, renamed to `path` at the end; what is half written is removed.

    The folder is made where it is missing. shared: several processes may write the file at once, so that each needs a
    name of its own; kept: as in `writing`. InputError if any of it cannot be written.
    """
    path = Path(path)
    temporary = _beside(path, f"{socket.gethostname()}-{os.getpid()}.tmp" if shared else "tmp")

    with writing(path, kept=kept):
        _folder_above(path, folder=False)
        path.parent.mkdir(parents=True, exist_ok=True)

        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # on a full disk it holds the room that is wanting


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file, whole or not at all. InputError if it cannot be."""
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 file with the lines as they are, whole or not at all. InputError if it cannot be."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write JSON with sorted keys, whole or not at all. InputError if it cannot be."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder beside `path` to fill, put into its place at the end; what stood there goes.

    Where `path` is a link, the folder that it leads to is replaced. InputError if any of it cannot be written.
    """
    path = Path(os.path.realpath(path))
    work, old = _beside(path, "tmp"), _beside(path, "old")

    writable(path, folder=True)
    with writing(path):
        for stale in (work, old):
            shutil.rmtree(stale, ignore_errors=True)
        work.mkdir(parents=True)

        try:
            yield work
            if path.is_dir():
                path.rename(old)  # in a moment, where removing it takes its time
            work.rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal. InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r}: cannot be read ({getattr(error, 'strerror', error)})") from error


def _folder_above(path: Path, *, folder: bool) -> Path:
    """The nearest thing above `path` that is there. OSError if it is no folder, or if `path` itself is in the way."""
    if folder and path.exists() and not path.is_dir():
        raise NotADirectoryError(None, "a file has this name")
    if folder and path.is_mount():
        raise OSError(None, "a disk is mounted here, and the folder is replaced whole; name one inside it")
    if not folder and path.is_dir():
        raise IsADirectoryError(None, "a folder has this name")

    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise NotADirectoryError(None, f"{os.fspath(above)!r} is no folder")
    return above


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")
