"""The baseline learns and is matched as said."""

import math

import pytest
import torch

from models.baseline import Baseline
from tests.helpers.networks import network
from tests.helpers.overfit import embeds_finitely, learn, people, without_gradient


def build(seed: int = 0, **options) -> Baseline:
    return network("baseline", seed=seed, **options)


def test_it_learns_a_batch_by_heart():
    model, batch = build(), people(height=32, width=16)
    first, last = learn(model, batch, steps=15)
    assert last["accuracy"] == 1
    assert last["id"] < first["id"] / 2 and last["triplet"] < first["triplet"] / 2
    assert embeds_finitely(model, batch)


def test_every_parameter_gets_a_gradient():
    assert without_gradient(build(), people()) == []


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = build(id_weight=0.7, triplet_weight=1.3, label_smoothing=0.1)
    loss, scalars = model(people())
    assert torch.allclose(loss, 0.7 * scalars["id"] + 1.3 * scalars["triplet"])


@pytest.mark.parametrize("normalise", [False, True])
def test_the_losses_by_hand(normalise):
    """Identity through FC - BN - ReLU - FC; the triplet on features as they are, or at length 1."""
    model, batch = build(id_weight=0.7, triplet_weight=1.3, margin=20, normalise=normalise), people(ids=3, images=2)
    model, pid, seen = model.double().train(), batch["pid"].tolist(), {}
    model.backbone.register_forward_hook(lambda m, i, o: seen.update(t=o[-1]))
    first, norm, _, last = model.classifier
    torch.nn.init.normal_(last.weight, std=0.3)
    with torch.no_grad():
        loss, scalars = model(batch | {"image": batch["image"].double()})
        f = seen["t"].flatten(2).sum(2) / seen["t"][0, 0].numel()
        hidden = f @ first.weight.T
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
        logits = hidden.clamp(min=0) @ last.weight.T
    identity = sum(math.log(sum(math.exp(x) for x in row)) - row[own]
                   for row, own in zip(logits.tolist(), pid, strict=True)) / 6
    vectors = [[x / (math.hypot(*row) if normalise else 1) for x in row] for row in f.tolist()]
    triplet = 0.0
    for a in range(6):
        d = [math.dist(vectors[a], other) for other in vectors]
        far = max(d[b] for b in range(6) if b != a and pid[b] == pid[a])
        triplet += max(0.0, far - min(d[b] for b in range(6) if pid[b] != pid[a]) + 20) / 6
    assert triplet > 0 and first.weight.shape == (512, 512)
    assert abs(float(scalars["id"]) - identity) < 1e-8 and abs(float(scalars["triplet"]) - triplet) < 1e-8
    assert abs(float(loss) - (0.7 * identity + 1.3 * triplet)) < 1e-8


def test_a_seed_repeats_training_to_the_last_digit():
    runs = [learn(build(5), people(height=32, width=16), steps=3) for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_feature_is_the_mean_of_the_map_at_length_one():
    model, batch = build().eval(), people()
    with torch.no_grad():
        features, visibility = model.embed(batch)
        pooled = model.backbone(batch["image"])[-1].flatten(2).sum(2)
    assert torch.allclose(features, pooled / pooled.norm(dim=1, keepdim=True), atol=1e-6)
    assert model.sizes == (512,) and visibility.tolist() == [[1.0]] * 32


def test_it_is_matched_in_one_way():
    with pytest.raises(ValueError, match="unknown features 'global' for the baseline; it is one of all"):
        build(match="global")
