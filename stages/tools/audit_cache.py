"""Audit of a cache before training on it: metrics as JSON, and the images that look wrongest as a contact sheet.

    python -m stages.tools.audit_cache synth-occluded --index data/index/synth-occluded.csv \\
        --images data/raw/synth-occluded --joints data/raw/synth-occluded/labels.h5 --reference synth-holistic

Nothing but the cache is needed. About 1 ms per row; --sample 2000 is enough for the metrics of a large set. Writes
scratch/audit/CACHE/audit.json and outliers.png, or under --out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes, write_json
from pipeline.base.images import fit, read_image
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.datasets.index import read_index
from pipeline.datasets.joints import read_joints
from pipeline.inspection.audit import metrics, outliers, survey
from pipeline.inspection.contact_sheets import Tile, sheet, side_colours
from pipeline.reporting.plots import part_colours
from stages import sentences


def run(arguments: argparse.Namespace) -> Path:
    """Write the JSON and the contact sheet; their folder."""
    name = arguments.cache.removesuffix(".h5").replace("/", "-").strip(".-")
    folder = arguments.out or paths.SCRATCH / "audit" / name
    for file in ("audit.json", "outliers.png"):
        writable(folder / file)
    cache = Cache(cache_path(arguments.cache))
    cache.require("labels")
    image_paths = _paths(arguments.index)
    joints = read_joints(arguments.joints).shares(image_paths) if arguments.joints else None
    other = Cache(cache_path(arguments.other)) if arguments.other else None
    seen = survey(cache, other=other, joints=joints, sample=arguments.sample)
    reference = survey(Cache(cache_path(arguments.reference)), sample=arguments.sample) if arguments.reference else None
    found = outliers(seen, reference, arguments.most)
    told = {"cache": arguments.cache, "maker": cache.maker, "sample": arguments.sample,
            **({"reference_cache": arguments.reference} if arguments.reference else {}),
            **({"other_cache": arguments.other} if arguments.other else {}), **metrics(seen, reference),
            "outliers": {title: [key for key, _ in part] for title, part in found}}

    write_json(folder / "audit.json", told)
    tiles = [(title, [_tile(cache, key, why, arguments.images, image_paths, sides=title.startswith("left and right"))
                      for key, why in part]) for title, part in found]
    write_bytes(folder / "outliers.png", sheet(tiles))
    print(summary(told))
    return folder


def cache_path(name: str) -> Path:
    """A cache file: its path, or a key of data/cache/."""
    return Path(name) if name.endswith(".h5") else paths.cache(name, "parts.h5")


def _paths(index: Path | None) -> dict[str, str]:
    if index is None:
        return {}
    frame = read_index(index)
    return dict(zip(frame["image"], frame["path"], strict=True))


def _tile(cache: Cache, key: str, why: str, images: Path | None, image_paths: dict[str, str], *, sides: bool) -> Tile:
    """An image's labels, or its limbs' sides, its picture to the left of them where it can be read."""
    row = int(cache.rows([key])[0])
    picture = side_colours(cache.read("native", row)) if sides else part_colours(cache.read("labels", row))
    if images is not None and key in image_paths:
        try:
            picture = np.concatenate([fit(read_image(images / image_paths[key]), *picture.shape[:2]), picture], 1)
        except InputError as error:
            print(error, file=sys.stderr)
    return Tile(picture, f"{Path(key).stem}\n{why}")


def summary(told: dict) -> str:
    """The metrics a reader looks at first, in lines."""
    lines = [f"{told['images']} images: {_percent(told['no_person'])} no person, {_percent(told['failed'])} failed"]
    for name, title in (("head_above_feet", "head above torso above feet"), ("left_right", "left and right in place")):
        lines.append(f"{title}: {_percent(told[name]['plausible'])} of {told[name]['judged']} that can be judged")
    lines.append("part        mean area  seen" + ("   reference  KS" if "reference" in told else ""))
    for part, area in told["areas"].items():
        known = told.get("reference", {}).get(part)
        lines.append(f"{part:<11} {_percent(area['mean']):>9} {_percent(area['seen']):>5}"
                     + (f"   {_percent(known['mean']):>9}  {known['ks']}" if known else ""))
    if "other" in told:
        lines.append(f"agreement with {told['other_cache']}: {_percent(told['other']['same_pixels'])} of pixels, "
                     f"mean IoU {told['other']['mean_iou']}")
    if "joints" in told:
        joints = told["joints"]["all"]
        lines.append(f"joints on their part: {_percent(joints['plausible'])} of {joints['judged']}")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", help="a parts.h5, or the key of a cache under data/cache/")
    parser.add_argument("--reference", help="a cache whose part areas are known to be right, likewise")
    parser.add_argument("--other", help="another parser's cache of the same images, likewise")
    parser.add_argument("--joints", type=Path, help="2-D joints (a rendered set's labels.h5); needs --index")
    parser.add_argument("--index", type=Path, help="the data set's index")
    parser.add_argument("--images", type=Path, help="its folder of images, to show them; needs --index")
    parser.add_argument("--out", type=Path, help="the folder to write to (scratch/audit/CACHE)")
    parser.add_argument("--sample", type=int, default=0, help="so many rows, spread evenly; 0 all (default)")
    parser.add_argument("--most", type=int, default=20, help="images of each kind on the sheet (default 20)")
    arguments = parser.parse_args()
    if (arguments.joints or arguments.images) and not arguments.index:
        parser.error("--joints and --images need --index")
    if arguments.sample < 0 or arguments.most < 1:
        parser.error("--sample is 0 or more, --most 1 or more")
    with sentences():
        print(f"-> {run(arguments)}")


if __name__ == "__main__":
    main()
