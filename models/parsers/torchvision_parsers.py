"""Parsers of torchvision: LR-ASPP on MobileNetV3-Large, whole or with its reduced tail, and DeepLabV3 on ResNet-50,
each with an optional u,v head.

They are torchvision's networks (Howard et al. 2019, Section 6.4; Chen et al. 2017) with one 1x1 classifier whose
channels are the native labels and, with u,v, one pair of channels per part of DensePose's 24, as in DensePose's own
head: a pair is read only where its part is. LR-ASPP's head goes on to stride 4: see `FineHead`.

B images of H x W, C native labels, h x w the head's map.

Weights are safetensors files that say what they hold (models/parsers/parser_files.py); nothing is unpickled.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, mobilenet_v3_large
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.segmentation import deeplabv3_resnet50, lraspp_mobilenet_v3_large

from models.parsers.parser_files import parser_provenance, read_parser, write_parser
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD, read_state

CLASSES = {"densepose24": 25, "lip20": 20}  # with background
ARCHITECTURES = ("lraspp", "lraspp-reduced", "deeplabv3")
SURFACE_PARTS = 24
INTER, WIDTH, FINE_WIDTH = 128, 96, 64  # channels in `FineHead`: LR-ASPP's branches, at stride 8, at stride 4


class FineHead(nn.Module):
    """LR-ASPP's head, carried on to stride 4.

    LR-ASPP adds 1x1 classifiers of strides 16 and 8. Here their features are joined, mixed by a 3x3 convolution, joined
    with the backbone's stride-4 features and mixed again: hands and feet are 3-5 pixels wide in a 128x64 crop, less
    than a cell of stride 8, and dense convolutions learn from fewer pictures than the backbone's depthwise ones.
    """

    def __init__(self, *, fine: int, low: int, high: int, channels: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(nn.Conv2d(high, INTER, 1, bias=False), nn.BatchNorm2d(INTER), nn.ReLU())
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, INTER, 1, bias=False), nn.Sigmoid())
        self.high = nn.Conv2d(INTER, WIDTH, 1, bias=False)
        self.low = nn.Conv2d(low, WIDTH, 1, bias=False)
        self.mix = _mix(WIDTH)

        self.mixed = nn.Conv2d(WIDTH, FINE_WIDTH, 1, bias=False)
        self.fine = nn.Conv2d(fine, FINE_WIDTH, 1, bias=False)
        self.mix_fine = _mix(FINE_WIDTH)
        self.classifier = nn.Conv2d(FINE_WIDTH, channels, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """fine (B, 24, H/4, W/4), low (B, 40, H/8, W/8), high (B, 960 or 480, H/16, W/16) -> (B, channels, H/4, W/4).
        """
        fine, low, high = features["fine"], features["low"], features["high"]

        x = self.high(self.cbr(high) * self.scale(high))  # (B, ., H/16, W/16) -> (B, 96, H/16, W/16)
        x = self.low(low) + upsample(x, *low.shape[-2:])  # -> (B, 96, H/8, W/8)
        x = self.mixed(self.mix(x))  # -> (B, 64, H/8, W/8)

        x = self.fine(fine) + upsample(x, *fine.shape[-2:])  # -> (B, 64, H/4, W/4)
        return self.classifier(self.mix_fine(x))  # -> (B, channels, H/4, W/4)


def _mix(width: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
                         nn.BatchNorm2d(width), nn.ReLU())


class Parser(nn.Module):
    """Images to labels, probabilities and u,v. `forward` is for training, `parse` for use.

    taxonomy: densepose24 | lip20; height, width: the input's size in pixels; uv: whether there is a u,v head;
    to_parts8 (8, C) or None and to_parts4 (5, C) sum native probabilities into the 8 parts and into background +
    4 parts (LIP-20 cannot give the 8).
    """

    to_parts4: Tensor
    to_parts8: Tensor | None
    mean: Tensor
    std: Tensor

    def __init__(self, *, backbone: nn.Module, head: nn.Module, architecture: str, taxonomy: str, uv: bool, height: int,
                 width: int, to_parts8: Tensor | None, to_parts4: Tensor) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.architecture, self.taxonomy, self.uv = architecture, taxonomy, uv
        self.height, self.width = height, width

        self.register_buffer("to_parts8", None if to_parts8 is None else to_parts8.float())
        self.register_buffer("to_parts4", to_parts4.float())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def coarse(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """images (B,3,H,W) uint8 RGB -> at the head's stride, h = H/4 or H/8: logits (B,C,h,w) and, with a u,v head,
        (B,24,2,h,w), the pair each part would have there, not yet clamped to [0, 1]. Training's losses read these."""
        x = (images.float() - self.mean) / self.std
        out = self.head(self.backbone(x.contiguous(memory_format=torch.channels_last)))  # (B, 3, H, W) -> (B, ., h, w)

        classes = CLASSES[self.taxonomy]
        uv = out[:, classes:].unflatten(1, (SURFACE_PARTS, 2)) if self.uv else None
        return out[:, :classes], uv

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The bare network: `coarse` upsampled to the images' size, logits (B,C,H,W) and (B,24,2,H,W) or None."""
        logits, uv = self.coarse(images)  # (B, 3, H, W) -> (B, C, h, w), (B, 24, 2, h, w)
        size = images.shape[-2:]
        logits = upsample(logits, *size)  # (B, C, h, w) -> (B, C, H, W)
        return logits, None if uv is None else upsample(uv.flatten(1, 2), *size).unflatten(1, (-1, 2))

    @torch.inference_mode()
    def parse(self, images: Tensor, *, parts4: bool = True) -> dict[str, Tensor]:
        """images (B,3,H,W) uint8 RGB at the parser's size -> `native` (B,H,W) uint8 labels, `parts4` (B,5,H,W)
        probabilities with background first and, from densepose24, `parts8` (B,8,H,W); with a u,v head `uv` (B,H,W,2)
        in [0,1] of the predicted label, 0 on background. parts4: false leaves those out.

        From densepose24, `native` is the most probable label of the most probable one of the 8 parts: the four labels
        of an upper leg share what a parser that takes left for right gives to it. Logits are upsampled and then turned
        into probabilities, not the other way round: between two cells that are sure of different labels,
        probabilities would always meet half-way, and no edge could lie anywhere else.
        """
        size = (self.height, self.width)
        if tuple(images.shape[-2:]) != size:
            raise ValueError(f"the images are {images.shape[-2]}x{images.shape[-1]} and the parser's input is "
                             f"{self.height}x{self.width}; resize the images")

        logits, uv = self.coarse(images)  # (B, 3, H, W) -> (B, C, h, w), (B, 24, 2, h, w)
        probabilities = upsample(logits.contiguous(), *size).softmax(1)  # (B, C, h, w) -> (B, C, H, W)
        result = {"parts4": _sums(self.to_parts4, probabilities)} if parts4 else {}
        if self.to_parts8 is not None:
            parts8 = result["parts8"] = _sums(self.to_parts8, probabilities)  # (B, C, H, W) -> (B, 8, H, W)
            best = (parts8 == parts8.amax(1, keepdim=True)).float()
            for label, part in enumerate(self.to_parts8.argmax(0).tolist()):
                probabilities[:, label].mul_(best[:, part])  # one product with all 25 gathered takes five times as long

        result["native"] = _argmax(probabilities)  # (B, C, H, W) -> (B, H, W)
        if uv is not None:
            result["uv"] = _pairs(uv, result["native"])  # (B, 24, 2, h, w), (B, H, W) -> (B, H, W, 2)
        return result


