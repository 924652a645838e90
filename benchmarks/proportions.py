"""Does a parser agree with itself? python -m benchmarks.proportions IMAGES [--weights FILE] [--bodypix FILE] [--inputs]

IMAGES are folders of images of people, of which 240 are taken, spread evenly. Each is parsed, and so is its mirror
image, whose labels are mirrored back: mIoU of the 8 parts between the two, pooled over all pixels of the maps (128 x
64, of the whole image), for `fit: stretch` and `fit: keep`, by classes of height / width. A parser that understands
what it sees agrees; that both are wrong alike it does not notice. `--inputs` does it for BodyPix's input sizes and
borders instead. One thread; half a minute of processor time, two where the machine is busy.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.parsers.bodypix import load_bodypix
from models.parsers.torchvision_parsers import load_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.base.images import fit, read_image
from pipeline.parsing.engine import Forward
from pipeline.parsing.letterbox import letterbox, on_whole_images

HEIGHT, WIDTH, BATCH, COUNT = 128, 64, 20, 240
CLASSES = ((0, 1), (1, 1.5), (1.5, 2.5), (2.5, 100))  # of height / width
INPUTS = ((193, 0.1), (257, 0.0), (257, 0.05), (257, 0.1), (257, 0.2), (321, 0.1), (385, 0.1))


def labels_of(forward: Forward, images: Sequence[np.ndarray], how: str) -> np.ndarray:
    """(B, H, W) labels of the 8 parts on the whole images, as the engine makes them."""
    rows = []
    for start in range(0, len(images), BATCH):
        seen, places = zip(*(letterbox(image, HEIGHT, WIDTH) if how == "keep" else
                             (fit(image, HEIGHT, WIDTH), (0, 0, HEIGHT, WIDTH))
                             for image in images[start:start + BATCH]), strict=True)
        output = forward(torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2), [""] * len(seen))
        rows.append(DENSEPOSE24_TO_PARTS8[on_whole_images(output, places)["native"].numpy()])
    return np.concatenate(rows)


def counts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(8, 8) pixels by the label in `one` and in `other`."""
    pairs = one.astype(np.int64).ravel() * len(PARTS8) + other.ravel()
    return np.bincount(pairs, minlength=len(PARTS8) ** 2).reshape(len(PARTS8), -1)


def miou(table: np.ndarray) -> float:
    """Mean IoU of what `counts` gives; a label that neither has does not count.

    >>> miou(np.array([[3, 1], [0, 0]])), miou(np.diag([5, 2]))
    (0.375, 1.0)
    """
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal()[union > 0] / union[union > 0]).mean())


def agreement(forward: Forward, images: Sequence[np.ndarray], how: str) -> tuple[list[np.ndarray], list[float]]:
    """Each image's `counts` between its labels and its mirror image's, and its share of body."""
    labels = labels_of(forward, images, how)
    mirrored = labels_of(forward, [np.ascontiguousarray(image[:, ::-1]) for image in images], how)[:, :, ::-1]
    return ([counts(one, other) for one, other in zip(labels, mirrored, strict=True)],
            [(one > 0).mean() for one in labels])


def bodypix(path: Path, side: int = 257, border: float = 0.1) -> Forward:
    to_parts8 = torch.eye(len(PARTS8))[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))]
    parser = load_bodypix(path, to_parts8=to_parts8, height=HEIGHT, width=WIDTH, side=side, border=border)
    return lambda images, paths: parser.parse(images)


def own(path: Path) -> Forward:
    parser = load_parser(path)
    if (parser.height, parser.width, parser.taxonomy) != (HEIGHT, WIDTH, "densepose24"):
        raise SystemExit(f"{str(path)!r}: is a parser of {parser.taxonomy} at {parser.height}x{parser.width}; name one "
                         f"of densepose24 at {HEIGHT}x{WIDTH}")
    return lambda images, paths: parser.parse(images, parts4=False)


def show_classes(forwards: dict[str, Forward], images: Sequence[np.ndarray]) -> None:
    ratios = np.array([image.shape[0] / image.shape[1] for image in images])
    members = {f"{low} to {high}": (ratios >= low) & (ratios < high) for low, high in CLASSES} | {"all": ratios > 0}
    members = {name: rows for name, rows in members.items() if rows.any()}
    print("| parser, fit | " + " | ".join(f"{name} ({rows.sum()})" for name, rows in members.items()) + " |")
    print("|---|" + "---:|" * len(members))
    for parser, forward in forwards.items():
        for how in ("stretch", "keep"):
            tables, _ = agreement(forward, images, how)
            scores = [miou(np.sum([tables[row] for row in np.flatnonzero(rows)], 0)) for rows in members.values()]
            print(f"| {parser}, {how} | " + " | ".join(f"{score:.3f}" for score in scores) + " |", flush=True)


def show_inputs(path: Path, images: Sequence[np.ndarray]) -> None:
    print("| side, border | mIoU | body |\n|---|---:|---:|")
    for side, border in INPUTS:
        tables, body = agreement(bodypix(path, side, border), images, "keep")
        print(f"| {side}, {border} | {miou(np.sum(tables, 0)):.3f} | {np.mean(body):.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", help="folders of images of people")
    parser.add_argument("--weights", type=Path, help="of a parser that is trained here")
    parser.add_argument("--bodypix", type=Path, help="BodyPix's ONNX")
    parser.add_argument("--count", type=int, default=COUNT, help="how many images are taken")
    parser.add_argument("--inputs", action="store_true", help="BodyPix's input sizes and borders instead")
    arguments = parser.parse_args()
    forwards = {name: make(path) for name, make, path in (("lraspp", own, arguments.weights),
                                                          ("bodypix", bodypix, arguments.bodypix)) if path}
    if not forwards or (arguments.inputs and not arguments.bodypix):
        parser.error("name --weights or --bodypix, and the latter for --inputs")

    torch.set_num_threads(1)
    names = sorted(path for folder in arguments.images for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    if not names:
        parser.error(f"no .jpg or .png under {', '.join(map(str, arguments.images))}")
    chosen = np.unique(np.linspace(0, len(names) - 1, arguments.count).round().astype(int))
    images = [read_image(names[row]) for row in chosen]
    if arguments.inputs:
        show_inputs(arguments.bodypix, images)
    else:
        show_classes(forwards, images)


if __name__ == "__main__":
    main()
