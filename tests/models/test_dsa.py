"""DSA-reID: branches against naive per-branch networks, merging, fusion, losses and matching."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models.dsa
from models.backbone import Backbone, parameter_groups
from models.dsa import FRONT_BACK, LEFT_RIGHT, BranchBlock, BranchConv, Dsa, DsagStream, MfHead, joined, merge
from tests.helpers.networks import network, resnet18, same_weights, torchvision_models
from tests.helpers.overfit import people, without_gradient

# DensePose's part ids of the 24 DSAP images, by what they show (docs of DensePose-COCO).
NAMES = ["torso back", "torso front", "right hand", "left hand", "left foot", "right foot", "right upper leg back",
         "left upper leg back", "right upper leg front", "left upper leg front", "right lower leg back",
         "left lower leg back", "right lower leg front", "left lower leg front", "left upper arm front",
         "right upper arm front", "left upper arm back", "right upper arm back", "left lower arm front",
         "right lower arm front", "left lower arm back", "right lower arm back", "right head", "left head"]


def build(seed: int = 0, **options) -> Dsa:
    return network("dsa", seed=seed, **{"dsag_width": 0.125} | options)


def sizes(size: int) -> dict[str, int]:
    """f_G and f_L of one size, as on a ResNet."""
    return {"global": size, "local": size}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lone_conv(layer: BranchConv, branch: int) -> nn.Module:
    """Branch i of a BranchConv as an ordinary convolution and normalisation with the same weights."""
    outputs = layer.conv.out_channels // layer.branches
    inputs = layer.conv.weight.shape[1]
    own = slice(branch * outputs, (branch + 1) * outputs)
    conv = nn.Conv2d(inputs, outputs, layer.conv.kernel_size, layer.conv.stride, layer.conv.padding, bias=False)
    norm = nn.BatchNorm2d(outputs)

    with torch.no_grad():
        conv.weight.copy_(layer.conv.weight[own])
        norm.weight.copy_(layer.norm.weight[own])
        norm.bias.copy_(layer.norm.bias[own])

    return nn.Sequential(conv, norm).double()


def lone(layer: nn.Module, branch: int, x: torch.Tensor) -> torch.Tensor:
    """Branch i of a stack of branched layers, run alone on x (B, C, h, w)."""
    if isinstance(layer, BranchConv):
        return lone_conv(layer, branch)(x)
    if isinstance(layer, BranchBlock):
        y = x
        for conv in layer.convs[:-1]:
            y = F.relu(lone(conv, branch, y))
        y = lone(layer.convs[-1], branch, y)
        return F.relu(y + (x if layer.shortcut is None else lone(layer.shortcut, branch, x)))

    for part in layer:
        x = lone(part, branch, x)
    return x


def randomised(model: nn.Module) -> nn.Module:
    """Normalisations that do something, so that a mix-up of branches shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.double().train()


@pytest.mark.parametrize("loop", [True, False])
def test_the_dsag_stream_is_24_13_and_8_networks_run_one_by_one(loop, monkeypatch):
    """Table 1, Fig. 4, Eq. 1 and 2 by a naive loop over branches, with merging by the names of the parts."""
    monkeypatch.setattr(models.dsa, "looped", lambda x: loop)
    torch.manual_seed(0)
    stream = randomised(DsagStream(sizes=sizes(64), width=0.125, use_global=True, use_local=True))
    dsap = draw(2, 24, 3, 32, 32)

    with torch.no_grad():
        d_g, d_l = stream(dsap)
        maps = {}
        for i, name in enumerate(NAMES):
            x = F.relu(lone(stream.conv2, i, F.relu(lone(stream.conv1, i, dsap[:, i]))))
            maps[name] = lone(stream.conv3, i, x)
        assert maps["left head"].shape[2:] == (16, 16)
        maps = merged_by_name(maps, ("left ", "right "))
        assert len(maps) == 13
        maps = {name: lone(stream.conv4, i, x) for i, (name, x) in enumerate(maps.items())}
        maps = merged_by_name(maps, (" back", " front"))
        assert list(maps) == ["torso", "hand", "foot", "upper leg", "lower leg", "upper arm", "lower arm", "head"]
        d = torch.cat(list(maps.values()), 1)
        assert d.shape[2:] == (8, 8)
        naive_g = stream.conv5_g(d).flatten(2).sum(2) / 64  # Eq. (1)
        naive_l = [lone(stream.conv5_l, i, x).flatten(2).sum(2) / 64 for i, x in enumerate(maps.values())]  # Eq. (2)

    assert (d_g - naive_g).abs().max() < 1e-10
    assert (d_l - torch.cat(naive_l, 1)).abs().max() < 1e-10


