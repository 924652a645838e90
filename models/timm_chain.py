"""timm's convolutional networks as a chain of modules, cut where their maps shrink: what `Backbone` is made of.

A network is a chain if each module of it takes what the one before gave, from the image to `forward_features`, which
timm says is all before pooling. That is watched, not believed: the network runs once and says who called whom with
what. timm is imported here alone, and only when a run asks for one of its networks.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.torchvision_import import import_torchvision

STRIDES = (4, 8, 16, 32)  # of the four stages as published; the last is then brought to 16
PROBE = (128, 64)  # pixels of the image by which strides are measured; all of them divide it
INSTALL = "pip install timm==1.0.31"


@dataclass(frozen=True)
class Chain:
    """A network cut into four stages. network: as timm built it, the last stage's stride taken out; stages: names of
    its modules in the order they run; channels: of the stages' maps; mean, std: of RGB in [0, 1], of its input;
    classifiers: how the names of tensors begin that published weights have besides."""

    network: nn.Module
    stages: tuple[tuple[str, ...], ...]
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classifiers: tuple[str, ...]


@dataclass(frozen=True)
class _Link:
    """A module as it was called: with what, and what it gave."""

    name: str
    module: nn.Module
    taken: Tensor | None
    given: Tensor | None


def timm_chain(architecture: str, *, pretrained: bool) -> Chain:
    """timm's network of that name as a chain. ValueError as `timm_network`, and where it is no chain whose maps have
    strides 4, 8, 16 and 32."""
    network = timm_network(architecture, pretrained=pretrained)
    links = _links(network, architecture)
    stages = _stages(links, architecture)
    _take_stride_out(stages, architecture)
    used = {link.name.split(".")[0] for stage in stages for link in stage}
    own = network.pretrained_cfg.get("classifier") or ()
    heads = [name for name, _ in network.named_children() if name not in used]
    return Chain(network, tuple(tuple(link.name for link in stage) for stage in stages),
                 tuple(_map(stage[-1]).shape[1] for stage in stages),
                 *published(network),
                 tuple(f"{name}." for name in [*([own] if isinstance(own, str) else own), *heads]))


def timm_network(architecture: str, *, pretrained: bool, **settings: Any) -> Any:
    """timm's network of that name, built with these settings. pretrained: with the weights that timm publishes, a
    download. ValueError in one sentence where timm is not installed or knows no such network, and where its weights
    cannot be fetched."""
    timm = _timm(architecture)
    _check_name(timm, architecture)
    try:
        return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **settings)
    except Exception as error:  # unknown tags, missing packages, and when fetching whatever the network raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = ("name a file as init, or train with init none" if pretrained else
                  "take another backbone")
        raise ValueError(f"backbone {architecture!r}: timm cannot build it ({reason}); {remedy}") from error


def timm_kind(architecture: str) -> str:
    """What a name of timm's is: vit | swin | chain, which is to be tried. ValueError where it is none, as above.

    Told by where timm has it, before anything is built. A ViT is one of VisionTransformer itself, with at most class
    and register tokens before its patches.
    """
    timm = _timm(architecture)
    _check_name(timm, architecture)
    place = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    if place == "deit" and "distilled" not in architecture:
        return "vit"
    return {"vision_transformer": "vit", "swin_transformer": "swin"}.get(place, "chain")


def published(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of RGB in [0, 1] that a network was published with."""
    made: Any = network.pretrained_cfg
    return tuple(made["mean"]), tuple(made["std"])


def _check_name(timm: ModuleType, architecture: str) -> None:
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; near it are {', '.join(near)}" if near else "; `timm.list_models()` lists its own"
        raise ValueError(f"unknown backbone {architecture!r}; it is resnet18, resnet50 or a name of timm's{hint}")


def _timm(architecture: str) -> ModuleType:
    import_torchvision()
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbone {architecture!r} is none of torchvision's here (resnet18, resnet50), and timm, "
                         f"which may have it, is not installed; {INSTALL}") from error
    return timm


def _links(network: nn.Module, architecture: str) -> list[_Link]:
    """The modules that lead from an image to what `forward_features` gives, in the order they run."""
    calls: list[_Link] = []
    hooks = [module.register_forward_hook(
        lambda module, taken, given, name=name: calls.append(
            _Link(name, module, taken[0] if len(taken) == 1 else None, given if isinstance(given, Tensor) else None)))
        for name, module in _members(network)]
    image = next(network.parameters()).new_zeros(1, 3, *PROBE)
    training = network.training
    try:
        with torch.no_grad():
            last = network.eval().forward_features(image)  # type: ignore[operator]
    except Exception as error:  # image sizes and kinds of input differ; its own words say how
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"backbone {architecture!r}: gives no maps of an image of {PROBE[0]} x {PROBE[1]} pixels "
                         f"({reason}); take a convolutional network") from error
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()

    value = image
    for link in calls:
        if link.taken is not value or link.given is None:
            break
        value = link.given
    if value is not last:
        raise ValueError(f"backbone {architecture!r}: is no chain of modules that could be cut into four stages; take "
                         "another, such as mobilenetv2_100 or resnet34")
    return calls


def _members(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A network's children; of those that only hold others in a row, the others."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if type(child) in (nn.Sequential, nn.ModuleList) and list(child.children()):
            yield from _members(child, path)
        else:
            yield path, child


def _map(link: _Link) -> Tensor:
    assert link.given is not None
    return link.given


def _stages(links: list[_Link], architecture: str) -> list[list[_Link]]:
    """The chain cut after the last map of each stride."""
    strides = []
    for link in links:
        given = _map(link)
        sides = [side / size for side, size in zip(PROBE, given.shape[2:], strict=True)] if given.ndim == 4 else [0.0]
        strides.append(sides[0] if len(set(sides)) == 1 else 0.0)

    stages = [[link for link, stride in zip(links, strides, strict=True)
               if (STRIDES[number - 1] if number else 0) < stride <= limit] for number, limit in enumerate(STRIDES)]
    ends = tuple(int(strides[links.index(stage[-1])]) for stage in stages if stage)
    if ends != STRIDES or strides != sorted(strides):
        there = ", ".join(f"{stride:g}" for stride in sorted(set(strides) - {0.0})) or "none"
        raise ValueError(f"backbone {architecture!r}: its maps have the strides {there}, and the networks here need "
                         f"maps (B, C, H, W) of strides {', '.join(map(str, STRIDES))}; take another backbone")
    return stages


def _take_stride_out(stages: list[list[_Link]], architecture: str) -> None:
    """Let the last stage no longer halve its map: stride 1 in its convolutions and poolings, and no dilation."""
    for link in stages[3]:
        for module in link.module.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and _both(module.stride) == (2, 2):
                _go_by_one(module)

    value = _map(stages[2][-1])
    with torch.no_grad():
        for link in stages[3]:
            training = link.module.training
            value = link.module.eval()(value)
            link.module.train(training)
    if value.shape[2:] != _map(stages[2][-1]).shape[2:]:
        raise ValueError(f"backbone {architecture!r}: its last stage halves its map by something else than a "
                         "convolution or a pooling, and cannot be brought to stride 16; take another backbone")


def _go_by_one(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> None:
    """Stride 1, the map's size kept: an even kernel is padded after its end, and pooling by pairs lets all through."""
    module.stride = (1, 1)
    even = _both(module.kernel_size)[0] % 2 == 0
    if even and isinstance(module, nn.Conv2d):
        module.padding = "same"
    elif even:
        module.kernel_size, module.padding = (1, 1), (0, 0)  # type: ignore[assignment]


def _both(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)
