"""Training of a re-ID network, or its untrained start: python -m stages.train baseline

Writes data/runs/KEY/weights.safetensors, train.json, trained_on.json and, in live/, DVCLive's log. A run that was
killed goes on from its last checkpoint, written every 100 steps (every 20 s at most) under scratch/train, whatever it
started from: random weights, a file's, or another run's (`init: run:KEY`). On several GPUs or machines
(docs/training.md):
torchrun --nproc-per-node 2 -m stages.train baseline
"""

import contextlib
import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from models.backbone import parameter_groups
from models.classifiers import apart
from models.distributed_batch import whole_batch_norm
from pipeline.base.code import code_sha256
from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_json, write_text
from pipeline.caches.resumable import hold
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import StartedTrainPlan, TrainPlan, cache_among
from pipeline.config.schema import RunParams, file_started_from
from pipeline.datasets.index import read_index
from pipeline.loading.augmentation import Chance
from pipeline.loading.dataset import Images, training_batches, training_rows
from pipeline.loading.samplers import Batches
from pipeline.training import distributed
from pipeline.training.checkpoints import save_weights, tensors_sha256
from pipeline.training.loop import Row, fingerprint, fit, learning_rate, make_optimizer
from stages import main
from stages.shared.device import choose_device, choose_precision, machine
from stages.shared.trained_on import TrainedOn, of_weight_file, own_pictures, read_trained_on
from stages.shared.trained_run import OpenRun, Start, new_run

SCRATCH = paths.SCRATCH / "train"
NARROW = 32  # pixels; below, oneDNN's strided bfloat16 convolution of 4 x 2 maps gives NaN on CPUs with AMX
CODE = ("models", "pipeline/base", "pipeline/caches", "pipeline/datasets", "pipeline/loading", "pipeline/training",
        "stages/train.py", "stages/shared")
FINAL_SHARE = 10  # the last 1/10 of training is averaged as its final loss


def run(experiment: Experiment, key: str) -> None:
    settings, plan = experiment.run(key), pick(experiment.plan.trainings, key, "plan.train")
    for path in (paths.weights(key), paths.train_record(key), paths.trained_on(key), SCRATCH / key):
        writable(path)
    device = choose_device(experiment.params.device, threads=experiment.params.threads)
    with distributed.joined(device):
        _run(experiment, key, settings, plan, device)


def _run(experiment: Experiment, key: str, settings: RunParams, plan: TrainPlan, device: torch.device) -> None:
    try:
        frame = training_rows(read_index(plan.index), max_ids=settings.max_ids)
    except InputError as error:
        raise InputError(f"runs.{key} trains on {plan.train_on}: {error}") from error
    # A network is built with how it will be matched, which it refuses here where it cannot; no weight depends on it.
    match = pick(experiment.params.results, key, "results").match
    start = None
    if isinstance(plan, StartedTrainPlan):
        start = Start(key=plan.start, run=experiment.run(plan.start), weights=plan.weights)
    trained_on = _before(settings, plan, key)
    begun = new_run(settings, key=key, match=match, frame=frame, index=Path(plan.index), raw=plan.raw,
                    cache=cache_among(plan.reads), start=start)

    provenance, final = begun.provenance, {}
    first = distributed.rank() == 0
    if first:
        print(f"{key}: {provenance['images']} images of {provenance['ids']} people, {settings.image_steps} image-steps "
              f"on {device.type}, start: {settings.init}")
        if missing := provenance.get("checkpoint", {}).get("missing"):
            print(f"{key}: {settings.init!r} has not {len(missing)} of the backbone's tensors, which start at random: "
                  f"{', '.join(missing)}", file=sys.stderr)
    scratch = None
    if settings.image_steps > 0:
        trained_on |= own_pictures(frame, plan.raw, key=key, train_on=plan.train_on)
        narrow = device.type == "cpu" and min(settings.height, settings.width) < NARROW
        provenance["precision"] = choose_precision("float32" if narrow else experiment.params.precision, device)
        if distributed.count() > 1:  # other sums, other last digits
            provenance["processes"] = distributed.count()
        scratch = SCRATCH / fingerprint({
            **provenance, "threads": experiment.params.threads, "machine": machine(device), "code": code_sha256(*CODE),
            "start": tensors_sha256(begun.network.state_dict())})

    alone = hold(scratch.with_name(f"lock-{scratch.name}"), f"runs.{key}") if scratch is not None and first \
        else contextlib.nullcontext()
    with alone:
        if scratch is not None:
            final = _train(begun, settings, plan, key=key, frame=frame, device=device, scratch=scratch)
        if first:
            save_weights(paths.weights(key), begun.network, provenance)
            write_json(paths.train_record(key), {**provenance, "final": final})
            write_text(paths.trained_on(key), json.dumps(trained_on, sort_keys=True) + "\n")
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)


def _before(settings: RunParams, plan: TrainPlan, key: str) -> TrainedOn:
    """What the weights that a run starts from were trained on."""
    if isinstance(plan, StartedTrainPlan):
        return read_trained_on(paths.trained_on(plan.start))
    return of_weight_file(settings.init, key=key) if file_started_from(settings.init) else {}


def _train(begun: OpenRun, settings: RunParams, plan: TrainPlan, *, key: str, frame: pd.DataFrame,
           device: torch.device, scratch: Path) -> Row:
    """Train in place; the last tenth's mean of the loss and of each scalar."""
    augment, recipe, batch = settings.augment, settings.optimizer, settings.batch
    try:
        chance = Chance(seed=settings.seed, flip=augment.flip, pad=augment.pad, erase=augment.erase, fill=augment.fill,
                        occlude=augment.occlude, occlude_low=augment.occlude_low, occlude_high=augment.occlude_high)
        share = distributed.share_of(batch)
        draws = Batches(frame["target"].to_numpy(), batch=batch, ids_per_batch=settings.ids_per_batch,
                        seed=settings.seed)
        groups = apart if isinstance(plan, StartedTrainPlan) else parameter_groups
        optimizer = make_optimizer(*groups(begun.network), name=recipe.name, weight_decay=recipe.weight_decay,
                                   pretrained_lr_factor=recipe.pretrained_lr_factor, layer_decay=recipe.layer_decay,
                                   layers=begun.network.backbone.steps() if recipe.layer_decay != 1 else ())
    except InputError as error:
        raise InputError(f"runs.{key}: {error}") from error

    whole_batch_norm(begun.network, device)
    images = Images(frame, raw=plan.raw, cache=cache_among(plan.reads), arrays=begun.arrays, crop=begun.crop,
                    height=settings.height, width=settings.width, chance=chance)
    rate = functools.partial(learning_rate, lr=recipe.lr, warmup=recipe.warmup, warmup_start=recipe.warmup_start,
                             milestones=recipe.milestones, gamma=recipe.gamma, cosine=recipe.cosine)
    steps = -(-settings.image_steps // batch)  # at least as many images as were asked for
    history = fit(
        begun.network, optimizer, steps=steps, batch_size=batch, rate=rate, seed=settings.seed, device=device,
        precision=begun.provenance["precision"], scratch=scratch, live=paths.RUNS / key / "live", keys=images.keys,
        batches=lambda start: training_batches(images, draws, start=start, stop=steps, workers=settings.workers,
                                               share=share, device=device))
    return _final(history)


def _final(history: list[Row]) -> dict[str, Any]:
    tail = history[-max(1, len(history) // FINAL_SHARE):]
    names = [name for name in tail[-1] if name not in ("step", "lr")]
    return {name: round(sum(row[name] for row in tail) / len(tail), 6) for name in names}


if __name__ == "__main__":
    main(run)
