"""params.yaml into typed objects (pipeline/params.py), and whether its entries belong together.

A key that is unknown, missing or of the wrong type, and one that names what is not there, is an InputError that names
it.
"""

import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.params import CHOICES, FIGURES, DensePoseParams, FigureParams, Params, figure_files, label_file, pick


def load_params(path: str | os.PathLike) -> Params:
    """Read params.yaml. InputError names the file, the key, what was found and what belongs there."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{os.fspath(path)}: no such parameter file; compose one with "
                         "`python -m stages.compose default`") from error
    except Exception as error:  # PyYAML raises IndexError, AttributeError and KeyError on tags such as `!!int ''`
        raise InputError(f"{os.fspath(path)}: cannot be read as YAML: {error}") from error
    try:
        params = parse(Params, tree, "")
        _check_references(params)
        return params
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from error


def _check_references(params: Params) -> None:
    """Every key that an entry names exists, and the paths repeated for DVC are those of the entries they stand for."""
    for key, occlude in params.occlude.items():
        dataset = pick(params.datasets, occlude.dataset, f"occlude.{key}.dataset: datasets")
        _check_path(f"occlude.{key}.images", occlude.images, {dataset.raw})
    for section in ("caches", "external"):
        for key, cache in getattr(params, section).items():
            dataset = pick(params.datasets, cache.dataset, f"{section}.{key}.dataset: datasets")
            _check_path(f"{section}.{key}.images", cache.images, {dataset.raw})
    for key, cache in params.external.items():
        if not isinstance(cache, DensePoseParams):
            _check_path(f"external.{key}.reads", cache.reads, {label_file(cache.labels, cache.source)})
    for key, warp in params.warps.items():
        dataset = pick(params.datasets, warp.dataset, f"warps.{key}.dataset: datasets")
        _check_path(f"warps.{key}.images", warp.images, {dataset.raw})
    for key, run in params.runs.items():
        dataset = pick(params.datasets, run.train_on, f"runs.{key}.train_on: datasets")
        _check_path(f"runs.{key}.reads", run.reads, {dataset.raw, *_cache_paths(run.cache)})
        if run.cache in params.external:
            _check_path(f"runs.{key}.cache: its data set", params.external[run.cache].dataset, {run.train_on})
    for key, embed in params.embed.items():
        run = pick(params.runs, embed.run, f"embed.{key}.run: runs")
        dataset = pick(params.datasets, embed.dataset, f"embed.{key}.dataset: datasets")
        if embed.model != run.model.name:
            raise InputError(f"embed.{key}.model: is {embed.model!r}, and run {embed.run!r} is a {run.model.name!r}")
        _check_path(f"embed.{key}.reads", embed.reads, {dataset.raw, *_cache_paths(embed.dataset)})
        _check_path(f"embed.{key}.visible_by", embed.visible_by, {
            embed.reads, f"{dataset.raw}/labels.h5", f"{dataset.raw}.joints.h5",
            *(f"runs/{name}/weights.safetensors" for name in params.runs)})
    for key, report in params.report.items():
        cache = pick({**params.caches, **params.external}, report.pictures, f"report.{key}.pictures: caches")
        _check_path(f"report.{key}.dataset", report.dataset, {cache.dataset})
        _check_path(f"report.{key}.images", report.images, {cache.images})
    for key, figure in params.figures.items():
        _check_figure(f"figures.{key}", figure, params)
    for key, table in params.tables.items():
        for label, row in table.rows.items():
            if not row.missing:
                pick(params.evaluate, row.result, f"tables.{key}.rows.{label}.result: evaluate")
                pick(params.datasets, row.data, f"tables.{key}.rows.{label}.data: datasets")
    for key, evaluate in params.evaluate.items():
        for name in evaluate.features:
            pick(params.embed, name, f"evaluate.{key}.features: embed")
    for key, sweep in params.sweeps.items():
        pick(params.datasets, sweep.dataset, f"sweeps.{key}.dataset: datasets")
        if len(sweep.values) != len(sweep.results):
            raise InputError(f"sweeps.{key}: has {len(sweep.values)} values and {len(sweep.results)} results; name one "
                             "result for each value")
        for place, path in enumerate(sweep.reads):
            result = sweep.results[min(place, len(sweep.results) - 1)]
            pick(params.evaluate, result, f"sweeps.{key}.results: evaluate")
            _check_path(f"sweeps.{key}.reads[{place}]", path, {f"metrics/{params.scale}/{result}.json"})


def _check_figure(name: str, figure: FigureParams, params: Params) -> None:
    if figure.kind not in FIGURES:
        raise InputError(f"{name}.kind: unknown figure {figure.kind!r}; it is one of {', '.join(FIGURES)}")
    if not figure.shows or len(figure.shows) != len(figure.names) or figure.count < 1:
        raise InputError(f"{name}: shows {len(figure.shows)} results under {len(figure.names)} names and "
                         f"{figure.count} queries of each; it takes a name for each, and at least one of each")
    if figure.kind != "lists" and len(set(figure.datasets)) > 1:
        raise InputError(f"{name}.datasets: {list(figure.datasets)} are two, and {figure.kind} shows one; only lists "
                         "can show two")
    section = "evaluate" if figure.kind.endswith("lists") else "runs"
    for key in figure.shows:
        pick(getattr(params, section), key, f"{name}.shows: {section}")
    raws = tuple(pick(params.datasets, key, f"{name}.datasets: datasets").raw for key in figure.datasets)
    files = figure_files(figure.kind, figure.shows, scale=params.scale, dataset=figure.datasets[-1])
    for field_name, found, wanted in (("images", figure.images, raws), ("reads", figure.reads, tuple(files))):
        if found != wanted:
            raise InputError(f"{name}.{field_name}: {list(found)} is not what the entries beside it name; write "
                             f"{list(wanted)}")
    if len(figure.datasets) != 2 or len(figure.reads) != 3:
        raise InputError(f"{name}: reads {len(figure.reads)} files of {len(figure.datasets)} data sets; DVC is told of "
                         "3 files and 2 data sets, draw the others as a figure of their own")


def _cache_paths(cache: str) -> tuple[str, str]:
    return f"data/cache/{cache}/parts.h5", f"data/cache/{cache}/dsap.h5"


def _check_path(name: str, found: str, expected: set[str]) -> None:
    if found not in expected:
        raise InputError(f"{name}: {found!r} does not belong to the data set named beside it; write "
                         f"{' or '.join(sorted(map(repr, expected)))}")


def parse(kind: Any, value: Any, name: str) -> Any:
    """Turn a YAML value into `kind`; `name` is its dotted place, for errors."""
    if kind in CHOICES:
        return parse(concrete(kind, value, name), value, name)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{name}: expected entries, got {_shown(value)}; an empty section is written {{}}")
        return types.MappingProxyType({key: parse(arguments[1], item, f"{name}.{key}") for key, item in value.items()})
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{name}: expected a list, got {_shown(value)}")
        return tuple(parse(arguments[0], item, f"{name}[{place}]") for place, item in enumerate(value))
    return _parse_scalar(kind, value, name)


def concrete(kind: Any, value: Any, name: str) -> Any:
    """The dataclass of `kind`, one of CHOICES, that an entry asks for."""
    key, known = CHOICES[kind]
    given = value.get(key) if isinstance(value, dict) else None
    if given not in known:
        what = "model" if key == "name" else key
        raise InputError(f"{name}.{key}: unknown {what} {_shown(given)}; it is one of {', '.join(known)}")
    return known[given]


def _parse_dataclass(kind: Any, value: Any, name: str) -> Any:
    place = f"{name}." if name else ""
    if not isinstance(value, dict):
        raise InputError(f"{name or 'the file'}: expected entries, got {_shown(value)}")
    hints = typing.get_type_hints(kind)
    unknown = [key for key in value if key not in hints]
    if unknown:
        raise InputError(f"{place}{unknown[0]}: unknown parameter; known here are {', '.join(hints)}")
    missing = [key for key in hints if key not in value]
    if missing:
        raise InputError(f"{place}{missing[0]}: is missing; compose params.yaml again with `python -m stages.compose`")
    return kind(**{key: parse(hint, value[key], f"{place}{key}") for key, hint in hints.items()})


def _parse_scalar(kind: type, value: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[kind]
    remedy = ""
    if kind is float and isinstance(value, str):
        try:
            written = repr(float(value))
            remedy = f": write {written if '.' in written else written.replace('e', '.0e')}"
        except ValueError:
            pass
    raise InputError(f"{name}: expected {expected}, got {_shown(value)}{remedy}")


def _shown(value: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "a truth value", type(None): "nothing",
             dict: "entries", list: "a list"}
    return f"{value!r} ({names.get(type(value), type(value).__name__)})"