def upsample(maps: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, (B,C,h,w) -> (B,C,height,width)."""
    return F.interpolate(maps, size=(height, width), mode="bilinear")


def _sums(groups: Tensor, probabilities: Tensor) -> Tensor:
    """(G,C) ones and zeros x (B,C,H,W) -> (B,G,H,W). An einsum would copy the probabilities to one large product."""
    return (groups @ probabilities.flatten(2)).unflatten(2, probabilities.shape[2:])


def _argmax(probabilities: Tensor) -> Tensor:
    """(B,C,H,W) float32 >= 0, C <= 32, overwritten -> (B,H,W) uint8; of almost equal ones the first.

    Non-negative floats are ordered as their bits are. The last five bits, 2^-18 of the value, make room for the
    label, and a maximum is left, which costs a quarter of torch's argmax over a strided axis.
    """
    classes = probabilities.shape[1]
    labels = torch.arange(31, 31 - classes, -1, dtype=torch.int32, device=probabilities.device).view(1, -1, 1, 1)
    coded = probabilities.view(torch.int32).bitwise_and_(-32).bitwise_or_(labels)
    return (31 - (coded.amax(1) & 31)).to(torch.uint8)


def _pairs(maps: Tensor, native: Tensor) -> Tensor:
    """Pairs of every part (B,24,2,h,w) and labels (B,H,W) -> the labelled part's pair (B,H,W,2).

    Bilinear, clamped to [0,1], 0 on background: what upsampling all 48 maps and picking would give, computed where
    it is read.
    """
    (batch, parts, _, h, w), (height, width) = maps.shape, native.shape[1:]
    image, row, column = native.nonzero(as_tuple=True)
    part = native[image, row, column].long() - 1

    above, below, down = (taps[row] for taps in _taps(height, h, maps.device))
    left, right, across = (taps[column] for taps in _taps(width, w, maps.device))
    cells = torch.stack([((image * h + y) * w + x) * parts + part for y in (above, below) for x in (left, right)], 1)
    weights = torch.stack([a * b for a in (1 - down, down) for b in (1 - across, across)], 1)

    table = maps.permute(0, 3, 4, 1, 2).reshape(-1, 2)
    uv = maps.new_zeros(batch, height, width, 2)
    uv[image, row, column] = F.embedding_bag(cells, table, per_sample_weights=weights, mode="sum").clamp(0, 1)
    return uv


def _taps(size: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` pixels the two cells that bilinear upsampling mixes and the second one's weight."""
    place = ((torch.arange(size, device=device) + 0.5) * cells / size - 0.5).clamp(min=0)
    first = place.long().clamp(max=cells - 1)
    return first, (first + 1).clamp(max=cells - 1), place - first


def build_parser(*, architecture: str, taxonomy: str, uv: bool, height: int, width: int, to_parts8: Tensor | None,
                 to_parts4: Tensor, init: str = "none") -> Parser:
    """A new parser. `init`: none | imagenet (torchvision's backbone weights, a download) | a finished parser's file, of
    the same architecture and labels, all of whose weights are taken | a .safetensors or .pth file with the backbone's
    state.

    ValueError for an unknown architecture or taxonomy, for u,v without DensePose-24, and for a start that does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
    if taxonomy not in CLASSES:
        raise ValueError(f"unknown labels {taxonomy!r}; choose one of {', '.join(CLASSES)}")
    if uv and taxonomy != "densepose24":
        raise ValueError(f"a u,v head needs the labels densepose24, not {taxonomy}; set uv to false or change "
                         "the labels")
    for name, matrix, groups in (("to_parts8", to_parts8, 8), ("to_parts4", to_parts4, 5)):
        if matrix is not None and tuple(matrix.shape) != (groups, CLASSES[taxonomy]):
            raise ValueError(f"{name} is {tuple(matrix.shape)}, and {taxonomy} needs ({groups}, {CLASSES[taxonomy]})")

    channels = CLASSES[taxonomy] + (2 * SURFACE_PARTS if uv else 0)
    backbone, head = BUILDERS[architecture](channels)
    start = None if init in ("none", "imagenet") else parser_provenance(init)
    if start is None:
        _load_backbone(backbone, architecture, init)
    parser = Parser(backbone=backbone, head=head, architecture=architecture, taxonomy=taxonomy, uv=uv, height=height,
                    width=width, to_parts8=to_parts8, to_parts4=to_parts4)
    if start is not None:
        _load_whole(parser, init, start)
    return parser


def _lraspp(channels: int) -> tuple[nn.Module, nn.Module]:
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=channels)
    network.backbone.return_layers = {"3": "fine", **network.backbone.return_layers}  # "3": last block of stride 4
    _for_small_pictures(network.backbone)
    return network.backbone, FineHead(fine=24, low=40, high=960, channels=channels)


def _lraspp_reduced(channels: int) -> tuple[nn.Module, nn.Module]:
    """The same with half the channels in the last stage, as Howard et al. (2019, Section 6.4) segment: 1.9 of 3.4
    million weights."""
    features = mobilenet_v3_large(weights=None, dilated=True, reduced_tail=True).features
    backbone = IntermediateLayerGetter(features, return_layers={"3": "fine", "4": "low", "16": "high"})
    _for_small_pictures(backbone)
    return backbone, FineHead(fine=24, low=40, high=480, channels=channels)


def _for_small_pictures(backbone: nn.Module) -> None:
    """MobileNetV3's blocks, in place, as a few thousand small steps on small pictures want them."""
    for module in backbone.modules():
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.zeros_(module.block[-1][1].weight)  # a residual block starts as the identity

        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's 0.01 has not forgotten its start after a few hundred small steps

        if isinstance(module, nn.Conv2d) and module.dilation == (2, 2):
            # A crop of a person is 8 or 16 cells high here, which 5x5 spans undilated; on CPUs the gradient of a
            # dilated depthwise convolution costs five times as much, and these three were half of training.
            module.dilation, module.padding = (1, 1), (2, 2)


def _deeplabv3(channels: int) -> tuple[nn.Module, nn.Module]:
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=channels, aux_loss=False)
    return network.backbone, nn.Sequential(_Take("out"), network.classifier)


