"""ESA-ReID: entropy, mask and attention (Eq. 1 to 5) against loops, and how it trains."""

import pytest
import torch

from models.backbone import Backbone
from models.esa import CHOICES, attention, entropy, entropy_mask, median, weighted_sums
from tests.helpers.channels_last import assert_same
from tests.helpers.esa import LOG_8, bands, build, draw, in_double, naive_entropy, picture
from tests.helpers.networks import with_statistics
from tests.helpers.overfit import embeds_finitely, learn, people, without_gradient
from tests.models.test_esa_losses import FORMS


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
    assert_same(build(), people(ids=2, images=2))


def test_a_wrong_option_names_the_choices():
    for name, choices in CHOICES.items():
        with pytest.raises(ValueError, match=f"unknown {name} 'x' for ESA-ReID; it is one of {', '.join(choices)}"):
            build(**{{"features": "match"}.get(name, name): "x"})
