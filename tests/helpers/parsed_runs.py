"""Runs on caches that a parser made of the made-up set, so that networks which read masks find it again."""

from pathlib import Path

import numpy as np
import torch

from models.parsers.torchvision_parsers import build_parser, save_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8_TO_PARTS4
from pipeline.config import paths
from pipeline.config.loader import Experiment
from stages import parse, parse_crops, train, warp
from tests.helpers.bare_params import bare_experiment, embed_entry, train_entry
from tests.helpers.fake_runs import DATA, RAW, fake_sections
from tests.helpers.fake_set import write_fake_set

PARSER = {"parser": "lraspp", "height": 32, "width": 32, "batch": 4, "threads": 1, "fit": "keep"}


def parsed_experiment() -> Experiment:
    """The made-up runs on caches that a parser makes; `sgam-parse` reads parses of its crops."""
    params, plan = fake_sections()
    sgam = params["runs"]["sgam"]
    params["runs"]["sgam-parse"] = sgam | {"model": sgam["model"] | {"recrop": "parse", "thresholds": [0.0] * 4}}
    params["results"]["sgam-parse"] = params["results"]["sgam"]
    plan["train"]["sgam-parse"] = train_entry("sgam", train_on=DATA, raw=RAW, file="crops.h5")
    plan["embed"]["sgam-parse"] = embed_entry("sgam-parse", model="sgam", dataset=DATA, raw=RAW, file="crops.h5")

    source = {"dataset": DATA, "index": str(paths.index(DATA)), "raw": RAW, "source": str(paths.parser_weights("made"))}
    parts = str(paths.cache(DATA, "parts.h5"))
    crops = source | {"cache": DATA, "owner": "default", "parts": parts, "train_parts": parts,
                      "train_index": str(paths.index(DATA))}
    params |= {"caches": {DATA: PARSER}, "crops": {DATA: {"thresholds": [0.0] * 4, "scores": "normalised"}},
               "warps": {DATA: {"height": 32, "width": 16, "texels": 8, "alignment": "dsap"}}}
    plan |= {"parse": {DATA: source}, "parse_crops": {DATA: crops},
             "warp": {DATA: {"dataset": DATA, "index": source["index"], "raw": RAW, "parts": parts}}}
    return bare_experiment(params=params, plan=plan)


def write_parser(path: Path, *, seed: int) -> None:
    """A random LR-ASPP whose labels depend on the pixels."""
    torch.manual_seed(seed)
    table = torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))
    parser = build_parser(architecture="lraspp", taxonomy="densepose24", uv=True, height=32, width=32,
                          to_parts8=torch.eye(8)[:, table],
                          to_parts4=torch.eye(5)[:, torch.from_numpy(PARTS8_TO_PARTS4.astype(np.int64))[table]])
    with torch.no_grad():
        parser.head.classifier.weight.mul_(300)  # as drawn, every pixel has one label
    path.parent.mkdir(parents=True, exist_ok=True)
    save_parser(parser, path, made={"seed": seed})


def make_runs(folder: Path, *names: str) -> None:
    """Parse and warp the made-up set in `folder`, the working folder, and train those networks."""
    write_fake_set(folder / RAW, folder / paths.index(DATA), images=2)
    write_parser(paths.parser_weights("made"), seed=0)
    for stage in (parse, parse_crops, warp):
        stage.run(parsed_experiment(), DATA)
    for name in names:
        train.run(parsed_experiment(), name)
