"""Muon against singular values and torch's own; several optimisers as one."""

import pytest
import torch
from torch import nn

from pipeline.training.muon import Muon, Together, orthogonalised


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
    their, our = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.05), Muon([{"params": [ours]}], weight_decay=0.05,
                                                                                      dtype=torch.float32)
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
        optimizer = Together([torch.optim.AdamW([{"params": [narrow], "factor": 1.0}], lr=0.1),
                              Muon([{"params": [wide], "factor": 2.0}], weight_decay=0.0, dtype=torch.float32)])
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
