"""Parsers of a cache, from its parameters, and a data set's images through one: the stages parse and parse_crops."""

import dataclasses
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import torch
from torch import Tensor

from models.parsers.torchvision_parsers import Parser, load_parser, upsample
from pipeline.base.body_parts import lip20_probabilities_to_parts8
from pipeline.base.code import code_sha256
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import Box
from pipeline.caches.cache import FORMAT, Cache
from pipeline.config.plan import DescribedParsePlan, ParsePlan
from pipeline.config.schema import EXTERNAL, CacheParams
from pipeline.parsing.engine import NOBODY, Forward, Job, parse_images
from pipeline.parsing.oracle import Oracle
from stages.shared.device import machine

CODE = ("models", "models/parsers", "pipeline/base", "pipeline/caches", "pipeline/parsing", "stages/shared")


@dataclass(frozen=True)
class CacheParser:
    """forward: as the engine calls it; taxonomy, uv: what it gives; maker: what the cache says of how it was made."""

    forward: Forward
    taxonomy: str
    uv: bool
    maker: dict[str, Any]


def open_parser(cache: CacheParams, plan: ParsePlan, index: pd.DataFrame, device: torch.device, *, key: str
                ) -> CacheParser:
    """The parser of a cache. InputError, with the parameter or file, where it is not what is asked for."""
    if cache.parser == "oracle" and cache.fit != "stretch":
        raise InputError(f"caches.{key}.fit: is {cache.fit!r}, and the oracle sees no images: its labels are of whole "
                         "ones already; take it out")
    if cache.parser in EXTERNAL:
        forward, taxonomy, uv, made = _external(cache, plan, index, device, key)
    else:
        forward, taxonomy, uv = _own(cache, plan.source, device)
        made = {"source_sha256": file_sha256(plan.source), "exact": taxonomy == "densepose24"}
    maker = {"parser": cache.parser, "taxonomy": taxonomy, "height": cache.height, "width": cache.width,
             "batch": cache.batch, "threads": cache.threads, "machine": machine(device),
             "torch": torch.__version__, "opencv": cv2.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION,
             "format": FORMAT, **({} if cache.fit == "stretch" else {"fit": cache.fit}), **made}
    return CacheParser(forward, taxonomy, uv, maker)


def parse_index(parser: CacheParser, cache: CacheParams, index: pd.DataFrame, *, raw: str, target: Path, scratch: Path,
                device: torch.device, boxes: Sequence[Box] | None = None) -> None:
    """A data set's images, or `boxes` of them, through a parser into `target`, shared over torchrun's processes.

    InputError names the first image without a parse; the file is written then.
    """
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=Path(raw),
              maker=json.dumps(parser.maker, sort_keys=True), taxonomy=parser.taxonomy, uv=parser.uv,
              height=cache.height, width=cache.width, batch=cache.batch, device=str(device), boxes=boxes,
              fit=cache.fit, code=code_sha256(*CODE))
    failed = parse_images(job, parser.forward, target, scratch=scratch, rank=int(os.environ.get("RANK", 0)),
                          world=int(os.environ.get("WORLD_SIZE", 1)))
    if failed:
        name, status = failed[0]
        raise InputError(f"{str(target)!r}: is written, but {len(failed)} of {len(index)} images have no parse, the "
                         f"first {name!r} in {raw!r} ({status}); mend or remove them, prepare the index again and "
                         "run again: only they are parsed")
    if failed is not None:
        nobody = (Cache(target).column("status") == NOBODY).sum()
        print(f"{target}: {len(index)} images, {nobody} of them without a person")


def _own(cache: CacheParams, source: str, device: torch.device) -> tuple[Forward, str, bool]:
    """The parser as the engine calls it, its taxonomy, and whether it gives u,v."""
    if cache.parser == "oracle":
        return Oracle(source, height=cache.height, width=cache.width), "densepose24", True
    try:
        parser = load_parser(source, str(device))
    except ValueError as error:
        raise InputError(str(error)) from error
    held = (parser.architecture, parser.height, parser.width)
    if held != (cache.parser, cache.height, cache.width):
        raise InputError(f"{source!r}: holds {held[0]} at {held[1]}x{held[2]} where the cache asks for "
                         f"{cache.parser} at {cache.height}x{cache.width}; change the cache's parameters or its source")
    return network_forward(parser), parser.taxonomy, parser.uv


def _external(cache: CacheParams, plan: ParsePlan, index: pd.DataFrame, device: torch.device, key: str
              ) -> tuple[Forward, str, bool, dict[str, Any]]:
    """The same of a parser from outside, and what else the maker says of it."""
    from stages.shared.external_parsers import external_parser  # only here: other caches do not depend on that code
    options = {name: value for name, value in dataclasses.asdict(cache).items()
               if name in ("labels", "boxes", "input_height", "input_width", "min_score", "scale", "side", "border")}
    described = plan.description if isinstance(plan, DescribedParsePlan) else ""
    if cache.parser == "densepose":
        options["config"] = described
    elif (labels := options.get("labels", "")).endswith((".yaml", ".yml")) and labels != described:
        raise InputError(f"external.{key}.labels: is {labels!r}, and plan.yaml has {described!r}; change it "
                         "in the profile and compose again")

    parser = external_parser(cache.parser, source=plan.source, raw=Path(plan.raw), paths=index["path"].tolist(),
                             height=cache.height, width=cache.width, device=str(device), **options)
    return (parser.forward, parser.taxonomy, parser.uv,
            {"source_sha256": parser.source_sha256, "exact": parser.exact, **parser.made})


def network_forward(parser: Parser) -> Forward:
    """A network as the engine calls it; from DensePose's parts the engine makes the four itself, after pooling."""
    if parser.taxonomy == "lip20":
        return lambda images, paths: parse_lip20(parser, images)
    return lambda images, paths: parser.parse(images, parts4=False)


@torch.inference_mode()
def parse_lip20(parser: Parser, images: Tensor) -> dict[str, Tensor]:
    """`Parser.parse` with the 8 parts, which LIP-20 gives only through the cuts of pipeline/base/body_parts.py."""
    logits = upsample(parser(images)[0], parser.height, parser.width)
    probabilities = logits.softmax(1)
    native = logits.argmax(1).to(torch.uint8)
    parts8 = [torch.from_numpy(lip20_probabilities_to_parts8(soft.numpy(), labels.numpy()))
              for soft, labels in zip(probabilities.cpu(), native.cpu(), strict=True)]
    parts4 = torch.einsum("gc,bchw->bghw", parser.to_parts4, probabilities)
    return {"native": native, "parts8": torch.stack(parts8).to(images.device), "parts4": parts4}
