"""Adam, AdamW and SGD against torch's classes, Muon against singular values and torch's own; several as one."""

import pytest
import torch
from torch import nn

from pipeline.training.optimizers import Optimizer, Together, adam_update, muon_update, orthogonalised, sgd_update


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (16, 16)])
def test_orthogonalising_keeps_singular_vectors_and_evens_their_values(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape), dtype=torch.float64)
    result = u.T @ orthogonalised(u @ torch.diag(values) @ v) @ v.T
    assert torch.allclose(result, torch.diag(result.diagonal()), atol=1e-9)
    assert ((result.diagonal() > 0.5) & (result.diagonal() < 1.25)).all()


def test_a_matrix_moves_as_torch_s_own_muon_moves_it():
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 10), torch.randn(5, 6, 10)
    theirs, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone().view(6, 10, 1, 1))
    their = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.05)
    our = Optimizer([{"params": [ours]}], muon_update(torch.float32), weight_decay=0.05)
    our.param_groups[0]["lr"] = 0.02
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone().view(6, 10, 1, 1)
        their.step()
        our.step()
    moved = (theirs - start).norm()
    assert (theirs - ours.view(6, 10)).norm() < 0.01 * moved  # torch's iterates in bfloat16
    assert moved > 0.1


def test_together_steps_all_and_goes_on_from_its_state():
    def pair():
        torch.manual_seed(0)
        wide, narrow = nn.Parameter(torch.randn(4, 6, 1, 1)), nn.Parameter(torch.randn(4))
        optimizer = Together([
            Optimizer([{"params": [narrow], "factor": 1.0}], adam_update((0.9, 0.999), decoupled=True),
                      weight_decay=0.01),
            Optimizer([{"params": [wide], "factor": 2.0}], muon_update(torch.float32), weight_decay=0.0)])
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * group["factor"]
        return wide, narrow, optimizer

    def step(wide, narrow, optimizer):
        optimizer.zero_grad()
        (wide.square().sum() + narrow.square().sum()).backward()
        optimizer.step()

    straight, broken = pair(), pair()
    for _ in range(3):
        step(*straight)
    for _ in range(2):
        step(*broken)
    resumed = pair()
    with torch.no_grad():
        for new, old in zip(resumed[:2], broken[:2], strict=True):
            new.copy_(old)
    resumed[2].load_state_dict(broken[2].state_dict())
    step(*resumed)
    for one, other in zip(straight[:2], resumed[:2], strict=True):
        assert torch.equal(one, other)
    assert len(straight[2].param_groups) == 2 and all(not torch.equal(new, old) for new, old in
                                                      zip(straight[:2], pair()[:2], strict=True))


TORCHS = {
    "adam": (adam_update((0.9, 0.999), decoupled=False), lambda groups: torch.optim.Adam(groups, fused=True)),
    "adamw": (adam_update((0.9, 0.99), decoupled=True),
              lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)),
    "sgd": (sgd_update, lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=True))}


@pytest.mark.parametrize("name", TORCHS)
def test_each_moves_bit_for_bit_as_torch_s_class_does(name):
    """Two groups of other rates and decays, a changing rate, a parameter that has no gradient, a checkpoint between."""
    update, torchs = TORCHS[name]
    torch.manual_seed(0)
    starts = [torch.randn(3, 5), torch.randn(7), torch.randn(2, 3, 3, 3), torch.randn(4)]
    theirs, ours = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))

    def groups(parameters):
        return [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "weight_decay": 0.0}]

    their, our = torchs(groups(theirs)), Optimizer(groups(ours), update, weight_decay=0.3)
    for step in range(6):
        if step == 3:
            again = Optimizer(groups(ours), update, weight_decay=0.3)
            again.load_state_dict(our.state_dict())
            our = again
        for optimizer, parameters in ((their, theirs), (our, ours)):
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = 0.01 * (number + 1) / (step + 1)
            optimizer.zero_grad()
            sum((weight * (step + 1)).sin().sum() for weight in parameters[:3]).backward()
            optimizer.step()
        assert all(torch.equal(one, other) for one, other in zip(theirs, ours, strict=True)), step
    assert all(not torch.equal(one, start) for one, start in zip(ours[:3], starts, strict=False))
    assert torch.equal(ours[3], starts[3])


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_states_go_over_to_the_memory_layout_of_the_parameters(name):
    """Fused kernels walk raw memory: a state of another layout would be another weight's."""
    def moved(first: torch.memory_format) -> torch.Tensor:
        """The weights after a step in `first` and one in contiguous memory."""
        torch.manual_seed(0)
        weight, state = torch.randn(8, 4, 3, 3), None
        for step, layout in enumerate((first, torch.contiguous_format)):
            parameter = nn.Parameter(weight.clone().contiguous(memory_format=layout))
            optimizer = Optimizer([{"params": [parameter], "lr": 0.1}], TORCHS[name][0], weight_decay=0.0)
            if state is not None:
                optimizer.load_state_dict(state)
            parameter.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(step)
                                         ).contiguous(memory_format=layout)
            optimizer.step()
            weight, state = parameter.detach(), optimizer.state_dict()
        return weight

    assert torch.equal(moved(torch.channels_last), moved(torch.contiguous_format))


def test_states_of_other_parameters_are_refused():
    def stepped(*sizes):
        parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
        optimizer = Optimizer([{"params": parameters}], sgd_update, weight_decay=0.0)
        sum(weight.sum() for weight in parameters).backward()
        optimizer.step()
        return optimizer

    for other in (stepped(3), stepped(3, 5)):
        with pytest.raises(ValueError, match="shorter|longer|shape"):
            stepped(3, 4).load_state_dict(other.state_dict())
