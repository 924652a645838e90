"""Backbone: torchvision's values at stride 1, weights that load or say why not, and the two parameter groups."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, last_stage, parameter_groups
from models.resnet import BLOCKS, Resnet, imagenet_weights
from pipeline.base import images
from tests.helpers.networks import resnet18, torchvision_models


@pytest.mark.parametrize("architecture", BLOCKS)
def test_a_seed_draws_torchvision_s_start_and_leaves_the_stream_where_it_does(architecture):
    states = []
    for build in (lambda: getattr(torchvision_models(), architecture)(weights=None), lambda: Resnet(architecture)):
        torch.manual_seed(5)
        states.append({**build().state_dict(), "next": torch.rand(1)})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("architecture", BLOCKS)
def test_training_a_stage_is_torchvision_s(architecture):
    """Values and gradients, with statistics of the batch."""
    torch.manual_seed(6)
    theirs, ours = getattr(torchvision_models(), architecture)(weights=None), Resnet(architecture)
    ours.load_state_dict(theirs.state_dict())
    image_ = image(height=32, width=32)
    for network in (theirs, ours):
        x = network.maxpool(network.relu(network.bn1(network.conv1(image_))))
        network.layer4(network.layer3(network.layer2(network.layer1(x)))).square().mean().backward()
    pairs = list(zip(theirs.named_parameters(), ours.named_parameters(), strict=True))
    assert all(torch.equal(one.grad, other.grad) for (_, one), (name, other) in pairs if not name.startswith("fc"))
    assert all(torch.equal(one, other) for one, other in zip(theirs.buffers(), ours.buffers(), strict=True))


@pytest.mark.parametrize("architecture", BLOCKS)
def test_imagenet_s_weights_are_those_that_torchvision_names(architecture, monkeypatch):
    weights = getattr(torchvision_models(), f"ResNet{architecture[6:]}_Weights").IMAGENET1K_V1
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: {"url": url})
    assert imagenet_weights(architecture) == {"url": weights.url}


def image(seed: int = 0, height: int = 64, width: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_first_three_stages_are_torchvisions_and_the_fourth_is_not_halved(architecture, tmp_path):
    torch.manual_seed(0)
    reference = getattr(torchvision_models(), architecture)(weights=None).eval()
    file = tmp_path / "weights.pth"
    torch.save(reference.state_dict(), file)
    backbone = Backbone(architecture=architecture, init=str(file)).eval()
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image()))))

    with torch.no_grad():
        maps = backbone(image())
        for layer, ours in zip((reference.layer1, reference.layer2, reference.layer3), maps, strict=False):
            x = layer(x)
            assert torch.equal(x, ours)
        # At stride 1 the even positions of a 1x1 shortcut's output are torchvision's strided ones.
        strided = reference.layer4[0].downsample(x)
        assert torch.allclose(backbone.layer4[0].downsample(x)[:, :, ::2, ::2], strided, rtol=1e-4, atol=1e-5)

    assert maps[3].shape[2:] == (4, 2) == maps[2].shape[2:]
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    assert backbone.width == reference.fc.in_features


def test_a_seed_gives_the_same_start():
    torch.manual_seed(3)
    first = resnet18()
    torch.manual_seed(3)
    second = resnet18()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_come_from_either_format_and_from_a_network_of_this_project(tmp_path):
    source = resnet18()
    network = nn.ModuleDict({"backbone": source, "classifier": nn.Linear(512, 3)})
    save_file(dict(source.state_dict()), tmp_path / "plain.safetensors")
    save_file(dict(network.state_dict()), tmp_path / "network.safetensors")
    torch.save(source.state_dict(), tmp_path / "plain.pth")
    for name in ("plain.safetensors", "network.safetensors", "plain.pth"):
        loaded = Backbone(architecture="resnet18", init=str(tmp_path / name))
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True)), name


def test_weights_that_do_not_fit_name_the_file_and_both_values(tmp_path):
    state = resnet18().state_dict()
    file = tmp_path / "weights.pth"
    cases = [
        ({k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}, "layer2.0.conv1.weight"),
        ({**state, "layer9.weight": torch.zeros(1)}, "layer9.weight"),
        ({**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1.weight is \(64, 3, 3, 3\), expected \(64, 3, 7"),
    ]
    for weights, said in cases:
        torch.save(weights, file)
        with pytest.raises(ValueError, match=said) as error:
            Backbone(architecture="resnet18", init=str(file))
        assert str(file) in str(error.value) and "\n" not in str(error.value)


class Payload:
    """What a hostile pickle would run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a weight file was executed')",))


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "empty.pth", "empty.safetensors", "list.pth",
                                  "hostile.pth", "text.pth"])
def test_a_broken_weight_file_is_one_sentence_with_its_name(tmp_path, name):
    file = tmp_path / name
    if name.startswith("empty"):
        file.write_bytes(b"")
    elif name.startswith("list"):
        torch.save([1, 2], file)
    elif name.startswith("hostile"):
        torch.save({"conv1.weight": Payload()}, file)
    elif name.startswith("text"):
        file.write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ValueError, match=name) as error:
        Backbone(architecture="resnet18", init=str(file))
    assert "\n" not in str(error.value)


def test_another_backbone_without_timm_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="'resnet34'.*resnet18, resnet50.*not installed; pip install timm==") as error:
        Backbone(architecture="resnet34", init="none")
    assert "\n" not in str(error.value)


def test_torchvisions_backbones_do_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert resnet18().channels == (64, 128, 256, 512) and not resnet18().renormalised


def test_imagenet_without_a_network_says_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        assert kwargs["weights_only"]
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth.*init none") as error:
        Backbone(architecture="resnet18", init="imagenet")
    assert "\n" not in str(error.value)


def test_init_none_asks_the_network_for_nothing(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("downloaded"))
    resnet18()


def test_parameter_groups_part_pretrained_from_new(tmp_path):
    def network(backbone):
        return nn.ModuleDict({"backbone": backbone, "head": last_stage("resnet18")})

    plain = network(resnet18())
    assert parameter_groups(plain)[0] == []
    assert len(parameter_groups(plain)[1]) == len(list(plain.parameters()))
    save_file(dict(plain["backbone"].state_dict()), tmp_path / "w.safetensors")
    tuned = network(Backbone(architecture="resnet18", init=str(tmp_path / "w.safetensors")).without_last_stage())
    pretrained, new = parameter_groups(tuned)
    assert {id(p) for p in pretrained} == {id(p) for p in tuned["backbone"].parameters()}
    assert {id(p) for p in new} == {id(p) for p in tuned["head"].parameters()}


def test_without_last_stage_the_first_three_maps_stay():
    backbone = resnet18().eval()
    with torch.no_grad():
        before = backbone(image())
        after = backbone.without_last_stage()(image())
    assert len(after) == 3 and all(torch.equal(a, b) for a, b in zip(after, before, strict=False))
    assert backbone.width == 256


def test_images_are_normalised_with_one_mean_and_deviation():
    """Written twice, because neither the networks nor the pipeline import the other."""
    assert images.IMAGENET_MEAN.tolist() == np.float32(IMAGENET_MEAN).tolist()
    assert images.IMAGENET_STD.tolist() == np.float32(IMAGENET_STD).tolist()