class _Take(nn.Module):
    """One entry of a dict of feature maps."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return features[self.name]


BUILDERS = {"lraspp": _lraspp, "lraspp-reduced": _lraspp_reduced, "deeplabv3": _deeplabv3}


def _load_whole(parser: Parser, path: str, made: dict[str, Any]) -> None:
    """All weights of a finished parser. ValueError if it is another network's or has other labels."""
    asked = {"architecture": parser.architecture, "labels": parser.taxonomy, "uv": parser.uv}
    held = {name: made.get(name) for name in asked}
    if held != asked:
        raise ValueError(f"init: {path!r} is {_described(held)}, and this one {_described(asked)}; start from a parser "
                         "of the same network and labels, or write none")
    try:
        parser.load_state_dict(read_parser(path)[1])
    except RuntimeError as error:
        raise ValueError(f"init: {path!r} does not hold the parser it claims ({str(error).splitlines()[0]}); make it "
                         "again, or write none") from error


def _described(parser: dict[str, Any]) -> str:
    return f"{parser['architecture']} for {parser['labels']} {'with' if parser['uv'] else 'without'} u,v"


def _load_backbone(backbone: nn.Module, architecture: str, init: str) -> None:
    if init == "none":
        return
    if init == "imagenet":
        if architecture == "lraspp-reduced":
            raise ValueError("init: is imagenet, and torchvision has no such weights of lraspp-reduced; write none, a "
                             "parser's file, or take lraspp")
        weights: Any = (MobileNet_V3_Large_Weights if architecture == "lraspp" else ResNet50_Weights).IMAGENET1K_V1
        state = weights.get_state_dict(progress=True, check_hash=True)
    else:
        state = read_state(init)

    state = {name.removeprefix("features."): value for name, value in state.items()}
    expected = backbone.state_dict()
    missing = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise ValueError(f"{init}: holds no backbone of {architecture} ({missing[0]} is missing or of another shape); "
                         "name such a file as the parser's `init`, or none")
    backbone.load_state_dict({name: state[name] for name in expected})


