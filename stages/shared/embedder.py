"""Embedders: a trained run, opened by its key or by its weights' file, that turns any images into features.

    from stages.shared.embedder import open_embedder

    embedder = open_embedder("elsewhere/weights.safetensors")  # or a run of the experiment: "sorn"
    found = embedder.embed(["a.jpg", crop])                    # files, or (H, W, 3) uint8 RGB arrays
    found.features, found.sizes, found.visibility              # (N, sum D_p), D_p, (N, P)

Weights carry the parameters that they were trained with, so that a file needs nothing beside it. A network that reads
a cache at test time has its images parsed, cropped and warped first, by the code that made its caches and in their
sizes: an image's features are what the stage embed makes of it.
"""

import dataclasses
import functools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from models.parsers.parser_files import parser_provenance
from models.parsers.torchvision_parsers import Parser, load_parser
from models.sgam import visible_regions
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import image_size, write_image
from pipeline.base.processors import processors
from pipeline.caches.cache import Cache
from pipeline.caches.warp import warp_images
from pipeline.config import paths
from pipeline.config.loader import Experiment, load_experiment, parse, pick
from pipeline.config.schema import MatchParams, RunParams
from pipeline.loading.dataset import Images, ordered_batches
from pipeline.loading.sgam_crop import automatic_crop
from pipeline.parsing.engine import Job, parse_images
from pipeline.retrieval.features import embed_images
from pipeline.retrieval.matching import Matching
from pipeline.training.checkpoints import read_weights
from stages.shared.cache_parsers import network_forward
from stages.shared.device import choose_device
from stages.shared.trained_run import OpenRun, open_run

TAU = 0.15  # SORN's, Eq. (12), where no experiment says one; no other network reads it

Image = str | os.PathLike | np.ndarray  # a file, or (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Embedding:
    """features (N, sum D_p) float32; sizes: D_p of the P parts; visibility (N, P) float32 in [0, 1]."""

    features: np.ndarray
    sizes: tuple[int, ...]
    visibility: np.ndarray


@dataclass(frozen=True)
class ParsedBy:
    """How images are parsed for a network that reads a cache at test time.

    file: the kind of cache, parts.h5 | crops.h5 | dsap.h5; parser: its network; made: the maker of the parses that the
    run was trained with; warp: that of its warps, empty where it reads none.
    """

    file: str
    parser: Parser
    made: dict[str, Any]
    warp: dict[str, Any]


