"""SGSFA's equations against naive loops, its visibility and matching rules."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.losses import part_distance
from models.sgsfa import (
    VECTORS,
    Attention,
    Sgsfa,
    attention_loss,
    chosen_regions,
    dynamic_identity_loss,
    head_row,
    mask_areas,
    median_areas,
    pseudo_masks,
    region_rows,
    region_visibility,
    shared_triplet,
    stripe_visibility,
)
from pipeline.retrieval.ranking import Matching, Side, pair_distances
from tests.helpers.networks import network, same_weights, with_statistics
from tests.helpers.overfit import people, without_gradient

# The 8 parts of `people` -> background, head, upper, lower, shoes; they have no feet: lower legs stand for shoes.
FOUR = torch.tensor([0, 1, 2, 2, 2, 3, 4, 4])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(**options) -> dict[str, torch.Tensor]:
    """People with probabilities of 5 groups, as a parser gives them: sure, but not quite."""
    batch = people(**options)
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


# Regions and visibility


@pytest.mark.parametrize("rows", [4, 8, 16])
def test_eq_1_divides_what_lies_below_the_head_at_15_and_38_percent(rows):
    tops = torch.arange(rows)
    ours = region_rows(tops, rows)
    for top in range(rows):
        first, second = top + round(0.15 * rows), top + round(0.38 * rows)
        stripes = {"top": {r for r in range(top, first) if r < rows},
                   "middle": {r for r in range(first, second) if r < rows}, "bottom": set(range(second, rows))}
        naive = [stripes["top"], stripes["middle"], stripes["bottom"], stripes["top"] | stripes["middle"],
                 stripes["middle"] | stripes["bottom"]]
        assert [set(torch.nonzero(region)[:, 0].tolist()) for region in ours[top]] == naive
        assert stripes["top"] | stripes["middle"] | stripes["bottom"] == set(range(top, rows))


def test_eq_2_is_1_where_the_stripe_shows_a_body():
    m, tops = draw(6, 4, 8, 4).sigmoid() ** 3, torch.tensor([0, 1, 2, 5, 6, 7])
    inside = region_rows(tops, 8)
    ours = stripe_visibility(m, inside, threshold=0.3)
    assert 0 < ours[:5].mean() < 1
    for b in range(6):
        for stripe in range(3):
            pixels = [max(float(m[b, i, y, x]) for i in range(4))
                      for y in range(8) if inside[b, stripe, y] for x in range(4)]
            assert float(ours[b, stripe]) == (sum(pixels) / len(pixels) > 0.3 if pixels else 0)


def test_eq_3_chooses_by_what_is_visible_from_the_top_down():
    for t, m, b in itertools.product((0.0, 1.0), repeat=3):
        if t and m and b:
            chosen = {"top", "middle", "bottom", "top_middle", "middle_bottom"}
        elif t and m:
            chosen = {"top", "middle", "top_middle"}
        elif t:
            chosen = {"top"}
        else:
            chosen = set()
        ours = chosen_regions(torch.tensor([[t, m, b]]))[0].tolist()
        assert dict(zip(VECTORS[5:], ours, strict=True)) == {name: float(name in chosen) for name in VECTORS[5:]}


def test_eq_4_and_5_compare_the_mean_of_the_mask_with_a_share_of_the_median():
    m = draw(12, 4, 8, 4).sigmoid()
    medians = torch.tensor([2.4, 2.5, 2.6, torch.inf], dtype=torch.float64)
    ours = region_visibility(m, medians, share=0.2)
    assert 0 < ours[:, :3].mean() < 1
    for b in range(12):
        for i in range(4):
            v = sum(float(m[b, i, y, x]) for y in range(8) for x in range(4)) / 32
            assert float(ours[b, i]) == float(v > 0.2 * float(medians[i]))


def test_the_head_is_where_its_mask_is_first_above_a_half():
    head = torch.full((4, 6, 3), 0.49)
    head[0, 2, 2] = 0.51
    head[0, 4, 0] = 0.9
    head[1, 5, 1] = 0.6
    head[3, 0, 0] = 0.5000001
    assert head_row(head, rule="first").tolist() == [2, 5, 0, 0]  # the third shows no head: row 0
    assert head_row(head, rule="paper").tolist()[:2] == [5, 5]  # below the largest cell, clamped
    m = draw(9, 8, 4).sigmoid()
    for b, row in enumerate(head_row(m, rule="paper").tolist()):
        cells = {(y, x): float(m[b, y, x]) for y in range(8) for x in range(4)}
        assert row == min(max(cells, key=cells.__getitem__)[0] + 1, 7)


def test_an_empty_stripe_has_a_zero_feature_and_is_not_visible():
    """The head in the last row of the map: middle and bottom begin below it."""
    model = build(head_top="paper").double().eval()
    torch.nn.init.normal_(model.heads.norm.running_mean)
    model.local.spatial[3].register_forward_hook(lambda m, i, o: lowest_head(o))
    with torch.no_grad():
        f, v = model.embed(double(batch_of(ids=2, images=1)))
    f = f.unflatten(1, (7, -1))
    assert v[:, 4:].tolist() == [[1, 0, 0]] * 2
    assert f[:, 5:].abs().sum() == 0 and (f[:, :5].abs().sum(2) > 0).all()


def lowest_head(logits: torch.Tensor) -> torch.Tensor:
    """Every mask half on, and the head's largest in the last row."""
    logits = torch.zeros_like(logits)
    logits[:, 0, -1] = 5.0
    return logits


