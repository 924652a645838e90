"""Distributed training by processes that torchrun started: who is who, who takes which rows, what they agree on.

Without torchrun there is one process, and every function here gives back its argument.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.base.errors import InputError


def started() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them; 0 is the one that writes and shows."""
    return dist.get_rank() if count() > 1 else 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started: over nccl where they compute on GPUs, over gloo elsewhere.

    InputError if there are more of them on this machine than GPUs.
    """
    if started() == 1:
        yield
        return

    if device.type == "cuda":
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if here > gpus:
            raise InputError(f"torchrun started {here} processes on this machine, and torch finds {gpus} GPUs; give "
                             f"--nproc-per-node {gpus}, or write device: cpu")
        torch.cuda.set_device(device)

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: the others may never answer


def share_of(batch: int) -> slice:
    """This process's places in a batch of so many images. InputError if it cannot be shared out evenly."""
    if batch % started():
        raise InputError(f"a batch of {batch} images does not divide among {started()} processes; change `batch`, or "
                         f"start a number of processes that divides {batch}")

    own = batch // started()
    return slice(rank() * own, (rank() + 1) * own)


def average(row: dict[str, float], device: torch.device) -> dict[str, float]:
    """Each number's mean over the processes."""
    if count() == 1:
        return row

    values = torch.tensor(list(row.values()), dtype=torch.float64, device=device)
    dist.all_reduce(values)
    return dict(zip(row, (values / count()).tolist(), strict=True))


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Each gradient becomes its mean over the processes; all are sent as one. None stays None, as it is everywhere."""
    if count() == 1:
        return

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / count()
    dist.all_reduce(flat)

    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def same_start(tensors: Iterable[Tensor], *, step: int, name: str) -> None:
    """Every process takes over the first one's tensors. InputError if they would not begin at the same step."""
    if count() == 1:
        return

    steps: list[Any] = [None] * count()
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise InputError(f"'{name}': the processes found checkpoints of different steps there ({steps}); all of them "
                         "must see the same folder, on the same kind of machine")

    for tensor in tensors:
        dist.broadcast(tensor, 0)


def gathered(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every process's rows of a batch (on the CPU), in order."""
    if count() == 1:
        return batch

    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, batch)
    return {name: torch.cat([part[name] for part in parts]) for name in batch}


def wait() -> None:
    """Until all processes have come this far."""
    if count() > 1:
        dist.barrier()
