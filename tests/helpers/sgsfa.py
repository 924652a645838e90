"""SGSFA's tests: a small network, batches whose parser is nearly sure, the distance of a pair written out."""

import math

import torch
import torch.nn.functional as F

from models.sgsfa import Sgsfa
from tests.helpers.networks import network
from tests.helpers.overfit import people

# The 8 parts of `people` -> background, head, upper, lower, shoes; they have no feet: lower legs stand for shoes.
FOUR = torch.tensor([0, 1, 2, 2, 2, 3, 4, 4])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(**options) -> dict[str, torch.Tensor]:
    """People with probabilities of 5 groups, as a parser gives them: sure, but not quite; and a draw per image."""
    batch = people(**options)
    batch["uniform"] = torch.rand(len(batch["pid"]), generator=torch.Generator().manual_seed(3))
    batch["probs4"] = 0.92 * F.one_hot(FOUR[batch["labels"]], 5).permute(0, 3, 1, 2).float() + 0.016
    return batch


def build(seed: int = 0, *, median: float | None = 0.05, **options) -> Sgsfa:
    model = network("sgsfa", seed=seed, **{"size": 16} | options)
    if median is not None:
        model.medians.fill_(median)
    return model


def double(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def naive_distance(a, b, v_a, v_b, distance: str, reduction: str) -> float | None:
    """Eq. 6 and 7 over the parts that both images show; None where there is none."""
    total, shared = 0.0, 0
    for x, y, v, w in zip(a, b, v_a, v_b, strict=True):
        if not (v and w):
            continue
        if distance == "cosine":
            d = 1 - sum(p * q for p, q in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
        else:
            d = max(math.dist(x, y), 1e-6)  # Euclidean distances are clamped there
        total, shared = total + d, shared + 1

    if not shared:
        return None
    return total / shared if reduction == "mean" else total
