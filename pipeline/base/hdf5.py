"""HDF5 files: the form they are written in, and opening them after a look at what the HDF5 library may walk for ever.

Texts of any length lie in global heaps (HDF5 file format specification, III.E), which have no checksum. HDF5 (2.0.0 at
least) goes from object to object by their stored sizes; where damage makes one of them nothing, it never ends, and no
alarm of Python's gets through.
"""

import mmap
import os
from collections.abc import Iterable

import h5py
import numpy as np

from pipeline.base.errors import InputError

# HDF5 1.10's format, the oldest whose headers have checksums: in the default one 47 of 7,826 flipped bits of a cache
# went by unnoticed and gave one image another's labels. Its bytes do not depend on the time either, and it is smaller.
LIBVER = ("v110", "v110")

HEAP = b"GCOL\1\0\0\0"  # signature and version
HEADER = 16  # bytes of a heap's header, and of each object's
HELD = ("already open for", "unable to lock file")  # how HDF5 says that somebody has a file open


class HeldError(InputError):
    """A file is open for writing elsewhere. It may be as good as ever, so nobody may call it damaged or replace it."""


def open_h5(path: str | os.PathLike, *, head: int = 0) -> h5py.File:
    """The file, read-only, without locks. head: heaps lie in so many of its first bytes; 0: anywhere.

    FileNotFoundError, another OSError where it is no HDF5 file, ValueError where a heap is damaged, HeldError where
    another process has it open for writing.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size:  # nothing cannot be mapped
            with mmap.mmap(file.fileno(), head and min(head, os.fstat(file.fileno()).st_size),
                           access=mmap.ACCESS_READ) as data:
                check_heaps(data)
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if not any(words in str(error) for words in HELD):
            raise
        raise HeldError(f"{os.fspath(path)!r}: another process has it open for writing, or had when it was killed; "
                        "close it there and run again, or, if nobody has it open, take the mark away with `h5clear -s` "
                        "or make the file again") from error


def text(values: Iterable[str]) -> np.dtype:
    """The column type that holds these texts: UTF-8, of the longest one's length, which needs no heap."""
    return h5py.string_dtype("utf-8", max((len(value.encode()) for value in values), default=1) or 1)


def check_heaps(data: mmap.mmap | bytes) -> None:
    """ValueError if the objects of a heap do not follow each other up to its end."""
    start = data.find(HEAP)
    while start >= 0:
        place, end = start + HEADER, start + _number(data, start + 8)
        while place + HEADER <= end <= len(data):  # index 2 bytes, uses 2, nothing 4, size 8; the object, padded to 8
            size = _number(data, place + 8)
            free = data[place:place + 2] == b"\0\0"  # the rest's free room, whose size is with its header
            length = size if free else HEADER + -(-size // 8) * 8
            if length < HEADER:
                break
            place += length
        if not end - HEADER < place <= end <= len(data):
            raise ValueError(f"its texts at byte {start} are damaged")
        start = data.find(HEAP, end)


def _number(data: mmap.mmap | bytes, place: int) -> int:
    return int.from_bytes(data[place:place + 8], "little")
