"""How fast people are rendered: python -m benchmarks.renderer [--height 128 --width 64 --processes 2 --pictures 600]

Renders a part of an occluded set (occluders, JPEG files and labels.h5 included) into a temporary folder and prints
pictures per second, process start left out and included. About 10 s on two cores at 128 x 64.
With `--sheet FILE` it draws a contact sheet instead: pictures above their parts and their LIP classes.
"""

import argparse
import colorsys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.renderer.dataset import Plan, render_dataset, render_shot, shots

PLAN = Plan(key="benchmark", kind="occluded", seed=0, height=128, width=64, train_ids=40, train_images=10, test_ids=20,
            query_images=2, gallery_images=8)


def measure(plan: Plan, processes: int) -> tuple[int, float]:
    """Pictures rendered and seconds taken."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        count = render_dataset(plan, Path(folder) / "set", processes)
        return count, time.perf_counter() - start


def sheet(path: Path, columns: int = 11) -> None:
    """Draw people of a holistic set; occluded queries, their parts and their LIP classes."""
    colours = [colorsys.hsv_to_rgb(i * .381 % 1, .55 + .4 * (i % 2), 1) for i in range(1, 25)]
    palette = (np.array([(.1, .1, .1), *colours]) * 255).astype(np.uint8)
    plan = replace(PLAN, key="sheet", train_ids=columns, train_images=1, test_ids=columns, query_images=1,
                   gallery_images=1)
    rows = []
    for kind, folder in (("holistic", "bounding_box_test"), ("occluded", "query")):
        plan = replace(plan, key=f"sheet-{kind}", kind=kind)
        pictures = [render_shot(plan, shot) for shot in shots(plan) if shot.path.startswith(folder)]
        rows.append(np.hstack([picture.image for picture in pictures]))
    rows += [palette[np.hstack([getattr(picture, name) for picture in pictures])] for name in ("index", "lip")]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    if arguments.sheet:
        sheet(arguments.sheet)
        return
    plan = replace(PLAN, height=arguments.height, width=arguments.width, train_ids=max(1, arguments.pictures // 15),
                   test_ids=max(1, arguments.pictures // 30))
    few = replace(plan, train_ids=1, test_ids=1)
    start_count, start_seconds = measure(few, arguments.processes)
    count, seconds = measure(plan, arguments.processes)
    net = (count - start_count) / max(seconds - start_seconds, 1e-9)
    print(f"{arguments.height} x {arguments.width}, {arguments.processes} processes: {count} pictures in "
          f"{seconds:.1f} s, {count / seconds:.0f} /s; without process start {net:.0f} /s")


if __name__ == "__main__":
    main()
