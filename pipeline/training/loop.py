"""Training loop: optimiser, learning rate, checkpoints, progress, and a stop where the loss is no number.

A network is anything with `forward(batch) -> (loss, named scalars)`. Step k is a pure function of the state after step
k - 1 and of (seed, k): a run that was killed goes on from its checkpoint to the same weights, bit for bit.

Where torchrun started several processes (pipeline/training/distributed.py) each has its rows of every batch. The
network sees to losses and normalisations over all of it; gradients are averaged; the first process alone writes and
shows.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from dvclive import Live
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes, write_json, writing
from pipeline.base.progress import progress
from pipeline.base.seeds import torch_seed
from pipeline.training import distributed
from pipeline.training.optimizers import Optimizer, adam_update, sgd_update

ADAM_BETAS = (0.9, 0.999)  # the authors'
FORMAT = 3  # of checkpoints and of what a step does; another number makes unfinished work stale
LOG_STEPS = 20  # fewer in short trainings, which have at least ten rows
CHECKPOINT_STEPS = 100
CHECKPOINT_SECONDS = 20  # between two at least: writing 300 MB takes a GPU as long as some 50 steps

Batch = dict[str, Tensor]
Row = dict[str, float]


class Stepper(Protocol):
    """What training asks of an optimiser; `factor` of a group is its share of the learning rate."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    def zero_grad(self) -> None: ...
    def step(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def learning_rate(share: float, *, lr: float, warmup: float, warmup_start: float, milestones: Sequence[float],
                  gamma: float, cosine: bool = False) -> float:
    """The rate after `share` (0 .. 1) of training.

    Linear from warmup_start * lr to lr over the first `warmup`, then lr, times gamma at each milestone reached, and
    with `cosine` times half a cosine's fall from 1 at the warm-up's end to 0 at the end.
    Shares are compared with a tolerance of 1e-9, so that 40 of 70 epochs is 40/70 however it was rounded.

    >>> learning_rate(0.5, lr=1.0, warmup=0.1, warmup_start=0.1, milestones=[0.5, 0.8], gamma=0.1)
    0.1
    """
    rate = lr * gamma ** sum(share >= milestone - 1e-9 for milestone in milestones)
    if share < warmup - 1e-9:
        return rate * (warmup_start + (1 - warmup_start) * share / warmup)
    return rate * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2 if cosine and warmup < 1 else rate


def make_optimizer(pretrained: Sequence[nn.Parameter], new: Sequence[nn.Parameter], *, name: str, weight_decay: float,
                   pretrained_lr_factor: float, layers: Sequence[Sequence[nn.Parameter]] = (),
                   layer_decay: float = 1.0) -> Optimizer:
    """adam (default betas) or sgd (momentum 0.9, Nesterov), both with weight decay as an L2 penalty on everything, or
    adamw, which decays weights apart from the gradient.

    Each group's `factor` is its share of the rate: 1 for new parameters, pretrained_lr_factor for pretrained ones, of
    those of layer i of n (from the image on, i from 1) times layer_decay^(n + 1 - i), as BEiT has it (Bao et al. 2022).
    """
    groups: list[dict[str, Any]] = [{"params": list(parameters), "factor": factor}
                                    for parameters, factor in (*_decayed(pretrained, pretrained_lr_factor, layers,
                                                                         layer_decay), (new, 1.0)) if parameters]

    if name in ("adam", "adamw"):
        return Optimizer(groups, adam_update(ADAM_BETAS, decoupled=name == "adamw"), weight_decay=weight_decay)
    if name == "sgd":
        return Optimizer(groups, sgd_update, weight_decay=weight_decay)
    raise InputError(f"unknown optimiser {name!r}; it is adam, adamw or sgd")


def _decayed(pretrained: Sequence[nn.Parameter], factor: float, layers: Sequence[Sequence[nn.Parameter]],
             layer_decay: float) -> list[tuple[Sequence[nn.Parameter], float]]:
    """Pretrained parameters with their factors: as one where no layer's differs."""
    if layer_decay == 1.0:
        return [(pretrained, factor)]

    place = {id(parameter): number for number, layer in enumerate(layers) for parameter in layer}
    own: list[list[nn.Parameter]] = [[] for _ in range(len(layers) + 1)]  # the last: what stands in no layer
    for parameter in pretrained:
        own[place.get(id(parameter), len(layers))].append(parameter)
    return [(parameters, factor * layer_decay ** (len(layers) - number)) for number, parameters in enumerate(own)]


def fingerprint(provenance: dict[str, Any]) -> str:
    """The name under which unfinished work with this provenance (parameters and hashes of inputs) is kept."""
    return hashlib.sha256(json.dumps([FORMAT, provenance], sort_keys=True).encode()).hexdigest()[:16]


def fit(network: nn.Module, optimizer: Stepper, *, batches: Callable[[int], Iterator[Batch]], steps: int,
        batch_size: int, rate: Callable[[float], float], seed: int, device: torch.device, precision: str,
        scratch: str | os.PathLike, live: str | os.PathLike, keys: Sequence[str],
        checkpoint_steps: int = CHECKPOINT_STEPS, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> list[Row]:
    """Train `network` in place for `steps` steps, from the checkpoint in `scratch` if there is one.

    precision: float32, or bfloat16 for the forward pass of a device that has it (weights stay float32);
    batches(start): the batches of steps start, start + 1, ...; rate(share of training done) -> learning rate; live:
    DVCLive's folder; keys: image key of each `row` in a batch, to name what stopped training.
    Returns what DVCLive shows: every 20 steps step, learning rate, and the mean of the loss and each scalar since.
    InputError if the loss or a weight is no finite number; step, keys and the batch itself stay in scratch/stopped.
    Under torchrun batch_size is that of all processes, and `batches` gives this one's share.
    """
    if distributed.started() != distributed.count():
        raise InputError(f"torchrun started {distributed.started()} processes, and this stage trains as one; start it "
                         "with `python -m`")

    scratch, first = Path(scratch), distributed.rank() == 0
    place(network, device).train()
    start, history, pending = _resume(scratch, network, optimizer, device)
    distributed.same_start(network.state_dict().values(), step=start, name=os.fspath(scratch))

    log_steps = min(LOG_STEPS, max(1, steps // 10))
    bar = progress(what="train", total=steps * batch_size, done=start * batch_size, unit="images", shown=first)
    with _open_live(live, history, first) as log, bar:
        began, images, saved = time.perf_counter(), 0, -math.inf
        for step, batch in zip(range(start, steps), batches(start), strict=False):
            lr = rate(step / steps)
            scalars = _step(network, optimizer, batch, lr=lr, seed=torch_seed(seed, "step", step), device=device,
                            precision=precision)
            if not math.isfinite(scalars["loss"]):
                raise _stopped(scratch, step, scalars, batch, keys)

            pending.append(scalars)
            images += batch_size
            bar.set_postfix(loss=f"{scalars['loss']:.3f}", lr=f"{lr:.1e}", refresh=False)
            bar.update(batch_size)

            done = step + 1
            if done % log_steps == 0 or done == steps:
                history.append({"step": done, "lr": lr} | _mean(pending))
                if log is not None:
                    _write_live(log, history[-1] | {"images_per_second": images / (time.perf_counter() - began)})
                began, images, pending = time.perf_counter(), 0, []

            due = done % checkpoint_steps == 0  # by steps, so that all processes look at once
            if (due or done == steps) and not all(tensor.isfinite().all() for tensor in network.parameters()):
                raise _stopped(scratch, step, scalars, batch, keys)
            if due and first and time.monotonic() - saved >= checkpoint_seconds:
                _save(scratch, done, network, optimizer, history, pending)
                saved = time.monotonic()

    return history


def _step(network: nn.Module, optimizer: Stepper, batch: Batch, *, lr: float, seed: int,
          device: torch.device, precision: str) -> Row:
    """One forward and backward pass and the update, unless the loss is not finite."""
    torch.manual_seed(seed)  # dropout and the like: a function of the step, so that no state need be kept
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]

    moved = to_device(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        loss, scalars = network(moved)

    row = distributed.average({"loss": loss.item()} | {name: float(scalar) for name, scalar in scalars.items()}, device)
    if math.isfinite(row["loss"]):
        optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(network.parameters())
        optimizer.step()
    return row


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, its weights in the layout that `to_device` gives images."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, images with channels last, which convolutions want on GPUs and CPUs."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last)
    return moved


def _mean(rows: list[Row]) -> Row:
    return {name: round(math.fsum(row[name] for row in rows) / len(rows), 6) for name in rows[0]}


def _open_live(folder: str | os.PathLike, history: list[Row], first: bool) -> contextlib.AbstractContextManager:
    """A fresh log that already holds `history`: DVC clears a stage's outputs before the stage can go on."""
    if not first:
        return contextlib.nullcontext()

    with writing(folder):
        log = Live(dir=os.fspath(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)
    for row in history:
        _write_live(log, row)
    return log


def _write_live(log: Live, row: Row) -> None:
    log.step = int(row["step"])
    with writing(log.dir):
        for name, value in row.items():
            if name != "step":
                log.log_metric(name, value)
        log.make_summary()


def _save(scratch: Path, step: int, network: nn.Module, optimizer: Stepper, history: list[Row],
          pending: list[Row]) -> None:
    data = io.BytesIO()
    torch.save({"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict(),
                "history": history, "pending": pending}, data)
    write_bytes(scratch / "checkpoint.pt", data.getvalue())


def _resume(scratch: Path, network: nn.Module, optimizer: Stepper, device: torch.device
            ) -> tuple[int, list[Row], list[Row]]:
    """(step to go on with, history so far, scalars since its last row); (0, [], []) without a checkpoint."""
    path = scratch / "checkpoint.pt"
    if not path.exists():
        return 0, [], []

    try:
        state = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # torch.load raises pickle, zip, EOF and runtime errors by the kind of damage
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"'{path}': is no checkpoint of this training or damaged ({reason}); remove it, and training "
                         "starts over") from error
    return state["step"], state["history"], state["pending"]


def _stopped(scratch: Path, step: int, scalars: Row, batch: Batch, keys: Sequence[str]) -> InputError:
    """Keep what led to a loss that is no number, all processes' rows of it, and say so."""
    folder, batch = scratch / "stopped", distributed.gathered(batch)
    names = [keys[row] for row in batch["row"].tolist()]
    if distributed.rank() == 0:
        text = {name: str(value) for name, value in scalars.items()}  # NaN is no JSON
        write_json(folder / "step.json", {"step": step, "scalars": text, "keys": names})
        write_bytes(folder / "batch.safetensors", save({name: tensor.contiguous() for name, tensor in batch.items()}))
    distributed.wait()  # the first process that ends takes the others with it

    bad = [name for name, value in scalars.items() if not math.isfinite(value)]
    return InputError(f"'{folder}': training stopped at step {step}, where {bad[0] if bad else 'a weight'} became "
                      f"{scalars[bad[0]] if bad else 'no finite number'}; step.json names its {len(names)} images "
                      f"(first {names[0]!r}) and batch.safetensors holds them: look at them, or lower optimizer.lr")
