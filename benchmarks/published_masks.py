"""How near published formats come to exact parts: python -m benchmarks.published_masks [--people 200]

Rendered people's own joints, which are exact, are written as KPR's key points, and as 36 fields of 17x9 cells as
BPBreID's are; both are read by `precomputed` and compared with the renderer's labels. IoU of the 8 parts, over all
pixels. What an estimator gets wrong comes on top.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.base.images import write_image
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.parsing.joints_file import FROM_COCO17
from pipeline.parsing.keypoint_fields import draw_fields
from pipeline.parsing.precomputed import Precomputed
from pipeline.renderer.person import draw_person
from pipeline.renderer.picture import Picture, Wish, render_picture
from pipeline.renderer.scene import draw_look

HEIGHT, WIDTH = 128, 64
STRIDE = 8  # of OpenPifPaf's fields


def render(number: int, hidden: bool) -> Picture:
    wish = Wish(hidden=(0.1, 0.5) if hidden else None, style="test", crop="box", fault=0.0)
    return render_picture(draw_person(rng(9, "person", number)), draw_look(rng(9, "look", number)), wish,
                          rng(9, "picture", number), HEIGHT, WIDTH)


def coco17(joints: np.ndarray) -> np.ndarray:
    """The renderer's 18 joints (18, 3) -> COCO's 17."""
    points = np.zeros((17, 3))
    for joint, source in enumerate(FROM_COCO17):
        if source is not None:
            points[source] = joints[joint]
    return points


def overlap(found: np.ndarray, exact: np.ndarray) -> list[float]:
    return [float((found == part)[exact == part].sum() / ((found == part) | (exact == part)).sum())
            for part in range(len(PARTS8))]


def measure(folder: Path, people: list[Picture]) -> dict[str, list[float]]:
    paths = [f"{number:04d}.jpg" for number in range(len(people))]
    for name in ("raw", "points", "fields"):
        (folder / name).mkdir()
    for path, person in zip(paths, people, strict=True):
        points = coco17(person.joints)
        write_image(folder / "raw" / path, person.image)
        entry = [{"keypoints": points.tolist(), "is_target": True}]
        (folder / f"points/{path}_keypoints.json").write_text(json.dumps(entry))
        drawn = draw_fields(points, HEIGHT + 1, WIDTH + 1)
        np.save(folder / f"fields/{path}.npy", drawn[:, ::STRIDE, ::STRIDE])

    exact = np.stack([DENSEPOSE24_TO_PARTS8[person.index] for person in people])
    rows = {}
    for labels, source in (("keypoints", "points"), ("pifpaf36", "fields")):
        parser = Precomputed(folder / source, labels=labels, raw=folder / "raw", paths=paths, height=HEIGHT,
                             width=WIDTH, min_score=0.2)
        found = np.concatenate([parser(torch.zeros(1), [path])["parts8"].numpy().argmax(1)
                                for path in progress(paths, labels, unit="images")])
        rows[labels] = overlap(found, exact)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200)
    count = parser.parse_args().people
    print("| people | labels |", " | ".join(PARTS8), "| mean |")
    print("|---|---|" + "---:|" * (len(PARTS8) + 1))
    for hidden in (False, True):
        people = [render(number, hidden) for number in progress(range(count), "render", unit="people")]
        with tempfile.TemporaryDirectory() as folder:
            for labels, values in measure(Path(folder), people).items():
                cells = " | ".join(f"{value:.2f}" for value in [*values, float(np.mean(values))])
                print(f"| {'hidden by 10 to 50 %' if hidden else 'whole'} | `{labels}` | {cells} |")


if __name__ == "__main__":
    main()
