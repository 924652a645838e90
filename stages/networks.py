"""From parameters to a network on a device: the one place that stages train and embed share."""

import dataclasses
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.backbone import Backbone
from pipeline.caches import Cache
from pipeline.errors import InputError
from pipeline.images import file_sha256
from pipeline.params import BaselineParams, DsaParams, HistogramParams, MatchParams, RunParams, SornParams
from pipeline.seeds import torch_seed

STRIDE = 16  # of the backbones, and what divides H and W evenly at every stage


def build(run: RunParams, *, key: str, ids: int, match: MatchParams | None = None) -> nn.Module:
    """The network of a run, drawn from its seed; with `match` the one for embedding, its weights still to be loaded.

    InputError, naming the run, for what the networks refuse.
    """
    torch.manual_seed(torch_seed(run.seed, "init"))
    try:
        return _network(run, ids, match)
    except ValueError as error:
        raise InputError(f"runs.{key}: {error}") from error


def _network(run: RunParams, ids: int, match: MatchParams | None) -> nn.Module:
    """Each network is imported where it is used: a run depends on the file of its own network alone."""
    for side, pixels in (("height", run.height), ("width", run.width)):
        if pixels < STRIDE or pixels % STRIDE:
            raise ValueError(f"{side} is {pixels}; make it a multiple of {STRIDE}")
    settings: dict[str, Any] = dataclasses.asdict(run.model)
    del settings["name"]
    matched = match.features if match is not None else None
    if isinstance(run.model, BaselineParams | HistogramParams) and matched not in (None, "all"):
        raise ValueError(f"unknown features {matched!r} for {run.model.name}; they are: all")
    if isinstance(run.model, HistogramParams):
        from models.histogram import Histogram
        return Histogram(**settings)
    backbone = Backbone(architecture=run.backbone, init=run.init if match is None else "none")
    if isinstance(run.model, BaselineParams):
        from models.baseline import Baseline
        return Baseline(backbone=backbone, ids=ids, **settings)
    if isinstance(run.model, SornParams):
        from models.sorn import Sorn
        sorn = Sorn(backbone=backbone, ids=ids, **settings)
        if match is not None:
            sorn.tau, sorn.match = match.tau, match.features
        return sorn
    from models.dsa import Dsa
    dsa = Dsa(backbone=backbone, ids=ids, **settings)
    if match is not None:
        dsa.match = match.features
    return dsa


def recorded(run: RunParams) -> dict[str, Any]:
    """A run's parameters as they are stored with its weights: all that its result depends on."""
    parameters = json.loads(json.dumps(dataclasses.asdict(run)))
    del parameters["workers"]
    return parameters


def check_recorded(about: dict[str, Any], run: RunParams, *, key: str, path: str | os.PathLike) -> None:
    """InputError, naming both, if weights that are `about` something were made by another run or other parameters."""
    name, found, expected = repr(os.fspath(path)), _flat(about.get("parameters", {})), _flat(recorded(run))
    if about.get("run") != key:
        raise InputError(f"{name}: holds weights of run {about.get('run')!r} (model {found.get('model.name')!r}), and "
                         f"run {key!r} (model {run.model.name!r}) is asked for; train {key} again")
    for parameter in sorted(found.keys() | expected.keys()):
        old, new = found.get(parameter, "absent"), expected.get(parameter, "absent")
        if old != new:
            raise InputError(f"{name}: was trained with {parameter} {old!r}, and runs.{key} says {new!r}; train {key} "
                             "again, or restore the parameter")


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for part, inner in tree.items()
            for key, value in _flat(inner, f"{name}.{part}" if name else part).items()}


def cache_of(reads: str) -> Path | None:
    """The cache file among what a run or an embedding reads; None where it reads images only."""
    return Path(reads) if reads.endswith((".h5", ".hdf5")) else None


def check_reads(reads: str, run: RunParams, *, key: str, match: MatchParams | None = None) -> None:
    """InputError, naming the parameter `key`, if the network reads a cache file and `reads` is another or none.

    Without `match` what it reads in training is asked for, with `match` what it reads for embedding.
    """
    wanted = None
    if isinstance(run.model, SornParams) and run.model.use_semantic and match is None:
        wanted = "parts.h5"
    if isinstance(run.model, DsaParams) and run.model.use_dsag and (match is None or match.features.startswith("z")):
        wanted = "dsap.h5"
    if wanted is not None and Path(reads).name != wanted:
        raise InputError(f"{key}.reads: is {reads!r}, and {run.model.name} with these parameters reads a {wanted}; "
                         "name that of its data set")


def pins(cache: Path | None) -> dict[str, Any]:
    """What a cache is, for artefacts made from it: {path: {sha256, maker}}."""
    return {} if cache is None else {cache.as_posix(): {"sha256": file_sha256(cache), "maker": Cache(cache).maker}}


def versions() -> dict[str, str]:
    """The packages that results depend on."""
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "opencv-python-headless")}