def merged_by_name(maps: dict[str, torch.Tensor], words: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Add the maps whose names agree once `words` are struck out, in order of appearance."""
    sums: dict[str, torch.Tensor] = {}
    for name, x in maps.items():
        for word in words:
            name = name.replace(word, "")
        sums[name] = sums[name] + x if name in sums else x
    return sums


# Table 1: branches, and of every convolution its kernel, its output channels and its stride. A block has two 3x3, a
# stage two blocks; conv3_1 and conv4_1 halve.
TABLE_1 = {"conv1": (24, [(5, 32, 1)]), "conv2": (24, [(3, 64, 1)]),
           "conv3": (24, [(3, 64, 2), (3, 64, 1), (3, 64, 1), (3, 64, 1)]),
           "conv4": (13, [(3, 128, 2), (3, 128, 1), (3, 128, 1), (3, 128, 1)]),
           "conv5_g": (1, [(3, 2048, 1)] * 4), "conv5_l": (8, [(3, 256, 1)] * 4)}


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """A layer's convolutions in order, shortcuts left out."""
    return [layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)
            and not {"shortcut", "downsample"} & set(name.split("."))]


def test_the_dsag_stream_has_the_layers_of_table_1():
    with torch.device("meta"):
        stream = DsagStream(sizes=sizes(2048), width=1.0, use_global=True, use_local=True)
        cells = {name: getattr(stream, name)(torch.empty(1, channels, side, side)).shape[2:]
                 for name, channels, side in (("conv1", 72, 32), ("conv2", 768, 32), ("conv3", 1536, 32),
                                              ("conv4", 832, 16), ("conv5_g", 1024, 8), ("conv5_l", 1024, 8))}
    found = {name: [(conv.kernel_size[0], conv.out_channels // branches, conv.stride[0])
                    for conv in convolutions(getattr(stream, name))] for name, (branches, _) in TABLE_1.items()}
    assert found == {name: layers for name, (_, layers) in TABLE_1.items()}
    assert [tuple(size) for size in cells.values()] == [(32, 32), (32, 32), (16, 16), (8, 8), (8, 8), (8, 8)]


@pytest.mark.parametrize(("architecture", "local"), [
    ("resnet18", [(3, 64, 1)] * 4), ("resnet50", [(1, 64, 1), (3, 64, 1), (1, 256, 1)] * 3)])
def test_the_head_is_conv5_x_at_stride_1_beside_eight_branches_of_its_blocks(architecture, local):
    """f_G against torchvision's own layer4, its two strides of 2 undone by hand; f_L's blocks: 1/8 of conv5_x's."""
    torch.manual_seed(0)
    reference = getattr(torchvision_models(), architecture)(weights=None).layer4
    inputs = 1024 if architecture == "resnet50" else 256
    head = MfHead(architecture=architecture, inputs=inputs, outputs=2 * inputs, use_global=True, use_local=True)
    head.train()
    reference.load_state_dict(head.conv5.state_dict())
    strided = [name for name, conv in reference.named_modules()
               if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2)]
    for name in strided:
        reference.get_submodule(name).stride = (1, 1)
    f = torch.randn(2, inputs, 4, 3)
    with torch.no_grad():
        assert len(strided) == 2 and torch.allclose(head(f)[0], reference(f).flatten(2).sum(2) / 12, atol=1e-5)
    assert [(conv.kernel_size[0], conv.out_channels // 8, conv.stride[0]) for conv in convolutions(head.branches)] == \
        local


def test_every_classifier_is_two_fully_connected_layers_on_its_feature():
    """3.2.4; one for f_G, one for each f_L,i, one for each of z_G and z_L: eleven."""
    model = build()
    found = [[layer.weight.shape for layer in classifier.modules() if isinstance(layer, nn.Linear)]
             for classifier in [*model.classify_f["global"], *model.classify_f["local"], model.classify_z["global"],
                                model.classify_z["local"]]]
    whole, part = [(512, 512), (8, 512)], [(512, 64), (8, 512)]
    assert found == [whole] + [part] * 8 + [whole] * 2


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("loop", [True, False])
def test_the_local_head_is_eight_networks_of_an_eighth_of_conv5(architecture, loop, monkeypatch):
    monkeypatch.setattr(models.dsa, "looped", lambda x: loop)
    torch.manual_seed(0)
    inputs = 1024 if architecture == "resnet50" else 256
    head = randomised(MfHead(architecture=architecture, inputs=inputs, outputs=2 * inputs, use_global=True,
                             use_local=True))
    f = draw(2, inputs, 3, 2)
    with torch.no_grad():
        _, f_l = head(f)
        naive = [lone(head.branches, i, f).flatten(2).sum(2) / 6 for i in range(8)]

    assert (f_l - torch.cat(naive, 1)).abs().max() < 1e-10
    ours = [tuple(c.conv.weight.shape) for block in head.branches for c in block.convs]
    for shape, conv in zip(ours, [m for n, m in head.conv5.named_modules() if n.split(".")[-1] in
                                  ("conv1", "conv2", "conv3")], strict=True):
        assert shape[0] == conv.weight.shape[0] and shape[2:] == conv.weight.shape[2:]  # 8 branches of 1/8


def test_loop_and_grouped_convolution_agree_in_gradients_and_running_means(monkeypatch):
    results = []
    for loop in (True, False):
        monkeypatch.setattr(models.dsa, "looped", lambda x, loop=loop: loop)
        torch.manual_seed(0)
        stream = randomised(DsagStream(sizes=sizes(64), width=0.125, use_global=True, use_local=True))
        sum(d.square().sum() for d in stream(draw(2, 24, 3, 32, 32))).backward()
        results.append([p.grad for p in stream.parameters()] + list(stream.eval()(draw(1, 24, 3, 32, 32, seed=1))))
        results[-1] += [b for name, b in stream.named_buffers() if "running" in name]

    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8)


def test_merging_adds_left_to_right_then_front_to_back():
    assert sorted(i for group in LEFT_RIGHT for i in group) == list(range(1, 25))
    assert sorted(i for group in FRONT_BACK for i in group) == list(range(1, 14))
    x = torch.arange(24.0).view(1, 24, 1, 1).repeat_interleave(2, 1)
    as_list = [branch.clone() for branch in x.chunk(24, 1)]
    for form in (x, as_list):
        once = merge(form, LEFT_RIGHT)
        assert joined(once)[0, ::2, 0, 0].tolist() == [0, 1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45]
        assert joined(merge(once, FRONT_BACK))[0, 1::2, 0, 0].tolist() == [1, 5, 9, 30, 46, 62, 78, 45]


def test_mirrored_limbs_merge_to_the_same_features_when_their_branches_agree():
    """Exchanging left and right images changes nothing once the two branches of a pair have equal weights."""
    torch.manual_seed(0)
    stream = DsagStream(sizes=sizes(64), width=0.125, use_global=True, use_local=True).eval()
    dsap = torch.randn(2, 24, 3, 32, 32)
    exchanged = dsap.clone()

    with torch.no_grad():
        for one, other in (group for group in LEFT_RIGHT if len(group) == 2):
            exchanged[:, [one - 1, other - 1]] = dsap[:, [other - 1, one - 1]]
            for layer in [stream.conv1, stream.conv2, *[c for b in stream.conv3 for c in b.convs],
                          stream.conv3[0].shortcut]:
                weights = layer.conv.weight.unflatten(0, (24, -1))
                weights[other - 1] = weights[one - 1]
        before, after = stream(dsap), stream(exchanged)

    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))