@dataclass(frozen=True)
class Embedder:
    """A trained network in evaluation mode, and what reading images for it takes."""

    key: str
    weights: Path
    run: RunParams
    match: MatchParams
    opened: OpenRun
    parsed_by: ParsedBy | None  # None where it sees images alone
    device: torch.device

    @property
    def network(self) -> Any:
        return self.opened.network

    @property
    def matching(self) -> Matching:
        """How its features are compared."""
        return Matching(self.network.sizes, self.network.distance, self.network.reduction,
                        whole_body=getattr(self.network, "whole_body", None))

    def embed(self, images: Sequence[Image]) -> Embedding:
        """Images, each a crop of one person, files or (H, W, 3) uint8 RGB arrays of any size -> their embedding.

        Batches have the rows they had in training, the last padded, so that an image's features do not depend on the
        others. InputError names the image that cannot be read, parsed or is no such array.
        """
        sizes = tuple(self.network.sizes)
        if not len(images):
            return Embedding(np.zeros((0, sum(sizes)), np.float32), sizes, np.zeros((0, len(sizes)), np.float32))

        with tempfile.TemporaryDirectory(prefix="semalign-") as folder:
            names = _as_files(images, Path(folder))
            keys = [f"{number:09d}" for number in range(len(names))]
            frame = pd.DataFrame({"image": keys, "path": names, "camid": 0, "target": np.int64(0)})
            cache = None if self.parsed_by is None else self._parsed(self.parsed_by, frame, Path(folder))

            crop = None if cache is not None and cache.name == "crops.h5" else self.opened.crop
            loaded = Images(frame, raw="", cache=cache, arrays=self.opened.arrays, crop=crop, height=self.run.height,
                            width=self.run.width)
            batches = ordered_batches(loaded, batch=self.run.batch, workers=self.run.workers, device=self.device)
            features, visibility = embed_images(self.network, batches, count=len(names), device=self.device,
                                                mirrored=self.match.flip == "mean")
        return Embedding(features, sizes, visibility)

    def _parsed(self, by: ParsedBy, frame: pd.DataFrame, folder: Path) -> Path:
        """The cache file that the network reads beside the images, made in `folder`."""
        parts = folder / "parts.h5"
        self._parse(by, frame, parts, None)
        if by.file == "parts.h5":
            return parts

        if by.file == "crops.h5":
            whole = Cache(parts)
            visible = functools.partial(visible_regions, **self.opened.provenance["crop"])
            boxes = [automatic_crop(whole.read("probs/parts4", row), *image_size(path), visible=visible)
                     for row, path in enumerate(frame["path"])]
            self._parse(by, frame, folder / "crops.h5", boxes)
            return folder / "crops.h5"

        dsap, settings = folder / "dsap.h5", {"alignment": "dsap"} | by.warp
        warp_images(Cache(parts), frame["image"].tolist(), frame["path"].tolist(), Path(), dsap,
                    maker=json.dumps({"alignment": settings["alignment"]}), scratch=folder / "warp",
                    **{name: settings[name] for name in ("height", "width", "texels", "alignment")})
        return dsap

    def _parse(self, by: ParsedBy, frame: pd.DataFrame, target: Path, boxes: list | None) -> None:
        parser = by.parser
        job = Job(keys=frame["image"].tolist(), paths=frame["path"].tolist(), raw=Path(), maker="{}",
                  taxonomy=parser.taxonomy, uv=parser.uv, height=parser.height, width=parser.width,
                  batch=by.made["batch"], device=str(self.device), boxes=boxes, fit=by.made.get("fit", "stretch"))
        failed = parse_images(job, network_forward(parser), target, scratch=target.with_suffix(".units"))
        if failed:
            number, status = failed[0]
            raise InputError(f"{frame['path'][int(number)]!r}: has no parse ({status}), which {self.key} needs at test "
                             "time; mend it or leave it out")


def open_embedder(run: str | os.PathLike, *, experiment: Experiment | None = None, features: str = "",
                  parser: str | os.PathLike | None = None, device: str = "auto") -> Embedder:
    """A trained run that embeds images. run: the key of one of the experiment (None: the default), which says how it is
    matched; or the file of its weights, wherever that lies, by which it is matched as its network is at first.

    features: what is matched instead (docs/evaluation.md); parser: the weights of the parser for a network that reads
    a cache at test time, else the file of that SHA-256 in data/parsers, beside the weights or here. InputError where
    weights or parser are not there or not of this kind.
    """
    if named_by_file(run):
        weights = Path(run)
        key, trained = _recorded(weights)
        match, threads = MatchParams(features=trained.model.matchable()[0], tau=TAU), processors()
    else:
        experiment = load_experiment() if experiment is None else experiment
        key, weights = str(run), paths.weights(str(run))
        trained, match = experiment.run(key), pick(experiment.params.results, key, "results").match
        device, threads = experiment.params.device if device == "auto" else device, experiment.params.threads

    if features and features not in trained.model.matchable():
        raise InputError(f"--features: is {features!r}, and of {key} ({trained.model.name}) is matched one of "
                         f"{', '.join(trained.model.matchable())}")
    match = dataclasses.replace(match, features=features or match.features)

    chosen = choose_device(device, threads=threads)
    opened = open_run(trained, key=key, weights=weights, match=match)
    if "cameras" in opened.provenance:
        raise InputError(f"{str(weights)!r}: adds vectors of the cameras that {key} was trained on, and nobody says "
                         "which camera an image is from; train it with `camera: none`")
    file = trained.model.cache_file(match.features)
    parsed_by = None if file is None else _parsed_by(file, opened, parser, key=key, weights=weights, device=chosen)
    return Embedder(key, weights, trained, match, opened, parsed_by, chosen)