def save_parser(parser: Parser, path: str | os.PathLike, *, made: dict[str, Any]) -> None:
    """Write weights and, as JSON under the one metadata key `semalign`, what they are.

    made: how they were made (parameters, data's SHA-256, versions). The same parser gives the same bytes. Written
    beside and renamed.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in parser.state_dict().items()}
    provenance = {"kind": "parser", "architecture": parser.architecture, "labels": parser.taxonomy, "uv": parser.uv,
                  "height": parser.height, "width": parser.width, **made}
    write_parser(path, state, provenance)


def load_parser(path: str | os.PathLike, device: str = "cpu") -> Parser:
    """A parser from a file of `save_parser` or `save_released`, in evaluation mode.

    ValueError names the file and the remedy where it is missing, damaged, or not a parser's.
    """
    provenance, state = read_parser(path)
    name = os.fspath(path)
    try:
        parser = build_parser(architecture=provenance["architecture"], taxonomy=provenance["labels"],
                              uv=provenance["uv"], height=provenance["height"], width=provenance["width"],
                              to_parts8=state.get("to_parts8"), to_parts4=state["to_parts4"])
        parser.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: does not hold the parser it claims ({reason}); make it again with the stage "
                         "train_parser, or name another file as the cache's `source`") from error
    return parser.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