def naive_identity(logits: torch.Tensor, pid: torch.Tensor, smoothing: float) -> float:
    total, ids = 0.0, logits.shape[1]
    for row, own in zip(logits.tolist(), pid.tolist(), strict=True):
        log_z = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            total -= ((1 - smoothing) * (k == own) + smoothing / ids) * (value - log_z)
    return total / len(logits)


def naive_triplet(z: torch.Tensor, pid: list[int], margin: float) -> float:
    losses = []
    for a, z_a in enumerate(z.tolist()):
        distances = [math.dist(z_a, z_b) for z_b in z.tolist()]
        positive = max(d for b, d in enumerate(distances) if pid[b] == pid[a] and b != a)
        negative = min(d for b, d in enumerate(distances) if pid[b] != pid[a])
        losses.append(max(0.0, margin + positive - negative))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("options", [{}, {"fusion": "concat"}, {"use_dsag": False}, {"use_local": False},
                                     {"use_global": False, "fusion": "concat"}])
def test_fusion_and_losses_are_those_of_3_2(options):
    model = build(label_smoothing=0.1, id_weight=0.4, fused_id_weight=0.9, triplet_weight=1.6, margin=0.3, **options)
    model = model.double().train()
    batch = people(height=32, width=16, ids=3, images=2, dsap=True)
    batch = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and "classify" in name:
                nn.init.normal_(module.weight, std=0.1)
        loss, scalars = model(batch)
        f = model.mf_features(batch["image"])
        d = dict(zip(("global", "local"), model.dsag(batch["dsap"]), strict=True)) if model.dsag else {}
        total = 0.0
        for name in model.names:
            z = f[name]
            if "fusion" in options:
                weight, bias = model.fuse[name].weight, model.fuse[name].bias
                z = f[name] @ weight[:, :512].T + d[name] @ weight[:, 512:].T + bias
            elif model.dsag:
                z = f[name] + d[name]
            classifiers = model.classify_f[name]
            parts = f[name].chunk(1 if name == "global" else 8, 1)
            naive = {
                f"id_f_{name}": sum(naive_identity(c(x), batch["pid"], 0.1)
                                    for c, x in zip(classifiers, parts, strict=True)),
                f"id_z_{name}": naive_identity(model.classify_z[name](z), batch["pid"], 0.1),
                f"triplet_{name}": naive_triplet(z, batch["pid"].tolist(), 0.3)}
            for key, value in naive.items():
                assert abs(float(scalars[key]) - value) < 1e-10, key
            total += sum(w * v for w, v in zip((0.4, 0.9, 1.6), naive.values(), strict=True))

    assert abs(float(loss) - total) < 1e-10


