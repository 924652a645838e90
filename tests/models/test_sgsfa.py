"""SGSFA's network: attention and vectors against naive loops, its switches, how it trains."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.sgsfa import VECTORS, Attention, Sgsfa
from tests.helpers.channels_last import assert_same
from tests.helpers.networks import network, with_statistics
from tests.helpers.overfit import without_gradient
from tests.helpers.sgsfa import batch_of, build, double, draw, sigmoid

OLD = {"classified": "all", "triplet": "all", "regions": "all"}  # every vector in every loss


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


def test_wrong_options_are_one_sentence():
    for options, said in [({"match": "f"}, "parts, parts_and_whole, semantic, spatial"),
                          ({"classified": "semantic"}, "spatial, all"), ({"triplet": "spatial"}, "semantic, all"),
                          ({"regions": "some"}, "sampled, all"), ({"distance": "dot"}, "cosine, euclidean"),
                          ({"reduction": "max"}, "mean, sum"), ({"head_top": "last"}, "first, paper"),
                          ({"trade_off": 1.5}, "between 0 and 1")]:
        with pytest.raises(ValueError, match=said):
            build(**options)


def test_channels_last_gives_the_same_network():
    assert_same(build(), batch_of(ids=2, images=2))


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
