"""Cache inspection: what a cache holds, how it was made and whether it is sound:

    python -m stages.tools.inspect_cache data/cache/synth-occluded/parts.h5 --index data/index/synth-occluded.csv
    python -m stages.tools.inspect_cache data/cache/synth-occluded/parts.h5 --export KEY --out maps.png

With --images, the folder that the index's paths start from, the images' files are compared too, by their SHA-256.
Every row of a parts.h5, crops.h5 or dsap.h5 is read: about 2 ms each. Exit status 1 when a check fails, 2 when the file
cannot be inspected. With --export one image's maps are drawn instead.
"""

import argparse
import sys
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.inspection.contact_sheets import map_tiles, sheet, texel_tiles
from pipeline.inspection.soundness import Inspection, inspect_cache
from stages import sentences


def report(inspection: Inspection) -> str:
    """Facts, then each check with who broke it."""
    lines = list(inspection.facts)
    for check in inspection.checks:
        lines.append(f"FAILS {check.rule}: {check.wrong}" if check.wrong else f"ok    {check.rule}")
        lines += [f"      {example}" for example in check.examples]
    return "\n".join(lines)


def export(path: Path, key: str, out: Path) -> None:
    """Draw one image's maps as a PNG. InputError names the file and the key where there is none."""
    writable(out)
    cache = Cache(path)
    keys = cache.column("key").tolist()
    if key not in keys:
        raise InputError(f"{str(path)!r}: holds no image {key!r}; a key is the index's `image`, such as {keys[:1]}")
    row = keys.index(key)
    if "dsap" in cache:
        tiles, title = texel_tiles(cache.read("dsap", row), cache.read("valid", row)), key
    else:
        names = ["labels", "native", "entropy", "visibility", "probs/parts8", "probs/parts4"]
        maps = {name: cache.read(name, row) for name in [*names, *(["uv"] if "uv" in cache else [])]}
        tiles, title = map_tiles(maps, cache.maker["taxonomy"]), f"{key}: {cache.column('status')[row]}"
    write_bytes(out, sheet([(title, tiles)], columns=9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="a parts.h5, crops.h5 or dsap.h5")
    parser.add_argument("--index", type=Path, help="the index whose images it should hold")
    parser.add_argument("--images", type=Path, help="the folder of the images, with --index: are they the same still")
    parser.add_argument("--export", metavar="KEY", help="draw this image's maps")
    parser.add_argument("--out", type=Path, help="the picture to write, with --export (PNG)")
    arguments = parser.parse_args()
    if (arguments.export is None) != (arguments.out is None):
        parser.error("--export and --out go together")
    if arguments.images and not arguments.index:
        parser.error("--images needs --index, which says where each image lies")
    with sentences():
        if arguments.export is not None:
            export(arguments.cache, arguments.export, arguments.out)
            return
        index = read_index(arguments.index) if arguments.index else None
        keys = None if index is None else index["image"].tolist()
        files = None if index is None or arguments.images is None else {
            key: arguments.images / path for key, path in zip(index["image"], index["path"], strict=True)}
        inspection = inspect_cache(arguments.cache, keys, images=files)
        print(report(inspection))
    sys.exit(0 if inspection.sound else 1)


if __name__ == "__main__":
    main()