def test_two_branches_on_one_feature_have_the_loss_of_the_baseline(monkeypatch):
    """Table 3's Baseline (Two branches) adds the head alone: with f_G in the place of the baseline's f and classifiers
    like its own, the loss is the same, ID at 0.5 on f and 1.0 on z as at 1.5."""
    f, pid = draw(12, 512), torch.arange(12) // 4
    alike = {"label_smoothing": 0.1, "triplet_weight": 1.5, "margin": 0.3}
    plain = network("baseline", id_weight=1.5, normalise=False, **alike).double().train()
    two = build(use_dsag=False, use_local=False, id_weight=0.5, fused_id_weight=1.0, **alike).double().train()
    for classifier in (two.classify_f["global"][0], two.classify_z["global"]):
        classifier.load_state_dict(plain.classifier.state_dict())
    monkeypatch.setattr(plain, "feature", lambda image: f)
    monkeypatch.setattr(two, "mf_features", lambda image: {"global": f})

    losses = [model({"image": f, "pid": pid})[0] for model in (plain, two)]
    assert losses[0] > 1 and torch.allclose(*losses, rtol=1e-12)


def test_each_match_is_one_vector_of_length_one():
    model = build().eval()
    batch = people(height=32, width=16, ids=2, images=2, dsap=True)

    with torch.no_grad():
        f = model.mf_features(batch["image"])
        z = model.fused(f, batch)
        expected = {"f": [f["global"], f["local"]], "z": [z["global"], z["local"]], "z_global": [z["global"]],
                    "z_local": [z["local"]]}
        for match, parts in expected.items():
            matched = same_weights(model, build(match=match))
            features, visibility = matched.embed(batch)
            vector = torch.cat(parts, 1)
            assert torch.allclose(features, vector / vector.norm(dim=1, keepdim=True), atol=1e-6), match
            assert matched.sizes == (features.shape[1],) and visibility.tolist() == [[1.0]] * 4


