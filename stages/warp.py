"""Warp a data set's images to DSAP images, data/cache/<key>/dsap.h5: python -m stages.warp default-synth-occluded

Stopped, it goes on where it was; `torchrun` shares it as it does stages.parse.
"""

import json
import os
from pathlib import Path

from pipeline.caches import FORMAT, Cache
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.params import Params, pick
from pipeline.warping import warp_images
from stages import main


def run(params: Params, key: str) -> None:
    given = pick(params.warps, key, "warps")
    folder = Path("data/cache")
    index = read_index(Path("data/index") / f"{given.dataset}.csv")
    parts = Cache(folder / given.parts / "parts.h5")
    maker = {"parts": parts.maker, "parts_sha256": file_sha256(parts.path), "height": given.height,
             "width": given.width, "texels": given.texels, "format": FORMAT}
    if given.alignment != "dsap":
        maker["alignment"] = given.alignment
    warp_images(parts, index["image"].tolist(), index["path"].tolist(), Path(given.images), folder / key / "dsap.h5",
                maker=json.dumps(maker, sort_keys=True), height=given.height, width=given.width, texels=given.texels,
                alignment=given.alignment, scratch=Path("scratch") / f"warp-{key}", rank=int(os.environ.get("RANK", 0)),
                world=int(os.environ.get("WORLD_SIZE", 1)))


if __name__ == "__main__":
    main(run)
