"""Soundness of a cache file: what it holds, what made it, and whether every row is what docs/caches.md says."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.base.body_parts import PARTS8, SURFACE_PARTS, TAXONOMIES, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.progress import progress
from pipeline.caches.cache import Cache
from pipeline.caches.parts_layout import READING, STEP, parts_arrays

SHOWN = 3  # keys that a failed check names

# besides `key`, of each kind of file
COLUMNS = {"parts": ("image_sha256", "status"), "crops": ("image_sha256", "status", "box"), "dsap": ("image_sha256",)}
STAGES = {"parts": "parse", "crops": "parse_crops", "dsap": "warp"}
SHA256 = re.compile("[0-9a-f]{64}")

Arrays = dict[str, np.ndarray]  # one row: array name -> uint8
Rule = Callable[[Arrays, str, str], str]  # of a row's arrays, status and key: what is wrong, or ""


@dataclass
class Check:
    """A rule and who broke it: `wrong` counts rows, `examples` says the first of them."""

    rule: str
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def fail(self, example: str) -> None:
        self.wrong += 1
        if len(self.examples) < SHOWN:
            self.examples.append(example)


@dataclass(frozen=True)
class Inspection:
    """facts: what a reader wants to know, in lines; checks: rules and who broke them."""

    facts: list[str]
    checks: list[Check]

    @property
    def sound(self) -> bool:
        return not any(check.wrong for check in self.checks)


def inspect_cache(path: str | os.PathLike, index: Sequence[str] | None = None, *,
                  images: Mapping[str, str | os.PathLike] | None = None) -> Inspection:
    """Read a parts.h5, crops.h5 or dsap.h5 through, every column of it. index: the image keys it should have, in order;
    images: each key's file, whose SHA-256 it should have; if known.

    A damaged row is a broken rule. InputError where the file is missing, is no cache, or is damaged as a whole.
    """
    cache = Cache(path)
    maker, keys = cache.maker, cache.column("key").tolist()
    kind = "dsap" if "dsap" in cache else "crops" if "box" in cache else "parts"
    if kind != "dsap":
        cache.require("labels")

    names = _arrays(cache, kind, maker)
    columns = {name: cache.column(name).tolist() for name in COLUMNS[kind]}
    for name, values in columns.items():
        if len(values) != len(keys):
            raise InputError(f"{os.fspath(path)!r}: is damaged ({len(keys)} values of key, {len(values)} of {name}); "
                             f"remove it and make it again with the stage {STAGES[kind]}")

    hashes, status = columns["image_sha256"], columns.get("status", [])
    checks = [_check_shapes(cache, names, {"key", *columns}, len(keys)), *_check_keys(keys, index),
              _check_hashes(keys, hashes, status), _check_maker(cache)]
    if images is not None:
        checks.append(_check_images(keys, hashes, images))

    rules = _parts_rules(maker) if kind != "dsap" else _DSAP_RULES
    if _precomputed(maker, kind):
        checks.append(_check_reading(maker if kind == "parts" else maker["parts"]))
        if kind == "parts":
            rules |= _own_parse(dict(zip(keys, hashes, strict=True)))
    checks += _check_rows(cache, keys, status, list(names), rules) if not checks[0].wrong else []
    if kind != "dsap":
        checks.append(_check_statuses(keys, status))
    if kind == "crops":
        checks.append(_check_boxes(keys, columns["box"]))

    facts = [f"{os.fspath(path)}: {kind}.h5, {len(keys)} rows, {Path(path).stat().st_size / 1e6:.1f} MB",
             *_statuses(keys, status), *_sizes(cache, names), *(f"maker: {line}" for line in _lines(maker))]
    cache.close()
    return Inspection(facts, checks)


def _arrays(cache: Cache, kind: str, maker: dict[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """The arrays a file of this kind has, and one row's shape (None: any)."""
    if kind == "dsap":
        return {"dsap": None, "valid": None}

    try:
        height, width = int(maker["height"]), int(maker["width"])
        if maker["taxonomy"] not in TAXONOMIES:
            raise ValueError(f"unknown taxonomy {maker['taxonomy']!r}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{str(cache.path)!r}: does not say how it was made ({type(error).__name__}: {error}); make "
                         "it again with the stage parse") from error

    return {**parts_arrays(height, width, uv="uv" in cache), "visibility": (len(PARTS8),)}


