"""timm's networks as four stages: against timm's own forward, and what is no chain of strides 4, 8, 16, 32."""

import copy

import pytest
import torch
from torch import nn

from models.backbone import Backbone, last_stage
from models.timm_chain import timm_chain
from models.torchvision_import import import_torchvision
from tests.helpers.networks import network, with_statistics

import_torchvision()
timm = pytest.importorskip("timm")

NETWORKS = ("mobilenetv2_100", "tf_efficientnet_lite0", "resnet10t", "mobilenetv3_small_050", "regnety_002",
            "convnext_atto", "densenet121")


def image(seed: int = 0, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pair(name: str) -> tuple[nn.Module, Backbone]:
    """timm's network, random, with normalisations that do something, and the backbone with its weights."""
    torch.manual_seed(0)
    reference = with_statistics(timm.create_model(name, num_classes=0)).eval()
    backbone = Backbone(architecture=name, init="none").eval()
    state = reference.state_dict()
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()})
    return reference, backbone


@pytest.mark.parametrize("name", NETWORKS)
def test_three_stages_are_timms_bit_for_bit_and_the_published_strides_give_timms_features(name):
    reference, backbone = pair(name)
    x = image() if not backbone.renormalised else image() * backbone.scale + backbone.shift
    chain = timm_chain(name, pretrained=False)

    with torch.no_grad():
        maps, features = backbone(image()), reference.forward_features(x)
        y, theirs = x, []
        for names in chain.stages:  # with the strides as published: those of the reference
            for part in names:
                y = reference.get_submodule(part)(y)
            theirs.append(y)

    assert torch.equal(theirs[3], features)
    assert all(torch.equal(a, b) for a, b in zip(maps[:3], theirs[:3], strict=True))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, 64 // s, 64 // s)
                                                 for c, s in zip(backbone.channels, (4, 8, 16, 16), strict=True)]
    assert backbone.channels == tuple(y.shape[1] for y in theirs)
    assert features.shape[2:] == (2, 2)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_the_last_stage_is_the_same_weights_at_stride_1_by_hand_undilated(name):
    reference, backbone = pair(name)
    with torch.no_grad():
        x, ours = backbone(image())[2:]
        by_hand = copy.deepcopy(reference)
        block = by_hand.blocks[5][0]
        old = block.conv_dw
        padding = old.kernel_size[0] // 2
        block.conv_dw = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, stride=1, padding=padding,
                                  groups=old.groups, bias=False)
        block.conv_dw.weight.copy_(old.weight)
        for module in (by_hand.blocks[5], by_hand.blocks[6], by_hand.conv_head, by_hand.bn2):
            x = module(x)
    assert torch.equal(x, ours) and ours.shape == (2, 1280, 4, 4)
    assert all(module.dilation == (1, 1) for module in backbone.modules() if isinstance(module, nn.Conv2d))


def test_pairs_of_pixels_are_let_through_where_a_pooling_or_an_even_kernel_halved_the_map():
    """ResNet-D pools its shortcut by pairs: without the stride nothing. ConvNeXt's 2 x 2: its even positions stay."""
    reference, backbone = pair("resnet10t")
    with torch.no_grad():
        x = backbone(image())[2]
        own, theirs = backbone.get_submodule("layer4.0.downsample"), reference.get_submodule("layer4.0.downsample")
        assert torch.equal(own(x), theirs[2](theirs[1](x)))

        reference, backbone = pair("convnext_atto")
        x = backbone(image())[2]
        own, theirs = (side.get_submodule("stages.3.downsample") for side in (backbone, reference))
        assert own(x).shape[2:] == x.shape[2:]
        assert torch.allclose(own(x)[:, :, ::2, ::2], theirs(x), rtol=1e-5, atol=1e-5)


def test_images_go_over_to_the_mean_and_deviation_that_the_network_was_published_with():
    rgb = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normalised = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]
                                                                                         ).view(3, 1, 1)
    for name, expected in (("tf_efficientnet_lite0", (255 * rgb - 127) / 128), ("tf_efficientnet_lite1", 2 * rgb - 1)):
        backbone = Backbone(architecture=name, init="none")
        ours = normalised.float() * backbone.scale + backbone.shift
        assert torch.allclose(ours, expected.float(), atol=1e-5)
    assert not Backbone(architecture="mobilenetv2_100", init="none").renormalised


