"""ESA-ReID's pair distance and losses (Eq. 6 to 11) against plain numbers."""

import math

import pytest
import torch

from models.esa import CHOICES, identity_loss
from models.losses import part_distance
from tests.helpers.esa import LOG_8, ROWS, bands, build, draw, in_double, naive_distance, naive_regions, picture
from tests.helpers.overfit import people


@pytest.mark.parametrize("options", [{"unconfident": row} for row in ROWS] + [
    {"tau": 0.25}, {"e_max": "paper", "tau": 2.0}, {"pooling": "paper"}, {"unconfident": "none", "reduction": "sum"},
    {"unconfident": "global", "pooling": "paper"}, {"attention": "gated"}, {"attention": "gated", "tau": 0.7},
    {"attention": "gated", "unconfident": "median"}, {"attention": "gated", "unconfident": "none"},
    {"attention": "none", "unconfident": "global"}, {"attention": "none"}])
def test_the_pair_distance_is_eq_7_and_without_its_divisor_eq_6(options):
    model, (f, p, ratio) = build(semantics="cache", **options), picture(images=4)
    _, matched, s = model.regions(f, p, ratio)
    sizes = (5,) * len(model.sizes)  # this F has 5 channels
    d, shared = part_distance(matched, matched, s, s, sizes=sizes, distance=model.distance, reduction=model.reduction)
    assert shared.all()
    naive = [naive_regions(f[b], p[b], ratio[b], **options) for b in range(4)]

    for a in range(4):
        for b in range(4):
            if a != b:
                expected = naive_distance(naive[a][1], naive[b][1], naive[a][2], naive[b][2], **options)
                assert abs(float(d[a, b]) - expected) < 1e-10 * max(1.0, expected)


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(value) for value in logits)) - logits[label]


def test_eq_8_and_9_weigh_each_regions_cross_entropy():
    logits, s, pid = draw(4, 3, 5), draw(4, 3, seed=1).sigmoid(), [0, 4, 2, 2]
    naive = sum(float(s[b, i]) * cross_entropy(logits[b, i].tolist(), pid[b]) for b in range(4) for i in range(3)) / 4
    assert abs(float(identity_loss(logits, torch.tensor(pid), s)) - naive) < 1e-10


FORMS = [{"unconfident": row} for row in ROWS] + [
    {"semantics": "cache"}, {"weights": "paper"}, {"e_max": "paper"}, {"pooling": "paper", "unconfident": "global"},
    {"pooling": "paper"}, {"reduction": "sum", "unconfident": "none"}, {"attention": "gated", "semantics": "cache"},
    {"attention": "none", "unconfident": "global"}]


@pytest.mark.parametrize("options", FORMS)
def test_the_losses_are_eq_8_to_11(options):
    """Every term from the network's own maps by loops, and their weighted sum, on the whole network in float64."""
    model, batch = in_double(build(lambda_parsing=0.7, margin=0.4, **options), bands(people(ids=3, images=2)))
    seen = {}
    model.reduce.register_forward_hook(lambda m, i, o: seen.update(f=o))
    if model.parse is not None:
        model.parse.register_forward_hook(lambda m, i, o: seen.update(logits=o))
    torch.nn.init.normal_(model.classifiers, std=0.3)
    with torch.no_grad():
        loss, scalars = model.train()(batch)
    if model.parse is None:
        p = batch["probs8"].unflatten(2, (4, 4)).unflatten(4, (2, 4)).mean((3, 5))
        ratio = batch["entropy"].unflatten(1, (4, 4)).unflatten(3, (2, 4)).mean((2, 4))
    else:
        p = seen["logits"].exp() / seen["logits"].exp().sum(1, keepdim=True)
        ratio = -(p * p.log()).sum(1) / LOG_8

    pid = batch["pid"].tolist()
    regions = [naive_regions(seen["f"][b], p[b], ratio[b], **options) for b in range(6)]

    identity, right = 0.0, 0.0
    for b, (features, _, scores) in enumerate(regions):
        for w, feature, score in zip(model.classifiers.tolist(), features, scores, strict=True):
            logits = [sum(x * y for x, y in zip(row, feature, strict=True)) for row in w]
            identity += score * cross_entropy(logits, pid[b]) / 6
            right += score * (max(range(8), key=logits.__getitem__) == pid[b])

    accuracy = right / sum(sum(scores) for _, _, scores in regions)

    d = [[naive_distance(a[1], b[1], a[2], b[2], **options) for b in regions] for a in regions]
    triplet = 0.0
    for a in range(6):
        far = max(d[a][b] for b in range(6) if b != a and pid[b] == pid[a])
        near = min(d[a][b] for b in range(6) if pid[b] != pid[a])
        triplet += max(0.0, far - near + 0.4) / 6

    naive = {"id": identity, "triplet": triplet}
    total = identity + triplet
    if model.parse is not None:
        bodies = [1, 2, 5, 7]  # of the map's four rows
        naive["parsing"] = sum(cross_entropy(seen["logits"][b, :, y, x].tolist(), bodies[y])
                               for b in range(6) for y in range(4) for x in range(2)) / 48
        total += 0.7 * naive["parsing"]

    for name, value in naive.items():
        assert abs(float(scalars[name]) - value) < 1e-10 * max(1.0, value), name
    assert abs(float(loss) - total) < 1e-10 * max(1.0, total)
    assert abs(float(scalars["accuracy"]) - accuracy) < 1e-6
    assert set(scalars) == set(naive) | {"accuracy"} | ({"share"} if model.unconfident != "none" else set())
    if model.unconfident != "none":
        shares = [a[2][-1] * b[2][-1] / sum(x * y for x, y in zip(a[2], b[2], strict=True))
                  for a in regions for b in regions]
        assert abs(float(scalars["share"]) - sum(shares) / 36) < 1e-10


@pytest.mark.parametrize("weights", CHOICES["weights"])
@pytest.mark.parametrize("unconfident", ["mask", "none", "global_balanced"])
def test_scores_carry_gradients_in_the_paper_form_alone(weights, unconfident):
    """The parsing head's gradient against finite differences of the loss; detached: with the scores held."""
    model, batch = in_double(build(weights=weights, unconfident=unconfident, tau=0.2, lambda_parsing=0.0),
                             bands(people(ids=3, images=2)))
    torch.nn.init.normal_(model.classifiers, std=0.3)
    model.eval()
    model(batch)[0].backward()
    plain = model.regions
    held = plain(*model.maps(batch)[:3])[2].detach()

    def loss() -> float:
        with torch.no_grad():
            return float(model(batch)[0])

    if weights == "detached":
        model.regions = lambda f, p, ratio: (*plain(f, p, ratio)[:2], held)
    bias, step = model.parse.bias, 1e-5 * draw(8)

    with torch.no_grad():
        bias += step
        above = loss()
        bias -= 2 * step
        below = loss()

    slope = (above - below) / 2
    assert abs(slope - float(bias.grad @ step)) < 1e-4 * abs(slope)
