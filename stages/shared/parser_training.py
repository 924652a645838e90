"""Training of a human parser, what train_parser, train_photographs and train_taught share: learn, measure, write."""

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from models.parsers.torchvision_parsers import Parser, build_parser, save_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, LIP20, LIP20_TO_PARTS4, PARTS4, PARTS8, PARTS8_TO_PARTS4
from pipeline.base.code import code_sha256
from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_json, writing
from pipeline.base.seeds import torch_seed
from pipeline.caches.resumable import hold
from pipeline.config import paths
from pipeline.config.schema import Params, ParserParams, PhotographsParams, TaughtParams, without_neutral
from pipeline.parsing.rendered_set import LabelledSet, Shuffled, label_shares
from pipeline.parsing.training import Objective, evaluate, learning_rate, make_optimizer, training_batches
from pipeline.training import loop
from pipeline.training.checkpoints import tensors_sha256
from pipeline.training.loop import Stepper, fingerprint, fit
from stages.shared.device import choose_device, choose_precision, machine
from stages.shared.parser_licences import origin

SCRATCH = paths.SCRATCH / "train-parser"
EVALUATION_BATCH = 32
CODE = ("models", "models/parsers", "pipeline/base", "pipeline/caches", "pipeline/parsing", "pipeline/training",
        "stages/shared")
SGAM_RATE: dict[str, Any] = {"milestones": (0.5,), "gamma": 0.1}  # 0.1, after 40 of 80 epochs 0.01 (SGAM, L490-492)
Settings = ParserParams | PhotographsParams | TaughtParams
GROUPS: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {  # what the held-out IoU is told for
    "densepose24": (DENSEPOSE24_TO_PARTS8, PARTS8), "lip20": (np.arange(len(LIP20)), LIP20)}


def check_outputs(key: str) -> None:
    """InputError if what `learn` is to write cannot be written."""
    for path in (paths.parser_weights(key), paths.parser_scores(key), SCRATCH / key):
        writable(path)


@dataclass(frozen=True)
class Lesson:
    """What a parser learns from: an endless sequence of augmented samples, the names of the pictures that they are made
    of, each label's share of the pixels, the pictures' SHA-256, and the terms of each source."""

    sequence: Dataset
    paths: Sequence[str]
    shares: np.ndarray
    sha256: str
    taxonomy: str
    uv: bool
    licences: Mapping[str, str]


def lesson_of(learned: LabelledSet, settings: ParserParams | PhotographsParams, licences: Mapping[str, str]) -> Lesson:
    """A set in random order."""
    return Lesson(Shuffled(learned, seed=settings.seed, augment=settings.augment), learned.paths, label_shares(learned),
                  learned.sha256(), learned.taxonomy, learned.uv, licences)


