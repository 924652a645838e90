"""What the parsing engine costs over the bare network: python benchmarks/parsing.py [--images DIR] [--weights FILE]

Engine: images from disk, hashed, decoded, parsed, quantised, compressed, packed into parts.h5. Bare: the same batches,
already decoded in memory, through the same parser (`parse`: labels, probabilities and u,v at the input's size) in the
same process with the same threads, nothing kept; and through the network alone (`network`: logits at a quarter of the
size). `parse` makes the 5 parts' probabilities too, where the engine sums the pooled ones of the 8. They take turns and
the medians are compared, by the clock on the wall and by the processor time of all threads. On a busy machine only the
latter means anything; with several threads it counts their waiting for each other too. Without --weights the network is
random; without --images the pictures are made up. Target: engine / parse >= 0.85. Takes about a minute.
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

from models.parsers.torchvision_parsers import Parser, build_parser, load_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8_TO_PARTS4
from pipeline.base.images import fit, read_image, write_image
from pipeline.parsing.engine import Job, parse_images
from stages.shared.cache_parsers import network_forward


def random_parser(height: int, width: int) -> Parser:
    parts8 = torch.eye(8)[:, torch.tensor(DENSEPOSE24_TO_PARTS8).long()]
    parts4 = torch.eye(5)[:, torch.tensor(PARTS8_TO_PARTS4[DENSEPOSE24_TO_PARTS8]).long()]
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


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(parser: Parser, folder: Path, names: list[str], *, batch: int, threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    job = Job(keys=names, paths=names, raw=folder, maker="{}", taxonomy=parser.taxonomy, uv=parser.uv,
              height=parser.height, width=parser.width, batch=batch, device="cpu")
    images = np.stack([fit(read_image(folder / name), parser.height, parser.width) for name in names])
    batches = list(torch.from_numpy(images).permute(0, 3, 1, 2).split(batch))
    times: dict[str, list[tuple[float, float]]] = {"engine": [], "parse": [], "network": []}

    def run_engine(scratch: Path) -> None:
        forward = network_forward(parser)
        parse_images(job, forward, scratch / "parts.h5", scratch=scratch / "units")

    def run_network() -> None:
        with torch.inference_mode():
            for images in batches:
                parser(images)

    parser.parse(batches[0])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            times["parse"].append(seconds(lambda: [parser.parse(images) for images in batches]))
            times["network"].append(seconds(run_network))
            times["engine"].append(seconds(lambda: run_engine(Path(scratch))))  # noqa: B023 (called at once)
    for place, clock in enumerate(("wall", "processor")):
        engine, parse, network = (len(names) / statistics.median(taken[place] for taken in times[name])
                                  for name in ("engine", "parse", "network"))
        print(f"{threads:7d} {batch:5d} {clock:>9} {engine:10.0f} {parse:9.0f} {network:11.0f} {engine / parse:15.2f} "
              f"{engine / network:17.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=Path, help="a folder of images to parse")
    arguments.add_argument("--weights", type=Path, help="a parser's weights.safetensors")
    arguments.add_argument("--count", type=int, default=960)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    parser = load_parser(given.weights) if given.weights else random_parser(128, 64)
    print("threads batch     clock engine/s   parse/s   network/s  engine / parse  engine / network")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.images or Path(temporary)
        names = [path.name for path in sorted(folder.glob("*.jpg"))]
        if given.images and len(names) < given.batch:
            raise SystemExit(f"{str(folder)!r}: has {len(names)} .jpg files, and a batch is {given.batch}; name a "
                             "folder of more")
        names = names or random_images(folder, given.count)
        names = names[:given.count // given.batch * given.batch]
        for threads in (1, 2):
            compare(parser, folder, names, batch=given.batch, threads=threads, rounds=given.rounds)


if __name__ == "__main__":
    main()
