"""Features of query and gallery images: made by a network, written to features.h5, read back. One schema for all.

N images of Q queries and G gallery images, P parts of D_p numbers each. The file's attributes are `format`, `maker`,
which says what made it, and `sha256`, a checksum of that and of every column, without which a flipped bit gives other
metrics. HDF5's own headers carry checksums too (LIBVER), and texts have a fixed length: where a header without one was
damaged, so that it called a text of any length something else, the HDF5 library (2.0.0 at least) died in reading it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import new_file
from pipeline.base.hdf5 import LIBVER, open_h5, text
from pipeline.base.progress import progress
from pipeline.retrieval.matching import Matching, Side

if TYPE_CHECKING:
    import pandas  # who reads features alone does without

TEXT = "text"  # UTF-8, as long as the longest
DTYPES = ("float32", "float16")  # of stored features
REDO = "delete it and run `dvc repro`"


@dataclass(frozen=True)
class Column:
    """One column of features.h5: its number of axes, the type it is written as, numpy's kinds that it may be read as.

    optional: it is there where the index has a column of that name.
    """
    axes: int
    dtype: Any
    kinds: str
    optional: bool = False


COLUMNS = {
    "key": Column(1, TEXT, "S"),  # of the index
    "pid": Column(1, np.int64, "iu"),
    "camid": Column(1, np.int64, "iu"),
    "split": Column(1, TEXT, "S"),  # query | gallery
    "features": Column(2, np.float32, "f"),  # (N, sum D_p), or float16
    "visibility": Column(2, np.float32, "f"),  # (N, P) in 0..1
    "sizes": Column(1, np.int64, "iu"),  # (P,): D_p
    "occlusion": Column(1, np.float32, "f", optional=True),  # hidden share of the body
    "trial": Column(1, np.int64, "iu", optional=True),  # of several
}
FORMAT = 3  # of the file; 1 had no checksum, 2 had texts of any length
PROVENANCE, CHECKSUM = "maker", "sha256"  # attributes of the file: JSON and hexadecimal, ASCII both
NAMED = ("run", "dataset", "distance", "reduction")  # what it must say


@dataclass(frozen=True)
class Embedded:
    """Query and gallery with their index keys, how they are compared, and the `provenance` that the file carries.

    query_trial (Q,), gallery_trial (G,): which of several trials an image belongs to, where the index says so.
    named: whether the keys are names of pictures and not numbers of rows.
    """
    query: Side
    gallery: Side
    query_key: np.ndarray  # (Q,) str
    gallery_key: np.ndarray  # (G,) str
    matching: Matching
    provenance: dict[str, Any]
    query_trial: np.ndarray | None = None
    gallery_trial: np.ndarray | None = None
    named: bool = True

    def trials(self) -> list["Embedded"]:
        """Each trial by itself, in ascending order; the whole where there are no trials or one."""
        if self.query_trial is None or self.gallery_trial is None:
            return [self]

        numbers = np.union1d(self.query_trial, self.gallery_trial)
        if len(numbers) == 1:
            return [self]
        return [self.take(np.flatnonzero(self.query_trial == number), np.flatnonzero(self.gallery_trial == number))
                for number in numbers]

    def protocol(self) -> str:
        """What its metrics are named by: its data set, or where that is one trial of several, named so (cuhk01-3 is
        trial 3), the name without the number."""
        name, _, number = self.provenance["dataset"].rpartition("-")
        alone = self.query_trial is not None and {number} == {str(trial) for trial in self.query_trial.tolist()}
        return name if alone else self.provenance["dataset"]

    def take(self, query: np.ndarray, gallery: np.ndarray) -> "Embedded":
        """Some of its images, by rows."""
        trials = [None if trial is None else trial[rows] for trial, rows in
                  ((self.query_trial, query), (self.gallery_trial, gallery))]
        return replace(self, query=self.query.take(query), gallery=self.gallery.take(gallery),
                       query_key=self.query_key[query], gallery_key=self.gallery_key[gallery], query_trial=trials[0],
                       gallery_trial=trials[1])


@torch.inference_mode()
def embed_images(network: Any, batches: Iterator[dict[str, Tensor]], *, count: int, device: torch.device,
                 mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(count, sum D_p) features and (count, P) visibilities, float32; rows after `count` are padding and dropped.

    ValueError where the batches have fewer. mirrored: each is `both_sides` of the image and its mirror image.
    """
    network.to(device=device, memory_format=torch.channels_last).eval()  # as images are loaded
    features = np.empty((count, sum(network.sizes)), np.float32)
    visibility = np.empty((count, len(network.sizes)), np.float32)

    with progress(what="embed", total=count, unit="images") as bar:
        start = 0
        for batch in batches:
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            f, v = both_sides(network, moved) if mirrored else network.embed(moved)

            kept = max(0, min(len(f), count - start))
            features[start:start + kept] = f[:kept].float().cpu()
            visibility[start:start + kept] = v[:kept].float().cpu()
            start += len(f)
            bar.update(len(f))

    if start < count:
        raise ValueError(f"batches of {start} images in all, and {count} are to be embedded")
    return features, visibility