def _check_shapes(cache: Cache, names: dict[str, tuple[int, ...] | None], columns: set[str], count: int) -> Check:
    check = Check("every array is there, is bytes and has its shape, and nothing else is")
    with cache.reading() as file:
        there: list[str] = []
        file.visititems(lambda name, item: there.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(set(there) - columns - names.keys()):
            check.fail(f"{name} is unknown")
        for name, shape in names.items():
            array = file.get(name)
            if not isinstance(array, h5py.Dataset):
                check.fail(f"{name} is missing")
            elif array.dtype != np.uint8 or array.shape != ((count, *shape) if shape else (count, *array.shape[1:])):
                check.fail(f"{name} is {array.shape} of {array.dtype}")
            elif name in ("dsap", "valid") and not _texels(name, array.shape):
                check.fail(f"{name} is {array.shape}")

    return check


def _texels(name: str, shape: tuple[int, ...]) -> bool:
    tail = (SURFACE_PARTS, shape[2], shape[2], 3) if len(shape) > 2 else ()
    return shape[1:] == (tail if name == "dsap" else tail[:3])


def _check_keys(keys: Sequence[str], index: Sequence[str] | None) -> Iterator[Check]:
    unique = Check("every key stands once")
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            unique.fail(key)
        seen.add(key)

    yield unique
    if index is None:
        return

    same = Check("keys are the index's, in its order")
    for key in index:
        if key not in seen:
            same.fail(f"{key} is missing")

    expected = set(index)
    for key in keys:
        if key not in expected:
            same.fail(f"{key} is not in the index")

    if not same.wrong and list(keys) != list(index):
        same.fail("the order differs")

    yield same


def _check_hashes(keys: Sequence[str], hashes: Sequence[str], status: Sequence[str]) -> Check:
    """Without one is an image that could not be read: it failed, or (in dsap.h5, which has no status) has no warp."""
    check = Check("image_sha256 is a SHA-256, of every image that was read")
    for row, (key, sha) in enumerate(zip(keys, hashes, strict=True)):
        if not (SHA256.fullmatch(sha) or not sha and (not status or _failed(status[row]))):
            check.fail(f"{key}: {sha!r}")
    return check


def _check_images(keys: Sequence[str], hashes: Sequence[str], images: Mapping[str, str | os.PathLike]) -> Check:
    check = Check("image_sha256 is that of the image's file")
    for key, sha in progress(zip(keys, hashes, strict=True), "hash", total=len(keys), unit="images"):
        if key in images:  # what is not is said of the keys
            try:
                present = file_sha256(images[key])
            except InputError:
                present = ""
            if sha != present:
                check.fail(f"{key}: {sha[:12] or 'none'} and {present[:12] or 'no file'}")
    return check


def _check_maker(cache: Cache) -> Check:
    """All that can be known of a text without a checksum: that it is what Python writes, and its SHA-256s are some."""
    check = Check("the maker is as it was written")
    with cache.reading() as file:
        text, maker = file.attrs["maker"], cache.maker
    if json.dumps(maker) != text:
        check.fail("it is not as Python writes JSON")
    for made in (maker, maker.get("parts")):
        for name, value in made.items() if isinstance(made, dict) else ():
            if name.endswith("sha256") and not SHA256.fullmatch(str(value)):
                check.fail(f"{name} = {value}")
    return check


def _precomputed(maker: dict[str, Any], kind: str) -> bool:
    """Whether the parses were made elsewhere; a dsap.h5 knows its parts.h5's maker."""
    made = maker if kind == "parts" else maker.get("parts")
    return isinstance(made, dict) and made.get("parser") == "precomputed"


def _check_reading(maker: dict[str, Any]) -> Check:
    check = Check("parses made elsewhere were compared with their images")
    if maker.get("reading") != READING:
        check.fail(f"reading is {maker.get('reading')}, not {READING}: names, sizes and bits were not looked at; make "
                   "it again with the stage parse")
    return check


def _own_parse(hashes: Mapping[str, str]) -> dict[str, Rule]:
    """No tool sees two pictures alike in every pixel; one parse for two is a parse of somebody else."""
    seen: dict[bytes, str] = {}

    def own(arrays: Arrays, status: str, key: str) -> str:
        if not arrays["labels"].any():
            return ""
        parse = hashlib.sha256(b"".join(arrays[name].tobytes() for name in ("native", "uv") if name in arrays)).digest()
        other = seen.setdefault(parse, key)
        return f"that of {other}" if hashes[other] != hashes[key] else ""

    return {"every image has its own parse": own}


def _check_rows(cache: Cache, keys: Sequence[str], status: Sequence[str], names: Iterable[str],
                rules: dict[str, Rule]) -> list[Check]:
    """Every row through every rule; a rule returns what is wrong, or ""."""
    readable = Check("every row can be read")
    checks = {rule: Check(rule) for rule in rules}
    for row, key in enumerate(progress(keys, "inspect", unit="rows")):
        try:
            arrays = {name: cache.read(name, row) for name in names}
        except InputError:
            readable.fail(key)
            continue
        for rule, wrong in rules.items():
            if why := wrong(arrays, status[row] if status else "", key):
                checks[rule].fail(f"{key}: {why}")

    return [readable, *checks.values()]


def _parts_rules(maker: dict[str, Any]) -> dict[str, Rule]:
    taxonomy = maker["taxonomy"]
    count = len(TAXONOMIES[taxonomy])

    def in_range(arrays: Arrays, status: str, key: str) -> str:
        top = int(arrays["native"].max())
        return f"native {top}" if top >= count else ""

    def follow(arrays: Arrays, status: str, key: str) -> str:
        if in_range(arrays, status, key):
            return "native is out of range"
        wrong = (arrays["labels"] != parts8_from_native(arrays["native"], taxonomy)).mean()
        return f"{wrong:.1%} of the pixels differ" if wrong else ""

    def said(arrays: Arrays, status: str, key: str) -> str:
        empty = not any(arrays[name].any() for name in arrays if name.startswith("probs/"))
        if empty != status.startswith("failed"):
            return f"status {status!r} with{'out' if empty else ''} probabilities"
        if not empty and arrays["labels"].any() != (status == "parsed"):
            return f"status {status!r} with{'' if arrays['labels'].any() else 'out'} labels"
        return ""

    return {f"native labels are below {count} ({taxonomy})": in_range, "labels follow from native": follow,
            "the 8 and the 5 probabilities sum to one": _sums,
            f"probabilities and entropy are multiples of {STEP}": _steps,
            "entropy is that of the probabilities": _entropy,
            "visibility is at least the highest mean": _visibility, "u,v are 0 on background": _background,
            "no failed row is left unsaid": said}


def _failed(status: str) -> bool:
    return status.startswith("failed")


def _sums(arrays: Arrays, status: str, key: str) -> str:
    for name in ("probs/parts8", "probs/parts4"):
        off = np.abs(arrays[name].sum(0, dtype=np.int64) - 255).max()
        if not _failed(status) and off:
            return f"{name} by {off}/255"
    return ""


def _steps(arrays: Arrays, status: str, key: str) -> str:
    return next((f"{name} is none" for name in ("probs/parts8", "probs/parts4", "entropy")
                 if (arrays[name] % STEP).any()), "")


def _entropy(arrays: Arrays, status: str, key: str) -> str:
    """Within what rounding can move it: the largest and smallest -p log p within a STEP of each probability."""
    p = arrays["probs/parts8"] / 255
    low, high = np.maximum(p - STEP / 255, 0), np.minimum(p + STEP / 255, 1)
    terms = np.stack([_plogp(low), _plogp(high), _plogp(p)])
    most = np.where((low < 1 / np.e) & (high > 1 / np.e), 1 / np.e, terms.max(0))  # -p log p is highest at 1/e
    unit = 255 / np.log(len(PARTS8))
    above = arrays["entropy"] - most.sum(0) * unit - STEP / 2
    below = terms.min(0).sum(0) * unit - arrays["entropy"] - STEP / 2
    off = np.maximum(above, below).max()
    return f"by {off:.0f}/255 more than rounding" if not _failed(status) and off > 1e-6 else ""


def _plogp(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.maximum(p, 1e-300))


def _visibility(arrays: Arrays, status: str, key: str) -> str:
    low = arrays["probs/parts8"].max((1, 2)) > arrays["visibility"].astype(int) + STEP
    return f"{PARTS8[low.argmax()]} is lower" if low.any() else ""


def _background(arrays: Arrays, status: str, key: str) -> str:
    wrong = "uv" in arrays and arrays["uv"][arrays["native"] == 0].any()
    return "they are not" if wrong else ""


def _flags(arrays: Arrays, status: str, key: str) -> str:
    return f"valid is {arrays['valid'].max()}" if arrays["valid"].max(initial=0) > 1 else ""


def _texels_empty(arrays: Arrays, status: str, key: str) -> str:
    return "they are not" if arrays["dsap"][arrays["valid"] == 0].any() else ""


_DSAP_RULES: dict[str, Rule] = {"valid is 0 or 1": _flags,
                                                         "texels that are not valid are 0": _texels_empty}


def _check_statuses(keys: Sequence[str], status: Sequence[str]) -> Check:
    check = Check("status is parsed, no person or failed: why")
    for key, state in zip(keys, status, strict=True):
        because = state.removeprefix("failed: ")
        if state not in ("parsed", "no person") and because in (state, ""):
            check.fail(f"{key}: {state!r}")
    return check


def _check_boxes(keys: Sequence[str], boxes: Sequence[list[int]]) -> Check:
    check = Check("box has rows and columns")
    for key, (top, left, bottom, right) in zip(keys, boxes, strict=True):
        if not (0 <= top < bottom and 0 <= left < right):
            check.fail(f"{key}: {[top, left, bottom, right]}")
    return check


def _statuses(keys: Sequence[str], status: Sequence[str]) -> list[str]:
    if not status:
        return []
    failed = [f"  {key}: {state}" for key, state in zip(keys, status, strict=True) if _failed(state)]
    counts = f"{status.count('parsed')} parsed, {status.count('no person')} no person, {len(failed)} failed"
    more = [f"  and {len(failed) - 10} more"] if len(failed) > 10 else []
    return [f"status: {counts}", *failed[:10], *more]


def _sizes(cache: Cache, names: Iterable[str]) -> Iterator[str]:
    with cache.reading() as file:
        for name in names:
            if isinstance(array := file.get(name), h5py.Dataset):
                stored = array.id.get_storage_size()
                yield (f"{name}: {' x '.join(map(str, array.shape))} bytes, {stored / 1e6:.2f} MB stored, "
                       f"{stored / max(array.size, 1):.1%} of plain")


def _lines(maker: dict[str, Any]) -> Iterator[str]:
    for name, value in sorted(maker.items()):
        yield f"{name} = {value}"
