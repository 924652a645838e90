"""DSAP images of a data set, data/cache/KEY/dsap.h5: python -m stages.warp synth-occluded

Stopped, it goes on where it was; `torchrun` shares it as it does stages.parse.
"""

import json
import os
from pathlib import Path

from pipeline.base.code import code_sha256
from pipeline.base.files import file_sha256, writable
from pipeline.caches.cache import FORMAT, Cache
from pipeline.caches.warp import warp_images
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from stages import main

CODE = ("pipeline/base", "pipeline/caches", "stages/warp.py")


def run(experiment: Experiment, key: str) -> None:
    settings, plan = pick(experiment.params.warps, key, "warps"), pick(experiment.plan.warp, key, "plan.warp")
    target, scratch = paths.cache(key, "dsap.h5"), paths.SCRATCH / f"warp-{key}"
    for path in (target, scratch / "units"):
        writable(path)
    index, parts = read_index(plan.index), Cache(plan.parts)
    maker = {"parts": parts.maker, "parts_sha256": file_sha256(parts.path), "height": settings.height,
             "width": settings.width, "texels": settings.texels, "format": FORMAT}
    if settings.alignment != "dsap":
        maker["alignment"] = settings.alignment

    warp_images(parts, index["image"].tolist(), index["path"].tolist(), Path(plan.raw), target,
                maker=json.dumps(maker, sort_keys=True), height=settings.height, width=settings.width,
                texels=settings.texels, alignment=settings.alignment, scratch=scratch, code=code_sha256(*CODE),
                rank=int(os.environ.get("RANK", 0)), world=int(os.environ.get("WORLD_SIZE", 1)))


if __name__ == "__main__":
    main(run)