def learn(params: Params, settings: Settings, lesson: Lesson, held_out: LabelledSet, *, key: str,
          coarser: tuple[np.ndarray, tuple[str, ...]] | None = None, beside: Mapping[str, LabelledSet] | None = None
          ) -> None:
    """Train a new parser on a lesson, measure it on `held_out` (`coarser`: see `evaluate`) and on others `beside` it,
    by name, and write both files."""
    device = choose_device(params.device, threads=params.threads)
    parser = build(settings, taxonomy=lesson.taxonomy, uv=lesson.uv, key=key)
    if settings.image_steps < settings.batch:
        raise InputError(f"parsers.{key}: image_steps is {settings.image_steps} and batch {settings.batch}; a step "
                         "takes at least 2 images, and there is at least one step")
    made: dict[str, Any] = {"parameters": recorded(settings), "data_sha256": lesson.sha256, "images": len(lesson.paths),
            "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "opencv-python-headless")}}
    made |= origin(settings.init, lesson.licences)
    # a CPU's depthwise convolutions are slower in bfloat16
    made["precision"] = choose_precision("float32" if device.type == "cpu" else params.precision, device)
    made["muon_precision"] = choose_precision(params.precision, device)
    scratch = SCRATCH / fingerprint({**made, "threads": params.threads, "machine": machine(device),
                                     "code": code_sha256(*CODE), "start": tensors_sha256(parser.state_dict())})
    with hold(scratch.with_name(f"lock-{scratch.name}"), f"parsers.{key}"):
        _learn(parser, lesson, settings, held_out, key=key, coarser=coarser, beside=beside, device=device, made=made,
               scratch=scratch)


def _learn(parser: Parser, lesson: Lesson, settings: Settings, held_out: LabelledSet, *, key: str,
           coarser: tuple[np.ndarray, tuple[str, ...]] | None, beside: Mapping[str, LabelledSet] | None,
           device: torch.device, made: dict[str, Any], scratch: Path) -> None:
    """As `learn`, of a parser that was built, in the one process that may."""
    steps = train(parser, lesson, settings, key=key, device=device, precision=made["precision"],
                  muon_precision=made["muon_precision"], scratch=scratch)
    groups, names = GROUPS[lesson.taxonomy]
    score = functools.partial(evaluate, parser, groups=groups, names=names, batch=EVALUATION_BATCH, device=device)
    scores = score(held_out, coarser=coarser)
    scores |= {"architecture": settings.architecture, "image_steps": steps * settings.batch}
    others = {name: score(labelled) for name, labelled in (beside or {}).items()}
    with writing(paths.parser_weights(key)):
        save_parser(parser, paths.parser_weights(key), made=made)
    mean = next(name for name in scores if name.startswith("miou"))
    write_json(paths.parser_scores(key), {  # DVC shows no lists
        "mIoU": scores[mean], **{f"mIoU_{name}": other[mean] for name, other in others.items()},
        "details": [scores, *({"held_out": name} | other for name, other in others.items())]})
    shutil.rmtree(scratch, ignore_errors=True)


def build(settings: Settings, *, taxonomy: str, uv: bool, key: str) -> Parser:
    """A new parser drawn from the seed, with the matrices that sum its labels. InputError names the parser."""
    torch.manual_seed(torch_seed(settings.seed, "parser", "init"))
    parts8 = DENSEPOSE24_TO_PARTS8
    parts4 = PARTS8_TO_PARTS4[parts8] if taxonomy == "densepose24" else LIP20_TO_PARTS4
    try:
        return build_parser(architecture=settings.architecture, taxonomy=taxonomy, uv=uv,
                            height=settings.height, width=settings.width, init=settings.init,
                            to_parts8=sums(parts8, len(PARTS8)) if taxonomy == "densepose24" else None,
                            to_parts4=sums(parts4, len(PARTS4)))
    except ValueError as error:
        raise InputError(f"parsers.{key}: {error}") from error


def sums(table: np.ndarray, groups: int) -> torch.Tensor:
    """A look-up table label -> group as a (groups, labels) matrix that sums probabilities."""
    return torch.from_numpy(np.eye(groups, dtype=np.float32)[table].T.copy())


def train(parser: Parser, lesson: Lesson, settings: Settings, *, key: str, device: torch.device,
          precision: str, muon_precision: str, scratch: Path) -> int:
    """Train in place; the number of steps, enough for at least `image_steps` images."""
    steps = -(-settings.image_steps // settings.batch)
    parser.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(parser, shares=lesson.shares)
    print(f"{key}: {len(lesson.paths)} pictures, {steps * settings.batch} image-steps on {device.type} in {precision}, "
          f"start: {settings.init}")
    if settings.optimizer == "sgd":
        optimizer = sgam_optimizer(parser, pretrained=settings.init != "none")
        rate = functools.partial(loop.learning_rate, lr=settings.lr, warmup=0.0, warmup_start=1.0, **SGAM_RATE)
    else:
        optimizer = make_optimizer(parser, dtype=getattr(torch, muon_precision))
        rate = functools.partial(learning_rate, lr=settings.lr)

    batches = functools.partial(training_batches, lesson.sequence, batch=settings.batch, stop=steps,
                                workers=settings.workers)
    fit(objective, optimizer, steps=steps, batch_size=settings.batch, rate=rate, seed=settings.seed, device=device,
        precision=precision, scratch=scratch, live=scratch / "live", keys=lesson.paths,
        batches=lambda start: batches(start=start))
    return steps


def sgam_optimizer(parser: Parser, *, pretrained: bool) -> Stepper:
    """SGAM's own: SGD with momentum 0.9 and weight decay 5e-4, a pretrained backbone at a tenth of the rate."""
    backbone = list(parser.backbone.parameters()) if pretrained else []
    known = {id(weight) for weight in backbone}
    rest = [weight for weight in parser.parameters() if id(weight) not in known]
    return loop.make_optimizer(backbone, rest, name="sgd", weight_decay=5e-4, pretrained_lr_factor=0.1)


def recorded(settings: Settings) -> dict[str, Any]:
    """The parameters that the result depends on."""
    return {name: value for name, value in without_neutral(settings).items() if name not in ("workers", "raw")}
