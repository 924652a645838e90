"""SGSFA's matching: Eq. 6 and 7, what is embedded, pairs that share nothing."""

import itertools

import numpy as np
import pytest
import torch

from models.losses import part_distance
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import nearest
from tests.helpers.networks import same_weights, with_statistics
from tests.helpers.pair_distances import pair_distances
from tests.helpers.sgsfa import batch_of, build, double, draw, naive_distance

EMBEDDED = {"parts": [0, 1, 2, 3, 4, 5, 6, 7], "parts_and_whole": [0, 1, 2, 3, 4, 5, 6, 7],
            "semantic": [0, 1, 2, 3, 4], "spatial": [0, 5, 6, 7]}


@pytest.mark.parametrize("classified", ["spatial", "all"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("match", EMBEDDED)
def test_matching_is_eq_6_and_7(distance, reduction, match, classified):
    """Of what was classified the vectors after BN, of others as the triplet saw them; the whole body, where it is not
    matched, has no weight."""
    model = build(distance=distance, reduction=reduction, match=match, stripe_threshold=0.5, median=2.5,
                  classified=classified)
    model, batch = with_statistics(model).double().eval(), double(batch_of(ids=3, images=2))

    with torch.no_grad():
        model.local.spatial[3].register_forward_hook(lambda m, i, o: draw(*o.shape))
        f, v = model.embed(batch)
        f, v = f.double(), v.double()
        net = model.see(batch["image"], head_top="first")
        d, shared = part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)

    vectors = EMBEDDED[match]
    whole = match == "parts_and_whole"
    assert 0 < v[:, 1:].mean() < 1 and model.sizes == (16,) * len(vectors)
    assert v[:, 0].tolist() == [float(whole)] * 6 and torch.equal(v[:, 1:], net.visible[:, vectors[1:]])
    norm, first = model.heads.norm, 0 if classified == "all" else 5
    raw = net.f.clone()
    for number in range(first, 8):
        own = slice(16 * (number - first), 16 * (number - first) + 16)
        raw[:, number] = ((raw[:, number] - norm.running_mean[own]) / (norm.running_var[own] + norm.eps).sqrt()
                          * norm.weight[own] + norm.bias[own])
    raw[:, 5:8] *= net.inside[:, :3].any(2, keepdim=True)  # an empty stripe
    assert first == 0 or not torch.allclose(raw[:, 5:8], net.f[:, 5:8], atol=0.1)
    raw = raw[:, vectors].detach()

    for q, g in itertools.product(range(6), range(6)):
        weights = [row[not whole:].tolist() for row in (v[q], v[g])]
        naive = naive_distance(raw[q, not whole:].tolist(), raw[g, not whole:].tolist(), *weights, distance, reduction)
        assert bool(shared[q, g]) == (naive is not None)
        if naive is not None:
            assert q == g or abs(float(d[q, g]) - naive) < 1e-4  # embed returns float32
            exact, _ = part_distance(raw[q:q + 1].flatten(1), raw[g:g + 1].flatten(1), v[q:q + 1], v[g:g + 1],
                                     sizes=model.sizes, distance=distance, reduction=reduction)
            assert abs(float(exact) - naive) < 1e-10


def test_the_order_of_the_parts_does_not_move_the_distance():
    model = build(stripe_threshold=0.5, median=2.5).eval()
    with torch.no_grad():
        f, v = model.embed(batch_of(ids=3, images=2))
    f, v = f.double(), v.double()
    order = [4, 0, 6, 2, 5, 7, 1, 3]
    moved = f.unflatten(1, (8, -1))[:, order].flatten(1)

    for distance, reduction in itertools.product(("cosine", "euclidean"), ("mean", "sum")):
        options = {"sizes": model.sizes, "distance": distance, "reduction": reduction}
        before, _ = part_distance(f, f, v, v, **options)
        after, _ = part_distance(moved, moved, v[:, order], v[:, order], **options)
        assert (before - after).abs().max() < 1e-10


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_pair_that_shares_nothing_ranks_last(reduction):
    """Images of which nothing is visible: behind all others, however near, and training still has its whole body."""
    model, batch = build(reduction=reduction).eval(), batch_of(ids=2, images=2)

    with torch.no_grad():
        f, v = model.embed(batch)
        assert v[:, 1:].all()
        model = same_weights(model, build(reduction=reduction, stripe_threshold=1.0))
        model.medians.fill_(torch.inf)
        _, nothing = model.embed(batch)

    assert not nothing.any()
    v = torch.cat([v[:2], nothing[2:]])
    f[2:] = f[0]  # as near as can be
    side = Side(f.numpy(), v.numpy(), np.arange(4), np.zeros(4, np.int64))
    d = pair_distances(side, side, Matching(model.sizes, model.distance, model.reduction))
    assert np.isfinite(d[:2, :2]).all() and np.isinf(d[2:]).all() and np.isinf(d[:, 2:]).all()
    loss, _ = model.train()(batch)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("classified", ["spatial", "all"])
def test_pairs_that_share_nothing_are_ranked_by_the_whole_body(distance, classified):
    """Half of the gallery shows nothing: it stands behind the rest, in order of the whole body's own distance."""
    model = with_statistics(build(distance=distance, classified=classified)).double().eval()
    batch = double(batch_of(ids=6, images=2))
    with torch.no_grad():
        f, v = model.embed(batch)
        net = model.see(batch["image"], head_top="first")
    whole = (net.f if classified == "spatial" else net.normed)[:, 0].tolist()
    v[1::2] = 0
    query, gallery = ([*range(0, 4)], [*range(4, 12)])

    def side(rows: list[int]) -> Side:
        return Side(f[rows].numpy(), v[rows].numpy(), np.array(rows), np.zeros(len(rows), np.int64))

    matching = Matching(model.sizes, distance, model.reduction, whole_body=model.whole_body)
    rows, distances = nearest(side(query), side(gallery), matching, 8)
    for q in query:
        shown = [] if q % 2 else [g for g in gallery if g % 2 == 0]
        hidden = sorted((g for g in gallery if g not in shown),
                        key=lambda g: naive_distance([whole[q]], [whole[g]], [1], [1], distance, "mean"))
        found = [gallery[row] for row in rows[q]]
        assert set(found[:len(shown)]) == set(shown) and found[len(shown):] == hidden
        assert np.isinf(distances[q, len(shown):]).all() and np.isfinite(distances[q, :len(shown)]).all()


def test_the_same_weights_are_matched_otherwise_and_read_only_the_image():
    model, batch = with_statistics(build()).eval(), batch_of(ids=2, images=2)
    with torch.no_grad():
        f, v = model.embed({"image": batch["image"]})
        assert torch.equal(f, model.embed(batch | {"probs4": torch.full_like(batch["probs4"], torch.nan)})[0])
        for match, vectors in EMBEDDED.items():
            other = same_weights(model, build(match=match))
            ours, visible = other.embed(batch)
            assert torch.equal(ours.unflatten(1, (-1, 16)), f.unflatten(1, (8, 16))[:, vectors])
            assert torch.equal(visible[:, 1:], v[:, vectors[1:]]) and len(other.sizes) == len(vectors)
        moved, _ = same_weights(model, build(head_top="paper")).embed(batch)

    assert torch.equal(moved[:, :80], f[:, :80]) and not torch.allclose(moved[:, 80:], f[:, 80:])
