"""A network and its batch with channels last in memory, beside the same with channels first."""

import torch
from torch import Tensor, nn


def both_layouts(model: nn.Module, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor, list[Tensor]]]:
    """With channels first and last: features, visibilities, loss of a training step and its gradients, in double
    precision, where only a fault makes a difference."""
    made = []
    model.double()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    for layout in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=layout)
        batch["image"] = batch["image"].contiguous(memory_format=layout)
        assert batch["image"].is_contiguous(memory_format=layout)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            features, visibility = model.eval().embed(batch)
        torch.manual_seed(0)
        loss, _ = model.train()(batch)
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        made.append((features, visibility, loss, [one for one in gradients if one is not None]))
        model.load_state_dict(state)  # its statistics moved
    return made


def assert_same(model: nn.Module, batch: dict[str, Tensor]) -> None:
    first, last = both_layouts(model, batch)
    for one, other in zip((*first[:3], *first[3]), (*last[:3], *last[3]), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)
