"""PCB's stripes, losses and matching by loops, and that every stripe learns."""

import math

import pytest
import torch

from models.losses import part_distance
from models.pcb import Pcb
from tests.helpers.networks import network
from tests.helpers.overfit import embeds_finitely, learn, people, without_gradient


def build(seed: int = 0, **options) -> Pcb:
    return network("pcb", seed=seed, **{"width": 32} | options)


@pytest.mark.parametrize("height,cuts", [(24, (0, 4, 8, 12, 16, 20, 24)), (8, (0, 1, 2, 4, 5, 6, 8)),
                                         (6, (0, 1, 2, 3, 4, 5, 6))])
def test_a_stripe_is_the_mean_of_its_rows(height, cuts):
    t = torch.randn(2, 3, height, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = build().pooled(t)
    for p, (top, bottom) in enumerate(zip(cuts, cuts[1:], strict=False)):
        for c in range(3):
            naive = sum(float(t[1, c, y, x]) for y in range(top, bottom) for x in range(4)) / (4 * (bottom - top))
            assert abs(float(g[1, p, c]) - naive) < 1e-10


def test_the_features_and_the_loss_by_loops():
    """The shared layer, normalised over all stripes of all images, and the sum of the stripes' losses."""
    model, batch = build(stripes=2).double().train(), people(ids=3, images=2, height=32, width=16)
    batch["image"] = batch["image"].double()
    seen = {}
    model.backbone.register_forward_hook(lambda m, i, o: seen.update(t=o[-1]))
    for classifier in model.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.3)
    with torch.no_grad():
        h = model.features(batch["image"])
        g = model.pooled(seen["t"])
        loss, scalars = model(batch)

    assert seen["t"].shape[2:] == (2, 1)
    weight, samples = model.reduce.weight.tolist(), [g[b, p].tolist() for b in range(6) for p in range(2)]
    for k in range(0, 32, 7):
        values = [sum(weight[k][c] * sample[c] for c in range(512)) for sample in samples]
        mean = sum(values) / 12
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 12 + model.norm.eps)
        naive = [max((value - mean) / deviation, 0) for value in values]
        assert max(abs(a - b) for a, b in zip(h[:, :, k].flatten().tolist(), naive, strict=True)) < 1e-10

    total, right = 0.0, 0
    for p in range(2):
        for b, pid in enumerate(batch["pid"].tolist()):
            logits = [sum(w * x for w, x in zip(row, h[b, p].tolist(), strict=True))
                      for row in model.classifiers[p].weight.tolist()]
            total += (math.log(sum(math.exp(value) for value in logits)) - logits[pid]) / 6
            right += logits.index(max(logits)) == pid

    assert abs(float(loss) - total) < 1e-10 and abs(float(scalars["id"]) - total) < 1e-10
    assert abs(float(scalars["accuracy"]) - right / 12) < 1e-6


def test_matching_is_one_vector_of_length_one():
    model, batch = build().eval(), people(ids=2, images=2, height=96, width=16)
    with torch.no_grad():
        h = model.features(batch["image"]).flatten(1)
        f, v = model.embed(batch)

    assert model.sizes == (6 * 32,) and v.tolist() == [[1.0]] * 4
    for ours, raw in zip(f.tolist(), h.tolist(), strict=True):
        length = math.sqrt(sum(value * value for value in raw))
        assert length > 0 and max(abs(a - b / length) for a, b in zip(ours, raw, strict=True)) < 1e-6

    d, shared = part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)
    cosine, _ = part_distance(h, h, v, v, sizes=model.sizes, distance="cosine", reduction="mean")
    assert shared.all() and torch.equal(d.argsort(1)[:, 1:], cosine.argsort(1)[:, 1:])


def test_a_change_in_one_stripe_moves_its_numbers_alone():
    model = build(stripes=4).eval()
    t = torch.randn(1, 512, 8, 4)
    changed = t.clone()
    changed[:, :, 4:6] += 1
    moved = (model.pooled(t) != model.pooled(changed)).any(2)[0]
    assert moved.tolist() == [False, False, True, False]


def test_wrong_settings_are_one_sentence():
    with pytest.raises(ValueError, match="6 stripes do not fit a map of 4 rows"):
        build()(people(ids=2, images=2))
    with pytest.raises(ValueError, match="at least 1"):
        build(stripes=0)
    with pytest.raises(ValueError, match="unknown features 'global' for PCB; it is one of all"):
        build(match="global")


def test_it_learns_a_batch_by_heart_and_every_stripe_gets_a_gradient():
    model, batch = build(stripes=2), people(height=32, width=16)
    first, last = learn(model, batch, steps=28, lr=3e-3)
    assert last["accuracy"] == 1 and last["id"] < first["id"] / 2
    assert without_gradient(model, batch) == [] and embeds_finitely(model, batch)


def test_a_seed_repeats_training_to_the_last_digit():
    batch = people(ids=4, images=2, height=32, width=16)
    assert learn(build(7, stripes=2), batch, steps=2) == learn(build(7, stripes=2), batch, steps=2)
