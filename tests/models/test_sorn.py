"""SORN's equations against naive loops and its matching rules."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.losses import part_distance
from models.sorn import SemanticBranch, Sorn, indicators, normalised_maps, spc_loss, stripes, visibility_scores
from tests.helpers.channels_last import assert_same
from tests.helpers.networks import network, same_weights, with_statistics
from tests.helpers.overfit import people, without_gradient


def build(seed: int = 0, **options) -> Sorn:
    return network("sorn", seed=seed, **{"channels": 768, "tau": 0.15} | options)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eq_2_sums_the_channels_of_each_set():
    model = build(channels=12, channel_sets=3).double()
    t = draw(2, 512, 4, 2)
    with torch.no_grad():
        t_g, ours = model.expand(t), model.aggregation_maps(t)
    for n in range(3):
        for y in range(4):
            for x in range(2):
                for b in range(2):
                    naive = sum(float(t_g[b, i, y, x]) for i in range(4 * n, 4 * n + 4))
                    assert abs(float(ours[b, n, y, x]) - naive) < 1e-10


def test_eq_3_and_4_centre_and_squash():
    a = 3 * draw(2, 3, 5, 4)
    ours = normalised_maps(a)
    for b in range(2):
        for n in range(3):
            values = a[b, n].flatten().tolist()
            mean = sum(values) / 20
            naive = [1 / (1 + math.exp(-(value - mean))) for value in values]
            assert max(abs(x - y) for x, y in zip(ours[b, n].flatten().tolist(), naive, strict=True)) < 1e-10


@pytest.mark.parametrize("shape", [(2, 3, 8, 4), (2, 3, 24, 8), (1, 4, 6, 2), (2, 1, 5, 2)])
def test_eq_5_is_each_map_less_its_own_patch(shape):
    m = draw(*shape).sigmoid()
    images, n, height, width = shape
    total = 0.0
    for b in range(images):
        for own in range(n):
            whole = sum(float(m[b, own, y, x]) for y in range(height) for x in range(width))
            patch = sum(float(m[b, own, y, x]) for y in range(own * height // n, (own + 1) * height // n)
                        for x in range(width))
            total += whole - patch

    assert abs(float(spc_loss(m, reduction="sum")) - total / images) < 1e-10
    assert abs(float(spc_loss(m, reduction="mean")) - total / images / (height * width)) < 1e-10


def test_the_maps_start_unsaturated():
    """N(0, 0.001^2): before training the sigmoid of Eq. 4 is where it has a slope, on maps as deep as a ResNet-50's."""
    torch.manual_seed(0)
    model = build(channels=3072)
    assert abs(float(model.expand.weight.detach().std()) - 0.001) < 1e-5
    m = normalised_maps(model.aggregation_maps(draw(2, 512, 8, 4).abs().float()))
    assert 0.1 < float(m.detach().min()) < 0.5 < float(m.detach().max()) < 0.9


def test_maps_that_are_zero_outside_their_stripe_cost_nothing():
    m = torch.zeros(2, 3, 9, 4)
    for n in range(3):
        m[:, n, 3 * n: 3 * n + 3] = 0.7
    assert spc_loss(m, reduction="sum") == 0
    m[0, 0, 5, 0] = 0.5
    assert spc_loss(m, reduction="sum") == 0.25


def test_stripes_cover_every_row_once_and_refuse_too_many():
    for height, count in [(24, 3), (8, 3), (96, 5), (7, 7)]:
        rows = [row for top, bottom in stripes(height, count) for row in range(top, bottom)]
        assert rows == list(range(height))
    with pytest.raises(ValueError, match="5 stripes do not fit a map of 4 rows"):
        stripes(4, 5)


def cross_entropy(logits: list[float], q: list[float]) -> float:
    log_z = math.log(sum(math.exp(value) for value in logits))
    return -sum(weight * (value - log_z) for weight, value in zip(q, logits, strict=True))


