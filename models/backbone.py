"""Backbone: a ResNet (models/resnet.py), average pool and classifier removed, last stage at stride 1.

An H x W image becomes an H/16 x W/16 map, because `layer4` no longer halves it (SORN IV-B, DSA 4.2).
The attribute names are torchvision's, so its weight files load as they are.

B images, C1 .. C4 channels of the four stages.
"""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.resnet import BLOCKS, IMAGENET, URL, Resnet, imagenet_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; every network's input is normalised with these
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A ResNet that returns the maps of its four stages.

    architecture: resnet18 | resnet50.
    init: none (torchvision's random start) | imagenet (IMAGENET1K_V1, downloaded once) | a weight file.
    ValueError in one sentence for an unknown architecture and for weights that are not there or do not fit.

    channels: of the four stages; width: of the last; init: as given, so that `parameter_groups` knows.
    """

    def __init__(self, *, architecture: str, init: str):
        super().__init__()
        if architecture not in BLOCKS:
            known = ", ".join(BLOCKS)
            raise ValueError(f"unknown backbone {architecture!r}; a backbone is one of {known}")
        resnet = Resnet(architecture)
        self.architecture, self.init = architecture, init

        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3
        self.layer4: nn.Sequential | None = _stride_one(resnet.layer4)
        last = resnet.fc.in_features
        self.channels: tuple[int, ...] = (last // 8, last // 4, last // 2, last)

        if init == "imagenet":
            _fill(self, _download(architecture), f"torchvision's IMAGENET1K_V1 of {architecture}")
        elif init != "none":
            _fill(self, read_state(init), init)

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.channels[-1]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (B, 3, H, W) -> the maps of layer1 .. layer4, at 1/4, 1/8, 1/16 and 1/16 of H x W."""
        x = self.stem(image)  # (B, 3, H, W) -> (B, 64, H/4, W/4)
        maps = []
        for layer in self.stages():
            x = layer(x)  # -> (B, C1, H/4, W/4), (B, C2, H/8, W/8), (B, C3, H/16, W/16), (B, C4, H/16, W/16)
            maps.append(x)
        return tuple(maps)

    def stem(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) -> (B, 64, H/4, W/4), what the first stage takes."""
        return self.maxpool(self.relu(self.bn1(self.conv1(image))))

    def stages(self) -> list[nn.Module]:
        """The residual stages in order; three of them after `without_layer4`."""
        return [layer for layer in (self.layer1, self.layer2, self.layer3, self.layer4) if layer is not None]

    def without_layer4(self) -> "Backbone":
        """Drop the last stage, for a network that puts a head of its own there (DSA's conv1 - conv4); self."""
        self.layer4 = None
        self.channels = self.channels[:3]
        return self


def last_stage(architecture: str) -> nn.Sequential:
    """A freshly drawn `layer4` at stride 1 (conv5_x of the ResNet), for heads that start at random."""
    return _stride_one(Resnet(architecture).layer4)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(pretrained, new) parameters of a re-ID network, so that training can give them different rates.

    Pretrained are those of `model.backbone` if it was started from weights; with init none there are none.
    """
    backbone = getattr(model, "backbone", None)
    known: set[int] = set()
    if isinstance(backbone, Backbone) and backbone.init != "none":
        known = {id(parameter) for parameter in backbone.parameters()}

    parameters = list(model.parameters())
    return [p for p in parameters if id(p) in known], [p for p in parameters if id(p) not in known]


def _stride_one(layer: nn.Sequential) -> nn.Sequential:
    """Undo the halving of a residual stage: its first block and that block's shortcut get stride 1."""
    for module in layer[0].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return layer


def _download(architecture: str) -> dict[str, Tensor]:
    try:
        return imagenet_weights(architecture)
    except (OSError, RuntimeError) as error:
        name = IMAGENET[architecture]
        raise ValueError(f"init imagenet: the weights of {architecture} could not be fetched from {URL}{name} "
                         f"({error}); put {name} into {torch.hub.get_dir()}/checkpoints, or name a file as "
                         "init, or train with init none") from error


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch.save wrote; nothing in it is executed."""
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such weight file; init is none, imagenet or the path of a file") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as weights ({error}); fetch the file again") from error
    except Exception as error:  # torch.load raises pickle, zip, EOF and runtime errors by the kind of damage
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: is not a plain state dict of tensors ({reason}); save it with "
                         "safetensors or torch.save(model.state_dict(), path)") from error

    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds a {type(state).__name__}, expected a plain state dict of tensors; "
                         "save it with torch.save(model.state_dict(), path)")
    return state


def _fill(backbone: Backbone, state: dict[str, Tensor], source: str) -> None:
    """Load `state`: torchvision's names, or a network of this project's, whose `backbone.` part is taken."""
    prefix = "backbone."
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    weights = own or {key: value for key, value in state.items() if not key.startswith("fc.")}
    expected = backbone.state_dict()
    remedy = f"name a file of {backbone.architecture} or change the backbone"

    # Files older than PyTorch 0.4.1 have no batch counters; nothing here reads them.
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in expected]
    if missing or unknown:
        raise ValueError(f"{source}: does not fit {backbone.architecture}: {len(missing)} of its "
                         f"{len(expected)} tensors are missing (first: {missing[0] if missing else 'none'}) and "
                         f"{len(unknown)} are unknown (first: {unknown[0] if unknown else 'none'}); {remedy}")

    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise ValueError(f"{source}: does not fit {backbone.architecture}: {key} is {tuple(value.shape)}, "
                             f"expected {tuple(expected[key].shape)}; {remedy}")
    backbone.load_state_dict(weights, strict=False)