def both_sides(network: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean of an image's features and its mirror image's, each part at the mean of their lengths (so at length 1 where
    both are); mean of the visibilities. What lies on the image is mirrored with it, maps of parts that have no side."""
    if "dsap" in batch:
        raise InputError("flip: is mean, and warps lie on the body's surface, where nothing can be mirrored with the "
                         "image; write none")
    other = {name: value.flip(-1) if value.ndim > 2 else value for name, value in batch.items()}
    (f, v), (g, w) = network.embed(batch), network.embed(other)  # (B, sum D_p), (B, P), twice
    parts = []
    for one, two in zip(f.split(network.sizes, 1), g.split(network.sizes, 1), strict=True):
        mean, length = (one + two) / 2, (one.norm(dim=1, keepdim=True) + two.norm(dim=1, keepdim=True)) / 2
        parts.append(mean * (length / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)))  # (B, D_p)
    return torch.cat(parts, 1), (v + w) / 2


def write_features(path: str | os.PathLike, *, frame: "pandas.DataFrame", features: np.ndarray, visibility: np.ndarray,
                   sizes: tuple[int, ...], provenance: dict[str, Any], dtype: str) -> None:
    """Write features.h5, whole or not at all; the same bytes for the same values.

    frame: the N rows' `image`, `pid`, `camid`, `split` and, where the index has them, `occlusion` and `trial`; features
    (N, sum D_p), visibility (N, P), sizes: D_p of the P parts; provenance: what made them, stored as JSON;
    dtype: float32 | float16, of the stored features. InputError for another.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: unknown dtype {dtype!r} for features; it is {' or '.join(DTYPES)}")

    values = {"key": frame["image"], "features": features, "visibility": visibility, "sizes": sizes}
    values |= {name: frame[name] for name in COLUMNS if name not in values and name in frame}

    made = json.dumps(provenance, sort_keys=True)
    kinds = {name: dtype if name == "features" else COLUMNS[name].dtype for name in values}
    columns = {name: _texts(values[name]) if kinds[name] == TEXT else np.asarray(values[name], kinds[name])
               for name in values}

    with new_file(path) as temporary, h5py.File(temporary, "w", libver=LIBVER) as file:
        for name in sorted(columns):
            file.create_dataset(name, data=columns[name], track_times=False)
        file.attrs["format"] = FORMAT
        file.attrs[PROVENANCE] = np.bytes_(made)
        file.attrs[CHECKSUM] = np.bytes_(checksum(columns, made))


def _texts(values: Iterable[str]) -> np.ndarray:
    """(N,) UTF-8 of the longest one's length, and marked so for HDF5."""
    texts = list(values)
    return np.array([value.encode() for value in texts], text(texts))


def checksum(columns: Mapping[str, np.ndarray], made: str) -> str:
    """SHA-256 of the format, what made the file, and each column's name, type, shape and numbers or texts."""
    total = hashlib.sha256(json.dumps([FORMAT, made]).encode())
    for name, values in sorted(columns.items()):
        if values.dtype.kind == "S":
            texts = values.ravel().tolist()
            total.update(json.dumps([name, "text", values.shape, [len(text) for text in texts]]).encode())
            total.update(b"".join(texts))
        else:
            total.update(json.dumps([name, values.dtype.str, values.shape]).encode())
            total.update(np.ascontiguousarray(values).data)
    return total.hexdigest()


def read_features(path: str | os.PathLike) -> Embedded:
    """Read one features file. InputError, naming file and remedy, if it is missing, damaged, of another format,
    holds a value that is not finite or lacks queries or a gallery."""
    name = repr(os.fspath(path))
    try:
        with open_h5(path) as file:
            made, written = _check_format(file, name)
            provenance = _check_layout(file, made, name)
            columns = {column: file[column][:] for column in COLUMNS if column in file}
            intact = checksum(columns, made) == written
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such features file; make it with `dvc repro`") from error
    except InputError:
        raise
    except Exception as error:  # what h5py raises on damaged files is of many kinds
        raise InputError(f"{name}: is truncated or no HDF5 file ({' '.join(str(error).split())}); delete it and run "
                         "`dvc repro`") from error

    if not intact:
        raise InputError(f"{name}: is damaged, its content does not have the checksum that was written with it; delete "
                         "it and run `dvc repro`")
    _check_texts(columns, name)
    _check_values(columns, name)
    try:
        matching = Matching(tuple(columns["sizes"].tolist()), provenance["distance"], provenance["reduction"],
                            whole_body=provenance.get("whole_body"))
    except InputError as error:
        raise InputError(f"{name}: {error}; {REDO}") from error

    query, query_key, query_trial = _part(columns, "query", name)
    gallery, gallery_key, gallery_trial = _part(columns, "gallery", name)
    return Embedded(query, gallery, query_key, gallery_key, matching, provenance, query_trial, gallery_trial)


def _part(columns: dict[str, np.ndarray], part: str, name: str) -> tuple[Side, np.ndarray, np.ndarray | None]:
    """Of one split its images, their keys and trials."""
    split = np.char.decode(columns["split"], "utf-8")
    numbers = np.flatnonzero(split == part)
    if not len(numbers):
        raise InputError(f"{name}: holds no {part} image (its splits: {', '.join(sorted(set(split))) or 'none'}); "
                         "check the split column of the data set's index and run `dvc repro`")

    # Rows are sorted by key, so that a split is one run of rows, whose slice needs no copy.
    adjoining = numbers[-1] - numbers[0] + 1 == len(numbers)
    rows = slice(numbers[0], numbers[-1] + 1) if adjoining else numbers
    marks = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
             for key in columns["key"].tolist()]
    side = Side(columns["features"], columns["visibility"], columns["pid"], columns["camid"],
                columns.get("occlusion"), np.array(marks, np.uint64)).take(rows)
    keys = np.char.decode(columns["key"][rows], "utf-8")
    return side, keys, columns["trial"][rows] if "trial" in columns else None