@pytest.mark.parametrize("labels,smoothing,reduction", [(8, 0.1, "mean"), (5, 0.1, "sum"), (2, 0.0, "mean")])
def test_the_losses_are_eq_1_6_7_8_9_and_10(labels, smoothing, reduction):
    """Every term from the branches' own outputs by loops, and their weighted sum, on the whole network in float64."""
    weights = {"lambda_global": 0.6, "lambda_spc": 0.4, "lambda_seg": 1.3}
    model = build(labels=labels, label_smoothing=smoothing, reduction=reduction, **weights).double().train()
    batch = people(ids=3, images=2)
    batch["image"] = batch["image"].double()
    batch["labels"] = torch.randint(0, 8, batch["labels"].shape, generator=torch.Generator().manual_seed(0))
    seen = {}
    model.semantic.register_forward_hook(lambda m, i, o: seen.update(s=o))
    model.global_classifier.register_forward_hook(lambda m, i, o: seen.update(g=o))
    for p, classifier in enumerate(model.local_classifiers):
        classifier.register_forward_hook(lambda m, i, o, p=p: seen.update({f"y{p}": o}))
    model.backbone.register_forward_hook(lambda m, i, o: seen.update(t=o[-1]))

    with torch.no_grad():
        torch.nn.init.normal_(model.global_classifier.weight, std=0.1)
        loss, scalars = model(batch)
        t_g = model.expand(seen["t"])

    j = model.global_classifier.out_features

    def identity(logits):
        rows = zip(logits.tolist(), batch["pid"].tolist(), strict=True)
        return sum(cross_entropy(row, [float(k == pid) for k in range(j)]) for row, pid in rows) / 6

    grouping = {8: range(8), 5: [0, 1, 2, 3, 3, 4, 4, 4], 2: [0] + [1] * 7}[labels]
    seg, pixels = 0.0, batch["labels"][0].numel()
    for b in range(6):
        for y, line in enumerate(batch["labels"][b].tolist()):
            for x, part in enumerate(line):
                t = list(grouping)[part]
                q = [1 - (labels - 1) / labels * smoothing if k == t else smoothing / labels for k in range(labels)]
                seg += cross_entropy(seen["s"][b, :, y, x].tolist(), q)

    maps = normalised_maps(torch.stack([s.sum(1) for s in t_g.chunk(3, 1)], 1))
    naive = {"local": sum(identity(seen[f"y{p}"]) for p in range(3)), "global": identity(seen["g"]),
             "spc": float(spc_loss(maps, reduction=reduction)),
             "seg": seg / 6 / (pixels if reduction == "mean" else 1)}
    for name, value in naive.items():
        assert abs(float(scalars[name]) - value) < 1e-10 * max(1.0, value), name
    total = naive["local"] + 0.6 * naive["global"] + 0.4 * naive["spc"] + 1.3 * naive["seg"]
    assert abs(float(loss) - total) < 1e-9


