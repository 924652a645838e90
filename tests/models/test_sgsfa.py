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
    Seen,
    Sgsfa,
    attention_loss,
    chosen_regions,
    drawn_regions,
    dynamic_identity_loss,
    head_row,
    mask_areas,
    median_areas,
    pseudo_masks,
    region_rows,
    region_visibility,
    share_right,
    shared_triplet,
    stripe_visibility,
)
from pipeline.retrieval.distances import pair_distances
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import nearest
from tests.helpers.networks import network, same_weights, with_statistics
from tests.helpers.overfit import people, without_gradient

OLD = {"classified": "all", "triplet": "all", "regions": "all"}  # every vector in every loss
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


@pytest.mark.parametrize("visible", [(0, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
def test_each_non_empty_subset_of_f_choose_is_drawn_as_often(visible):
    """Numbers in the middle of equal shares of [0, 1): each subset once; and its ends are draws like others."""
    chosen = chosen_regions(torch.tensor([visible], dtype=torch.float32))
    names = [i for i in range(5) if chosen[0, i]]
    subsets = {frozenset(some) for size in range(1, 6) for some in itertools.combinations(names, size)}
    uniform = (torch.arange(max(1, len(subsets))) + 0.5) / max(1, len(subsets))
    drawn = drawn_regions(chosen.expand(len(uniform), 5), uniform)
    found = [frozenset(torch.nonzero(row)[:, 0].tolist()) for row in drawn]
    assert set(found) == (subsets or {frozenset()}) and len(set(found)) == len(found)
    ends = drawn_regions(chosen.expand(2, 5), torch.tensor([0.0, 1 - 2 ** -24]))
    assert all((frozenset(torch.nonzero(row)[:, 0].tolist()) in subsets) == bool(subsets) for row in ends)


def test_an_image_draws_for_itself():
    """Neither its neighbours nor what they show move an image's draw."""
    chosen = chosen_regions((draw(40, 3) > -1).float())
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(0))
    together = drawn_regions(chosen, uniform)
    alone = torch.cat([drawn_regions(chosen[i:i + 1], uniform[i:i + 1]) for i in range(40)])
    assert torch.equal(together, alone) and (together <= chosen).all()
    assert torch.equal(together.any(1), chosen.any(1)) and 0 < together.sum() < chosen.sum()


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
    model = with_statistics(build(head_top="paper")).double().eval()
    model.local.spatial[3].register_forward_hook(lambda m, i, o: lowest_head(o))
    with torch.no_grad():
        f, v = model.embed(double(batch_of(ids=2, images=1)))
    f = f.unflatten(1, (8, -1))
    assert v[:, 5:].tolist() == [[1, 0, 0]] * 2
    assert f[:, 6:].abs().sum() == 0 and (f[:, :6].abs().sum(2) > 0).all()


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
@pytest.mark.parametrize(("wide", "narrow"), [(6, 16), (40, 20)])
def test_attention_is_one_module_a_region_behind_a_shared_first_convolution(wide, narrow):
    """Fig. 3 and 4: each region's map and channels by loops, from its own slice of the weights; never below 16."""
    torch.manual_seed(0)
    net = Attention(channels=wide, gamma=2, regions=4).double().eval()
    conv1, bn, _, conv2 = net.spatial
    for tensor in (bn.running_mean, bn.weight, bn.bias):
        torch.nn.init.normal_(tensor)
    bn.running_var.uniform_(0.2, 3)
    x = draw(2, wide, 4, 3)
    logits, channels = net(x)

    pixels, taps = x.tolist(), conv2.weight.tolist()
    weights, mean, var, scale, shift = (t.tolist() for t in (conv1.weight[:, :, 0, 0], bn.running_mean, bn.running_var,
                                                             bn.weight, bn.bias))
    assert len(weights) == narrow
    shared = [[[[max(0.0, (sum(weights[h][c] * pixels[b][c][y][z] for c in range(wide)) - mean[h])
                     / math.sqrt(var[h] + bn.eps) * scale[h] + shift[h])
                 for z in range(3)] for y in range(4)] for h in range(narrow)] for b in range(2)]
    into, out = net.squeeze.weight.tolist(), net.excite.weight.tolist()

    for b, i in itertools.product(range(2), range(4)):
        for y, z in itertools.product(range(4), range(3)):
            naive = float(conv2.bias[i]) + sum(
                taps[i][h][dy + 1][dz + 1] * shared[b][h][y + dy][z + dz]
                for h in range(narrow) for dy in (-1, 0, 1) for dz in (-1, 0, 1)
                if 0 <= y + dy < 4 and 0 <= z + dz < 3)
            assert abs(float(logits[b, i, y, z]) - naive) < 1e-10
        means = [sum(sum(row) for row in pixels[b][c]) / 12 for c in range(wide)]
        hidden = [max(0.0, float(net.squeeze.bias[r]) + sum(into[r][c] * means[c] for c in range(wide)))
                  for r in range(narrow * i, narrow * i + narrow)]
        for c in range(wide):
            naive = sigmoid(float(net.excite.bias[i, c]) + sum(out[i][h][c] * hidden[h] for h in range(narrow)))
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

    assert logits.shape == (2, 1, 16, 8) and model.whole.spatial[0].out_channels == 16  # 64 / gamma is 8
    assert nothing is None and torch.equal(plain_x, bare) and not torch.allclose(x, bare)


@pytest.mark.parametrize("classified", ["spatial", "all"])
@pytest.mark.parametrize("training", [True, False])
def test_vectors_are_convolved_pooled_maps_that_were_never_made(training, classified):
    """Attended maps in full, 1x1 convolution on them, mean over the map or over the region's own rows; BN of those
    that are classified."""
    model, seen = with_statistics(build(classified=classified)).double().train(training), {}
    norm, first = model.heads.norm, 5 if classified == "spatial" else 0
    assert len(norm.weight) == 16 * (10 - first) and len(model.heads.classify.weight) == 10 - first

    with torch.no_grad():
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
            if number < first:
                continue
            own = slice(16 * (number - first), 16 * (number - first) + 16)
            m, v = (naive.mean(0), naive.var(0, unbiased=False)) if training else (mean[own], var[own])
            normed = (naive - m) / (v + norm.eps).sqrt() * norm.weight[own] + norm.bias[own]
            assert (net.normed[:, number - first] - normed).abs().max() < 1e-10, name
            assert (net.normed[:, number - first] - naive).abs().max() > 0.1, "BN must not be the identity here"

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


# Matching


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


# Switches and training


def test_without_whole_attention_only_the_attention_is_left_out():
    batch, model = batch_of(ids=4, images=4), build(whole_attention=False)
    assert without_gradient(model, batch) == [] and len(model.sizes) == 8
    assert not any(name.startswith("whole.") for name, _ in model.named_parameters())
    assert any(name.startswith("whole.") for name, _ in build().named_parameters())


def silent(model: Sgsfa, batch: dict[str, torch.Tensor]) -> set[str]:
    """Which vectors the loss does not reach: their 1x1 convolution gets no gradient."""
    without_gradient(model, batch)
    return {name for name, own in zip(VECTORS, model.heads.reduce.weight.grad, strict=True) if not own.abs().sum() > 0}


def test_lambda_1_trains_the_semantic_branch_alone_and_0_the_spatial_one():
    """Eq. 11 at its ends, 5.2's "only the semantic feature" and "only spatial features"; not so in the older reading,
    where every vector is in the loss that is left, but for the unions in the triplet."""
    batch = batch_of(ids=4, images=4)
    assert silent(build(trade_off=1.0), batch) == set(VECTORS[5:])
    assert silent(build(trade_off=0.0), batch) == set(VECTORS[:5])
    assert silent(build(), batch) == set()
    assert silent(build(trade_off=1.0, **OLD), batch) == set(VECTORS[8:])
    assert silent(build(trade_off=0.0, **OLD), batch) == set()
    assert set(without_gradient(build(trade_off=1.0), batch)) >= {"heads.classify.weight", "heads.norm.weight"}
    for trade_off in (0.0, 1.0):
        loss, terms = build(trade_off=trade_off)(batch)
        expected = terms["id"] if trade_off == 0 else terms["triplet"] + terms["attention"]
        assert torch.allclose(loss, expected)


@pytest.mark.parametrize("rule", ["first", "paper"])
@pytest.mark.parametrize(("rows", "empty"), [(8, False), (2, True)])
def test_without_trained_masks_bodies_begin_in_row_0_and_every_stripe_is_visible(rows, empty, rule):
    """lambda 0, whatever the masks, which nothing taught, would say; a stripe without rows has v = 0 all the same."""
    image = torch.randn(3, 3, 16 * rows, 32, dtype=torch.float64)
    for trade_off in (0.0, 0.2):
        model = build(trade_off=trade_off, head_top=rule, median=0.5).double().eval()
        model.local.spatial[3].register_forward_hook(lambda m, i, o: nobody(o))
        with torch.no_grad():
            net = model.see(image, head_top=rule)
            _, v = model.embed({"image": image})
        starts = net.inside[:, 3 if empty else 0].to(torch.uint8).argmax(1).tolist()
        if trade_off == 0:
            assert starts == [0, 0, 0] and v.tolist() == [[0, 1, 1, 1, 1, float(not empty), 1, 1]] * 3
            assert net.chosen.tolist() == [[float(not empty)] * 5] * 3
        else:
            assert v.sum() == 0 and starts == [1 if rule == "paper" else 0] * 3


def nobody(logits: torch.Tensor) -> torch.Tensor:
    """Masks that see nothing, least below the first row."""
    logits = torch.full_like(logits, -9.0)
    logits[:, :, 0] = -8.0
    return logits


def test_wrong_options_are_one_sentence():
    for options, said in [({"match": "f"}, "parts, parts_and_whole, semantic, spatial"),
                          ({"classified": "semantic"}, "spatial, all"), ({"triplet": "spatial"}, "semantic, all"),
                          ({"regions": "some"}, "sampled, all"), ({"distance": "dot"}, "cosine, euclidean"),
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
    assert f.shape[1] == sum(model.sizes) == 8 * 256 and v.shape == (1, 8)
