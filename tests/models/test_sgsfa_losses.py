"""SGSFA's losses against plain numbers: each by itself, and Eq. 11 in every combination of the switches."""

import itertools
import math

import pytest
import torch

from models.sgsfa import Seen, Sgsfa, attention_loss, dynamic_identity_loss, pseudo_masks, share_right, shared_triplet
from tests.helpers.networks import with_statistics
from tests.helpers.sgsfa import batch_of, build, double, draw, naive_distance, sigmoid


def test_pseudo_masks_are_area_means():
    probs = draw(2, 5, 16, 8).softmax(1)
    whole, local = pseudo_masks(probs, whole=(8, 8), local=(4, 2))
    for b, y, x in itertools.product(range(2), range(4), range(2)):
        for i in range(4):
            cells = [float(probs[b, i + 1, 4 * y + dy, 4 * x + dx]) for dy in range(4) for dx in range(4)]
            assert abs(float(local[b, i, y, x]) - sum(cells) / 16) < 1e-10

    for b, y, x in itertools.product(range(2), range(8), range(8)):
        naive = (2 - float(probs[b, 0, 2 * y, x]) - float(probs[b, 0, 2 * y + 1, x])) / 2
        assert abs(float(whole[b, 0, y, x]) - naive) < 1e-10


def naive_bce(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Eq. 8 of one mask (B, h, w), mean over pixels and images."""
    total = 0.0
    for z, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = sigmoid(z)
        total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    return total / target.numel()


def test_eq_8_is_binary_cross_entropy():
    logits, target = 3 * draw(2, 4, 4, 2), draw(2, 4, 4, 2, seed=1).sigmoid()
    naive = sum(naive_bce(logits[:, i], target[:, i]) for i in range(4))
    assert abs(float(attention_loss(logits, target)) - naive) < 1e-10


def naive_smoothed(logits: list[float], own: int, epsilon: float) -> float:
    """Eq. 10 as printed."""
    k = len(logits)
    log_z = math.log(sum(math.exp(value) for value in logits))
    log_p = [value - log_z for value in logits]
    return (-(1 - epsilon + epsilon / k) * log_p[own]
            - epsilon / k * sum(value for i, value in enumerate(log_p) if i != own))


def test_eq_10_is_summed_over_the_vectors_by_their_weights():
    logits, pid = draw(5, 10, 7), torch.tensor([0, 0, 3, 6, 2])
    weights = draw(5, 10, seed=1).clamp(min=0)
    naive = sum(float(weights[b, i]) * naive_smoothed(logits[b, i].tolist(), int(pid[b]), 0.1)
                for b in range(5) for i in range(10)) / 5
    assert abs(float(dynamic_identity_loss(logits, pid, weights, smoothing=0.1)) - naive) < 1e-10


def test_accuracy_is_that_of_the_vectors_that_take_part():
    logits, pid = torch.zeros(3, 4, 5), torch.tensor([1, 2, 3])
    for b, i, name in [(0, 0, 1), (0, 1, 1), (0, 2, 4), (0, 3, 1), (1, 0, 2), (1, 3, 0), (2, 0, 3)]:
        logits[b, i, name] = 1.0
    part = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]])
    assert abs(float(share_right(logits, pid, part)) - (2 / 3 + 1 / 2 + 0) / 3) < 1e-6


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_triplet_mines_the_matching_distance_of_shared_parts(distance):
    f, pid = draw(8, 5, 6), [0, 0, 0, 1, 1, 1, 2, 2]
    v = (draw(8, 5, seed=1) > -0.5).double()
    v[4] = 0  # shares nothing with anybody
    losses = []
    for a in range(8):
        d = [naive_distance(f[a].tolist(), f[b].tolist(), v[a].tolist(), v[b].tolist(), distance, "mean")
             for b in range(8)]
        positive = [d[b] for b in range(8) if pid[b] == pid[a] and b != a and d[b] is not None]
        negative = [d[b] for b in range(8) if pid[b] != pid[a] and d[b] is not None]
        losses.append(max(0.0, 0.8 + max(positive) - min(negative)) if positive and negative else 0.0)

    ours = shared_triplet(f, v, torch.tensor(pid), distance=distance, margin=0.8)
    assert sum(loss > 0 for loss in losses) >= 3
    assert abs(float(ours) - sum(losses) / 8) < 1e-10


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_mining_where_nothing_is_shared_is_zero_and_never_nan(distance):
    f = draw(4, 3, 6)
    f[:, 1] = 0  # an empty stripe
    for v in (torch.zeros(4, 3).double(), torch.tensor([[1.0, 0, 0], [0, 0, 1]] * 2).double()):
        leaf = f.clone().requires_grad_()
        loss = shared_triplet(leaf, v, torch.tensor([0, 0, 1, 1]), distance=distance, margin=0.3)
        loss.backward()
        assert v.any() or float(loss.detach()) == 0
        assert torch.isfinite(loss) and torch.isfinite(leaf.grad).all()


def written_out(net: Seen, batch: dict[str, torch.Tensor], model: Sgsfa, options: dict) -> dict[str, float]:
    """L_tri, L_se and L_d_cls of Eq. 11 from the vectors before BN and the masks, in plain numbers.

    lambda 0.7, smoothing 0.2, margin 0.4, tau_i 0.2 x 2.5, stripes above 0.7.
    """
    pid, masks, count = batch["pid"].tolist(), net.local_logits.sigmoid().tolist(), len(batch["pid"])
    loss = {"attention": 0.0, "id": 0.0, "triplet": 0.0}
    for i in range(4):  # Eq. (9), the local masks at 4 x 2
        target = torch.stack([batch["probs4"][:, i + 1, 4 * y:4 * y + 4, 4 * x:4 * x + 4].mean((1, 2))
                              for y in range(4) for x in range(2)], 1)
        loss["attention"] += naive_bce(net.local_logits[:, i], target)
    if net.whole_logits is not None:
        loss["attention"] += naive_bce(net.whole_logits[:, 0], 1 - batch["probs4"][:, 0])

    seen, chosen = [], []  # of each image: v of whole, regions, top, middle, bottom; f_choose
    for b in range(count):
        v = [1.0] + [float(sum(map(sum, masks[b][i])) / 8 > 0.2 * 2.5) for i in range(4)]
        top = next((y for y in range(4) if max(masks[b][0][y]) > 0.5), 0)
        for start, end in ((0, 1), (1, 2), (2, 4)):  # round(0.15 x 4), round(0.38 x 4) rows below the top
            body = [max(masks[b][i][y][x] for i in range(4)) for y in range(top + start, min(top + end, 4))
                    for x in range(2)] if top + start < 4 else []
            v.append(float(bool(body) and sum(body) / len(body) > 0.7))
        t, m, low = v[5:]
        seen.append(v)
        chosen.append([5, 6, 7, 8, 9] if t and m and low else [5, 6, 8] if t and m else [5] if t else [])

    # BN over the batch, each number by itself; then the vector's own classifier
    f, first = net.f.tolist(), 5 if options["classified"] == "spatial" else 0
    classifiers, gamma, beta = (t.tolist() for t in (model.heads.classify.weight, model.heads.norm.weight,
                                                     model.heads.norm.bias))

    def cross_entropy(b: int, i: int) -> float:
        normed = []
        for d in range(16):
            column = [f[a][i][d] for a in range(count)]
            mean = sum(column) / count
            spread = math.sqrt(sum((value - mean) ** 2 for value in column) / count + 1e-5)
            place = 16 * (i - first) + d
            normed.append((column[b] - mean) / spread * gamma[place] + beta[place])
        weights = classifiers[i - first]
        logits = [sum(normed[d] * weights[d][j] for d in range(16)) for j in range(8)]
        return naive_smoothed(logits, pid[b], 0.2)

    for b in range(count):
        taken = chosen[b]
        if options["regions"] == "sampled" and taken:
            number = 1 + math.floor(float(batch["uniform"][b]) * (2 ** len(taken) - 1))
            taken = [name for k, name in enumerate(taken) if number // 2 ** k % 2]
        spatial = sum(cross_entropy(b, i) for i in taken)
        loss["id"] += (spatial / max(1, len(taken)) if options["regions"] == "sampled" else spatial) / count
        if options["classified"] == "all":
            loss["id"] += sum(cross_entropy(b, i) for i in range(5) if seen[b][i]) / count

    size = 5 if options["triplet"] == "semantic" else 8
    for a in range(count):
        d = [naive_distance(f[a][:size], f[b][:size], seen[a][:size], seen[b][:size], model.distance, "mean")
             for b in range(count)]
        positive = max(d[b] for b in range(count) if pid[b] == pid[a] and b != a)
        negative = min(d[b] for b in range(count) if pid[b] != pid[a])
        loss["triplet"] += max(0.0, 0.4 + positive - negative) / count
    return loss


@pytest.mark.parametrize("more", [{}, {"whole_attention": False, "distance": "euclidean"}])
@pytest.mark.parametrize("regions", ["sampled", "all"])
@pytest.mark.parametrize("triplet", ["semantic", "all"])
@pytest.mark.parametrize("classified", ["spatial", "all"])
def test_the_losses_are_eq_8_to_11_on_the_whole_network(classified, triplet, regions, more):
    """Eq. 11 in every combination of the switches, each term written out in plain numbers."""
    options = {"classified": classified, "triplet": triplet, "regions": regions}
    model = build(trade_off=0.7, label_smoothing=0.2, margin=0.4, stripe_threshold=0.7, median=2.5, **options, **more)
    model, batch, kept = with_statistics(model).double().train(), double(batch_of(ids=5, images=4)), {}
    model.local.spatial[3].register_forward_hook(lambda m, i, o: draw(*o.shape))  # some parts seen, some not
    see = model.see
    model.see = lambda *given, **named: kept.setdefault("net", see(*given, **named))

    with torch.no_grad():
        torch.nn.init.normal_(model.heads.classify.weight, std=0.1)
        loss, scalars = model(batch)

    net = kept["net"]
    assert all(0 < v < 1 for v in net.visible[:, 1:].mean(0).tolist())
    assert {*net.chosen.sum(1).tolist()} == {0, 1, 3, 5}
    naive = written_out(net, batch, model, options)
    for name, value in naive.items():
        assert abs(float(scalars[name]) - value) < 1e-10 and value > 0.01, name
    total = 0.7 * (naive["triplet"] + naive["attention"]) + 0.3 * naive["id"]
    assert abs(float(loss) - total) < 1e-10


def test_the_batch_s_draws_say_which_regions_train():
    """The same images and weights: another draw, other regions; with all regions, no draw is needed."""
    model, batch = build(stripe_threshold=0.0).double().train(), double(batch_of(ids=2, images=2))
    losses = {}
    for uniform in (0.0, 0.5, 0.999):
        losses[uniform] = float(model(batch | {"uniform": torch.full((4,), uniform)})[1]["id"])
        assert losses[uniform] == float(model(batch | {"uniform": torch.full((4,), uniform)})[1]["id"])
    assert len(set(losses.values())) == 3
    del batch["uniform"]
    build(regions="all").double()(batch)


def test_visibilities_are_detached_and_vectors_are_not():
    model, batch = build().train(), batch_of(ids=2, images=2)
    net = model.see(batch["image"], head_top="first")
    assert not net.visible.requires_grad and not net.chosen.requires_grad
    net.f[:, 1:5].square().sum().backward()
    assert model.local.spatial[3].weight.grad.abs().sum() > 0
