"""SGAM's equations against naive loops and its matching rules."""

import math

import numpy as np
import pytest
import torch

from models.losses import part_distance
from models.sgam import Sgam, part_loss, region_features, region_scores
from pipeline.loading import sgam_crop
from tests.helpers.networks import network, resnet18, same_weights, with_statistics
from tests.helpers.overfit import people, without_gradient

MEDIANS = (0.0625, 0.125, 0.125, 0.03125)
PARTS8_TO_PARTS4 = torch.tensor([0, 1, 2, 2, 2, 3, 3, 4])


def build(seed: int = 0, *, medians: tuple[float, ...] | None = MEDIANS, **options) -> Sgam:
    model = network("sgam", seed=seed, **{"width": 32} | options)
    if medians is not None and model.use_parts:
        model.medians.copy_(torch.tensor(medians))
    return model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    return (3 * draw(*shape, seed=seed)).softmax(1)


def parsed(**options) -> dict[str, torch.Tensor]:
    """`people` with the maps of a parser that is nearly sure; of every fourth picture all is background."""
    batch = people(**options)
    labels = PARTS8_TO_PARTS4[batch["labels"]]
    labels[:, -1][labels[:, -1] > 0] = 4
    labels[::4] = 0
    batch["probs4"] = 0.01 + 0.95 * torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    return batch


