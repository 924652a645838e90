"""From parameters to a network on a device: the one place that stages train and embed share."""

import dataclasses
import functools
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from models.backbone import Backbone
from pipeline.caches import Cache
from pipeline.cropping import Box, automatic_crop, training_medians
from pipeline.errors import InputError
from pipeline.images import file_sha256, read_image
from pipeline.loading import Crop
from pipeline.params import (
    BaselineParams,
    DsaParams,
    EsaParams,
    HistogramParams,
    MatchParams,
    PcbParams,
    RunParams,
    SgamParams,
    SgsfaParams,
    SornParams,
    cache_file,
)
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
    if isinstance(run.model, BaselineParams | HistogramParams | PcbParams | EsaParams) and matched not in (None, "all"):
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
    if isinstance(run.model, PcbParams):
        from models.pcb import Pcb
        return Pcb(backbone=backbone, ids=ids, **settings)
    if isinstance(run.model, EsaParams):
        from models.esa import Esa
        return Esa(backbone=backbone, ids=ids, **settings)
    network: Any
    if isinstance(run.model, SgsfaParams):
        from models.sgsfa import Sgsfa
        network = Sgsfa(backbone=backbone, ids=ids, **settings)
    elif isinstance(run.model, SgamParams):
        from models.sgam import Sgam
        del settings["crop"]
        network = Sgam(backbone=backbone, ids=ids, **settings)
    else:
        from models.dsa import Dsa
        network = Dsa(backbone=backbone, ids=ids, **settings)
    if match is not None:
        network.match = match.features
    return network


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
    wanted = cache_file(run.model, None if match is None else match.features)
    if wanted is not None and Path(reads).name != wanted:
        raise InputError(f"{key}.reads: is {reads!r}, and {run.model.name} with these parameters reads a {wanted}; "
                         "name that of its data set")


def arrays(run: RunParams, cache: Path | None) -> tuple[str, ...]:
    """Which arrays of the cache a batch of this network holds."""
    if cache is None:
        return ()
    if isinstance(run.model, DsaParams):
        return ("dsap",)
    if isinstance(run.model, SgsfaParams | SgamParams):
        return ("probs4",)
    if isinstance(run.model, EsaParams) and run.model.semantics == "cache":
        return ("probs8", "entropy")
    return ("labels",)


def crop_of(about: dict[str, Any]) -> Crop | None:
    """The automatic crop that weights `about` something were trained with, None without one."""
    if "crop" not in about:
        return None
    return functools.partial(_crop, medians=tuple(about["crop"]["medians"]),
                             thresholds=tuple(about["crop"]["thresholds"]))


def _crop(probabilities: np.ndarray, height: int, width: int, *, medians: tuple[float, ...],
          thresholds: tuple[float, ...]) -> Box:
    return automatic_crop(probabilities, medians=medians, thresholds=thresholds, height=height, width=width)


def measure(network: Any, run: RunParams, frame: pd.DataFrame, *, raw: str, cache: Path | None) -> dict[str, Any]:
    """What a network needs to know of its training set, put into it; what belongs into the weights' record of it.

    SGSFA: the median area of each region's pseudo-mask. SGAM: the regions' median probability in the frame that it
    sees, and where it crops, `crop`: the medians of the whole frame and the thresholds.
    """
    if cache is None or not isinstance(run.model, SgsfaParams | SgamParams):
        return {}
    reader = Cache(cache)
    places = reader.rows(frame["image"])
    if isinstance(run.model, SgsfaParams):
        from models.sgsfa import mask_areas
        found = [mask_areas(torch.from_numpy(reader.read("probs/parts4", int(place))).float()[None] / 255)
                 for place in places]
        network.set_medians(*(torch.cat(each) for each in zip(*found, strict=True)))
        return {}
    sizes = [read_image(Path(raw) / path).shape[:2] for path in frame["path"]]
    whole, cropped = training_medians(lambda: ((reader.read("probs/parts4", int(place)), *size)
                                               for place, size in zip(places, sizes, strict=True)),
                                      thresholds=run.model.thresholds)
    if run.model.use_parts:
        network.medians.copy_(torch.tensor(cropped if run.model.crop else whole))
    return {"crop": {"medians": whole.tolist(), "thresholds": list(run.model.thresholds)}} if run.model.crop else {}


def pins(cache: Path | None) -> dict[str, Any]:
    """What a cache is, for artefacts made from it: {path: {sha256, maker}}."""
    return {} if cache is None else {cache.as_posix(): {"sha256": file_sha256(cache), "maker": Cache(cache).maker}}


def versions() -> dict[str, str]:
    """The packages that results depend on."""
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "opencv-python-headless")}
