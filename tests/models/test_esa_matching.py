"""ESA-ReID's matching: what an occluder, a hidden part and doubt do to distances, and what is embedded."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.esa import CHOICES, Esa
from models.losses import part_distance
from pipeline.retrieval.matching import Matching, Side
from tests.helpers.esa import ROWS, bands, build, draw, picture
from tests.helpers.overfit import people
from tests.helpers.pair_distances import pair_distances


def distances(model: Esa, f, p, ratio) -> torch.Tensor:
    _, matched, s = model.regions(f, p, ratio)
    sizes = (f.shape[1],) * len(model.sizes)
    d, shared = part_distance(matched, matched, s, s, sizes=sizes, distance=model.distance, reduction=model.reduction)
    return d.masked_fill(~shared, torch.inf)


@pytest.mark.parametrize("unconfident", ROWS)
def test_the_order_of_the_parts_does_not_move_the_distance(unconfident):
    model, (f, p, ratio) = build(semantics="cache", unconfident=unconfident), picture()
    permuted = p[:, [0, 4, 7, 1, 6, 2, 5, 3]]
    d = distances(model, f, p, ratio)
    assert torch.allclose(d, distances(model, f, permuted, ratio), rtol=0, atol=1e-12)
    background_last = p[:, [1, 2, 3, 4, 5, 6, 7, 0]]
    assert not torch.allclose(d, distances(model, f, background_last, ratio), rtol=0, atol=1e-3)


def lower_body_hidden(f, p, ratio):
    """The pictures, their two lower rows certain background."""
    p, ratio = p.clone(), ratio.clone()
    p[:, :, 2:] = F.one_hot(torch.tensor(0), 8)[:, None, None].double()
    ratio[:, 2:] = 0
    return f, p, ratio


def test_an_occluder_over_parts_that_neither_image_shows_does_not_move_the_distance():
    f, p, ratio = lower_body_hidden(*picture())
    other = f.clone()
    other[:, :, 2:] = 3 * draw(3, 5, 2, 2, seed=5).relu()
    for unconfident in ("mask", "none"):
        model = build(semantics="cache", unconfident=unconfident)
        assert torch.equal(distances(model, f, p, ratio), distances(model, other, p, ratio))
    model = build(semantics="cache", unconfident="global")  # this one looks at the whole picture
    assert not torch.allclose(distances(model, f, p, ratio), distances(model, other, p, ratio), atol=1e-3)


def test_a_part_that_one_image_hides_is_not_compared():
    """Image 0 has no feet: whatever the others' feet look like, the distances from it stay; those among them move."""
    f, p, ratio = picture()
    p[0, 0] += p[0, 7]
    p[0, 7] = 0
    model = build(semantics="cache")
    _, matched, s = model.regions(f, p, ratio)
    changed = matched.clone()
    changed[1:, 30:35] = F.normalize(draw(2, 5), dim=1)
    d, moved = (part_distance(x, x, s, s, sizes=(5,) * 8, distance="euclidean", reduction="mean")[0]
                for x in (matched, changed))
    assert torch.equal(d[0], moved[0]) and abs(d[1, 2] - moved[1, 2]) > 1e-3


