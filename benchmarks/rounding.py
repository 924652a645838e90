"""What the caches' rounding changes and saves: python -m benchmarks.rounding --images DIR --weights FILE [--count 1600]

Probabilities and entropy as parts.h5 keeps them, in steps of 5/255, and in steps of 1/255 each by itself, against those
that the parser gave; beside them what the same parser says of the mirror image, put back, which is its own noise (none
of the 8 parts has a side). Then the bytes of each array in the cache. `--count` images, evenly spaced over the folder.
A minute for 1,600 crops on two cores.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from models.parsers.torchvision_parsers import Parser, load_parser
from pipeline.base.body_parts import PARTS4, PARTS8, PARTS8_TO_PARTS4
from pipeline.base.images import fit, read_image
from pipeline.caches.parts_layout import CELL
from pipeline.parsing.engine import Job, parse_images, quantise
from stages.shared.cache_parsers import network_forward

Maps = dict[str, np.ndarray]  # parts8 (N, 8, h, w), parts4 (N, 5, h, w), entropy (N, h, w) in [0, 1]
GROUPS = torch.from_numpy(np.arange(len(PARTS4))[:, None] == PARTS8_TO_PARTS4).double()  # (5, 8): 1 where it belongs


def given(parser: Parser, images: Tensor) -> tuple[Maps, Maps]:
    """(N, 3, H, W) uint8 -> the cells' maps as the parser gave them, in double precision, and as parts.h5 has them."""
    output = parser.parse(images)
    parts8 = torch.nn.functional.avg_pool2d(output["parts8"].double(), CELL)  # (N, 8, H, W) -> (N, 8, h, w)
    entropy = torch.special.entr(parts8).sum(1) / np.log(len(PARTS8))
    exact = {"parts8": parts8, "parts4": torch.einsum("kp,nphw->nkhw", GROUPS, parts8), "entropy": entropy}

    kept = quantise(output)
    return ({name: maps.numpy() for name, maps in exact.items()},
            {name: kept[stored] / 255 for name, stored in
             (("parts8", "probs/parts8"), ("parts4", "probs/parts4"), ("entropy", "entropy"))})


def mirrored(maps: Maps) -> Maps:
    return {name: values[..., ::-1] for name, values in maps.items()}


def together(maps: list[Maps]) -> Maps:
    return {name: np.concatenate([each[name] for each in maps]) for name in maps[0]}


def changes(exact: Maps, other: Maps) -> list[str]:
    """A column of the table."""
    s, t = (maps["parts4"][:, 1:].mean((2, 3)) for maps in (exact, other))  # (N, 4)
    sides = (s > np.median(s, 0)) != (t > np.median(t, 0))
    likeliest = exact["parts4"].argmax(1) != other["parts4"].argmax(1)
    return [*(f"{255 * np.abs(exact[name] - other[name]).mean():.2f}" for name in ("parts8", "parts4", "entropy")),
            f"{np.abs(s - t).mean():.4f}", f"{100 * sides.mean():.1f} %", f"{100 * likeliest.mean():.2f} %"]


def print_sizes(parser: Parser, folder: Path, names: list[str]) -> None:
    job = Job(keys=names, paths=names, raw=folder, maker="{}", taxonomy=parser.taxonomy, uv=parser.uv,
              height=parser.height, width=parser.width, batch=16, device="cpu")
    print("\n| array | plain, bytes an image | stored | of plain |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "parts.h5"
        parse_images(job, network_forward(parser), file, scratch=Path(scratch) / "units")
        with h5py.File(file) as parts:
            for name in ("labels", "probs/parts8", "probs/parts4", "entropy", "native", "uv"):
                if name in parts:
                    plain, stored = (size / len(names)
                                     for size in (parts[name].nbytes, parts[name].id.get_storage_size()))
                    print(f"| `{name}` | {plain:,.0f} | {stored:,.0f} | {100 * stored / plain:.1f} % |")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=Path, required=True, help="a folder of .jpg crops")
    arguments.add_argument("--weights", type=Path, required=True, help="a parser's weights.safetensors")
    arguments.add_argument("--count", type=int, default=1600)
    options = arguments.parse_args()

    parser = load_parser(options.weights)
    paths = sorted(options.images.glob("*.jpg"))
    names = [path.name for path in paths[::max(1, len(paths) // options.count)]][:options.count]

    columns: dict[str, list[Maps]] = {"exact": [], "steps of 5": [], "mirror": []}
    for first in range(0, len(names), 16):
        read = [fit(read_image(options.images / name), parser.height, parser.width) for name in names[first:first + 16]]
        images = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)  # (16, H, W, 3) -> (16, 3, H, W)
        exact, kept = given(parser, images)
        mirror, _ = given(parser, images.flip(3))
        for name, maps in zip(columns, (exact, kept, mirrored(mirror)), strict=True):
            columns[name].append(maps)

    exact, kept, mirror = (together(maps) for maps in columns.values())
    single = {name: np.rint(255 * maps) / 255 for name, maps in exact.items()}
    rows = ("a probability of the 8", "a probability of the 5", "entropy", "a region's mean over the image, S of SGAM",
            "images on another side of the median of S", "cells whose likeliest of the 5 is another")
    print(f"{len(names)} images\n\n| mean change, of 255 in the first three rows | steps of 1 | steps of 5 |"
          " mirror image |\n|---|---:|---:|---:|")
    for row, *cells in zip(rows, *(changes(exact, maps) for maps in (single, kept, mirror)), strict=True):
        print(f"| {row} | {' | '.join(cells)} |")

    print_sizes(parser, options.images, names)


if __name__ == "__main__":
    main()
