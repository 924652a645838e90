"""Optimisers: Adam, AdamW, SGD, Muon for convolutions, and several as one.

The arithmetic of the first three is torch's own, `torch.optim.adam.adam` and `torch.optim.sgd.sgd`, without their
classes: the first `torch.optim.Optimizer` imports torch's compiler, for longer than a small stage's work.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

EPS = 1e-8  # Adam's
SGD_MOMENTUM = 0.9
ITERATIONS = 5
MUON_MOMENTUM = 0.95  # the author's
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

Group = dict[str, Any]  # params, lr, weight_decay and whatever else a caller puts in
State = dict[str, Tensor]  # of one parameter; empty before its first step
Update = Callable[[list[Tensor], list[Tensor], list[State], Group], None]


class Optimizer:
    """Groups of parameters, each parameter's state, and the `update` that moves a group by its gradients.

    groups: dicts with `params`, and what they have of their own; defaults: of all others. The rate is a group's `lr`.
    """

    def __init__(self, groups: Iterable[Group], update: Update, *, weight_decay: float) -> None:
        self.param_groups = [{"lr": 0.0, "weight_decay": weight_decay, **group, "params": list(group["params"])}
                             for group in groups]
        self.update = update
        self.states: list[list[State]] = [[{} for _ in group["params"]] for group in self.param_groups]

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group, states in zip(self.param_groups, self.states, strict=True):
            moved = [(parameter, state) for parameter, state in zip(group["params"], states, strict=True)
                     if parameter.grad is not None]
            if moved:
                parameters = [parameter for parameter, _ in moved]
                self.update(parameters, [parameter.grad for parameter in parameters], [state for _, state in moved],
                            group)

    def state_dict(self) -> dict[str, Any]:
        return {"states": self.states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """In the parameters' own memory layout, which fused kernels take for granted. ValueError if these are states of
        other parameters."""
        states = state_dict["states"]
        for group, there in zip(self.param_groups, states, strict=True):
            for parameter, state in zip(group["params"], there, strict=True):
                if any(value.ndim and value.shape != parameter.shape for value in state.values()):
                    raise ValueError(f"a state is not of the shape {tuple(parameter.shape)} of its parameter")
        self.states = [[{name: torch.empty_like(parameter).copy_(value) if value.ndim else value
                         for name, value in state.items()}
                        for parameter, state in zip(group["params"], there, strict=True)]
                       for group, there in zip(self.param_groups, states, strict=True)]


def adam_update(betas: tuple[float, float], *, decoupled: bool) -> Update:
    """Adam (Kingma and Ba 2015); decoupled: AdamW (Loshchilov and Hutter 2019). Fused: one kernel per parameter."""
    def update(parameters: list[Tensor], gradients: list[Tensor], states: list[State], group: Group) -> None:
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adam(parameters, gradients, [state["mean"] for state in states], [state["square"] for state in states], [],
             [state["step"] for state in states], fused=True, amsgrad=False, beta1=betas[0], beta2=betas[1],
             lr=group["lr"], weight_decay=group["weight_decay"], eps=EPS, maximize=False,
             decoupled_weight_decay=decoupled)
    return update


def sgd_update(parameters: list[Tensor], gradients: list[Tensor], states: list[State], group: Group) -> None:
    """SGD with Nesterov's momentum of 0.9, fused."""
    buffers = [state.get("momentum") for state in states]
    sgd(parameters, gradients, buffers, fused=True, weight_decay=group["weight_decay"], momentum=SGD_MOMENTUM,
        lr=group["lr"], dampening=0.0, nesterov=True, maximize=False)
    for state, buffer in zip(states, buffers, strict=True):
        assert buffer is not None  # sgd puts them there
        state["momentum"] = buffer


def muon_update(dtype: torch.dtype) -> Update:
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): a weight's momentum, made orthogonal.

    torch.optim.Muon takes matrices only; here a convolution (O, I, kh, kw) counts as the matrix (O, I kh kw). The
    update is scaled by sqrt(max(1, O / (I kh kw))), Nesterov's momentum is 0.95 and the weight decay is decoupled.
    dtype: that of the iteration, bfloat16 where the device multiplies it natively.
    """
    def update(parameters: list[Tensor], gradients: list[Tensor], states: list[State], group: Group) -> None:
        for weight, gradient, state in zip(parameters, gradients, states, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(gradient, 1 - MUON_MOMENTUM)

            matrix = gradient.lerp(state["momentum"], MUON_MOMENTUM).flatten(1)
            move = orthogonalised(matrix.to(dtype)).to(weight.dtype).view(weight.shape)

            weight.mul_(1 - group["lr"] * group["weight_decay"])
            rows, columns = matrix.shape
            weight.add_(move, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)
    return update


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

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(place): optimizer.state_dict() for place, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for place, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state_dict[str(place)])
