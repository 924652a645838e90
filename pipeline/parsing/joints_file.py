"""joints.h5: where each image's person has their joints, out of key points that others made.

Its layout is that of a rendered set's labels.h5, `path`, `joints` (M, 18, 3) and `size` (M, 2), which
pipeline/datasets/joints.py reads: COCO's 18, x and y in pixels of the image, confidence 0..1, all 0 where nobody is.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes
from pipeline.parsing.densepose_json import match_pictures
from pipeline.parsing.find_parses import find_files
from pipeline.parsing.keypoint_json import COCO17, outside, reach, read_people, read_target

# COCO's 18 of the 17, row by row: nose, [neck], right and left arm, right and left leg, eyes, ears.
FROM_COCO17 = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
SHOULDERS = (5, 6)
SHOWN = 3  # pictures that an error names

Sizes = Mapping[str, tuple[int, int]]  # of each image: height, width


def joints_from_kpr(source: Path, sizes: Sizes, *, raw: Path, scale: float = 1) -> tuple[np.ndarray, str]:
    """KPR's folder, a JSON a picture -> the targets' points (M, 17, 3), and what a user should hear, or "".

    scale: pixels of the pictures that the estimator saw over those of the images. InputError where one has no file, or
    points lie outside of it.
    """
    files = find_files(source, list(sizes), raw=raw, kind="keypoints")
    places, nobody = np.zeros((len(sizes), len(COCO17), 3)), 0
    for row, path in zip(places, sizes, strict=True):
        target, _ = read_target(files[path])
        nobody += target is None
        row[:] = 0 if target is None else target
    odd = _check_frames(source, places, sizes, scale)
    said = [f"{nobody} of {len(sizes)} pictures have nobody"] if nobody else []
    return places / [scale, scale, 1], ", ".join([*said, *odd])


def joints_from_coco(source: Path, sizes: Sizes, *, raw: Path, scale: float = 1) -> tuple[np.ndarray, str]:
    """COCO's file of all pictures -> the points (M, 17, 3) of the surest person of each; otherwise as above."""
    people = read_people(source)
    matched = match_pictures(people, list(sizes), raw=raw, source=source)
    if not matched:
        raise InputError(f"{str(source)!r}: none of its {len(people)} pictures is of an image of the index, such as "
                         f"{next(iter(sizes))!r}; image_id is the image's path, or the end of it that is its own")
    named = {path: name for name, path in matched.items()}
    places, several = np.zeros((len(sizes), len(COCO17), 3)), 0
    for row, path in zip(places, sizes, strict=True):
        if path in named:
            found = people[named[path]]
            several += len(found) > 1
            row[:] = max(found, key=lambda person: person.score).points  # of equals the first
    odd = _check_frames(source, places, sizes, scale)

    nobody = len(sizes) - len(named)
    said = [f"{nobody} of {len(sizes)} pictures have nobody"] if nobody else []
    said += [f"in {several} the surest of several people was taken"] if several else []
    strangers = len(people) - len(matched)
    said += [f"{strangers} of its pictures are none of the index"] if strangers else []
    return places / [scale, scale, 1], ", ".join([*said, *odd])


def _check_frames(source: Path, places: np.ndarray, sizes: Sizes, scale: float) -> list[str]:
    """InputError for points that are no pixels of their pictures; what looks odd of them."""
    wrong = [f"{path!r}: {why}" for points, (path, (height, width)) in zip(places, sizes.items(), strict=True)
             if (why := outside(points, round(height * scale), round(width * scale)))]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(f"{str(source)!r}: {len(wrong)} of {len(sizes)} pictures have key points that are not theirs: "
                         f"{'; '.join(wrong[:SHOWN])}{more}; take those of these pictures, and where the estimator saw "
                         f"them larger or smaller say by `scale` how much (it is {scale:g})")
    why, odd = reach(list(places), [(round(height * scale), round(width * scale)) for height, width in sizes.values()])
    if why:
        raise InputError(f"{str(source)!r}: {why}")
    return [odd] if odd else []


def coco18(points: np.ndarray) -> np.ndarray:
    """COCO's 17 (M, 17, 3) -> its 18 (M, 18, 3) float32: the neck lies half-way between the shoulders, as sure as the
    less sure of the two."""
    joints = np.zeros((len(points), len(FROM_COCO17), 3), np.float32)
    for joint, source in enumerate(FROM_COCO17):
        if source is None:
            joints[:, joint, :2] = points[:, SHOULDERS, :2].mean(1)
            joints[:, joint, 2] = points[:, SHOULDERS, 2].min(1)
        else:
            joints[:, joint] = points[:, source]
    return joints


def write_joints(path: Path, sizes: Sizes, points: np.ndarray, maker: Mapping[str, Any]) -> None:
    """Images with their sizes and points (M, 17, 3) -> joints.h5, whole or not at all."""
    # In memory first, a few hundred bytes an image: HDF5 ends the process where a full disk does not take a file's end.
    with h5py.File("joints.h5", "w", driver="core", backing_store=False, libver="latest") as file:
        file.create_dataset("path", data=list(sizes), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("joints", data=coco18(points))
        file.create_dataset("size", data=np.array(list(sizes.values()), np.int32))
        file.attrs["maker"] = json.dumps(maker, sort_keys=True)
        file.flush()
        data = file.id.get_file_image()
    write_bytes(path, data)


def batches(paths: Sequence[str], size: int) -> list[list[str]]:
    """Paths, `size` at a time."""
    return [list(paths[first:first + size]) for first in range(0, len(paths), size)]
