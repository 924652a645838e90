"""Key points of people in pictures, COCO's 17, from JSON: KPR's, a file a picture, and COCO's, a file for all.

KPR: [{"keypoints": [[x, y, confidence] x 17], "is_target": true}, ...], or one such entry alone, or an empty list where
nobody was found; the numbers may stand in one row. Where nobody is marked by `is_target` the first is the target, as
for its loader (VlSomers/keypoint_promptable_reidentification at 8db82635, torchreid/utils/tools.py:160), which of two
that are marked takes the last: here that is refused. Coordinates are pixels of the picture.
COCO: a list of results {"image_id": name, "keypoints": [51 numbers], "score"}, as AlphaPose writes it too, or
{"images": [{"id", "file_name"}], "annotations": [...]}. Its third numbers are confidences, or where any is 2 its own
flags: 2 visible, 1 hidden, 0 not there.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images import read_bytes

COCO17 = ("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow",
          "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle",
          "right ankle")
MARGIN = 0.1  # of a picture's side: estimators place hidden joints a little outside
MIDDLE = 0.6  # of a crop's height, which a person's lowest point passes
PEAK = 1.25  # heat maps' peaks, which some tools take for confidences, pass 1


@dataclass(frozen=True)
class Person:
    """points (17, 3): x and y in pixels, confidence 0..1; score: of the person among others in the picture."""

    points: np.ndarray
    score: float


def read_target(path: Path) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """KPR's file of a picture -> the target's points (17, 3) and the others'; None, [] where nobody is.

    InputError names the file and the entry.
    """
    tree = _json(path)
    entries = [tree | {"is_target": True}] if isinstance(tree, dict) else tree
    if not isinstance(entries, list) and entries is not None:
        raise InputError(f"{str(path)!r}: is no list of people with keypoints and is_target; name KPR's key points")
    if not entries:
        return None, []

    people = []
    for number, entry in enumerate(entries):
        try:
            marked = entry.get("is_target", False)
            if marked not in (0, 1):  # JSON's true and false too
                raise ValueError(f"is_target is {marked!r}")
            people.append((_points(entry["keypoints"]), bool(marked)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{str(path)!r}: person {number} is not as KPR writes it ({_short(error)}); it has "
                             f"keypoints, {len(COCO17)} of [x, y, confidence], and is_target") from error

    targets = [number for number, (_, marked) in enumerate(people) if marked]
    if not targets and "is_target" not in entries[0]:
        targets = [0]
    if len(targets) != 1:
        raise InputError(f"{str(path)!r}: marks {len(targets)} of {len(people)} people as the target (is_target); mark "
                         "the one whose picture it is")
    target = people.pop(targets[0])[0]
    return target, [points for points, _ in people]


def read_people(path: Path) -> dict[str, list[Person]]:
    """COCO's file -> the people by their picture's name, as the file has it. InputError names file and entry."""
    tree = _json(path)
    names: dict[Any, str] = {}
    entries = tree
    if isinstance(tree, dict) and isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list):
        entries = tree["annotations"]
        for place, image in enumerate(tree["images"]):
            try:
                if names.setdefault(image["id"], name := str(image["file_name"])) != name:
                    raise InputError(f"{str(path)!r}: gives the id {image['id']!r} to two images, "
                                     f"{names[image['id']]!r} and {name!r}; number them apart")
            except (KeyError, TypeError) as error:
                raise InputError(f"{str(path)!r}: image {place} has no id and file_name, as COCO's have; write them"
                                 ) from error
    if not isinstance(entries, list):
        raise InputError(f"{str(path)!r}: is no list of people; name COCO's key points: a list of image_id, keypoints "
                         "and score, or images and annotations")

    found: dict[str, list[Person]] = defaultdict(list)
    flags = _has_flags(entries)
    for number, entry in enumerate(entries):
        try:
            if "keypoints" not in entry and names:
                continue  # COCO's annotations of things
            name = names.get(entry["image_id"], entry["image_id"])
            if not isinstance(name, str) or not PurePosixPath(name).name:
                raise ValueError(f"its picture is {name!r}, no name; write image_id as the picture's path, or images "
                                 "with id and file_name beside")
            points = _points(entry["keypoints"], flags=flags)
            score = float(entry.get("score", 1))
            if not math.isfinite(score):
                raise ValueError(f"score is {score}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{str(path)!r}: person {number} is not as COCO has it ({_short(error)}); it has "
                             f"image_id, keypoints ({3 * len(COCO17)} numbers) and perhaps score") from error
        found[name].append(Person(points, score))
    return dict(found)


def outside(points: np.ndarray, height: int, width: int) -> str:
    """Which point that is seen lies outside of a picture of this size, by more than MARGIN of its side, or ""."""
    for name, (x, y, confidence) in zip(COCO17, points.tolist(), strict=True):
        if confidence > 0 and not (-MARGIN * width <= x <= (1 + MARGIN) * width
                                   and -MARGIN * height <= y <= (1 + MARGIN) * height):
            return f"{name} lies at x {x:g}, y {y:g} of a picture of {height}x{width}"
    return ""


def reach(people: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Whether points (17, 3) can be pixels of their pictures (height, width): (why they cannot, what looks odd), "".

    The first where no coordinate is beyond 1, as of shares; the second where half of the people end above the middle of
    their crop, as in pictures twice as large.
    """
    low = [points[points[:, 2] > 0, :2].max(0) / (1, size[0]) for points, size in zip(people, sizes, strict=True)
           if (points[:, 2] > 0).any()]
    if not low:
        return "", ""
    largest = max(float(points[points[:, 2] > 0, :2].max()) for points in people if (points[:, 2] > 0).any())
    if largest <= 1:
        return (f"no coordinate is beyond {largest:g}, in pictures of {sizes[0][0]}x{sizes[0][1]} and the like: they "
                "are shares, and pixels are read; multiply them"), ""
    median = float(np.median([place[1] for place in low]))
    return "", (f"half of its people end above {median:.0%} of their picture's height: if it was larger or smaller "
                "when they were estimated, say by `scale` how much" if median < MIDDLE else "")


def _json(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: is no JSON ({str(error)[:80]}); make it again") from error


def _has_flags(entries: list[Any]) -> bool:
    """Whether the third numbers are COCO's flags: some are 2."""
    thirds = {third for entry in entries if isinstance(entry, dict) and isinstance(entry.get("keypoints"), list)
              for third in entry["keypoints"][2::3] if isinstance(third, int | float)}
    return 2 in thirds and thirds <= {0, 1, 2}


def _points(values: Any, *, flags: bool = False) -> np.ndarray:
    points = np.array(values, np.float64)
    if points.ndim == 1:
        points = points.reshape(-1, 3)
    if points.shape != (len(COCO17), 3) or not np.isfinite(points).all():
        raise ValueError(f"keypoints are {'x'.join(map(str, np.shape(values)))}, or some are no numbers")
    if flags:
        points[:, 2] = points[:, 2] == 2
    if points[:, 2].min() < 0 or points[:, 2].max() > PEAK:
        raise ValueError(f"confidences go from {points[:, 2].min():g} to {points[:, 2].max():g}")
    points[:, 2] = points[:, 2].clip(0, 1)
    return points


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
