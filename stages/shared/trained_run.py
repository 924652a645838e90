"""Trained runs: from a run's parameters to its network, new before training or with its weights afterwards.

`new_run` is what training begins with, `open_run` what everything else does; both give the same four things. A
network is models/NAME.py's class Name: its constructor takes the settings of its parameter class and, of `backbone`,
`ids`, `match` and `tau`, what it names. What it must measure on its training set is its own `measure`.
"""

import dataclasses
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from models.backbone import Backbone
from models.classifiers import classifier_names
from models.transformer_backbone import Tokens
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import read_image
from pipeline.base.progress import progress
from pipeline.base.seeds import torch_seed
from pipeline.caches.cache import Cache
from pipeline.config.schema import MatchParams, RunParams, without_neutral
from pipeline.loading.dataset import Crop, images_sha256
from pipeline.loading.sgam_crop import Visible, automatic_crop, frame_medians, training_medians
from pipeline.training.checkpoints import load_weights, misfit, read_weights

STRIDE = 16  # of the backbones, and what divides H and W evenly at every stage


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run's network and what reading images for it takes."""

    network: Any
    provenance: dict[str, Any]  # what the weights were made from, as it is stored with them
    crop: Crop | None  # the automatic crop that it sees its images through
    arrays: tuple[str, ...]  # of the cache, that a batch holds


@dataclasses.dataclass(frozen=True)
class Start:
    """Another run, whose weights a run starts from: its parameters and their file."""

    key: str
    run: RunParams
    weights: str


def new_run(run: RunParams, *, key: str, match: MatchParams, frame: pd.DataFrame, index: Path, raw: str | os.PathLike,
            cache: Path | None, start: Start | None) -> OpenRun:
    """A run before its first step: the network drawn from its seed, and told of its training set what it asks for.

    frame: the training rows, with `target`; index: the file they are from; raw: the folder their paths start from;
    cache: the file that training reads, None where it reads images alone; start: the run whose weights it takes, all
    but the classifiers, which are of other people. InputError names the parameter.
    """
    provenance: dict[str, Any] = {"run": key, "parameters": recorded(run), "images": len(frame),
                                  "ids": int(frame["target"].max()) + 1, "index_sha256": file_sha256(index),
                                  "caches": {}, "versions": versions()}
    if run.camera == "embed":
        provenance["cameras"] = sorted({int(camera) for camera in frame["camid"]})
    network = build(run, key=key, ids=provenance["ids"], match=match, init="none" if start else run.init,
                    cameras=tuple(provenance.get("cameras", ())))
    account = getattr(getattr(network, "backbone", None), "account", None)
    if account is not None:
        provenance["checkpoint"] = {"file": run.init, "sha256": file_sha256(run.init), **account.as_dict()}
    if start is not None:
        provenance["start"] = take_weights(network, start, key=key, cameras=provenance.get("cameras"))

    if run.image_steps > 0:
        check_cache(cache, run, name=f"runs.{key}.cache", features=None)
        provenance |= {"caches": pins(cache), "images_sha256": images_sha256(frame, raw, cache)}
        if cache is not None and hasattr(network, "measure"):
            provenance |= network.measure(TrainingMaps(frame, raw, cache))
        check_crops(cache, provenance, key=key)

    return OpenRun(network, provenance, _crop_of(network, provenance, cache), _arrays(run, features=None))


def take_weights(network: Any, start: Start, *, key: str, cameras: list[int] | None) -> dict[str, str]:
    """Put another run's weights, all but the classifiers, into the network of run `key`; its name and their SHA-256.

    cameras: those that the network has vectors of, which have to be the other run's. Running means of batch
    normalisation are weights too. InputError names the first tensor that does not fit.
    """
    tensors, made = read_weights(start.weights)
    check_recorded(made, start.run, key=start.key, path=start.weights)
    if made.get("cameras") != cameras:
        raise InputError(f"runs.{key}.init: run {start.key!r} has vectors of the cameras {made.get('cameras')}, and "
                         f"this run's training set has {cameras}; train both without `camera`, or start from other "
                         "weights")
    theirs, own = shared_tensors(network, tensors, key=key), shared_tensors(network, network.state_dict(), key=key)

    wrong = misfit(theirs, own)
    if wrong:
        raise InputError(f"runs.{key}.init: weights of run {start.key!r} ({start.weights!r}) do not fit: {wrong}; give "
                         "both the same backbone and model, or start from another run")
    network.load_state_dict(theirs, strict=False)
    return {"run": start.key, "sha256": file_sha256(start.weights)}