def test_medians_are_those_of_the_images_that_show_the_region():
    probs = draw(7, 5, 8, 4).mul(3).softmax(1)
    probs[:, 4] = 0  # nobody has shoes
    probs[2:5, 1] = 1e-9  # heads that are not the likeliest anywhere
    areas, present = mask_areas(probs)
    expected = []
    for i in range(1, 5):
        shown = []
        for image in probs.tolist():
            cells = [[image[c][y][x] for c in range(5)] for y in range(8) for x in range(4)]
            if any(max(range(5), key=cell.__getitem__) == i for cell in cells):
                shown.append(sum(cell[i] for cell in cells) / 32)
        expected.append(statistics.median(shown) if shown else math.inf)

    ours = median_areas(areas, present).tolist()
    assert ours[3] == expected[3] == math.inf
    assert present.sum(0).tolist() == [4, 7, 7, 0]
    assert max(abs(a - b) for a, b in zip(ours[:3], expected[:3], strict=True)) < 1e-10


def test_medians_are_asked_for_and_stay_with_the_weights():
    batch = batch_of(ids=2, images=2)
    model = build(median=None)
    maps = (255 * batch["probs4"]).round().byte()
    with pytest.raises(ValueError, match="call measure"):
        model(batch)
    assert model.measure(list(maps.numpy())) == {}
    model(batch)
    other = build(1, median=None)
    other.load_state_dict(model.state_dict())
    other(batch)
    assert torch.equal(other.medians, median_areas(*mask_areas(maps.float() / 255)))


# Attention, vectors


@torch.no_grad()
def test_attention_is_one_module_a_region_behind_a_shared_first_convolution():
    """Fig. 3 and 4: each region's map and channels by loops, from its own slice of the weights."""
    torch.manual_seed(0)
    net = Attention(channels=6, gamma=2, regions=4).double().eval()
    x = draw(2, 6, 4, 3)
    logits, channels = net(x)
    conv1, bn, _, conv2 = net.spatial
    scale = (1 + bn.eps) ** -0.5
    shared = [[[[max(0.0, scale * sum(float(conv1.weight[h, c, 0, 0]) * float(x[b, c, y, z]) for c in range(6)))
                 for z in range(3)] for y in range(4)] for h in range(3)] for b in range(2)]

    for b, i in itertools.product(range(2), range(4)):
        for y, z in itertools.product(range(4), range(3)):
            naive = float(conv2.bias[i]) + sum(
                float(conv2.weight[i, h, dy + 1, dz + 1]) * shared[b][h][y + dy][z + dz]
                for h in range(3) for dy in (-1, 0, 1) for dz in (-1, 0, 1) if 0 <= y + dy < 4 and 0 <= z + dz < 3)
            assert abs(float(logits[b, i, y, z]) - naive) < 1e-10
        mean = [sum(x[b, c].flatten().tolist()) / 12 for c in range(6)]
        rows = range(3 * i, 3 * i + 3)
        hidden = [max(0.0, float(net.squeeze.bias[r]) + sum(float(net.squeeze.weight[r, c]) * mean[c]
                                                          for c in range(6))) for r in rows]
        for c in range(6):
            naive = sigmoid(float(net.excite.bias[i, c]) + sum(float(net.excite.weight[i, h, c]) * hidden[h]
                                                             for h in range(3)))
            assert abs(float(channels[b, i, c]) - naive) < 1e-10


