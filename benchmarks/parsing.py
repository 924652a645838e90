"""What the parsing engine costs over the bare network: python benchmarks/parsing.py [--images DIR] [--weights FILE]

Engine: images from disk, hashed, decoded, parsed, quantised, compressed, packed into parts.h5. Bare: the same batches,
already decoded in memory, through the same parser (`Parser.parse`) in the same process with the same threads, nothing
kept; and through the network alone (`Parser.forward`: logits at a quarter of the size, no probabilities). They take
turns and the medians are compared. Without --weights the network is random; without --images the pictures are noise
blocks. Takes about a minute.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from models.parsers import Parser, build_parser, load_parser
from pipeline.images import read_image, write_image
from pipeline.parsing import Job, parse_images
from pipeline.resizing import fit
from pipeline.taxonomy import DENSEPOSE24_TO_PARTS8, PARTS8_TO_PARTS4


def random_parser(height: int, width: int) -> Parser:
    parts8 = torch.eye(8)[:, torch.from_numpy(DENSEPOSE24_TO_PARTS8).long()]
    parts4 = torch.eye(5)[:, torch.from_numpy(PARTS8_TO_PARTS4[DENSEPOSE24_TO_PARTS8]).long()]
    parser = build_parser(architecture="lraspp", taxonomy="densepose24", uv=True, height=height, width=width,
                          to_parts8=parts8, to_parts4=parts4)
    return parser.to(memory_format=torch.channels_last).eval()


def random_images(folder: Path, count: int) -> list[str]:
    """Pictures whose JPEG size is that of photographs."""
    random = np.random.default_rng(0)
    for number in range(count):
        blocks = random.integers(0, 256, (16, 8, 3)).astype(np.float32)
        smooth = cv2.resize(blocks, (64, 128)) + random.normal(0, 6, (128, 64, 3))
        write_image(folder / f"{number:05d}.jpg", smooth.clip(0, 255).astype(np.uint8))
    return [f"{number:05d}.jpg" for number in range(count)]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(parser: Parser, folder: Path, names: list[str], *, batch: int, threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    job = Job(keys=names, paths=names, raw=folder, maker="{}", taxonomy=parser.taxonomy, uv=parser.uv,
              height=parser.height, width=parser.width, batch=batch, device="cpu")
    images = np.stack([fit(read_image(folder / name), parser.height, parser.width) for name in names])
    batches = list(torch.from_numpy(images).permute(0, 3, 1, 2).split(batch))
    bare: list[float] = []
    network: list[float] = []
    engine: list[float] = []

    def run_engine(scratch: Path) -> None:
        parse_images(job, lambda images, paths: parser.parse(images), scratch / "parts.h5", scratch=scratch / "units")

    def run_network() -> None:
        with torch.inference_mode():
            for images in batches:
                parser(images)

    parser.parse(batches[0])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            bare.append(seconds(lambda: [parser.parse(images) for images in batches]))
            network.append(seconds(run_network))
            engine.append(seconds(lambda: run_engine(Path(scratch))))  # noqa: B023 (called at once)
    rates = [len(names) / statistics.median(times) for times in (engine, bare, network)]
    print(f"{threads:7d} {batch:5d} {rates[0]:12.0f} {rates[1]:12.0f} {rates[2]:12.0f} {rates[0] / rates[1]:14.2f} "
          f"{rates[0] / rates[2]:16.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=Path, help="a folder of images to parse")
    arguments.add_argument("--weights", type=Path, help="a parser's weights.safetensors")
    arguments.add_argument("--count", type=int, default=960)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    parser = load_parser(given.weights) if given.weights else random_parser(128, 64)
    print("threads batch engine im/s   parse im/s network im/s  engine / parse  engine / network")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.images or Path(temporary)
        names = [path.name for path in sorted(folder.glob("*.jpg"))] or random_images(folder, given.count)
        names = names[:given.count // given.batch * given.batch]
        for threads in (1, 2):
            compare(parser, folder, names, batch=given.batch, threads=threads, rounds=given.rounds)


if __name__ == "__main__":
    main()
