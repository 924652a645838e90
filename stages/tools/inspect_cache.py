"""Cache inspection: what a cache holds, how it was made and whether it is sound:

    python -m stages.tools.inspect_cache data/cache/synth-occluded/parts.h5 --index data/index/synth-occluded.csv
    python -m stages.tools.inspect_cache data/cache/synth-occluded/parts.h5 --index data/index/synth-occluded.csv \\
        --images data/raw/synth-occluded --export maps --keys query/0121_c1s1_000001_00.jpg

With --images, the folder that the index's paths start from, the images' files are compared too, by their SHA-256.
Every row of a parts.h5, crops.h5 or dsap.h5 is read: about 2 ms each. Exit status 1 when a check fails, 2 when the file
cannot be inspected. With --export one PNG per row is drawn instead, its maps beside its image if --images is given, and
written into a folder as ROW-KEY.png: the rows of --keys, or --count of them spread evenly.
"""

import argparse
import sys
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes
from pipeline.base.images import crop_image
from pipeline.base.spread import evenly
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.inspection.contact_sheets import (
    Legend,
    Tile,
    framed,
    map_tiles,
    native_legend,
    part_legend,
    sheet,
    texel_tiles,
)
from pipeline.inspection.soundness import Inspection, inspect_cache
from stages import sentences
from stages.shared.cached_images import cached_image, image_files

NAME = 180  # bytes of a file's name that a key may take


def report(inspection: Inspection) -> str:
    """Facts, then each check with who broke it."""
    lines = list(inspection.facts)
    for check in inspection.checks:
        lines.append(f"FAILS {check.rule}: {check.wrong}" if check.wrong else f"ok    {check.rule}")
        lines += [f"      {example}" for example in check.examples]
    return "\n".join(lines)


def export(cache: Cache, keys: list[str], folder: Path, files: dict[str, Path] | None) -> None:
    """Draw each image's maps as a PNG in the folder, its image beside them if `files` are given.

    InputError: a key that the cache lacks, an image that is missing or is not the cache's; then nothing is written.
    """
    rows = [_row(cache, key) for key in keys]
    hashes = cache.column("image_sha256").tolist()
    for row in rows if files is not None else []:
        cached_image(cache, row, files or {}, hashes=hashes)  # all are looked at before the first one is drawn

    for key, row in zip(keys, rows, strict=True):
        tiles, legends = _tiles(cache, row)
        if files is not None:
            image = cached_image(cache, row, files, hashes=hashes)
            if "box" in cache:
                top, left, bottom, right = cache.column("box")[row].tolist()
                image = crop_image(image, (top, left, bottom, right))
            tiles = [Tile(framed(image), "image"), *tiles]
        status = f": {cache.column('status')[row]}" if "status" in cache else ""
        output = folder / f"{row:06d}-{_name(key)}.png"
        write_bytes(output, sheet([(f"{key}{status}", tiles)], columns=9, legends=legends))


def _row(cache: Cache, key: str) -> int:
    keys = cache.column("key").tolist()
    if key not in keys:
        raise InputError(f"{str(cache.path)!r}: holds no image {key!r}; a key is the index's `image`, such as "
                         f"{keys[:1]}")
    return keys.index(key)


def _name(key: str) -> str:
    """A key as part of a file's name; the row's number before it keeps two apart."""
    return key.replace("/", "+").encode()[-NAME:].decode(errors="ignore")


def _tiles(cache: Cache, row: int) -> tuple[list[Tile], dict[str, Legend]]:
    """A row's maps, and what their colours mean."""
    if "dsap" in cache:
        return texel_tiles(cache.read("dsap", row), cache.read("valid", row)), {}

    names = ["labels", "native", "entropy", "visibility", "probs/parts8", "probs/parts4"]
    maps = {name: cache.read(name, row) for name in [*names, *(["uv"] if "uv" in cache else [])]}
    taxonomy = cache.maker["taxonomy"]
    return map_tiles(maps, taxonomy), {"8 parts": part_legend(), taxonomy: native_legend(maps["native"], taxonomy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="a parts.h5, crops.h5 or dsap.h5")
    parser.add_argument("--index", type=Path, help="the index whose images it should hold")
    parser.add_argument("--images", type=Path, help="the folder of the images, with --index: are they the same still")
    parser.add_argument("--export", type=Path, metavar="DIR", help="draw maps into this folder, one PNG per row")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="with --export: the rows of these images")
    parser.add_argument("--count", type=int, default=20, help="with --export and no --keys: so many rows (default 20)")
    arguments = parser.parse_args()
    if arguments.keys and arguments.export is None:
        parser.error("--keys needs --export")
    if arguments.count < 1:
        parser.error("--count is 1 or more")
    if arguments.images and not arguments.index:
        parser.error("--images needs --index, which says where each image lies")

    with sentences():
        if arguments.export is not None:
            writable(arguments.export, folder=True)
        cache = Cache(arguments.cache)
        files = image_files(cache, arguments.index, arguments.images) if arguments.images else None
        if arguments.export is not None:
            keys = cache.column("key").tolist()
            export(cache, arguments.keys or [keys[row] for row in evenly(len(keys), arguments.count)],
                   arguments.export, files)
            return

        index = None if arguments.index is None else read_index(arguments.index)["image"].tolist()
        inspection = inspect_cache(arguments.cache, index, images=files)
        print(report(inspection))
    sys.exit(0 if inspection.sound else 1)


if __name__ == "__main__":
    main()