def shared_tensors(network: Any, tensors: dict[str, torch.Tensor], *, key: str) -> dict[str, torch.Tensor]:
    """Tensors of such a network by name, without its classifiers. InputError if it does not say which they are."""
    try:
        classifiers = classifier_names(network, tensors)
    except ValueError as error:
        raise InputError(f"runs.{key}.init: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if name not in classifiers}


def open_run(run: RunParams, *, key: str, weights: str | os.PathLike, match: MatchParams, cache: Path | None = None
             ) -> OpenRun:
    """A trained run, its network in evaluation mode. cache: what is read beside the images, where images are.

    InputError if the weights are another run's, or not there, or the cache's images are cropped as another run's.
    """
    tensors, provenance = read_weights(weights)
    check_recorded(provenance, run, key=key, path=weights)

    network = build(run, key=key, ids=provenance["ids"], match=match, init="none",
                    cameras=tuple(provenance.get("cameras", ())))
    load_weights(network, tensors, weights)
    check_crops(cache, provenance, key=key)
    return OpenRun(network.eval(), provenance, _crop_of(network, provenance, cache),
                   _arrays(run, features=match.features))


def check_cameras(provenance: dict[str, Any], frame: pd.DataFrame, *, run: str, dataset: str) -> None:
    """InputError, naming them, if a run has vectors of its training set's cameras and other cameras are to be embedded.

    frame: the query's and gallery's images.
    """
    others = sorted({int(camera) for camera in frame["camid"]} - set(provenance.get("cameras", frame["camid"])))
    if others:
        raise InputError(f"run {run!r} adds vectors of the cameras that it was trained on, "
                         f"{_listed(provenance['cameras'])}, and {dataset!r} has camera {_listed(others)} too; "
                         "evaluate on the set it was trained on, or train it with `camera: none`")


def _listed(cameras: list[int]) -> str:
    return ", ".join(map(str, cameras))


def build(run: RunParams, *, key: str, ids: int, match: MatchParams, init: str, cameras: tuple[int, ...] = ()) -> Any:
    """The network of a run, drawn from its seed; init: of its backbone; cameras: those that it has vectors of.

    InputError for what the networks refuse.
    """
    torch.manual_seed(torch_seed(run.seed, "init"))
    tokens = Tokens(run.height, run.width, stride=run.stride, drop_path=run.drop_path, cameras=cameras,
                    camera_weight=run.camera_weight)
    try:
        return _network(run, ids=ids, match=match, init=init, tokens=tokens)
    except ValueError as error:
        raise InputError(f"runs.{key}: {error}") from error


def _network(run: RunParams, *, ids: int, match: MatchParams, init: str, tokens: Tokens) -> Any:
    """The network is imported here: a run depends on the file of its own network alone."""
    for side, pixels in (("height", run.height), ("width", run.width)):
        if pixels < STRIDE or pixels % STRIDE:
            raise ValueError(f"{side} is {pixels}; make it a multiple of {STRIDE}")
    rows = run.height if run.model.name == "histogram" else run.height // STRIDE
    for setting in ("stripes", "patches", "channel_sets"):
        if (count := getattr(run.model, setting, 1)) > rows:
            raise ValueError(f"model.{setting} is {count}, and a height of {run.height} leaves {rows} rows to divide; "
                             "take fewer, or a taller image")

    name = run.model.name
    network = getattr(importlib.import_module(f"models.{name}"), name.capitalize())
    named = inspect.signature(network).parameters
    settings: dict[str, Any] = dataclasses.asdict(run.model)
    del settings["name"]

    offered = {"ids": ids, "match": match.features, "tau": match.tau}
    taken = {argument: value for argument, value in offered.items() if argument in named}
    if "backbone" in named:
        taken["backbone"] = Backbone(architecture=run.backbone, init=init, tokens=tokens)
    return network(**(taken | settings))  # a setting of its own goes first: ESA has a tau that is not matching's


class TrainingMaps:
    """A training set's region maps, as a network's `measure` takes them: of each image (5, h, w) uint8, p x 255."""

    def __init__(self, frame: pd.DataFrame, raw: str | os.PathLike, cache: Path):
        self.paths = [Path(raw) / path for path in frame["path"]]
        self.reader = Cache(cache)
        self.rows = [int(row) for row in self.reader.rows(frame["image"])]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.reader.read("probs/parts4", row) for row in progress(self.rows, "measure", unit="images"))

    def region_medians(self, visible_by: Callable[[np.ndarray], Visible]) -> tuple[np.ndarray, np.ndarray]:
        """Medians (4,) of the regions' mean probabilities: in the whole frame, and in the frame cropped by what is
        visible by them."""
        sizes = [read_image(path).shape[:2] for path in self.paths]
        return training_medians(lambda: ((maps, *size) for maps, size in zip(self, sizes, strict=True)),
                                visible_by=visible_by)

    def parsed_medians(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of crops that were parsed again: the first, by which they were cropped, are the file's own."""
        return np.array(self.reader.maker["training_medians"]), frame_medians(self)


def _crop_of(network: Any, provenance: dict[str, Any], cache: Path | None) -> Crop | None:
    """The automatic crop that a network's `measure` recorded, as the network sees visibility; None where it did not, or
    where the cache has each image's box."""
    if "crop" not in provenance or _of_crops(cache):
        return None
    return functools.partial(automatic_crop, visible=functools.partial(network.visible, **provenance["crop"]))


def _arrays(run: RunParams, *, features: str | None) -> tuple[str, ...]:
    """Which arrays of its cache a batch holds, in training or with `features` matched; none where it reads none."""
    return run.model.arrays() if run.model.cache_file(features) else ()


def check_cache(cache: Path | None, run: RunParams, *, name: str, features: str | None) -> None:
    """InputError, naming the parameter, if the network reads a cache file and `cache` is another or none.

    features: what is matched, for what it reads at test time; None asks what it reads in training.
    """
    expected = run.model.cache_file(features)
    if expected is None:
        return
    if cache is None or cache.name != expected:
        raise InputError(f"{name}: is {'none' if cache is None else repr(cache.as_posix())}, and {run.model.name} with "
                         f"these parameters reads a {expected}; name that of its data set")
    held, needed = ("crops" if of_crops else "whole images" for of_crops in (_of_crops(cache), expected == "crops.h5"))
    if held != needed:
        raise InputError(f"{name}: {cache.as_posix()!r} holds parses of {held}, and a {expected} is of {needed}; make "
                         f"it again with the stage {'parse_crops' if needed == 'crops' else 'parse'}")


def check_crops(cache: Path | None, provenance: dict[str, Any], *, key: str) -> None:
    """InputError, naming both, if a crops.h5 was cropped by other thresholds or another training set's medians than run
    `key` crops by."""
    if cache is None or not _of_crops(cache):
        return

    maker, rule = Cache(cache).maker, provenance.get("crop", {})
    for name, theirs, ours in (
            ("thresholds", maker["crop"]["thresholds"], rule.get("thresholds")),
            ("training images of SHA-256", maker["training_sha256"][:12], provenance.get("images_sha256", "")[:12]),
            ("medians", maker["crop"]["medians"], rule.get("medians"))):
        if theirs != ours:
            raise InputError(f"{cache.as_posix()!r}: was cropped by {name} {theirs}, and run {key!r} crops by {ours}; "
                             "compose again, so that both are of one rule and training set, and make the file again "
                             f"with the stage parse_crops, or train {key} again")


def _of_crops(cache: Path | None) -> bool:
    """Whether a cache holds parses of crops, and each image's box."""
    return cache is not None and "box" in Cache(cache)


def recorded(run: RunParams) -> dict[str, Any]:
    """A run's parameters as they are stored with its weights: all that its result depends on."""
    return {name: value for name, value in without_neutral(run).items() if name != "workers"}


def check_recorded(provenance: dict[str, Any], run: RunParams, *, key: str, path: str | os.PathLike) -> None:
    """InputError, naming both, if weights of this provenance were made by another run or with other parameters."""
    name = repr(os.fspath(path))
    stored, expected = _flat(provenance.get("parameters", {})), _flat(recorded(run))
    if provenance.get("run") != key:
        raise InputError(f"{name}: holds weights of run {provenance.get('run')!r} (model {stored.get('model.name')!r}),"
                         f" and run {key!r} (model {run.model.name!r}) is asked for; train {key} again")

    for parameter in sorted(stored.keys() | expected.keys()):
        old, new = stored.get(parameter, "absent"), expected.get(parameter, "absent")
        if old != new:
            raise InputError(f"{name}: was trained with {parameter} {old!r}, and runs.{key} says {new!r}; train {key} "
                             "again, or restore the parameter")


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for part, inner in tree.items()
            for key, value in _flat(inner, f"{name}.{part}" if name else part).items()}


def pins(cache: Path | None) -> dict[str, Any]:
    """What a cache is, for artefacts made from it: {path: {sha256, maker}}."""
    return {} if cache is None else {cache.as_posix(): {"sha256": file_sha256(cache), "maker": Cache(cache).maker}}


def versions() -> dict[str, str]:
    """The packages that results depend on."""
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "opencv-python-headless", "timm")}