def doubled(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch | {"image": batch["image"].double(), "probs4": batch["probs4"].double()}


def test_eq_2_sums_a_region_over_the_pixels():
    p = probabilities(2, 4, 6, 3)
    for b in range(2):
        for i in range(4):
            # a map cell stands for 4 x 4 pixels
            total = sum(float(p[b, i, y // 4, x // 4]) for y in range(24) for x in range(12))
            printed, shares = (region_scores(p.mean((2, 3)), medians=medians, pixels=24 * 12)[b, i]
                               for medians in (None, torch.tensor(MEDIANS, dtype=torch.float64)))
            assert abs(float(printed) - total) < 1e-10
            assert abs(float(shares) - min(total / (24 * 12) / MEDIANS[i], 1)) < 1e-10


def test_a_region_that_training_never_showed_is_not_visible():
    medians = torch.tensor([0.1, 0.0, 0.1, 0.0])
    s = region_scores(torch.full((2, 4), 0.05), medians=medians, pixels=8)
    assert torch.allclose(s, torch.tensor([[0.5, 0, 0.5, 0]] * 2)) and (s[:, [1, 3]] == 0).all()


@pytest.mark.parametrize("scores", ["normalised", "paper"])
def test_the_network_and_the_crop_see_the_same_visibility(scores):
    """One S: what the network weighs by in a frame is what a crop of that frame is decided by."""
    maps, size = (255 * probabilities(3, 5, 8, 4)).round().byte().numpy(), (32, 16)
    record = build(scores=scores, medians=None).measure(Told(medians=[0.3, 0.1, 0.5, 0.4]))["crop"]
    model = build(scores=scores, medians=(0.3, 0.1, 0.5, 0.4))
    s = model.visibility({"image": torch.zeros(3, 3, *size), "probs4": torch.tensor(maps / 255)}).numpy()

    assert len(np.unique(s)) > 6 and (s.max() > 1) == (scores == "paper")
    for number, p in enumerate(maps):
        for i, value in enumerate(s[number]):
            for t, shown in ((value - 1e-4, True), (value + 1e-4, False)):
                thresholds = [t if place == i else 0.0 for place in range(4)]
                rule = record | {"thresholds": thresholds}
                assert Sgam.visible(sgam_crop.means(p), size[0] * size[1], **rule)[i] == shown


@pytest.mark.parametrize("rows,columns", [(2, 1), (8, 4), (3, 2)])
def test_eq_3_is_the_mean_weighted_by_the_pooled_map(rows, columns):
    t, p = draw(2, 5, rows, columns), probabilities(2, 4, 4 * rows, 4 * columns, seed=1)
    p[1, 2] = 0
    f = region_features(t, p)

    for b in range(2):
        for i in range(4):
            pooled = {(y, x): sum(float(p[b, i, 4 * y + dy, 4 * x + dx]) for dy in range(4) for dx in range(4)) / 16
                      for y in range(rows) for x in range(columns)}
            total = sum(pooled.values())
            for c in range(5):
                naive = sum(weight * float(t[b, c, y, x]) for (y, x), weight in pooled.items()) / (total or 1)
                assert abs(float(f[b, i, c]) - naive) < 1e-10

    assert (f[1, 2] == 0).all()


def test_a_region_feature_sees_its_region_alone():
    """What is elsewhere, an occluder for one, and how large the region is, do not move it."""
    p = torch.zeros(1, 4, 8, 4, dtype=torch.float64)
    p[:, 0, :4] = 0.8
    t = draw(1, 6, 2, 1)
    changed = t.clone()
    changed[:, :, 1] += 5
    same = region_features(changed, 0.3 * p)[:, 0]
    assert torch.allclose(region_features(t, p)[:, 0], same, atol=1e-12) and torch.allclose(same, t[:, :, 0, 0])


def cross_entropy(logits: list[float], pid: int) -> float:
    return math.log(sum(math.exp(value) for value in logits)) - logits[pid]


def test_eq_5_by_a_loop():
    logits, weights, pid = draw(3, 4, 6), draw(3, 4, seed=1).abs(), [2, 0, 5]
    naive = sum(float(weights[b, i]) * cross_entropy(logits[b, i].tolist(), pid[b])
                for b in range(3) for i in range(4)) / 3
    assert abs(float(part_loss(logits, torch.tensor(pid), weights)) - naive) < 1e-10


@pytest.mark.parametrize("options", [{}, {"training_rule": False}, {"scores": "paper", "medians": None},
                                     {"thresholds": (0.5, 0.25, 0.75, 0.125), "lambda_global": 0.7},
                                     {"use_parts": False}])
def test_the_losses_are_eq_5_6_and_7(options):
    """Every term from the classifiers' own outputs by loops, on the whole network in float64."""
    model, batch = build(**options).double().train(), doubled(parsed(ids=3, images=4, height=32, width=16))
    seen = {}
    for i, classifier in enumerate(model.classifiers):
        torch.nn.init.normal_(classifier.weight, std=0.3)
        classifier.register_forward_hook(lambda m, a, o, i=i: seen.update({i: o.tolist()}))

    with torch.no_grad():
        loss, scalars = model(batch)
    pid, p = batch["pid"].tolist(), batch["probs4"]
    losses = {i: [cross_entropy(row, pid[b]) for b, row in enumerate(rows)] for i, rows in seen.items()}
    total = sum(losses[0]) / 12
    assert abs(float(scalars["global"]) - total) < 1e-10
    if options.get("use_parts", True):
        part = 0.0
        for b in range(12):
            for i in range(4):
                mean = float(p[b, 1 + i].mean())
                s = mean * 32 * 16 if "scores" in options else min(mean / MEDIANS[i], 1)
                weight = max(s - float(model.thresholds[i]), 0) if options.get("training_rule", True) else 1
                part += weight * losses[1 + i][b] / 12
        assert part > 0 and abs(float(scalars["part"]) - part) < 1e-10 * max(part, 1)
        share = options.get("lambda_global", 0.2)
        total = share * total + (1 - share) * part

    assert abs(float(loss) - total) < 1e-10 * max(total, 1)
    assert set(scalars) == {"global", "accuracy"} | ({"part"} if options.get("use_parts", True) else set())


def test_regions_under_their_threshold_do_not_train():
    """Their logits get no gradient at all; without the rule (SGAM-1) they do."""
    batch = parsed(ids=2, images=4, height=32, width=16)
    for rule in (True, False):
        model, seen = build(training_rule=rule), {}

        def keep(i, output, seen=seen):
            output.retain_grad()
            seen[i] = output

        for i, classifier in enumerate(model.classifiers):
            classifier.register_forward_hook(lambda m, a, o, i=i, keep=keep: keep(i, o))
        model(batch)[0].backward()
        s = model.visibility(batch)
        trained = torch.stack([seen[1 + i].grad.abs().sum(1) > 0 for i in range(4)], 1)
        assert (s <= 0.2)[::4].any(1).all() and (s > 0.2).any(0).all()
        assert torch.equal(trained, (s > 0.2) if rule else torch.ones_like(trained))
        assert (seen[0].grad.abs().sum(1) > 0).all()


def distance(f_m, f_n, s_m, s_n) -> float:
    """Eq. 4 as printed, from lists: features [global, 1 .. p], S of the p regions."""
    d = [math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for a, b in zip(f_m, f_n, strict=True)]
    w = [x * y for x, y in zip(s_m, s_n, strict=True)]
    return (sum(a * b for a, b in zip(w, d[1:], strict=True)) + d[0]) / (sum(w) + 1)


def matched(model: Sgam, f: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return part_distance(f, f, v, v, sizes=model.sizes, distance=model.distance, reduction=model.reduction)


def by_hand(head: torch.nn.Sequential, f: torch.Tensor) -> torch.Tensor:
    """A pooled vector (B, C) after its 1x1 convolution and a trained normalisation; no ReLU (3.1)."""
    weight, norm = head[0].weight, head[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (f @ weight.T - norm.running_mean) * scale + norm.bias


@pytest.mark.parametrize("scores", ["normalised", "paper"])
def test_matching_is_eq_4(scores):
    """Also with raw sums: dividing all of v by the pixels leaves the distance as printed."""
    model = with_statistics(build(scores=scores, medians=(0.5, 0.25, 0.75, 0.375))).double().eval()
    batch = doubled(parsed(ids=2, images=4, height=32, width=16))
    batch["probs4"] = probabilities(8, 5, 8, 4)

    with torch.no_grad():
        t = model.backbone(batch["image"])[-1]
        pooled = [t.mean((2, 3)), *region_features(t, batch["probs4"][:, 1:]).unbind(1)]
        f = torch.stack([by_hand(head, x) for head, x in zip(model.heads, pooled, strict=True)], 1)
        s = model.visibility(batch)
        given, v = model.embed(batch)

    assert torch.allclose(given, f.flatten(1).float()) and v.min() >= 0 and v.max() <= 1
    assert (s.max() > 5) == (scores == "paper") and len(s.unique()) > 24
    exact = torch.cat([s.new_ones(8, 1), s], 1) / (32 * 16 if scores == "paper" else 1)
    assert torch.allclose(v, exact.float())
    d, shared = matched(model, f.flatten(1), exact)
    assert shared.all()
    for m in range(8):
        for n in range(8):
            if m != n:
                naive = distance(f[m].tolist(), f[n].tolist(), s[m].tolist(), s[n].tolist())
                assert abs(float(d[m, n]) - naive) < 1e-10


def test_with_nothing_visible_the_distance_is_the_global_one():
    model, batch = build().eval(), parsed(ids=2, images=2, height=32, width=16)
    batch["probs4"][0, 1:] = 0
    batch["probs4"][1, 1:] = 0
    with torch.no_grad():
        d, _ = matched(model, *model.embed(batch))
        alone = same_weights(model, build(match="global"))
        only, _ = matched(alone, *alone.embed(batch))
    assert alone.sizes == (32,) and torch.allclose(d[:2], only[:2]) and not torch.allclose(d[2:, 2:], only[2:, 2:])


def test_permuting_the_parts_does_not_move_the_distance():
    model, batch = build().double().eval(), doubled(parsed(ids=2, images=4, height=32, width=16))
    with torch.no_grad():
        f, v = (x.double() for x in model.embed(batch))
    order = [3, 0, 4, 2, 1]
    d, _ = matched(model, f, v)
    permuted, _ = matched(model, f.unflatten(1, (5, 32))[:, order].flatten(1), v[:, order])
    assert torch.allclose(d, permuted, atol=1e-12)


def test_without_the_global_feature_a_pair_may_share_nothing_and_is_still_a_number():
    model, batch = build(match="local").eval(), parsed(ids=1, images=3, height=32, width=16)
    p = torch.zeros_like(batch["probs4"])
    p[0, 1], p[1, 3], p[2, 0] = 0.5, 0.5, 1
    with torch.no_grad():
        f, v = model.embed(batch | {"probs4": p})
        every, _ = same_weights(model, build()).embed(batch | {"probs4": p})

    assert torch.equal(every[:, 32:], f)
    d, shared = matched(model, f, v)
    assert model.sizes == (32,) * 4 and v.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert shared.tolist() == [[True, False, False], [False, True, False], [False] * 3]
    assert torch.isfinite(d).all() and torch.isfinite(f).all()


def test_pictures_without_a_person_train_to_a_number():
    batch = parsed(ids=2, images=2, height=32, width=16)
    for p in (torch.zeros_like(batch["probs4"]), batch["probs4"]):
        model = build()
        loss, _ = model(batch | {"probs4": p})
        loss.backward()
        assert loss.isfinite() and all(q.grad is None or q.grad.isfinite().all() for q in model.parameters())


def test_sgam_2_compares_all_features_alike():
    batch = parsed(ids=2, images=4, height=32, width=16)
    for scores in ("normalised", "paper"):
        model = build(scores=scores).eval()
        with torch.no_grad():
            f, v = model.embed(batch)
            same, ones = same_weights(model, build(scores=scores, match="unmasked")).embed(batch)
        assert torch.equal(f, same) and ones.tolist() == [[1.0] * 5] * 8 != v.tolist()


def test_the_baseline_reads_no_maps_and_is_the_global_feature():
    batch = people(ids=2, images=2, height=32, width=16)
    model = with_statistics(build(use_parts=False, medians=None)).eval()
    with torch.no_grad():
        f, v = model.embed(batch)
        pooled = model.backbone(batch["image"])[-1].flatten(2).sum(2) / 2
        expected = by_hand(model.heads[0], pooled)
    assert torch.allclose(f, expected, rtol=1e-4, atol=1e-5) and v.tolist() == [[1.0]] * 4 and model.sizes == (32,)
    assert without_gradient(model, batch) == []


def test_medians_travel_with_the_weights():
    batch = parsed(ids=2, images=2, height=32, width=16)
    trained, blank = build().eval(), build(seed=1, medians=None).eval()
    for use in (blank.embed, blank):
        with pytest.raises(ValueError, match="no medians"):
            use(batch)

    blank.load_state_dict(trained.state_dict())

    with torch.no_grad():
        for ours, theirs in zip(trained.embed(batch), blank.embed(batch), strict=True):
            assert torch.equal(ours, theirs)
        alone = same_weights(trained, build(match="global", medians=None))
        assert torch.equal(alone.embed(batch)[0], trained.embed(batch)[0][:, :32])


class Told:
    """A training set whose regions' medians are told, with those of the frame that `visible_by` crops."""

    def __init__(self, medians=(0.1, 0.2, 0.3, 0.4)):
        self.medians = np.array(medians)

    def region_medians(self, visible_by):
        self.visible = visible_by(self.medians)
        return self.medians, np.array([0.5, 0.6, 0.7, 0.8])

    def parsed_medians(self):
        return self.medians, np.array([0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize("scores", ["normalised", "paper"])
@pytest.mark.parametrize("use_parts", [True, False])
@pytest.mark.parametrize("crop", [True, False])
def test_it_measures_the_frame_that_it_sees_and_records_how_to_crop(crop, use_parts, scores):
    told = Told()
    model = build(crop=crop, use_parts=use_parts, scores=scores, thresholds=(0.25, 0.2, 0.2, 0.2), medians=None)
    record = model.measure(told)
    rule = {"medians": [0.1, 0.2, 0.3, 0.4] if scores == "normalised" else None, "thresholds": [0.25, 0.2, 0.2, 0.2]}
    assert record == ({"crop": rule} if crop else {})
    for mean in ([0.02, 0.05, 0.07, 0.07], [0.03, 0.03, 0.05, 0.09]):
        assert told.visible(np.array(mean), 10).tolist() == model.visible(np.array(mean), 10, **rule).tolist()
    if use_parts:
        assert torch.equal(model.medians, torch.tensor([0.5, 0.6, 0.7, 0.8] if crop else [0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize("scores", ["normalised", "paper"])
def test_of_crops_that_were_parsed_again_it_measures_their_own_maps(scores):
    """Fig. 4: by the whole frame's medians they were cropped, their own weigh them."""
    model = build(recrop="parse", scores=scores, medians=None)
    record = model.measure(Told())
    assert record == {"crop": {"medians": [0.1, 0.2, 0.3, 0.4] if scores == "normalised" else None,
                               "thresholds": [0.2, 0.2, 0.2, 0.2]}}
    assert torch.equal(model.medians, torch.tensor([0.9, 0.8, 0.7, 0.6]))


def test_a_shared_reduction_is_one_convolution_with_five_bns():
    """L354: "five feature vectors are fed into a 1 x 1 convolutional layer", which may be one layer for all."""
    model, batch = build(shared_reduction=True).double().eval(), doubled(parsed(ids=2, images=2, height=32, width=16))
    for number, head in enumerate(model.heads):
        torch.nn.init.normal_(head[0].running_mean, mean=number)
    with torch.no_grad():
        t = model.backbone(batch["image"])[-1]
        p = batch["probs4"][:, 1:]
        f = model.features(t, p)
        vectors = torch.cat([t.mean((2, 3))[:, None], region_features(t, p)], 1)
        for number, head in enumerate(model.heads):
            reduced = torch.nn.functional.conv2d(vectors[:, number, :, None, None],
                                                 model.shared.weight[:, :, None, None])
            by_hand = (reduced[..., 0, 0] - head[0].running_mean) / torch.sqrt(head[0].running_var + head[0].eps)
            assert torch.allclose(f[:, number], by_hand, atol=1e-9)
        same = same_weights(model, build(shared_reduction=True, match="global"))
        assert torch.equal(same.embed(batch)[0], f[:, 0].float())
    own = build().double()
    assert sum(x.numel() for x in own.parameters()) - sum(x.numel() for x in model.parameters()) == 4 * 512 * 32
    assert without_gradient(build(shared_reduction=True), parsed(ids=2, images=4, height=32, width=16)) == []


def test_wrong_options_are_one_sentence():
    backbone = resnet18()
    for options, said in [({"thresholds": (0.2,)}, "1 thresholds for 4 regions"), ({"lambda_global": 2}, "is 2"),
                          ({"scores": "raw"}, "normalised, paper"), ({"match": "f"}, "all, unmasked, global, local"),
                          ({"use_parts": False, "match": "local"}, "without its parts"),
                          ({"recrop": "parse", "crop": False}, "crops nothing"), ({"recrop": "crop"}, "maps, parse"),
                          ({"recrop": "parse", "use_parts": False}, "reads no maps")]:
        with pytest.raises(ValueError, match=said):
            build(backbone=backbone, **options)


def test_a_large_map_works_too():
    """ResNet-50's sizes: 384 x 128 gives 24 x 8; the pooled probabilities follow."""
    t, p = draw(1, 3, 24, 8), probabilities(1, 4, 96, 32, seed=2)
    f = region_features(t, p)
    upsampled = t.repeat_interleave(4, 2).repeat_interleave(4, 3)
    exact = torch.einsum("brhw,bchw->brc", p, upsampled) / p.sum((2, 3))[..., None]
    assert torch.allclose(f, exact, atol=1e-12)


def test_bfloat16_training_gives_the_same_terms():
    """Forward under autocast, as training does where the machine has it; scores stay float32.

    Not on narrower pictures: a strided bfloat16 convolution of a 4 x 2 map reads stray memory on CPUs with AMX.
    """
    model, batch = build(), parsed(ids=2, images=2, height=64, width=32)
    exact = model(batch)[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss, terms = model(batch)
        s = model.visibility(batch)

    loss.backward()
    assert s.dtype == torch.float32
    for name in ("global", "part"):
        assert abs(float(terms[name]) - float(exact[name])) < 0.03 * float(exact[name])
