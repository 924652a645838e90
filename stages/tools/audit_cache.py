"""Audit of a cache before training on it: does it look like a good parse? Metrics as JSON, and two contact sheets:

    python -m stages.tools.audit_cache synth-occluded --index data/index/synth-occluded.csv \\
        --images data/raw/synth-occluded --joints data/raw/synth-occluded/labels.h5 --people occluded

Nothing but the cache is needed. About 1.5 ms per row; --sample 2000 is enough for the metrics of a large set. Writes
scratch/audit/CACHE/audit.json, outliers.png and random.png, or under --out.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes, write_json
from pipeline.base.images import image_size
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.datasets.index import read_index
from pipeline.datasets.joints import read_joints
from pipeline.inspection.audit import metrics, outliers, random_keys, survey
from pipeline.inspection.contact_sheets import Tile, beside, part_legend, sheet, side_colours, side_legend
from pipeline.inspection.missing_parts import FAULTS, PEOPLE, PERSON, proportion_classes
from pipeline.reporting.plots import part_colours
from stages import sentences
from stages.shared.cached_images import cached_image, image_files

SHORT = {"no_person": "person", "hardly_person": "body", "no_head": "head", "no_torso": "torso", "no_arms": "arms",
         "no_legs": "legs", "no_feet": "feet", "not_upright": "order", "sides_exchanged": "sides"}  # heads of columns


def run(arguments: argparse.Namespace) -> Path:
    """Write the JSON and the contact sheets; their folder."""
    name = arguments.cache.removesuffix(".h5").replace("/", "-").strip(".-")
    folder = arguments.out or paths.SCRATCH / "audit" / name
    for file in ("audit.json", "outliers.png", "random.png"):
        writable(folder / file)

    cache = Cache(cache_path(arguments.cache))
    cache.require("labels")
    files = image_files(cache, arguments.index, arguments.images) if arguments.images else {}
    index = own_index(cache, arguments.index) if arguments.index else None
    joints = own_joints(cache, arguments.joints, index) if arguments.joints and index is not None else None
    other = Cache(cache_path(arguments.other)) if arguments.other else None

    seen = survey(cache, other=other, joints=joints, sample=arguments.sample)
    reference = survey(Cache(cache_path(arguments.reference)), sample=arguments.sample) if arguments.reference else None
    groups = {"by_proportions": proportion_classes(proportions(seen.keys, files))} if files else {}
    if index is not None and index["split"].nunique() > 1:
        groups["by_split"] = by_split(seen.keys, dict(zip(index["image"], index["split"], strict=True)))

    found, drawn = outliers(seen, reference, arguments.most), random_keys(seen, arguments.random)
    told = {"cache": arguments.cache, "maker": cache.maker, "sample": arguments.sample,
            **({"reference_cache": arguments.reference} if arguments.reference else {}),
            **({"other_cache": arguments.other} if arguments.other else {}),
            **metrics(seen, reference, people=arguments.people, groups=groups),
            "outliers": {title: [key for key, _ in part] for title, part in found}, "random": drawn}

    write_json(folder / "audit.json", told)
    pictures = shown_images(cache, {key for _, part in found for key, _ in part} | set(drawn), files)
    legends = {"parts": part_legend(), "left and right exchanged": side_legend()}
    sections = [(title, [tile(cache, key, why, pictures, sides=title.startswith(FAULTS["sides_exchanged"]))
                         for key, why in part]) for title, part in found]
    write_bytes(folder / "outliers.png", sheet(sections, legends=legends))
    tiles = [tile(cache, key, str(number), pictures) for number, key in enumerate(drawn, start=1)]
    write_bytes(folder / "random.png", sheet([(f"drawn at random ({len(tiles)} of {len(seen.keys)})", tiles)],
                                             columns=8, legends={"parts": part_legend()}))
    print(summary(told))
    return folder


def cache_path(name: str) -> Path:
    """A cache file: its path, or a key of data/cache/."""
    return Path(name) if name.endswith(".h5") else paths.cache(name, "parts.h5")


def own_index(cache: Cache, path: Path) -> pd.DataFrame:
    """The index. InputError if it has none of the cache's images."""
    index = read_index(path)
    names, keys = index["image"].tolist(), cache.column("key").tolist()
    if not set(names) & set(keys):
        first = f"has {names[0]!r}, not {keys[0]!r}" if names and keys else "one of them is empty"
        raise InputError(f"{str(path)!r}: shares no image with {str(cache.path)!r} ({first}); name the index that the "
                         "cache was made from")
    return index


def own_joints(cache: Cache, path: Path, index: pd.DataFrame) -> dict[str, np.ndarray]:
    """By key the joints that are known of the index's images. InputError if there are none of the cache's."""
    joints = read_joints(path)
    shares = joints.shares(dict(zip(index["image"], index["path"], strict=True)))
    if not shares.keys() & set(cache.column("key")):
        first = f"has {joints.names[0]!r}, not {index['path'][0]!r}" if joints.names else "is empty"
        raise InputError(f"{str(path)!r}: has joints of no image of {str(cache.path)!r} ({first}); name the joints of "
                         "this data set")
    return shares


