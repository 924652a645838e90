"""ESA-ReID's equations against naive loops, its invariants, its rows and switches, and that every branch learns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.esa import CHOICES, Esa, attention, entropy, entropy_mask, identity_loss, median, weighted_sums
from models.losses import part_distance
from pipeline.retrieval.distances import pair_distances
from pipeline.retrieval.matching import Matching, Side
from tests.helpers.networks import network, with_statistics
from tests.helpers.overfit import embeds_finitely, learn, people, without_gradient

ROWS = CHOICES["unconfident"]
LOG_8 = math.log(8)


def build(seed: int = 0, **options) -> Esa:
    return network("esa", seed=seed, **{"channels": 16} | options)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picture(images: int = 3, channels: int = 5, height: int = 4, width: int = 2, seed: int = 0):
    """F >= 0, p and E / log N of a few random images; p spreads from certain to doubtful."""
    log_p = (4 * draw(images, 8, height, width, seed=seed)).log_softmax(1)
    return draw(images, channels, height, width, seed=seed + 1).relu(), log_p.exp(), entropy(log_p) / LOG_8


def bands(batch: dict, *, seed: int = 0) -> dict:
    """The batch with bodies that a map of 1/16 still shows: full-width bands of head, torso, upper leg and foot, one
    row of the map each; as labels, and as probabilities of a good parser with their entropy."""
    images, _, height, width = batch["image"].shape
    rows = torch.tensor([1, 2, 5, 7])
    labels = rows.repeat_interleave(height // 16)[None, :, None].expand(images, -1, width // 4)
    cells = rows.repeat_interleave(height // 64)[None, :, None].expand(images, -1, width // 16)
    logits = 6 * F.one_hot(labels, 8).permute(0, 3, 1, 2) + draw(images, 8, height // 4, width // 4, seed=seed)
    log_p = logits.log_softmax(1)
    return batch | {"labels16": cells.contiguous(), "probs8": log_p.exp().float(),
                    "entropy": (entropy(log_p) / LOG_8).float()}


def in_double(model: Esa, batch: dict) -> tuple[Esa, dict]:
    return model.double(), {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}


# Eq. 1 - 5

def naive_entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p)


def test_eq_1_is_the_entropy_of_each_pixel():
    log_p = (3 * draw(2, 8, 3, 4)).log_softmax(1)
    ours = entropy(log_p)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                assert abs(float(ours[b, y, x]) - naive_entropy(log_p[b, :, y, x].exp().tolist())) < 1e-10


def test_entropy_is_0_for_certain_pixels_and_log_n_for_uniform_ones():
    logits = torch.zeros(1, 8, 1, 2, dtype=torch.float64)
    logits[0, 3, 0, 1] = 1000  # the other probabilities round to 0
    logits.requires_grad_()
    e = entropy(logits.log_softmax(1))
    e.sum().backward()
    assert abs(e[0, 0, 0].item() / LOG_8 - 1) < 1e-12 and e[0, 0, 1].item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_eq_2_and_3_mask_and_attend(tau):
    ratio = draw(2, 5, 4).sigmoid()
    ratio[0, 0, 0] = tau
    mask, confident, gated, plain = (entropy_mask(ratio, tau), *(
        attention(ratio, kind, tau) for kind in ("soft", "gated", "none")))
    for b in range(2):
        for y in range(5):
            for x in range(4):
                e = float(ratio[b, y, x])
                assert float(mask[b, y, x]) == (e if e >= tau else 0)
                assert abs(float(confident[b, y, x]) - (1 - e)) < 1e-10
                assert abs(float(gated[b, y, x]) - (1 - e if e < tau else 0)) < 1e-10 and float(plain[b, y, x]) == 1

    assert mask[0, 0, 0] == tau


def test_row_d_masks_the_half_of_each_image_with_the_larger_entropy():
    ratio = torch.stack([draw(6, 4).sigmoid(), draw(6, 4, seed=1).sigmoid() / 100])
    mask = entropy_mask(ratio, median(ratio))
    for b in range(2):
        upper = sorted(ratio[b].flatten().tolist())[12:]
        assert sorted(mask[b][mask[b] > 0].tolist()) == upper


def test_eq_4_and_5_add_up_every_pixel():
    f, p, ratio = picture()
    ours = weighted_sums(p, f), weighted_sums(attention(ratio, "soft", 0.5)[:, None] * p, f)
    pixels = [(y, x) for y in range(4) for x in range(2)]

    for b in range(3):
        for i in range(8):
            for c in range(5):
                plain = sum(float(p[b, i, y, x]) * float(f[b, c, y, x]) for y, x in pixels)
                confident = sum((1 - float(ratio[b, y, x])) * float(p[b, i, y, x]) * float(f[b, c, y, x])
                                for y, x in pixels)
                assert abs(float(ours[0][b, i, c]) - plain) < 1e-10
                assert abs(float(ours[1][b, i, c]) - confident) < 1e-10


def test_the_map_is_reduced_by_1x1_bn_and_relu_and_parsed_by_1x1():
    model, batch = in_double(with_statistics(build()).eval(), bands(people(ids=2, images=1)))
    with torch.no_grad():
        t = model.backbone(batch["image"])[-1]
        f, p, _, _ = model.maps(batch)
        conv, norm = model.reduce[0], model.reduce[1]
        reduced = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], t) - norm.running_mean[:, None, None]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        reduced = (reduced * scale[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        logits = torch.einsum("oc,bchw->bohw", model.parse.weight[:, :, 0, 0], t) + model.parse.bias[:, None, None]
    assert conv.weight.shape == (16, 512, 1, 1) and model.parse.weight.shape == (8, 512, 1, 1)
    assert (f - reduced).abs().max() < 1e-10 and (p - logits.softmax(1)).abs().max() < 1e-10
    assert (f == 0).any() and conv.bias is None


def test_classifiers_start_near_zero():
    classifiers = build(ids=40).classifiers.detach()
    assert classifiers.shape == (8, 40, 16)
    assert abs(float(classifiers.std()) - 0.001) < 5e-5 and abs(float(classifiers.mean())) < 5e-5


# Eq. 6 - 11

def naive_regions(f, p, ratio, *, unconfident="mask", attention="soft", tau=0.5, e_max="log", pooling="mean", **_):
    """One image: F (c, h, w), p (8, h, w), E / log N (h, w) -> lists over the regions: the classifiers' features, the
    matched ones before normalisation, the scores."""
    (channels, height, width), n = f.shape, 8
    pixels = [(y, x) for y in range(height) for x in range(width)]
    entropies = {g: float(ratio[g]) * math.log(n) for g in pixels}
    largest = math.log(n) if e_max == "log" else math.log(n) / n
    share = {g: e / largest for g, e in entropies.items()}
    if unconfident == "median":
        ordered = sorted(share.values())
        tau = (ordered[len(pixels) // 2] + ordered[(len(pixels) - 1) // 2]) / 2

    def weigh(weight):
        return [sum(weight[g] * float(f[c][g]) for g in pixels) for c in range(channels)]

    seen, matched, scores = [], [], []
    for i in range(1, n):
        part = {g: float(p[i][g]) for g in pixels}
        total = sum(part.values())
        seen.append(weigh(part) if pooling == "paper" else [x / total for x in weigh(part)])
        trust = {"soft": {g: 1 - share[g] for g in pixels}, "none": dict.fromkeys(pixels, 1.0),
                 "gated": {g: 1 - share[g] if share[g] < tau else 0.0 for g in pixels}}[attention]
        matched.append(weigh({g: trust[g] * part[g] for g in pixels}))
        scores.append(total if pooling == "paper" else total / len(pixels))

    if unconfident in ("mask", "median"):
        mask = {g: share[g] if share[g] >= tau else 0.0 for g in pixels}
        total = sum(mask.values())
        gap = [x / len(pixels) for x in weigh(mask)]
        seen.append(gap if pooling == "paper" else [x * len(pixels) / max(total, 1e-6) for x in gap])
        matched.append(gap)
        scores.append(total if pooling == "paper" else total / len(pixels))
    elif unconfident != "none":
        gap = [x / len(pixels) for x in weigh(dict.fromkeys(pixels, 1.0))]
        seen.append(gap)
        matched.append(gap)
        scores.append(1.0 if unconfident == "global" else sum(scores) / 7)

    return seen, matched, scores


def naive_distance(f_p, f_q, s_p, s_q, *, reduction="mean", **_) -> float:
    """Eq. 7 as printed, or with reduction sum its numerator, from one image's regions and another's."""
    over, under = 0.0, 0.0
    for a, b, v, w in zip(f_p, f_q, s_p, s_q, strict=True):
        long_a, long_b = (math.sqrt(sum(x * x for x in f)) or 1.0 for f in (a, b))
        over += v * w * math.sqrt(sum((x / long_a - y / long_b) ** 2 for x, y in zip(a, b, strict=True)))
        under += v * w
    return over / under if reduction == "mean" else over


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


# Matching

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


# Training

@pytest.mark.parametrize("options", FORMS)
def test_gradients_reach_every_branch(options):
    batch = bands(people(ids=2, images=2))
    if options.get("semantics") == "cache":
        batch["entropy"] = batch["entropy"].clamp(min=0.6)  # or no pixel of these certain maps is masked
    assert without_gradient(build(**options), batch) == []


def test_a_resnet_50_has_the_same_regions():
    model = build(backbone=Backbone(architecture="resnet50", init="none"), channels=256)
    batch = bands(people(ids=2, images=2))
    assert without_gradient(model, batch) == [] and model.sizes == (256,) * 8


def test_it_learns_a_batch_by_heart_from_cached_probabilities():
    model, batch = build(semantics="cache", channels=256), bands(people(height=64, width=16))
    first, last = learn(model, batch, steps=20, lr=1e-3)
    assert last["accuracy"] > 1 - 1e-6  # a sum of weights over a sum of weights
    assert embeds_finitely(model, batch)
    for term in ("id", "triplet"):
        assert last[term] < first[term] / 2, (term, first[term], last[term])


def test_bfloat16_keeps_matching_in_float32():
    model, batch = build(), bands(people(ids=3, images=2))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        f, p, ratio, _ = model.maps(batch)
        model.eval()
        matched, s = model.embed(batch)
    assert {x.dtype for x in (f, p, ratio, matched, s)} == {torch.float32}
    lengths = torch.stack([part.norm(dim=1) for part in matched.split(model.sizes, 1)], 1)
    assert (lengths - 1).abs().max() < 1e-5  # bfloat16 would be 4e-3 off


def test_channels_last_gives_the_same_network():
    model, batch = build().eval(), people(ids=2, images=2)
    with torch.no_grad():
        f, v = model.embed(batch)
        model.to(memory_format=torch.channels_last)
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        f_last, v_last = model.embed(batch)
    assert torch.allclose(f, f_last, atol=1e-5) and torch.allclose(v, v_last, atol=1e-6)


def test_a_wrong_option_names_the_choices():
    for name, choices in CHOICES.items():
        with pytest.raises(ValueError, match=f"unknown {name} 'x' for ESA-ReID; it is one of {', '.join(choices)}"):
            build(**{{"features": "match"}.get(name, name): "x"})
