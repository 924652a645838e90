"""Networks as their recipes have them (profiles/recipes.yaml), small, and some of their settings changed."""

import importlib
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from models.backbone import Backbone
from models.torchvision_import import import_torchvision
from pipeline.config.profiles import like

RECIPES = yaml.safe_load((Path(__file__).resolve().parents[2] / "profiles/recipes.yaml").read_text())["recipes"]


def torchvision_models() -> Any:
    """torchvision's networks, as a reference."""
    import_torchvision()
    return importlib.import_module("torchvision.models")


def resnet18() -> Backbone:
    return Backbone(architecture="resnet18", init="none")


def network(recipe: str, *, seed: int = 0, **changes: Any) -> Any:
    """A recipe's network on a ResNet-18 for eight people, drawn from the seed."""
    entry = like(RECIPES[recipe], RECIPES, f"recipes.{recipe}")
    settings = entry["model"] | {"match": entry["match"]["features"], "ids": 8}
    name = settings.pop("name")

    torch.manual_seed(seed)
    if "backbone" not in changes:
        settings["backbone"] = resnet18()
    return getattr(importlib.import_module(f"models.{name}"), name.capitalize())(**(settings | changes))


def same_weights(model: nn.Module, other: Any) -> Any:
    """The other network, built to be matched otherwise, with the model's weights and in its mode."""
    other.to(next(model.parameters()).dtype).load_state_dict(model.state_dict())
    return other.train(model.training)


@torch.no_grad()
def with_statistics(model: Any, *, seed: int = 0) -> Any:
    """The network with normalisations that do something: as it is built, at test time each is the identity, and what
    is taken before it cannot be told from what is taken after it."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=g))
    return model
