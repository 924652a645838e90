"""Parse a data set's images into data/cache/<key>/parts.h5: python -m stages.parse default-synth-occluded

Stopped, it goes on where it was; after images were added or mended it parses only those. Under
`torchrun --nproc-per-node N -m stages.parse KEY` the batches are shared over processes, GPUs or machines.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import torch
from torch import Tensor

from models.parsers import Parser, load_parser, upsample
from pipeline.caches import FORMAT
from pipeline.errors import InputError
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.oracle import Oracle
from pipeline.params import EXTERNAL, CacheParams, Params, pick
from pipeline.parsing import Forward, Job, parse_images
from pipeline.taxonomy import lip20_probabilities_to_parts8
from stages import main
from stages.device import choose_device, machine


def run(params: Params, key: str) -> None:
    cache = pick({**params.caches, **params.external}, key, "caches")
    index = read_index(Path("data/index") / f"{cache.dataset}.csv")
    device = choose_device(params.device, threads=cache.threads)
    if cache.parser in EXTERNAL:
        forward, taxonomy, uv, made = build_external(cache, index, device)
    else:
        forward, taxonomy, uv = build_forward(cache, device)
        made = {"source_sha256": file_sha256(cache.source), "exact": taxonomy == "densepose24"}
    maker = {"parser": cache.parser, "taxonomy": taxonomy, "height": cache.height, "width": cache.width,
             "batch": cache.batch, "threads": cache.threads, "machine": machine(device), "torch": torch.__version__,
             "opencv": cv2.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION, "format": FORMAT, **made}
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=Path(cache.images),
              maker=json.dumps(maker, sort_keys=True), taxonomy=taxonomy, uv=uv, height=cache.height,
              width=cache.width, batch=cache.batch, device=str(device))
    failed = parse_images(job, forward, Path("data/cache") / key / "parts.h5", scratch=Path("scratch") / f"parse-{key}",
                          rank=int(os.environ.get("RANK", 0)), world=int(os.environ.get("WORLD_SIZE", 1)))
    if failed:
        name, status = failed[0]
        raise InputError(f"data/cache/{key}/parts.h5: is written, but {len(failed)} of {len(index)} images have no "
                         f"parse, the first {name!r} in {cache.images!r} ({status}); mend or remove them, prepare the "
                         "index again and run again: only they are parsed")


def build_forward(cache: CacheParams, device: torch.device) -> tuple[Forward, str, bool]:
    """The parser as the engine calls it, its taxonomy, and whether it gives u,v."""
    if cache.parser == "oracle":
        return Oracle(cache.source, height=cache.height, width=cache.width), "densepose24", True
    try:
        parser = load_parser(cache.source, str(device))
    except ValueError as error:
        raise InputError(str(error)) from error
    found = (parser.architecture, parser.height, parser.width)
    if found != (cache.parser, cache.height, cache.width):
        raise InputError(f"{cache.source!r}: holds {found[0]} at {found[1]}x{found[2]} where the cache asks for "
                         f"{cache.parser} at {cache.height}x{cache.width}; change the cache's parameters or its source")
    return network_forward(parser), parser.taxonomy, parser.uv


def build_external(cache: CacheParams, index: pd.DataFrame, device: torch.device
                   ) -> tuple[Forward, str, bool, dict[str, Any]]:
    """The same of a parser from outside, and what else the maker says of it."""
    from stages.external import external_parser  # only here: other caches do not depend on that code
    options = {name: value for name, value in dataclasses.asdict(cache).items()
               if name in ("labels", "boxes", "input_height", "input_width", "min_score")}
    if cache.parser == "densepose":
        options["config"] = dataclasses.asdict(cache)["reads"]
    found = external_parser(cache.parser, source=cache.source, raw=Path(cache.images), paths=index["path"].tolist(),
                            height=cache.height, width=cache.width, device=str(device), **options)
    return (found.forward, found.taxonomy, found.uv,
            {"source_sha256": found.source_sha256, "exact": found.exact, **found.made})


def network_forward(parser: Parser) -> Forward:
    """A network as the engine calls it; from DensePose's parts the engine makes the four itself, after pooling."""
    if parser.taxonomy == "lip20":
        return lambda images, paths: parse_lip20(parser, images)
    return lambda images, paths: parser.parse(images, parts4=False)


@torch.inference_mode()
def parse_lip20(parser: Parser, images: Tensor) -> dict[str, Tensor]:
    """`Parser.parse` with the 8 parts, which LIP-20 gives only through the cuts of pipeline/taxonomy.py."""
    logits = upsample(parser(images)[0], parser.height, parser.width)
    probabilities = logits.softmax(1)
    native = logits.argmax(1).to(torch.uint8)
    parts8 = [torch.from_numpy(lip20_probabilities_to_parts8(soft.numpy(), labels.numpy()))
              for soft, labels in zip(probabilities.cpu(), native.cpu(), strict=True)]
    parts4 = torch.einsum("gc,bchw->bghw", parser.to_parts4, probabilities)
    return {"native": native, "parts8": torch.stack(parts8).to(images.device), "parts4": parts4}


if __name__ == "__main__":
    main(run)
