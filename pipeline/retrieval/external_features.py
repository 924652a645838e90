"""External features, which someone else computed: .npz and .mat files to query and gallery.

.npz (numpy.savez), G gallery and Q query images:

    query_features (Q, D)   query_pid (Q,)   query_camid (Q,)      numbers; identity -1: nobody, left out
    gallery_features (G, D) gallery_pid (G,) gallery_camid (G,)
    sizes (P,)                                                     optional: D_p of P parts that lie side by side in D
    query_visibility (Q, P), gallery_visibility (G, P)             optional, both or none: 0..1, all 1 where absent
    query_occlusion (Q,)                                           optional: hidden share of each query's body, 0..1
    query_name (Q,), gallery_name (G,)                             optional, both or none: text that names each
                                                                   picture once a side

.mat, as Person_reID_baseline_pytorch saves pytorch_result.mat: query_f, query_label, query_cam, gallery_f,
gallery_label, gallery_cam; one part.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.matlab import read_mat
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.matching import Matching, Side

MAT = {"features": "f", "pid": "label", "camid": "cam"}
OPTIONAL = ("sizes", "query_visibility", "gallery_visibility", "query_occlusion", "query_name", "gallery_name")
FLOATS = (np.float16, np.float32, np.float64)


def read_external(path: str | os.PathLike, *, distance: str, reduction: str) -> Embedded:
    """Query and gallery, compared by the part `distance` (cosine | euclidean) and `reduction` (mean | sum).

    Keys are the file's names, or where it has none "query row 0", "gallery row 0"; nothing is known of what made them.
    InputError names a file that is missing, damaged or of another layout, and what in it does not fit.
    """
    name = repr(os.fspath(path))
    ending = Path(path).suffix.lower()
    if ending not in (".npz", ".mat"):
        raise InputError(f"{name}: features of others are read from .npz and .mat files; save them as one of these")

    mat = ending == ".mat"
    arrays = _named(_read_mat(path, name) if mat else _read_npz(path, name), name, mat=mat)
    width = arrays["query_features"].shape[1]
    sizes = tuple(_whole(arrays["sizes"], "sizes", name).tolist()) if "sizes" in arrays else (width,)
    if sum(sizes) != width or not sizes or min(sizes) < 1:
        raise InputError(f"{name}: sizes are {list(sizes)} and the features have {width} columns; sizes are from 1 on "
                         "and sum to the columns")

    query, gallery = (_side(arrays, part, sizes, name) for part in ("query", "gallery"))
    keys = [_names(arrays, part, len(side), name) for part, side in (("query", query), ("gallery", gallery))]
    for column in ("visibility", "name"):
        here = [part for part in ("query", "gallery") if f"{part}_{column}" in arrays]
        if len(here) == 1:
            absent = "gallery" if here == ["query"] else "query"
            raise InputError(f"{name}: has {here[0]}_{column} and no {absent}_{column}; give both or none")
    return Embedded(query, gallery, keys[0], keys[1], Matching(sizes, distance, reduction), {},
                    named="query_name" in arrays)


def _read_npz(path: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; give the .npz or .mat file with the features") from error
    except Exception as error:  # what numpy and zipfile raise on a damaged file is of many kinds
        raise InputError(f"{name}: is damaged or no .npz file of plain numbers ({error}); save it again with "
                         "numpy.savez") from error


def _read_mat(path: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    try:
        return read_mat(path)
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; give the .npz or .mat file with the features") from error
    except NotImplementedError as error:
        raise InputError(f"{name}: is a MATLAB 7.3 file; save it with `-v7`, scipy.io.savemat or numpy.savez"
                         ) from error
    except Exception as error:  # what scipy raises on a damaged file is of many kinds
        raise InputError(f"{name}: is damaged or no .mat file ({error}); save it again with scipy.io.savemat"
                         ) from error


def _named(arrays: Mapping[str, np.ndarray], name: str, *, mat: bool) -> dict[str, np.ndarray]:
    """The arrays under the names of the .npz layout. InputError if one is missing or no matrix or list."""
    named = {}
    for part in ("query", "gallery"):
        for column, short in MAT.items():
            key = f"{part}_{short}" if mat else f"{part}_{column}"
            if key not in arrays:
                others = sorted(other for other in arrays if not other.startswith("__"))
                raise InputError(f"{name}: lacks the array {key!r}; it has {', '.join(others) or 'none'}")

            values = np.asarray(arrays[key])
            if values.dtype.kind not in "fiub" or (column == "features" and values.ndim != 2):
                raise InputError(f"{name}: {key} is {values.dtype} of shape {values.shape}; it must hold numbers"
                                 + (", a row for each image" if column == "features" else ""))
            named[f"{part}_{column}"] = values if column == "features" else values.ravel()

    widths = [named[f"{part}_features"].shape[1] for part in ("query", "gallery")]
    if widths[0] != widths[1]:
        raise InputError(f"{name}: features of queries have {widths[0]} columns and those of the gallery {widths[1]}; "
                         "compute both with one network")

    if mat:
        return named
    known = [*named, *OPTIONAL]
    strange = sorted(key for key in arrays if key.startswith(("query_", "gallery_", "size")) and key not in known)
    if strange:  # a name that is misspelt would leave its default in silence
        raise InputError(f"{name}: has {', '.join(map(repr, strange))}, and what is read is {', '.join(known)}; call "
                         "it as one of these, or leave it out")
    return named | {key: np.asarray(arrays[key]) for key in OPTIONAL if key in arrays}


def _side(arrays: dict[str, np.ndarray], part: str, sizes: tuple[int, ...], name: str) -> Side:
    count = len(arrays[f"{part}_features"])
    if not count:
        raise InputError(f"{name}: holds no {part} image; give at least one")

    features = _numbers(arrays.pop(f"{part}_features"), f"{part}_features", name)
    visibility = _numbers(arrays.get(f"{part}_visibility", np.ones((count, len(sizes)), np.float32)),
                          f"{part}_visibility", name)
    pid, camid = (_whole(arrays[f"{part}_{column}"], f"{part}_{column}", name) for column in ("pid", "camid"))
    occlusion = arrays.get(f"{part}_occlusion")

    shapes = {"pid": pid.shape, "camid": camid.shape} | ({} if occlusion is None else {"occlusion": occlusion.shape})
    for column, shape in shapes.items():
        if shape != (count,):
            raise InputError(f"{name}: {part}_{column} has shape {shape}, and there are {count} {part} images; give "
                             "one value for each")

    low, high = visibility.min(initial=np.inf), visibility.max(initial=-np.inf)
    if visibility.shape != (count, len(sizes)) or low < 0 or high > 1:
        raise InputError(f"{name}: {part}_visibility has shape {visibility.shape} and values from {low} to {high}; "
                         f"it must be ({count}, {len(sizes)}), a column per part, within 0..1")
    if occlusion is not None and (occlusion.dtype.kind not in "fiub" or (occlusion < 0).any() or (occlusion > 1).any()):
        raise InputError(f"{name}: {part}_occlusion must hold numbers within 0..1, NaN where it is not known")

    return Side(features, visibility, pid, camid, occlusion)


def _names(arrays: Mapping[str, np.ndarray], part: str, count: int, name: str) -> np.ndarray:
    """What each image is called, (N,) str."""
    names = arrays.get(f"{part}_name")
    if names is None:
        return np.array([f"{part} row {row}" for row in range(count)])
    if names.dtype.kind != "U" or names.shape != (count,):
        raise InputError(f"{name}: {part}_name is {names.dtype} of shape {names.shape}, and there are {count} {part} "
                         "images; it must hold a text for each")

    seen, counts = np.unique(names, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"{name}: {part}_name has {str(seen[counts.argmax()])!r} {counts.max()} times; name each "
                         "picture once")
    return names


def _numbers(values: np.ndarray, column: str, name: str) -> np.ndarray:
    """Contiguous, of a type that products are made of, finite."""
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name}: {column} is {values.dtype}; it must hold numbers")

    kind = values.dtype.newbyteorder("=")
    values = np.ascontiguousarray(values, kind if kind in FLOATS else np.float32)
    for start in range(0, len(values), 1024):  # a mask of all would take a quarter of their memory again
        block = values[start:start + 1024]
        bad = np.flatnonzero(~np.isfinite(block).reshape(len(block), -1).all(axis=1))
        if len(bad):
            raise InputError(f"{name}: row {start + bad[0]} of {column} is not finite; compute it again")
    return values


def _whole(values: np.ndarray, column: str, name: str) -> np.ndarray:
    """As int64, if they are whole numbers."""
    numbers = values.astype(np.float64) if values.dtype.kind == "f" else values
    if (numbers.dtype.kind not in "fiub" or not np.array_equal(numbers, np.trunc(numbers))
            or not (abs(numbers) < 2**63).all()):
        raise InputError(f"{name}: {column} must hold whole numbers only, of 64 bits")
    return numbers.astype(np.int64).reshape(-1)