def test_the_whole_body_is_attended_between_layer1_and_layer2():
    model, seen = build().double().eval(), {}
    model.backbone.layer1.register_forward_hook(lambda m, i, o: seen.update(out=o))
    model.backbone.layer2.register_forward_pre_hook(lambda m, i: seen.update(into=i[0]))
    image = double(batch_of(ids=2, images=1))["image"]

    with torch.no_grad():
        logits, x = model.body(image)
        _, channels = model.whole(seen["out"])
        into, out = seen["into"], seen["out"]
        plain = build(whole_attention=False).double().eval()
        plain.backbone.load_state_dict(model.backbone.state_dict())
        nothing, plain_x = plain.body(image)
        bare = plain.backbone(image)[-1]

    for b, c, y, z in itertools.product(range(2), (0, 31, 63), range(0, 16, 5), range(0, 8, 3)):
        naive = float(out[b, c, y, z]) * sigmoid(float(logits[b, 0, y, z])) * float(channels[b, 0, c])
        assert abs(float(into[b, c, y, z]) - naive) < 1e-10

    assert logits.shape == (2, 1, 16, 8) and model.whole.spatial[0].out_channels == 8  # gamma 8
    assert nothing is None and torch.equal(plain_x, bare) and not torch.allclose(x, bare)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_are_convolved_pooled_maps_that_were_never_made(training):
    """Attended maps in full, 1x1 convolution on them, mean over the map or over the region's own rows, BN."""
    model, seen = build().double().train(training), {}
    norm = model.heads.norm

    with torch.no_grad():
        for tensor in (norm.running_mean, norm.bias, norm.weight):
            torch.nn.init.normal_(tensor)
        # Masks of chance, so that heads begin in several rows.
        model.local.spatial[3].register_forward_hook(lambda m, i, o: 2 * draw(*o.shape) - 1.5)
        model.backbone.layer4.register_forward_hook(lambda m, i, o: seen.update(x=o))
        mean, var = norm.running_mean.clone(), norm.running_var.clone()
        net = model.see(torch.randn(5, 3, 128, 32, dtype=torch.float64), head_top="first")
        x = seen["x"]
        _, channels = model.local(x)
        masks = net.local_logits.sigmoid()
        for number, name in enumerate(VECTORS):
            naive = torch.zeros(5, 16, dtype=torch.float64)
            for b in range(5):
                attended, rows = x[b], range(8)
                if 1 <= number <= 4:
                    attended = x[b] * masks[b, number - 1] * channels[b, number - 1, :, None, None]
                if number > 4:
                    rows = torch.nonzero(net.inside[b, number - 5])[:, 0].tolist()
                convolved = F.conv2d(attended[None], model.heads.reduce.weight[number].T[..., None, None])[0]
                for y, z in itertools.product(rows, range(2)):
                    naive[b] += convolved[:, y, z] / (2 * len(rows))
            assert (net.f[:, number] - naive).abs().max() < 1e-10, name
            own = slice(16 * number, 16 * number + 16)
            m, v = (naive.mean(0), naive.var(0, unbiased=False)) if training else (mean[own], var[own])
            normed = (naive - m) / (v + norm.eps).sqrt() * norm.weight[own] + norm.bias[own]
            assert (net.normed[:, number] - normed).abs().max() < 1e-10, name

    assert len(set(net.inside[:, 0].to(torch.uint8).argmax(1).tolist())) > 1


# Losses


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


def test_eq_10_is_summed_over_the_vectors_that_take_part():
    logits, pid = draw(5, 10, 7), torch.tensor([0, 0, 3, 6, 2])
    part = (draw(5, 10, seed=1) > 0).double()
    naive = sum(naive_smoothed(logits[b, i].tolist(), int(pid[b]), 0.1)
                for b in range(5) for i in range(10) if part[b, i]) / 5
    assert abs(float(dynamic_identity_loss(logits, pid, part, smoothing=0.1)) - naive) < 1e-10


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