def _check_format(file: h5py.File, name: str) -> tuple[str, str]:
    """What made the file, and its checksum. InputError where it is of another format, or is no features file."""
    kinds = {attribute: file.attrs.get_id(attribute).dtype.kind for attribute in ("format", PROVENANCE, CHECKSUM)
             if attribute in file.attrs}  # looked at before a value is read: see above
    if PROVENANCE not in kinds:
        raise InputError(f"{name}: is no features file ({PROVENANCE!r} is missing); give a file that the "
                         "stage embed made")

    told = file.attrs["format"] if kinds.get("format") == "i" else 1
    if told != FORMAT or CHECKSUM not in kinds:
        raise InputError(f"{name}: has format {told}, and this version reads format {FORMAT}, which has a checksum and "
                         f"texts of fixed length; {REDO}")

    if (kinds[PROVENANCE], kinds[CHECKSUM]) != ("S", "S"):
        raise InputError(f"{name}: its attributes {PROVENANCE!r} and {CHECKSUM!r} are no texts of fixed length; {REDO}")
    return file.attrs[PROVENANCE].decode(), file.attrs[CHECKSUM].decode()


def _check_layout(file: h5py.File, made: str, name: str) -> dict[str, Any]:
    """The file's provenance. InputError if its columns are not those of COLUMNS or do not fit each other."""
    wrong = [column for column, expected in COLUMNS.items()
             if (column not in file and not expected.optional)
             or (column in file and file[column].ndim != expected.axes)]
    if wrong:
        raise InputError(f"{name}: is no features file ({wrong[0]!r} is missing or of another shape); give a file that "
                         "the stage embed made")

    for column, expected in COLUMNS.items():
        if column in file and file[column].dtype.kind not in expected.kinds:
            raise InputError(f"{name}: the column {column!r} holds {file[column].dtype}; {REDO}")

    provenance = json.loads(made)
    absent = [key for key in NAMED if key not in provenance]
    if absent:
        raise InputError(f"{name}: does not say its {absent[0]!r} (attribute `{PROVENANCE}`); {REDO}")

    lengths = {column: len(file[column]) for column in COLUMNS if column in file and column != "sizes"}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{name}: its columns differ in length ({lengths}); {REDO}")

    sizes = file["sizes"][:]
    if len(sizes) == 0 or sizes.min() < 1:
        raise InputError(f"{name}: its parts have sizes {sizes.tolist()}, and one is at least 1; {REDO}")
    widths = (file["features"].shape[1], int(sizes.sum()))
    if widths[0] != widths[1] or file["visibility"].shape[1] != len(sizes):
        raise InputError(f"{name}: {widths[0]} feature columns and {file['visibility'].shape[1]} visibilities do not "
                         f"fit {len(sizes)} parts of {widths[1]} together; {REDO}")
    return provenance


def _check_texts(columns: dict[str, np.ndarray], name: str) -> None:
    for column in ("key", "split"):
        try:
            np.char.decode(columns[column], "utf-8")
        except ValueError as error:
            raise InputError(f"{name}: the column {column!r} is no UTF-8 text; {REDO}") from error


def _check_values(columns: dict[str, np.ndarray], name: str) -> None:
    """Block by block, because a mask of all features would take a quarter of their memory again."""
    for column in ("features", "visibility"):
        for start in range(0, len(columns[column]), 1024):
            bad = np.flatnonzero(~np.isfinite(columns[column][start:start + 1024]).all(axis=1))
            if len(bad):
                key = columns["key"][start + bad[0]].decode()
                raise InputError(f"{name}: the {column} of {key!r} are not finite; training has probably diverged: "
                                 "lower optimizer.lr and train again")