def one_part_each(parts: list[int]) -> dict:
    """A batch from a cache: image b is all part parts[b], and certain."""
    batch = people(ids=len(parts) // 2, images=2, height=64, width=32)
    p = F.one_hot(torch.tensor(parts), 8).float()[:, :, None, None].expand(-1, -1, 16, 8)
    return batch | {"probs8": p.contiguous(), "entropy": torch.zeros(len(parts), 16, 8)}


@pytest.mark.parametrize("unconfident", ["mask", "none", "median"])
@pytest.mark.parametrize("weights", CHOICES["weights"])
def test_a_pair_that_shares_nothing_ranks_last_and_leaves_no_nan(unconfident, weights):
    """Heads, feet, and pictures of background alone, which share no part even with themselves."""
    model = build(semantics="cache", unconfident=unconfident, weights=weights)
    batch = one_part_each([1, 1, 7, 1, 0, 0])  # identities 0 0 1 1 2 2
    with torch.no_grad():
        features, visibility = (x.numpy() for x in model.eval().embed(batch))
    side = Side(features, visibility, batch["pid"].numpy(), np.zeros(6, np.int64))
    d = pair_distances(side, side, Matching(model.sizes, model.distance, model.reduction))
    heads = np.array([True, True, False, True, False, False])
    assert np.isfinite(d[np.ix_(heads, heads)]).all() and np.isfinite(d[2, 2])
    assert np.isinf(d[np.ix_(heads, ~heads)]).all() and np.isinf(d[4:]).all()

    loss, scalars = model.train()(batch)
    loss.backward()
    assert all(torch.isfinite(value) for value in scalars.values())
    assert all(torch.isfinite(x.grad).all() for x in model.parameters() if x.grad is not None)
    # Mined: anchors 0 and 1 alone have both a positive and a negative that they share a part with.
    with torch.no_grad():
        _, matched, s = model.regions(*model.maps(batch)[:3])
    d, _ = part_distance(matched, matched, s, s, sizes=model.sizes, distance="euclidean", reduction="mean")
    naive = sum(max(0.0, 0.3 + float(d[a, b] - d[a, 3])) for a, b in ((0, 1), (1, 0))) / 6
    assert abs(float(scalars["triplet"]) - naive) < 1e-5


@pytest.mark.parametrize("spread", [0.0, 1e-5])
@pytest.mark.parametrize("options", [{}, {"unconfident": "none"}, {"unconfident": "none", "weights": "paper"}])
def test_unsure_everywhere_explodes_nowhere(spread, options):
    """Probabilities that are uniform, or all but: what is left of the parts' confidence is rounding."""
    model, batch = build(**options), bands(people(ids=3, images=2))
    torch.nn.init.normal_(model.parse.weight, std=spread)
    torch.nn.init.zeros_(model.parse.bias)
    loss, _ = model(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(x.grad.abs().max() < 1e3 for x in model.parameters())  # NaN is not either
    with torch.no_grad():
        assert model.maps(batch)[2].max() <= 1


@pytest.mark.parametrize("options", [{"unconfident": row} for row in ROWS] + [
    {"semantics": "cache"}, {"e_max": "paper"}, {"pooling": "paper"}, {"pooling": "paper", "unconfident": "global"},
    {"attention": "gated", "semantics": "cache"}, {"attention": "none", "unconfident": "global"}])
def test_embedding_is_what_training_compares(options):
    """Distances from `embed`, by the retrieval's own code, are Eq. 7 of the regions; scores are shares in [0, 1]."""
    model, batch = build(**options).eval(), bands(people(ids=3, images=2))
    read = ("image", "probs8", "entropy") if model.parse is None else ("image",)

    with torch.no_grad():
        features, visibility = model.embed({name: batch[name] for name in read})
        f, p, ratio, _ = model.maps(batch)
        d = distances(model, f.double(), p.double(), ratio.double())

    assert visibility.min() >= 0 and visibility.max() <= 1
    lengths = torch.stack([part.norm(dim=1) for part in features.split(model.sizes, 1)], 1)
    assert torch.allclose(lengths, (visibility > 0).float(), atol=1e-5)
    side = Side(features.numpy(), visibility.numpy(), batch["pid"].numpy(), np.zeros(6, np.int64))
    ours = pair_distances(side, side, Matching(model.sizes, model.distance, model.reduction, double=True))
    others = ~np.eye(6, dtype=bool)
    assert np.abs(ours - d.numpy())[others].max() < 1e-5


def test_a_part_of_which_all_is_gated_is_the_zero_vector_and_no_noise():
    """Eq. 3 soft leaves a little of it, which length 1 makes as large as any other."""
    f, p, _ = picture()
    ratio = torch.full((3, 4, 2), 0.6, dtype=torch.float64)
    for kind, length in (("soft", 1), ("none", 1), ("gated", 0)):
        matched = build(semantics="cache", attention=kind).regions(f, p, ratio)[1]
        assert torch.allclose(matched.unflatten(1, (8, 5))[:, :7].norm(dim=2), torch.full((3, 7), length).double())