def deconvolved(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """A 3x3 deconvolution of stride 2, by which each pixel spreads its kernel, normalisation and ReLU, by loops."""
    conv, norm, _ = layer
    images, _, height, width = x.shape
    y = torch.zeros(images, conv.weight.shape[1], 2 * height + 1, 2 * width + 1, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            spread = torch.einsum("bi,iokl->bokl", x[:, :, row, column], conv.weight)
            y[:, :, 2 * row:2 * row + 3, 2 * column:2 * column + 3] += spread
    y = y[:, :, 1:, 1:]  # padding 1 cuts a line on each side, output padding 1 puts the last one back
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    y = (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    return torch.where(y > 0, y, 0.0)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_semantic_branch_is_written_out(architecture):
    """Layers 3 and 4 deconvolved, beside layer 2 deconvolved again, classified by pixel; 256 channels on a ResNet-50.
    """
    channels = {"resnet18": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048)}[architecture]
    torch.manual_seed(0)
    branch = with_statistics(SemanticBranch(channels=channels, labels=5)).double().eval()
    layer2, layer3, layer4 = draw(2, channels[1], 6, 4), draw(2, channels[2], 3, 2), draw(2, channels[3], 3, 2, seed=1)
    with torch.no_grad():
        first = deconvolved(torch.cat([layer3, layer4], 1), branch.up1)
        second = deconvolved(torch.cat([layer2, first], 1), branch.up2)
        weight, bias = branch.classify.weight[:, :, 0, 0], branch.classify.bias
        expected = torch.einsum("bchw,kc->bkhw", second, weight) + bias[:, None, None]
        assert first.shape == (2, channels[3] // 8, 6, 4) and expected.shape == (2, 5, 12, 8)
        assert (branch(layer2, layer3, layer4) - expected).abs().max() < 1e-10
        for first_to_go in range(3):  # each of the three maps counts
            maps = [torch.zeros_like(x) if i == first_to_go else x for i, x in enumerate((layer2, layer3, layer4))]
            assert (branch(*maps) - expected).abs().max() > 1e-3
    assert (first > 0).any() and (first == 0).any()


@pytest.mark.parametrize("height,patches", [(96, 3), (32, 3), (96, 5)])
def test_eq_11_and_12_count_the_foreground_of_a_stripe(height, patches):
    e = (draw(2, height, 8) > 0.5).double()
    e[0, :height // 3] = 0
    v = visibility_scores(e, patches)

    for b in range(2):
        for p in range(patches):
            rows = range(p * height // patches, (p + 1) * height // patches)
            pixels = [float(e[b, y, x]) for y in rows for x in range(8)]
            assert abs(float(v[b, p]) - sum(pixels) / len(pixels)) < 1e-10

    assert indicators(torch.tensor([[0.15, 0.149, 1.0, 0.0]]), 0.15).tolist() == [[1, 0, 1, 0]]


def similarity(f_q, f_g, i_q, i_g, sizes) -> float:
    """Eq. 13 - 15 as printed, from lists."""
    parts, start = [], 0
    for size in sizes:
        a, b = f_q[start:start + size], f_g[start:start + size]
        start += size
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        parts.append(sum(x * y for x, y in zip(a, b, strict=True)) / norms)

    shared = [p * q for p, q in zip(i_q, i_g, strict=True)]
    return (parts[0] + sum(w * s for w, s in zip(shared, parts[1:], strict=True))) / (1 + sum(shared))


def normed(x: torch.Tensor, norm: torch.nn.BatchNorm1d) -> torch.Tensor:
    """x (B, C) as a trained normalisation gives it."""
    return (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


def test_matching_is_one_minus_eq_13_to_15():
    model = with_statistics(build()).double().eval()
    batch = people(ids=3, images=2)
    batch = {"image": batch["image"].double(), "visibility": torch.tensor([[1.0, 0, 0], [0.2, 0.1, 0.9]] * 3)}

    with torch.no_grad():
        t = model.backbone(batch["image"])[-1]
        pooled = [t[:, :, top:bottom].mean((2, 3)) for top, bottom in ((0, 1), (1, 2), (2, 4))]
        raw = torch.cat([normed(model.expand(t).mean((2, 3)), model.global_norm),
                         normed(torch.cat(pooled, 1), model.local_norm)], 1)
        f, v = model.embed(batch)

    assert torch.allclose(f, torch.cat([F.normalize(x, dim=1) for x in raw.split(model.sizes, 1)], 1).float())
    assert v.tolist() == [[1, 1, 0, 0], [1, 1, 0, 1]] * 3
    d, shared = part_distance(raw, raw, v.double(), v.double(), sizes=model.sizes, distance=model.distance,
                              reduction=model.reduction)
    assert shared.all()
    for q in range(6):
        for g in range(6):
            s = similarity(raw[q].tolist(), raw[g].tolist(), v[q, 1:].tolist(), v[g, 1:].tolist(), model.sizes)
            assert abs(float(d[q, g]) - (1 - s)) < 1e-10


def test_local_features_are_the_mean_of_their_stripe():
    model = build(patches=3).double().eval()
    t = draw(2, 512, 8, 4)
    with torch.no_grad():
        f = model.local_features(t) * math.sqrt(1 + model.local_norm.eps)  # the untrained BN only divides by this
    for p, (top, bottom) in enumerate([(0, 2), (2, 5), (5, 8)]):
        naive = sum(float(t[1, 7, y, x]) for y in range(top, bottom) for x in range(4)) / (4 * (bottom - top))
        assert abs(float(f[1, p, 7]) - naive) < 1e-10


def test_an_occluder_over_a_stripe_neither_shows_does_not_move_the_distance():
    """The mask decides: a change confined to stripes that both masks reject leaves Eq. 15 with the rest."""
    model = build().eval()
    batch = people(ids=2, images=2) | {"visibility": torch.tensor([[1.0, 1.0, 0.0]]).expand(4, 3)}
    with torch.no_grad():
        f, v = model.embed(batch)
    changed = f.clone()
    changed[:, -512:] = F.normalize(torch.randn(4, 512), dim=1)
    keywords = {"sizes": model.sizes, "distance": model.distance, "reduction": model.reduction}
    assert torch.equal(part_distance(f, f, v, v, **keywords)[0], part_distance(changed, changed, v, v, **keywords)[0])


def test_without_a_global_feature_a_pair_may_share_nothing():
    model = build(use_global=False).eval()
    batch = people(ids=1, images=2) | {"visibility": torch.tensor([[1.0, 0, 0], [0, 1, 0]])}
    with torch.no_grad():
        f, v = model.embed(batch)
    d, shared = part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)
    assert shared.tolist() == [[True, False], [False, True]] and torch.isfinite(d).all()


def test_the_same_weights_are_matched_otherwise():
    model, batch = build(tau=0.15).eval(), people(ids=2, images=2)
    with torch.no_grad():
        f, v = model.embed(batch)
        mask = model.maps(batch)[1]
        shares = visibility_scores(mask, 3)
        assert torch.equal(v[:, 1:], (shares >= 0.15).float())
        strict = same_weights(model, build(tau=float(shares.max()) + 1e-3))
        assert strict.embed(batch)[1].tolist() == [[1, 0, 0, 0]] * 4
        unmasked, ones = same_weights(model, build(match="unmasked")).embed(batch)
        alone = same_weights(model, build(match="global"))
        only, one = alone.embed(batch)

    assert torch.equal(unmasked, f) and ones.tolist() == [[1.0] * 4] * 4
    assert alone.sizes == (768,) and torch.equal(only, f[:, :768]) and one.tolist() == [[1.0]] * 4


def test_the_mask_is_foreground_at_four_times_the_map():
    model, batch = build(labels=5).eval(), people(ids=2, images=2)
    with torch.no_grad():
        m, e = model.maps(batch)
        layers = model.backbone(batch["image"])
        likeliest = model.semantic(*layers[1:]).argmax(1)
        aggregated = torch.stack([s.sum(1) for s in model.expand(layers[3]).chunk(3, 1)], 1)

    assert e.shape[1:] == (16, 8) == (4 * layers[3].shape[2], 4 * layers[3].shape[3])
    assert torch.equal(e, (likeliest > 0).float()) and 0 < e.mean() < 1
    assert torch.allclose(m, normalised_maps(aggregated), atol=1e-5)


def test_switches_leave_out_what_they_name():
    batch = people(ids=2, images=2)
    rows = {"Local+Semantic": ({"use_global": False}, {"local", "seg"}),
            "Global+Semantic": ({"use_local": False}, {"global", "spc", "seg"}),
            "w/o Semantic": ({"use_semantic": False}, {"local", "global", "spc"})}
    for name, (options, terms) in rows.items():
        model = build(**options)
        assert set(model(batch)[1]) == terms | {"accuracy"}, name
        assert without_gradient(model, batch) == [], name

    with pytest.raises(ValueError, match="without its semantic branch"):
        build(use_semantic=False).eval().embed(batch)
    with pytest.raises(ValueError, match="without its global branch"):
        build(use_global=False, match="global")


def test_wrong_options_are_one_sentence():
    for options, said in [({"channels": 10}, "10 channels do not divide into 3 sets"), ({"labels": 4}, "not 4"),
                          ({"match": "f"}, "all, global, unmasked"), ({"reduction": "max"}, "'max'"),
                          ({"use_global": False, "use_local": False, "use_semantic": False},
                           "all are switched off")]:
        with pytest.raises(ValueError, match=said):
            build(**options)


def test_channels_last_gives_the_same_network():
    assert_same(build(), people(ids=2, images=2))