def test_f_needs_no_dsap_and_does_not_look_at_it():
    model, batch = build().eval(), people(height=32, width=16, ids=2, images=2, dsap=True)
    with torch.no_grad():
        alone, _ = model.embed({"image": batch["image"]})
        assert torch.equal(alone, model.embed(batch | {"dsap": torch.full_like(batch["dsap"], torch.nan)})[0])


def test_switches_leave_out_what_they_name():
    batch = people(height=32, width=16, ids=4, dsap=True)
    single = {"id_f_{}", "id_z_{}", "triplet_{}"}
    for options, names in [({"use_local": False}, ["global"]), ({"use_global": False}, ["local"]),
                           ({"use_dsag": False}, ["global", "local"]), ({"fusion": "concat"}, ["global", "local"])]:
        model = build(dsag_width=0.0625, **options)
        assert set(model(batch)[1]) == {term.format(n) for term in single for n in names} | {"accuracy"}, options
        assert without_gradient(model, batch) == [], options
        assert any("dsag" in name for name, _ in model.named_parameters()) == options.get("use_dsag", True)


def test_wrong_options_are_one_sentence():
    for options, said in [({"match": "all"}, "f, z, z_global, z_local"), ({"fusion": "mul"}, "add, concat"),
                          ({"use_dsag": False, "match": "z"}, "without its DSAG-Stream"),
                          ({"use_local": False, "match": "z_local"}, "without its local branches"),
                          ({"use_local": False, "use_global": False}, "both are switched off")]:
        with pytest.raises(ValueError, match=said):
            build(**options)


def test_the_head_is_new_where_the_backbone_is_pretrained(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "w.pth")
    model = build(backbone=Backbone(architecture="resnet18", init=str(tmp_path / "w.pth")))
    pretrained, _ = parameter_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    tops = {".".join(names[id(p)].split(".")[:2]) for p in pretrained}
    assert tops == {"backbone.conv1", "backbone.bn1", "backbone.layer1", "backbone.layer2", "backbone.layer3"}


def test_at_width_1_conv5_g_has_table_1s_134_million_weights():
    with torch.device("meta"):
        stream = DsagStream(sizes=sizes(2048), width=1.0, use_global=True, use_local=True)
    # 3x3: 1024 -> 2048, then 2048 -> 2048 three times; a 1x1 shortcut; two numbers a channel of five normalisations.
    expected = 9 * 2048 * (1024 + 3 * 2048) + 1024 * 2048 + 5 * 2 * 2048
    assert sum(p.numel() for p in stream.conv5_g.parameters()) == expected == 134_238_208
    assert [c.conv.out_channels for c in (stream.conv1, stream.conv2)] == [24 * 32, 24 * 64]
