"""Muon for convolutions, and several optimisers as one."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

ITERATIONS = 5
MOMENTUM = 0.95  # the author's
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): a weight's momentum, made orthogonal.

    torch.optim.Muon takes matrices only; here a convolution (O, I, kh, kw) counts as the matrix (O, I kh kw). The
    update is scaled by sqrt(max(1, O / (I kh kw))), Nesterov's momentum is 0.95 and the weight decay is decoupled.
    dtype: that of the iteration, bfloat16 where the device multiplies it natively.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": weight_decay, "momentum": MOMENTUM})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override] # nothing here evaluates a closure
        for group in self.param_groups:
            for weight in (parameter for parameter in group["params"] if parameter.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])

                matrix = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                update = orthogonalised(matrix.to(self.dtype)).to(weight.dtype).view(weight.shape)

                weight.mul_(1 - group["lr"] * group["weight_decay"])
                rows, columns = matrix.shape
                weight.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalised(matrix: Tensor) -> Tensor:
    """(R, C) -> about U V^T of its singular value decomposition U S V^T, by five quintic Newton-Schulz steps: they
    bring singular values into about [0.7, 1.2], and no nearer."""
    a, b, c = COEFFICIENTS
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Together:
    """Optimisers that step together, with all that training asks of one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(place): optimizer.state_dict() for place, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for place, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state_dict[str(place)])
