"""Distributed batch: rows spread evenly over processes, and what one process's maths needs of the others' rows.

With one process every function here gives back what it was given, and no kernel runs.

Each process takes the mean over its own rows, or the same number over all rows. Sums over processes have the sum of the
processes' gradients as theirs, so every backward pass is that of all processes' losses together, and the mean of the
processes' gradients is the gradient of the mean loss, which is the whole batch's.

B rows per process, N processes, C channels.
"""

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def processes() -> int:
    """How many processes share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Total(torch.autograd.Function):
    """The sum over processes, differentiable (torch.distributed.nn's is deprecated)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def whole_batch(*parts: Tensor) -> tuple[Tensor, ...]:
    """Tensors of this process's B rows (B, ...) -> of all N processes' rows (N B, ...), in order and differentiable.

    A sum, with zeros in the other processes' places: exact, and one kind of exchange on every backend.
    """
    count = processes()
    if count == 1:
        return parts

    own = dist.get_rank()
    return tuple(_Total.apply(torch.cat([part if rank == own else torch.zeros_like(part) for rank in range(count)]))
                 for part in parts)


def whole_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Make every batch normalisation of the network take its statistics over all processes' rows, names unchanged.

    On CUDA by torch's SyncBatchNorm, which has no CPU kernels; elsewhere by `batch_norm`.
    """
    if processes() == 1:
        return

    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = functools.partial(batch_norm, module)  # type: ignore[method-assign]


def batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """x (B, C, ...) -> (B, C, ...) as `norm` gives it for the rows of all processes, running statistics too."""
    if not norm.training:
        return type(norm).forward(norm, x)
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None and norm.momentum is not None

    channels = (1, -1) + (1,) * (x.ndim - 2)
    others = [axis for axis in range(x.ndim) if axis != 1]
    count = processes() * x.numel() // x.shape[1]

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = _Total.apply(wide.sum(others)) / count  # (B, C, ...) -> (C,)
    centred = wide - mean.view(channels)  # before it is squared: E[x^2] - E[x]^2 would lose digits
    variance = _Total.apply(centred.square().sum(others)) / count

    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)

    scale = (variance + norm.eps).rsqrt() * norm.weight
    return (centred * scale.view(channels) + norm.bias.view(channels)).to(x.dtype)
