"""Parsers from outside the pipeline as the parsing engine calls them: bodypix, densepose, huggingface, precomputed.

What makes each is imported only when it is asked for.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.parsers.bodypix import load_bodypix
from models.parsers.densepose import load_densepose
from models.parsers.huggingface import HuggingFace, load_huggingface, resolve_checkpoint
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.base.errors import InputError
from pipeline.caches.parts_layout import READING
from pipeline.parsing.engine import Forward
from pipeline.parsing.label_map import LabelMap, label_map_sha256, read_label_map
from pipeline.parsing.precomputed import IUV, KEYPOINTS, Precomputed, source_sha256

NAMES = ("bodypix", "densepose", "huggingface", "precomputed")


@dataclass(frozen=True)
class External:
    """forward: as the engine calls it; taxonomy, uv, exact, source_sha256: what the cache's maker says of it; made:
    what else the parses depend on, to stand in the maker too."""

    forward: Forward
    taxonomy: str
    uv: bool
    exact: bool
    source_sha256: str
    made: dict[str, Any]


def external_parser(name: str, *, source: str, raw: Path, paths: Sequence[str], height: int, width: int, device: str,
                    labels: str = "", config: str = "", boxes: str = "whole", input_height: int = 0,
                    input_width: int = 0, min_score: float = 0.5, scale: float = 1, side: int = 257,
                    border: float = 0.1) -> External:
    """The parser `name` (bodypix | densepose | huggingface | precomputed).

    source: weights, checkpoint or parses; labels: a label map, for precomputed also iuv | iuv-rgb | json |
    keypoints (densepose needs none); config: densepose's configuration; boxes: its whole | detect; input_height,
    input_width: the network's input, 0 its own choice (densepose takes the smaller one as its short side); min_score:
    of detections; scale: of the pictures that precomputed parses were made of; side, border: of BodyPix's input.
    InputError names the file and the remedy.
    """
    try:
        if name == "bodypix":
            return _bodypix(source, height, width, side, border)
        if name == "densepose":
            return _densepose(source, config, height, width, boxes, input_height, input_width, min_score, device)
        if name == "huggingface":
            return _huggingface(source, labels, height, width, input_height, input_width, device)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    if name != "precomputed":
        raise InputError(f"unknown parser {name!r}; known here are {', '.join(NAMES)}")

    parser = Precomputed(source, labels=labels, raw=raw, paths=paths, height=height, width=width, min_score=min_score,
                         scale=scale)
    if remark := parser.remark():
        print(remark, file=sys.stderr)
    made: dict[str, Any] = {"labels": labels, "scale": scale, "reading": READING}
    if parser.map:
        made["labels_sha256"] = label_map_sha256(parser.map.path)
    if labels in ("json", KEYPOINTS):
        made["min_score"] = min_score
    return External(parser, parser.taxonomy, parser.uv, labels in IUV, source_sha256(source), made)


def _bodypix(source: str, height: int, width: int, side: int, border: float) -> External:
    parser = load_bodypix(source, to_parts8=_densepose24_to_parts8(), height=height, width=width, side=side,
                          border=border, threads=torch.get_num_threads())
    made = {"side": side, "border": border, "input": list(parser.input),
            "onnxruntime": import_module("onnxruntime").__version__}
    return External(lambda images, paths: parser.parse(images), "densepose24", False, True, source_sha256(source), made)


def _densepose24_to_parts8() -> Tensor:
    """(8, 25) ones and zeros."""
    return torch.eye(len(PARTS8))[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))]


def _densepose(source: str, config: str, height: int, width: int, boxes: str, input_height: int, input_width: int,
               min_score: float, device: str) -> External:
    parser = load_densepose(source, config=config, to_parts8=_densepose24_to_parts8(), height=height, width=width,
                            boxes=boxes, short=min(input_height, input_width), min_score=min_score, device=device)
    made = {"config_sha256": hashlib.sha256(parser.config.encode()).hexdigest(), "boxes": boxes,
            "input": list(parser.input), "detectron2": import_module("detectron2").__version__}
    return External(lambda images, paths: parser.parse(images), "densepose24", True, True, source_sha256(source), made)


def _huggingface(source: str, labels: str, height: int, width: int, input_height: int, input_width: int,
                 device: str) -> External:
    label_map = read_label_map(labels)
    folder = resolve_checkpoint(source)
    parser = load_huggingface(folder, height=height, width=width, input_height=input_height, input_width=input_width,
                              device=device)
    label_map.check_names(parser.names, source)
    made = {"labels": labels, "labels_sha256": label_map_sha256(labels), "input": list(parser.input),
            "transformers": import_module("transformers").__version__}
    return External(lambda images, paths: parse_mapped(parser, label_map, images), label_map.taxonomy, False, False,
                    source_sha256(folder), made)


def parse_mapped(parser: HuggingFace, label_map: LabelMap, images: Tensor) -> dict[str, Tensor]:
    """A checkpoint's probabilities in the pipeline's labels: native, parts8, parts4."""
    rows = [label_map.parts(picture.numpy()) for picture in parser.parse(images)["probabilities"].cpu()]
    native, parts8, parts4 = (torch.from_numpy(np.stack(maps)).to(images.device) for maps in zip(*rows, strict=True))
    return {"native": native, "parts8": parts8, "parts4": parts4}