@pytest.mark.parametrize("options", [{}, {"whole_attention": False, "distance": "euclidean"}])
def test_the_losses_are_eq_8_to_11_on_the_whole_network(options):
    model = build(trade_off=0.7, label_smoothing=0.2, margin=0.4, stripe_threshold=0.7, median=2.5, **options)
    model = model.double().train()
    batch, seen = double(batch_of(ids=3, images=2)), {}
    model.heads.classify.register_forward_hook(lambda m, i, o: seen.update(logits=o))

    with torch.no_grad():
        torch.nn.init.normal_(model.heads.classify.weight, std=0.1)
        model.local.spatial[3].weight.mul_(5)
        loss, scalars = model(batch)
        net = model.see(batch["image"], head_top="first")

    assert 0 < net.visible[:, 1:].mean() < 1 and 0 < net.chosen.mean() < 1
    probs, pid, masks = batch["probs4"], batch["pid"], net.local_logits.sigmoid()
    naive = {"attention": 0.0, "id": 0.0, "triplet": 0.0}
    for i in range(4):  # Eq. (9), the local masks at 4 x 2
        target = torch.stack([probs[:, i + 1, 4 * y:4 * y + 4, 4 * x:4 * x + 4].mean((1, 2))
                              for y in range(4) for x in range(2)], 1)
        naive["attention"] += naive_bce(net.local_logits[:, i], target)

    if model.whole is not None:
        naive["attention"] += naive_bce(net.whole_logits[:, 0], 1 - probs[:, 0])
    for b in range(6):
        parts = {0} | {i + 1 for i in range(4) if float(masks[b, i].mean()) > 0.2 * 2.5}
        parts |= {i + 5 for i in range(5) if net.chosen[b, i]}
        naive["id"] += sum(naive_smoothed(seen["logits"][b, i].tolist(), int(pid[b]), 0.2) for i in parts) / 6

    f, v = net.f[:, :8].tolist(), net.visible.tolist()
    for a in range(6):
        d = [naive_distance(f[a], f[b], v[a], v[b], model.distance, "mean") for b in range(6)]
        positive = max(d[b] for b in range(6) if pid[b] == pid[a] and b != a)
        naive["triplet"] += max(0.0, 0.4 + positive - min(d[b] for b in range(6) if pid[b] != pid[a])) / 6

    for name, value in naive.items():
        assert abs(float(scalars[name]) - value) < 1e-10, name
    total = 0.7 * (naive["triplet"] + naive["attention"]) + 0.3 * naive["id"]
    assert abs(float(loss) - total) < 1e-10
    right = sum(int(row[0].argmax()) == int(own) for row, own in zip(seen["logits"], pid, strict=True)) / 6
    assert abs(float(scalars["accuracy"]) - right) < 1e-6


def test_visibilities_are_detached_and_vectors_are_not():
    model, batch = build().train(), batch_of(ids=2, images=2)
    net = model.see(batch["image"], head_top="first")
    assert not net.visible.requires_grad and not net.chosen.requires_grad
    net.normed[:, 1:5].square().sum().backward()
    assert model.local.spatial[3].weight.grad.abs().sum() > 0


