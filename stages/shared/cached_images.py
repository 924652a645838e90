"""Images of a cache's rows: where they lie, by an index and the folder that its paths start from, and whether they are
the ones that the cache was made from."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images import decode_image, read_bytes
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index


def image_files(cache: Cache, index: Path, folder: Path) -> dict[str, Path]:
    """The file of each image of the index by its key, whether or not it is there.

    InputError: no such folder, an index of other images than the cache's, a folder that holds none of its images.
    """
    if not folder.is_dir():
        raise InputError(f"{os.fspath(folder)!r}: no such folder of images; --images is the one that the index's paths "
                         "start from")

    frame = read_index(index)
    files = {key: folder / path for key, path in zip(frame["image"], frame["path"], strict=True)}
    if not files.keys() & set(cache.column("key")):
        raise InputError(f"{os.fspath(index)!r}: shares no image with {str(cache.path)!r} (has {frame['image'][0]!r}, "
                         f"not {cache.column('key')[0]!r}); name the index that the cache was made from")
    if not any(file.is_file() for file in files.values()):
        raise InputError(f"{os.fspath(folder)!r}: holds none of the {len(files)} images of {os.fspath(index)!r}, such "
                         f"as {frame['path'][0]!r}; --images is the folder that the index's paths start from")

    return files


def cached_image(cache: Cache, row: int, files: dict[str, Path], *, hashes: Sequence[str]) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB that a row was made from; hashes: the cache's column `image_sha256`.

    InputError: its file is missing, is no image, or has changed since.
    """
    key = str(cache.column("key")[row])
    if key not in files:
        raise InputError(f"{str(cache.path)!r}: holds {key!r}, and the index has no such image; name the index that "
                         "the cache was made from")

    data = read_bytes(files[key])
    found = hashlib.sha256(data).hexdigest()
    if found != hashes[row]:
        raise InputError(f"{os.fspath(files[key])!r}: is not the image that {str(cache.path)!r} was made from (SHA-256 "
                         f"{found[:12]}, and {hashes[row][:12] or 'none'} there); name the right --images, or parse "
                         "again")
    return decode_image(data, files[key])