def named_by_file(run: str | os.PathLike) -> bool:
    """Whether a run is named by its weights' file and not by its key.

    >>> named_by_file("sorn"), named_by_file("sorn.safetensors"), named_by_file("runs/sorn")
    (False, True, True)
    """
    return not isinstance(run, str) or run.endswith(".safetensors") or os.sep in run


def _recorded(weights: Path) -> tuple[str, RunParams]:
    """The key and the parameters that weights carry."""
    if parser_provenance(weights):
        raise InputError(f"{str(weights)!r}: holds a parser, not a trained run; name the weights that the stage train "
                         "made")
    made = read_weights(weights)[1]
    if not isinstance(made.get("parameters"), dict) or "run" not in made:
        raise InputError(f"{str(weights)!r}: does not say which run it is; name the weights that the stage train made")
    try:
        return made["run"], parse(RunParams, {**made["parameters"], "workers": 0}, "parameters")
    except InputError as error:
        raise InputError(f"{str(weights)!r}: {error}; open it with the version that trained it, or train it again"
                         ) from error


def _parsed_by(file: str, opened: OpenRun, given: str | os.PathLike | None, *, key: str, weights: Path,
               device: torch.device) -> ParsedBy:
    caches = list(opened.provenance["caches"].values())
    if not caches:
        raise InputError(f"{str(weights)!r}: {key} reads a {file} at test time and was trained on no image, so that "
                         "nothing says which; train it")
    warp = caches[0]["maker"] if file == "dsap.h5" else {}
    made = warp["parts"] if warp else caches[0]["maker"]

    source = Path(given) if given else _parser_beside(weights, made, key=key, file=file)
    if (sha := file_sha256(source)) != made.get("source_sha256"):
        print(f"{str(source)!r}: is not the parser that {key} was trained with ({made['parser']}, SHA-256 "
              f"{str(made.get('source_sha256'))[:12]}.., and this is {sha[:12]}..): its parses may look other to it",
              file=sys.stderr)
    try:
        parser = load_parser(str(source), str(device))
    except ValueError as error:
        raise InputError(str(error)) from error
    if warp and not parser.uv:
        raise InputError(f"{str(source)!r}: gives no u,v, from which the warps are made that {key} reads; name a "
                         "parser's weights that do")
    return ParsedBy(file, parser, made, warp)


def _parser_beside(weights: Path, made: dict[str, Any], *, key: str, file: str) -> Path:
    """The parser in data/parsers, of where the weights lie or of here, that made the parses of a run's training."""
    folders = [*(above / paths.PARSERS.name for above in weights.absolute().parents[2:3]), paths.PARSERS]
    for folder in folders:
        for source in sorted([*folder.glob("*/weights.safetensors"), *folder.glob("*.safetensors")]):
            if file_sha256(source) == made.get("source_sha256"):
                return source
    raise InputError(f"{str(weights)!r}: {key} reads a {file} at test time, so that images are parsed first, and the "
                     f"parser of its training ({made['parser']}, SHA-256 {str(made.get('source_sha256'))[:12]}..) is "
                     f"not in {' nor '.join(dict.fromkeys(repr(str(folder)) for folder in folders))}; name a parser's "
                     "weights with --parser, or take another run")


def _as_files(images: Sequence[Image], folder: Path) -> list[str]:
    """Where each image lies; arrays are written, without loss, into `folder`."""
    names = []
    for number, image in enumerate(images):
        if not isinstance(image, np.ndarray):
            names.append(os.path.abspath(image))
            continue
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"images[{number}]: is an array {image.shape} of {image.dtype}; give (H, W, 3) uint8 RGB")
        names.append(str(folder / f"{number:09d}.png"))
        write_image(names[-1], image)
    return names
