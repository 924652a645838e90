"""Shared tensor maths against naive loops in float64, and what must hold where a pair or an anchor has nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import (
    accuracy,
    batch_hard_triplet,
    cosine,
    euclidean,
    part_distance,
    smoothed_cross_entropy,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_pair(f_q, f_g, v_q, v_g, sizes, distance, reduction) -> float | None:
    """The pair distance of one query and one gallery image by loops over lists; None where nothing is shared."""
    total, weights, start = 0.0, 0.0, 0
    for part, size in enumerate(sizes):
        a, b = f_q[start:start + size].tolist(), f_g[start:start + size].tolist()
        start += size
        if distance == "cosine":
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
            d = 1 - dot / norms
        else:
            d = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
        w = float(v_q[part]) * float(v_g[part])
        total, weights = total + w * d, weights + w

    if weights <= 1e-12:
        return None
    return total / weights if reduction == "mean" else total


def naive_triplet(d, pid, margin, valid) -> float:
    losses = []
    for a in range(len(pid)):
        positives = [d[a][p] for p in range(len(pid)) if p != a and pid[p] == pid[a] and valid[a][p]]
        negatives = [d[a][n] for n in range(len(pid)) if pid[n] != pid[a] and valid[a][n]]
        losses.append(max(0.0, margin + max(positives) - min(negatives)) if positives and negatives else 0.0)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_part_distance_is_the_naive_double_loop(distance, reduction):
    sizes = (5, 3, 7)
    f_q, f_g = draw(4, 15), draw(6, 15, seed=1)
    v_q, v_g = draw(4, 3, seed=2).sigmoid(), draw(6, 3, seed=3).relu().clamp(max=1)
    v_g[0] = 0
    d, shared = part_distance(f_q, f_g, v_q, v_g, sizes=sizes, distance=distance, reduction=reduction)

    for q in range(4):
        for g in range(6):
            expected = naive_pair(f_q[q], f_g[g], v_q[q], v_g[g], sizes, distance, reduction)
            assert bool(shared[q, g]) == (expected is not None)
            assert abs(float(d[q, g]) - (expected or 0.0)) < 1e-10


def test_an_occluder_over_a_part_that_neither_shows_does_not_move_the_distance():
    f, v = draw(3, 12), torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64).expand(3, 3)
    changed = f.clone()
    changed[:, 4:8] = 100 * draw(3, 4, seed=5)
    for reduction in ("mean", "sum"):
        keywords = {"sizes": (4, 4, 4), "distance": "cosine", "reduction": reduction}
        assert torch.equal(part_distance(f, f, v, v, **keywords)[0],
                           part_distance(changed, changed, v, v, **keywords)[0])


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)))
def test_permuting_the_parts_does_not_move_the_distance(order):
    f, v = draw(5, 4, 3), draw(5, 4, seed=1).sigmoid()
    keywords = {"sizes": (3,) * 4, "distance": "euclidean", "reduction": "mean"}
    before, _ = part_distance(f.flatten(1), f.flatten(1), v, v, **keywords)
    f, v = f[:, order], v[:, order]
    after, _ = part_distance(f.flatten(1), f.flatten(1), v, v, **keywords)
    off = ~torch.eye(5, dtype=torch.bool)
    assert torch.allclose(before[off], after[off], atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_batch_hard_triplet_is_the_naive_loop(masked, seed):
    f = draw(9, 4, seed=seed)
    pid = torch.randint(0, 4, (9,), generator=torch.Generator().manual_seed(seed))
    valid = draw(9, 9, seed=seed + 1) > 0 if masked else torch.ones(9, 9, dtype=torch.bool)
    d = euclidean(f, f)
    ours = batch_hard_triplet(d, pid, margin=0.3, valid=valid if masked else None)
    assert abs(float(ours) - naive_triplet(d.tolist(), pid.tolist(), 0.3, valid.tolist())) < 1e-10


def test_nothing_to_mine_gives_zero_and_finite_gradients():
    cases = {"one person": torch.zeros(4, dtype=torch.long), "all different": torch.arange(4)}
    for name, pid in cases.items():
        f = draw(4, 6).requires_grad_()
        loss = batch_hard_triplet(euclidean(f, f), pid, margin=0.3)
        loss.backward()
        assert loss == 0 and f.grad is not None and torch.isfinite(f.grad).all(), name


def test_an_anchor_is_no_positive_of_its_own():
    d = torch.tensor([[0.0, 0.1, 0.2], [0.1, 0.0, 0.5], [0.2, 0.5, 0.0]])
    # Image 0 is alone with its person: it adds 0, though a negative is nearer than the margin.
    loss = batch_hard_triplet(d, torch.tensor([0, 1, 1]), margin=0.3)
    assert loss == pytest.approx((0.3 + 0.5 - 0.1 + 0.3 + 0.5 - 0.2) / 3)


def test_a_pair_that_shares_nothing_never_gives_nan_in_matching_or_mining():
    pid = torch.tensor([0, 0, 1, 1])
    f = draw(4, 8).requires_grad_()
    v = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 0]], dtype=torch.float64).requires_grad_()
    d, shared = part_distance(f, f, v, v, sizes=(4, 4), distance="euclidean", reduction="mean")
    assert shared.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    loss = batch_hard_triplet(d, pid, margin=0.3, valid=shared)
    loss.backward()
    assert loss == 0  # 0 and 1 share nothing, nor do 2 and 3: no anchor has a positive
    assert torch.isfinite(f.grad).all() and torch.isfinite(v.grad).all()


def test_identical_features_are_at_a_finite_slope():
    f = torch.ones(3, 5, dtype=torch.float64, requires_grad=True)
    d = euclidean(f, f)
    d.sum().backward()
    assert torch.allclose(d, torch.full_like(d, 1e-6)) and torch.isfinite(f.grad).all()


def test_cosine_of_a_zero_vector_is_one():
    assert torch.equal(cosine(torch.zeros(1, 3), torch.eye(3)), torch.ones(1, 3))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smoothed_cross_entropy_is_its_definition(reduction):
    logits, smoothing = draw(2, 5, 3, 2), 0.1
    target = torch.randint(0, 5, (2, 3, 2), generator=torch.Generator().manual_seed(0))
    total = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(2):
                row = logits[b, :, y, x].tolist()
                log_z = math.log(sum(math.exp(value) for value in row))
                for k, value in enumerate(row):
                    q = (1 - smoothing) * (k == int(target[b, y, x])) + smoothing / 5
                    total -= q * (value - log_z)

    ours = smoothed_cross_entropy(logits, target, smoothing=smoothing, reduction=reduction)
    assert abs(float(ours) - total / (12 if reduction == "mean" else 2)) < 1e-10


def test_unknown_names_are_refused():
    f, v = draw(2, 4), torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="median"):
        part_distance(f, f, v, v, sizes=(4,), distance="cosine", reduction="median")
    with pytest.raises(ValueError, match="median"):
        smoothed_cross_entropy(f, torch.zeros(2, dtype=torch.long), smoothing=0.0, reduction="median")


def test_accuracy_counts_right_answers():
    assert accuracy(torch.tensor([[2.0, 1], [0, 3], [5, 4], [1, 0]]), torch.tensor([0, 1, 1, 1])) == 0.5


def test_euclidean_distances_keep_their_digits_under_autocast():
    torch.manual_seed(0)
    features = torch.randn(1, 64) * 10 + torch.randn(8, 64) * 0.1
    exact = torch.cdist(features.double(), features.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = euclidean(features, features)
    assert (found - exact)[~torch.eye(8, dtype=torch.bool)].abs().max() < 0.01 * exact.max()