def proportions(keys: list[str], files: dict[str, Path]) -> np.ndarray:
    """Height / width of each image's file (N,), nan where it cannot be read: the cache's rows say why."""
    result = np.full(len(keys), np.nan)
    for place, key in enumerate(keys):
        try:
            height, width = image_size(files[key])
            result[place] = height / width
        except (InputError, KeyError):
            continue
    return result


def by_split(keys: list[str], splits: dict[str, str]) -> dict[str, np.ndarray]:
    """By split the images (N,) bool that are in it."""
    each = np.array([splits.get(key, "in no split") for key in keys])
    return {name: each == name for name in sorted(set(each.tolist()))}


def shown_images(cache: Cache, keys: set[str], files: dict[str, Path]) -> dict[str, np.ndarray]:
    """The images to be shown beside their parses. What cannot be is said in one line; InputError if that is all."""
    if not files:
        return {}

    shown: dict[str, np.ndarray] = {}
    odd: list[InputError] = []
    hashes = cache.column("image_sha256").tolist()
    ordered = sorted(keys)
    for key, row in zip(ordered, cache.rows(ordered).tolist(), strict=True):
        try:
            shown[key] = cached_image(cache, row, files, hashes=hashes)
        except InputError as error:
            odd.append(error)

    if odd and not shown:
        raise odd[0]
    if odd:
        print(f"{odd[0]}; {len(odd)} of {len(keys)} parses are shown without their image", file=sys.stderr)
    return shown


def tile(cache: Cache, key: str, why: str, pictures: dict[str, np.ndarray], *, sides: bool = False) -> Tile:
    """An image's labels, or its limbs' sides, its picture to the left of them where it is known; its key below."""
    row = int(cache.rows([key])[0])
    drawn = side_colours(cache.read("native", row)) if sides else part_colours(cache.read("labels", row))
    return Tile(beside(pictures[key], drawn) if key in pictures else drawn, f"{why}\n{key}")


def summary(told: dict[str, Any]) -> str:
    """The metrics a reader looks at first, in lines."""
    images = told["images"]
    lines = [f"{images} images: {_percent(told['no_person'])} no person, {_percent(told['failed'])} failed"]
    for name, title in (("head_above_feet", "head above torso above feet"), ("left_right", "left and right in place")):
        judged = told[name]["judged"]
        lines.append(f"{title}: {_percent(told[name]['plausible'])} of the {judged} of {images} that can be judged")

    lines += ["", *_missing(told), ""]
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

    return "\n".join([*lines, "", f"verdict: {told['verdict']}"])


def _missing(told: dict[str, Any]) -> list[str]:
    """The table of who lacks what: all images, a good parse, and each class of height / width and split; what counts
    as lacking."""
    rows = [("all", told["images"], told["faults"]),
            (f"good parse, {told['people']} people", told["good_parse"]["no_person"]["judged"], told["good_parse"])]
    rows += [(f"height / width {name}", group["images"], group["faults"])
             for name, group in told.get("by_proportions", {}).items()]
    rows += [(f"split {name}", group["images"], group["faults"]) for name, group in told.get("by_split", {}).items()]

    lines = ["share of images without".ljust(28) + "images" + "".join(f"{SHORT[name]:>8}" for name in FAULTS)]
    lines += [f"{title:<28}{count:>6}" + "".join(f"{_percent(faults[name]['share']):>8}" for name in FAULTS)
              for title, count, faults in rows]

    least = dict(told["least"])
    parts = ", ".join(f"{group} {share:.1%}" for group, share in least.items() if group != PERSON and share)
    return [*lines, f"body: less than {least[PERSON]:.1%} of the frame; of the person's pixels less than: {parts}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", help="a parts.h5, or the key of a cache under data/cache/")
    parser.add_argument("--people", choices=PEOPLE, default="whole",
                        help="what the images show: a good parse of such people is compared with (default whole)")
    parser.add_argument("--reference", help="a cache whose part areas are known to be right, likewise")
    parser.add_argument("--other", help="another parser's cache of the same images, likewise")
    parser.add_argument("--joints", type=Path, help="2-D joints (a rendered set's labels.h5); needs --index")
    parser.add_argument("--index", type=Path, help="the data set's index")
    parser.add_argument("--images", type=Path, help="its folder of images, to show them and read their sizes; needs "
                        "--index")
    parser.add_argument("--out", type=Path, help="the folder to write to (scratch/audit/CACHE)")
    parser.add_argument("--sample", type=int, default=0, help="so many rows, spread evenly; 0 all (default)")
    parser.add_argument("--most", type=int, default=20, help="images of each kind among the outliers (default 20)")
    parser.add_argument("--random", type=int, default=40, help="images on the sheet of random ones (default 40)")
    arguments = parser.parse_args()
    if (arguments.joints or arguments.images) and not arguments.index:
        parser.error("--joints and --images need --index")
    if arguments.sample < 0 or arguments.most < 1 or arguments.random < 1:
        parser.error("--sample is 0 or more, --most and --random 1 or more")
    with sentences():
        print(f"-> {run(arguments)}")


if __name__ == "__main__":
    main()