def test_a_file_of_timms_names_loads_and_its_classifier_is_dropped(tmp_path):
    torch.manual_seed(1)
    for name in ("mobilenetv3_small_050", "resnet10t"):
        state = timm.create_model(name).state_dict()
        torch.save(state, tmp_path / "w.pth")
        backbone = Backbone(architecture=name, init=str(tmp_path / "w.pth"))
        assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())

        del state["bn1.weight"]
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=rf"does not fit {name}: 1 of its .*first: bn1.weight"):
            Backbone(architecture=name, init=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(("name", "said"), [
    ("mobilenetv2_10", "near it are mobilenetv2_1"), ("hf-hub:someone/net", "or a name of timm's"),
    ("zzz", "list_models"), ("resnet34.nothing", "timm cannot build it"),
    ("vit_tiny_patch16_224", "'vit_tiny_patch16_224'"), ("swin_tiny_patch4_window7_224", "swin_tiny"),
    ("hrnet_w18_small", "no chain of modules"), ("mixer_s32_224", "'mixer_s32_224'")])
def test_a_name_that_gives_no_four_stages_is_one_sentence(name, said):
    with pytest.raises(ValueError, match=said) as error:
        Backbone(architecture=name, init="none")
    assert "\n" not in str(error.value)


class TwoPaths(nn.Module):
    """What runs last gives the map, but did not take what ran before it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(3, 8, 3, stride=4)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        self.one(x)
        return self.other(x)


def test_modules_that_do_not_take_what_the_one_before_gave_are_no_chain(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: TwoPaths())
    with pytest.raises(ValueError, match="no chain of modules"):
        timm_chain("resnet34", pretrained=False)


def test_imagenet_s_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    real = timm.create_model

    def refuse(name, *, pretrained, **settings):
        if pretrained:
            raise OSError("Name or service not known\nmore")
        return real(name, pretrained=pretrained, **settings)

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match="Name or service not known.*name a file as init") as error:
        Backbone(architecture="resnet34", init="imagenet")
    assert "\n" not in str(error.value)


def test_without_the_last_stage_nothing_of_it_is_kept():
    backbone = Backbone(architecture="mobilenetv2_100", init="none").eval()
    kept = sum(value.numel() for name, value in backbone.named_parameters()
               if not name.startswith(("blocks.5", "blocks.6", "conv_head", "bn2")))
    with torch.no_grad():
        before = backbone(image())
        after = backbone.without_last_stage()(image())
    assert len(after) == 3 and all(torch.equal(a, b) for a, b in zip(after, before, strict=False))
    assert backbone.width == 96 and kept == sum(value.numel() for value in backbone.parameters())


def test_a_head_s_own_last_stage_is_drawn_anew_at_stride_1():
    torch.manual_seed(0)
    first, second = last_stage("mobilenetv2_100"), last_stage("mobilenetv2_100")
    x = torch.randn(1, 96, 4, 2)
    assert first(x).shape == (1, 1280, 4, 2)
    assert not torch.equal(first[-2].weight, second[-2].weight)


def test_on_a_narrow_network_dsa_keeps_table_1_s_bottlenecks_and_sgsfa_16_channels():
    dsa = network("dsa", backbone=Backbone(architecture="mobilenetv2_100", init="none"), dsag_width=0.125)
    shapes = [tuple(conv.conv.weight.shape) for conv in dsa.head.branches[0].convs]
    assert shapes == [(8 * 64, 96, 1, 1), (8 * 64, 64, 3, 3), (8 * 256, 64, 1, 1)] and len(dsa.head.branches) == 3
    assert dsa.head.sizes == {"global": 1280, "local": 2048}
    batch = {"image": image(height=64, width=32), "pid": torch.tensor([0, 1]), "dsap": torch.randn(2, 24, 3, 32, 32)}
    loss, _ = dsa(batch)
    assert loss.isfinite() and dsa.embed(batch)[0].shape == (2, sum(dsa.sizes))

    sgsfa = network("sgsfa", backbone=Backbone(architecture="mobilenetv2_100", init="none"))
    assert sgsfa.whole.spatial[0].weight.shape == (16, 24, 1, 1)  # 24 channels / gamma 8 would be 3
