"""How near are the pipeline's parsers to BodyPix on real crops, and at what cost? Prints Markdown.

    python -m benchmarks.real_parsers IMAGES --bodypix FILE --weights FILE [FILE ...] [--count 400]

IMAGES is a folder of crops of people, of which `--count` are taken, spread evenly. There is no truth for them: a parser
is compared with BodyPix on the pixels where BodyPix agrees with its mirror image's parse, mirrored back (128 x 64, of
the whole image). mIoU of the 8 parts is pooled over pixels; "of its own" is over what BodyPix and its mirror image
reach among themselves, on all pixels. Asked of the shipped parser: at least 0.95 of it. What BodyPix is sure of and
wrong about counts against a parser that is right.

Milliseconds are of one core per crop, from the image in memory to its labels and probabilities, BodyPix under
onnxruntime in the same run, all taking turns by batches of 20, the fastest of 3 rounds of each. About two minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.proportions import BATCH, bodypix, counts, labels_of, miou, own
from pipeline.base.images import read_image
from pipeline.parsing.engine import Forward

ROUNDS = 3


def milliseconds(forwards: dict[str, Forward], images: list[np.ndarray]) -> dict[str, float]:
    """Of one crop, the fastest of ROUNDS."""
    best = dict.fromkeys(forwards, float("inf"))
    for _ in range(ROUNDS):
        for name, forward in forwards.items():
            start = time.perf_counter()
            labels_of(forward, images, "keep")
            best[name] = min(best[name], (time.perf_counter() - start) * 1000 / len(images))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder of crops of people")
    parser.add_argument("--bodypix", type=Path, required=True, help="BodyPix's ONNX")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="of parsers that are trained here")
    parser.add_argument("--count", type=int, default=400, help="how many images are taken")
    given = parser.parse_args()

    torch.set_num_threads(1)
    files = sorted(path for path in given.images.rglob("*") if path.suffix in (".jpg", ".png"))
    if not files:
        parser.error(f"no .jpg or .png under {given.images}")
    chosen = np.unique(np.linspace(0, len(files) - 1, given.count).round().astype(int))
    images = [read_image(files[row]) for row in chosen]

    forwards = {"BodyPix": bodypix(given.bodypix)} | {str(path): own(path) for path in given.weights}
    labels = {name: labels_of(forward, images, "keep") for name, forward in forwards.items()}
    mirrored = labels_of(forwards["BodyPix"], [np.ascontiguousarray(image[:, ::-1]) for image in images], "keep")
    teacher, mirror = labels["BodyPix"], mirrored[:, :, ::-1]
    sure, itself = teacher == mirror, miou(counts(teacher, mirror))
    cost = milliseconds(forwards, images[:5 * BATCH])

    print(f"{len(images)} crops; BodyPix and its mirror image: mIoU {itself:.3f}, {sure.mean():.1%} of pixels alike\n")
    print("| parser | mIoU against BodyPix | of its own | pixels alike | body | ms a crop |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, own_labels in labels.items():
        against = miou(counts(own_labels[sure], teacher[sure]))
        said = ("", "", "") if name == "BodyPix" else (
            f"{against:.3f}", f"{against / itself:.3f}", f"{(own_labels == teacher)[sure].mean():.3f}")
        print(f"| `{name}` | {' | '.join(said)} | {(own_labels > 0).mean():.3f} | {cost[name]:.1f} |")


if __name__ == "__main__":
    main()
