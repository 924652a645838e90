"""Hugging Face: semantic segmentation checkpoints of `transformers`, from a folder or the Hub.

    parser = load_huggingface("checkpoints/segformer_b2_clothes", height=256, width=128)

Returns the checkpoint's own probabilities; pipeline/parsing/label_map.py says what its labels mean. transformers is
imported only when a parser is loaded; code that comes with a checkpoint is never run.

B images of H x W, C labels.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parsers.hub import FILES, NOT_INSTALLED
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD


class HuggingFace:
    """height, width: pixels of the images and of what is returned; input_height, input_width: of the network's
    input, to which images are resized; mean, std, scale: of its normalisation, (pixels * scale - mean) / std.

    names: the checkpoint's label names by id.
    """

    def __init__(self, *, model: Any, height: int, width: int, input_height: int, input_width: int,
                 mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> None:
        self.model, self.height, self.width = model, height, width
        self.input = (input_height, input_width)
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.scale = scale
        self.names = {int(label): str(name) for label, name in model.config.id2label.items()}

    @torch.inference_mode()
    def parse(self, images: Tensor) -> dict[str, Tensor]:
        """images (B,3,H,W) uint8 RGB at the parser's size -> `probabilities` (B,C,H,W) of the checkpoint's labels.

        Logits are upsampled and then turned into probabilities, as `Parser.parse` does.
        """
        if tuple(images.shape[-2:]) != (self.height, self.width):
            raise ValueError(f"the images are {images.shape[-2]}x{images.shape[-1]} and the parser's input is "
                             f"{self.height}x{self.width}; resize the images")

        pixels = images.float()
        if self.input != (self.height, self.width):
            pixels = F.interpolate(pixels, self.input, mode="bilinear", antialias=True)
        pixels = (pixels * self.scale - self.mean.to(pixels)) / self.std.to(pixels)

        logits = self.model(pixel_values=pixels).logits  # (B, 3, input height, input width) -> (B, C, h, w)
        logits = F.interpolate(logits.float(), (self.height, self.width), mode="bilinear", align_corners=False)
        return {"probabilities": logits.softmax(1)}


def resolve_checkpoint(source: str) -> Path:
    """The folder of a checkpoint: `source` itself, or the Hub's files of that id, fetched once into its own cache."""
    if Path(source).is_dir():
        return Path(source)

    try:
        from huggingface_hub import snapshot_download
        return Path(snapshot_download(source, allow_patterns=list(FILES)))
    except ImportError as error:
        raise ValueError(NOT_INSTALLED.format(error)) from error
    except Exception as error:  # the Hub's many ways to fail
        raise ValueError(f"{source}: is no folder, and the Hub gives none by that name ({type(error).__name__}); name "
                         "a checkpoint's folder, or an id such as owner/name while you are online") from error


def load_huggingface(source: str | os.PathLike, *, height: int, width: int, input_height: int = 0, input_width: int = 0,
                     device: str = "cpu") -> HuggingFace:
    """A parser from a checkpoint's folder (config.json, preprocessor_config.json, weights).

    input_height, input_width: 0 the images' own. ValueError names the folder and the remedy.
    """
    folder = os.fspath(source)
    try:
        from transformers import AutoModelForSemanticSegmentation
    except ImportError as error:
        raise ValueError(NOT_INSTALLED.format(error)) from error

    try:
        model, info = AutoModelForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"{folder}: holds no semantic segmentation checkpoint ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:160]}); name the folder of one, with config.json and weights"
                         ) from error

    lacking = sorted(info["missing_keys"]) or sorted(str(entry) for entry in info["mismatched_keys"])
    if lacking:  # transformers would go on with random numbers in their place
        raise ValueError(f"{folder}: lacks {len(lacking)} of its network's weights, the first {lacking[0]}; name a "
                         "checkpoint that was trained for semantic segmentation")

    mean, std, scale = read_normalisation(Path(folder) / "preprocessor_config.json")
    return HuggingFace(model=model.to(device).eval(), height=height, width=width, input_height=input_height or height,
                       input_width=input_width or width, mean=mean, std=std, scale=scale)


def read_normalisation(path: Path) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """mean, std and scale of a preprocessor_config.json; ImageNet's and 1/255 where there is no such file."""
    if not path.exists():
        return IMAGENET_MEAN, IMAGENET_STD, 1 / 255

    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        scale = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
        if not config.get("do_normalize", True):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), scale

        mean, std = (tuple(float(value) for value in config.get(name, default))
                     for name, default in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std of three channels")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: does not say how images are normalised ({str(error)[:80]}); restore the "
                         "checkpoint's own file") from error
    return mean, std, scale