# Matching


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("match", ["parts", "parts_and_whole"])
def test_matching_is_eq_6_and_7(distance, reduction, match):
    model = build(distance=distance, reduction=reduction, match=match, stripe_threshold=0.5, median=2.5)
    model = with_statistics(model).double().eval()
    batch, seen = double(batch_of(ids=3, images=2)), {}
    model.heads.register_forward_hook(lambda m, i, o: seen.update(f=o[0]))

    with torch.no_grad():
        f, v = model.embed(batch)
        f, v = f.double(), v.double()
        d, shared = part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)

    whole = match == "parts_and_whole"
    first = 0 if whole else 1
    assert 0 < v[:, whole:].mean() < 1 and model.sizes == (16,) * (8 - first)
    assert not whole or v[:, 0].tolist() == [1.0] * 6
    norm = model.heads.norm
    raw = (seen["f"].flatten(1) - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    raw = raw.unflatten(1, (10, -1))[:, first:8].detach()

    for q, g in itertools.product(range(6), range(6)):
        naive = naive_distance(raw[q].tolist(), raw[g].tolist(), v[q].tolist(), v[g].tolist(), distance, reduction)
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
    order = [4, 0, 6, 2, 5, 1, 3]
    moved = f.unflatten(1, (7, -1))[:, order].flatten(1)

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
        assert v.all()
        model = same_weights(model, build(reduction=reduction, stripe_threshold=1.1))
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


def test_the_same_weights_are_matched_otherwise_and_read_only_the_image():
    model, batch = build().eval(), batch_of(ids=2, images=2)
    with torch.no_grad():
        f, v = model.embed({"image": batch["image"]})
        assert torch.equal(f, model.embed(batch | {"probs4": torch.full_like(batch["probs4"], torch.nan)})[0])
        both = same_weights(model, build(match="parts_and_whole"))
        more, visible = both.embed(batch)
        assert torch.equal(more[:, 16:], f) and torch.equal(visible[:, 1:], v) and len(both.sizes) == 8
        moved, _ = same_weights(model, build(match="parts_and_whole", head_top="paper")).embed(batch)

    assert torch.equal(moved[:, :80], more[:, :80]) and not torch.allclose(moved[:, 80:], more[:, 80:])


# Switches and training


def test_without_whole_attention_only_the_attention_is_left_out():
    batch, model = batch_of(ids=4, images=2), build(whole_attention=False)
    assert without_gradient(model, batch) == [] and len(model.sizes) == 7
    assert not any(name.startswith("whole.") for name, _ in model.named_parameters())
    assert any(name.startswith("whole.") for name, _ in build().named_parameters())


def test_lambda_1_leaves_out_the_identity_loss_and_0_the_others():
    """Eq. 11 as printed, at its ends."""
    batch = batch_of(ids=4, images=2)
    assert set(without_gradient(build(trade_off=1.0), batch)) >= {"heads.classify.weight", "heads.norm.weight"}
    for trade_off in (0.0, 1.0):
        loss, terms = build(trade_off=trade_off)(batch)
        expected = terms["id"] if trade_off == 0 else terms["triplet"] + terms["attention"]
        assert torch.allclose(loss, expected)


def test_wrong_options_are_one_sentence():
    for options, said in [({"match": "f"}, "parts, parts_and_whole"), ({"distance": "dot"}, "cosine, euclidean"),
                          ({"reduction": "max"}, "mean, sum"), ({"head_top": "last"}, "first, paper"),
                          ({"trade_off": 1.5}, "between 0 and 1")]:
        with pytest.raises(ValueError, match=said):
            build(**options)


def test_channels_last_gives_the_same_network():
    model, batch = build().eval(), batch_of(ids=2, images=2)
    with torch.no_grad():
        f, v = model.embed(batch)
        model.to(memory_format=torch.channels_last)
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        f_last, v_last = model.embed(batch)
    assert torch.allclose(f, f_last, atol=1e-5) and torch.equal(v, v_last)


def test_bfloat16_trains_with_nearly_the_same_losses():
    """Distances and masks stay at full precision, so that halved numbers cost digits and no decisions."""
    batch = batch_of(ids=4, images=2)
    loss, terms = build()(batch)
    with torch.autocast("cpu", torch.bfloat16):
        model = build()
        half, half_terms = model(batch)

    half.backward()
    assert all(abs(float(half_terms[name] - terms[name])) < 0.02 * float(terms[name]) for name in ("attention", "id"))
    assert abs(float(half_terms["triplet"] - terms["triplet"])) < 0.02
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_widths_follow_the_backbone():
    model = network("sgsfa", backbone=Backbone(architecture="resnet50", init="none"), ids=4).eval()
    hidden = [model.whole.spatial[0], model.local.spatial[0], model.local.squeeze]
    assert [tuple(layer.weight.shape[:2]) for layer in hidden] == [(32, 256), (1024, 2048), (4 * 1024, 2048)]
    with torch.no_grad():
        f, v = model.embed({"image": torch.randn(1, 3, 64, 32)})
    assert f.shape[1] == sum(model.sizes) == 7 * 256 and v.shape == (1, 7)
