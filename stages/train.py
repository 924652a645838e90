"""Train a re-ID network, or write its untrained start: python -m stages.train default-baseline

Writes runs/KEY/weights.safetensors, train.json and, in live/, DVCLive's log. A run that was killed goes on from its
last checkpoint, written every 100 steps under scratch/train. On several GPUs or machines (docs/training.md):
torchrun --nproc-per-node 2 -m stages.train default-baseline
"""

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from models.backbone import parameter_groups
from models.whole_batch import whole_batch_norm
from pipeline import processes
from pipeline.errors import InputError
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.loading import Crop, Pictures, images_sha256, training_batches, training_rows
from pipeline.params import Params, RunParams, pick
from pipeline.sampling import Batches
from pipeline.training import Row, fingerprint, fit, learning_rate, make_optimizer
from pipeline.weights import save_weights
from stages import main
from stages.device import choose_device, choose_precision, machine
from stages.networks import arrays, build, cache_of, check_reads, crop_of, measure, pins, recorded, versions

SCRATCH = Path("scratch/train")
NARROW = 32  # pixels; below, oneDNN's strided bfloat16 convolution of 4 x 2 maps gives NaN on CPUs with AMX
FINAL_SHARE = 10  # the last 1/10 of training is averaged as its final loss


def run(params: Params, key: str) -> None:
    pick(params.runs, key, "runs")
    device = choose_device(params.device, threads=params.threads)
    with processes.joined(device):
        _run(params, key, device)


def _run(params: Params, key: str, device: torch.device) -> None:
    settings = params.runs[key]
    raw = pick(params.datasets, settings.train_on, "datasets").raw
    index = Path("data/index") / f"{settings.train_on}.csv"
    try:
        frame = training_rows(read_index(index), max_ids=settings.max_ids)
    except InputError as error:
        raise InputError(f"runs.{key} trains on {settings.train_on}: {error}") from error
    first = processes.rank() == 0
    about: dict[str, Any] = {"run": key, "parameters": recorded(settings), "images": len(frame),
                             "ids": int(frame["target"].max()) + 1, "index_sha256": file_sha256(index), "caches": {},
                             "versions": versions()}
    network = build(settings, key=key, ids=about["ids"])
    if first:
        print(f"{key}: {about['images']} images of {about['ids']} people, {settings.image_steps} image-steps on "
              f"{device.type}, backbone's start: {settings.init}")
    final: Row = {}
    scratch = None
    if settings.image_steps > 0:
        _check_cache(params, key)
        check_reads(settings.reads, settings, key=f"runs.{key}")
        cache = cache_of(settings.reads)
        about |= {"caches": pins(cache), "images_sha256": images_sha256(frame, raw, cache)}
        narrow = device.type == "cpu" and min(settings.height, settings.width) < NARROW
        about["precision"] = choose_precision("float32" if narrow else params.precision, device)
        about |= measure(network, settings, frame, raw=raw, cache=cache)
        if processes.count() > 1:  # other sums, other last digits
            about["processes"] = processes.count()
        scratch = SCRATCH / fingerprint({**about, "threads": params.threads, "machine": machine(device)})
        final = _train(network, settings, key=key, frame=frame, raw=raw, device=device,
                       precision=about["precision"], scratch=scratch, crop=crop_of(about))
    if not first:
        return
    folder = Path("runs") / key
    save_weights(folder / "weights.safetensors", network, about)
    _write_json(folder / "train.json", {**about, "final": final})
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_cache(params: Params, key: str) -> None:
    """InputError if the cache was made for another data set: two sets' keys can be the same."""
    run, cache = params.runs[key], params.caches.get(params.runs[key].cache)
    if cache is not None and cache.dataset != run.train_on:
        raise InputError(f"runs.{key}.cache: {run.cache!r} was made for the data set {cache.dataset!r}, and the run "
                         f"trains on {run.train_on!r}; name a cache of that set")


def _train(network: nn.Module, settings: RunParams, *, key: str, frame: pd.DataFrame, raw: str, device: torch.device,
           precision: str, scratch: Path, crop: Crop | None) -> Row:
    """Train in place; the last tenth's mean of the loss and of each scalar."""
    augment, recipe, batch = settings.augment, settings.optimizer, settings.batch
    try:
        share = processes.share_of(batch)
        plan = Batches(frame["target"].to_numpy(), batch=batch, ids_per_batch=settings.ids_per_batch,
                       seed=settings.seed)
        optimizer = make_optimizer(*parameter_groups(network), name=recipe.name, weight_decay=recipe.weight_decay,
                                   pretrained_lr_factor=recipe.pretrained_lr_factor)
    except InputError as error:
        raise InputError(f"runs.{key}: {error}") from error
    whole_batch_norm(network, device)
    cache = cache_of(settings.reads)
    pictures = Pictures(frame, raw=raw, cache=cache, arrays=arrays(settings, cache), crop=crop, height=settings.height,
                        width=settings.width, seed=settings.seed, flip=augment.flip, pad=augment.pad,
                        erase=augment.erase, fill=augment.fill)
    rate = functools.partial(learning_rate, lr=recipe.lr, warmup=recipe.warmup, warmup_start=recipe.warmup_start,
                             milestones=recipe.milestones, gamma=recipe.gamma)
    steps = -(-settings.image_steps // batch)  # at least as many images as were asked for
    history = fit(
        network, optimizer, steps=steps, batch_size=batch, rate=rate, seed=settings.seed, device=device,
        precision=precision, scratch=scratch, live=Path("runs") / key / "live", keys=pictures.keys,
        batches=lambda start: training_batches(pictures, plan, start=start, stop=steps, workers=settings.workers,
                                               share=share, device=device))
    tail = history[-max(1, len(history) // FINAL_SHARE):]
    names = [name for name in tail[-1] if name not in ("step", "lr")]
    return {name: round(sum(row[name] for row in tail) / len(tail), 6) for name in names}


def _write_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    temporary = Path(f"{os.fspath(path)}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main(run)
