"""DensePose JSON: the detections that DensePose's tools wrote, and which picture each belongs to.

    [{"image_id": "query/0001.jpg", "score": 0.98, "bbox": [x, y, w, h], "uv_shape": [3, h, w], "uv_data": "..."}, ...]

uv_data is a PNG of I, U, V over the box, in base64. Instead of image_id there may be a file_name. Where image_id is
COCO's number, the file is `{"images": [{"id": 785, "file_name": "0785.jpg"}, ...], "annotations": [the list above]}`:
nothing else says whose a number is.
"""

import base64
import binascii
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images import read_bytes
from pipeline.parsing.parse_png import decode_iuv, no_iuv, png_header

FORM = "a list of detections with image_id (or file_name), bbox, score, uv_shape and uv_data"


@dataclass(frozen=True)
class Detection:
    """One person: its number in the file, its box in pixels of the picture that the tool saw, and the box's PNG."""

    number: int
    x: int
    y: int
    height: int
    width: int
    score: float
    data: bytes


def read_detections(path: Path) -> dict[str, list[Detection]]:
    """All detections by the name of their picture, as the file has it. InputError names the file and the entry."""
    entries, names = _entries(path)
    numbered: list[Any] = []
    found: dict[str, list[Detection]] = defaultdict(list)
    for number, entry in enumerate(entries):
        try:
            name = _name(entry, names)
            detection = _detection(number, entry)
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise InputError(f"{str(path)!r}: detection {number} is not as DensePose writes it "
                             f"({type(error).__name__}: {' '.join(str(error).split())[:80]}); it has image_id, bbox, "
                             "score, uv_shape and uv_data") from error
        if name is None:
            numbered.append(entry["image_id"])
        else:
            found[name].append(detection)

    if numbered:
        raise InputError(f"{str(path)!r}: {len(numbered)} of {len(entries)} detections call their picture by a number "
                         f"(the first {numbered[0]}), which says nothing of its name; write the picture's path as "
                         'image_id or file_name, or {"images": [{"id": 785, "file_name": ...}], "annotations": [...]}, '
                         "whose images are COCO's")

    return dict(found)


def _entries(path: Path) -> tuple[list[Any], dict[Any, str]]:
    """The file's detections, and the pictures' names by number where it has them."""
    try:
        tree = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: is no JSON ({str(error)[:80]}); name DensePose's results") from error

    if isinstance(tree, dict) and isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list):
        return tree["annotations"], _image_names(path, tree["images"])
    if not isinstance(tree, list):
        raise InputError(f"{str(path)!r}: is no list of detections; name DensePose's results: {FORM}")
    return tree, {}


def _image_names(path: Path, images: list[Any]) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for place, image in enumerate(images):
        try:
            number, name = image["id"], image["file_name"]
            known = names.setdefault(number, name)
        except (KeyError, TypeError) as error:
            raise InputError(f"{str(path)!r}: image {place} has no id and file_name, as COCO's have; write them"
                             ) from error
        if not isinstance(name, str) or isinstance(number, bool) or known != name:
            raise InputError(f"{str(path)!r}: image {place}, {name!r}, has the id {number!r}, which is "
                             f"{known!r}; give each its own id and a name")
    return names


def _name(entry: Any, names: dict[Any, str]) -> str | None:
    """The name of an entry's picture; None where it only has a number."""
    if "file_name" in entry:
        name = entry["file_name"]
    elif entry["image_id"] in names:
        name = names[entry["image_id"]]
    else:
        name = entry["image_id"]
        if isinstance(name, int | float) and not isinstance(name, bool):
            return None
    if not isinstance(name, str) or not PurePosixPath(name).name:
        raise ValueError(f"its picture is {name!r}")
    return name


def _detection(number: int, entry: Any) -> Detection:
    x, y, box_width, box_height = (float(value) for value in entry["bbox"])
    score = float(entry["score"])
    data = base64.b64decode(entry["uv_data"])
    header = png_header(data)
    if why := no_iuv(header):
        raise ValueError(f"uv_data {why}")
    if entry["uv_shape"] != [3, header.height, header.width] or not math.isfinite(score):
        raise ValueError("uv_shape or score is off")
    if not (abs(box_width - header.width) < 1 and abs(box_height - header.height) < 1):
        raise ValueError(f"bbox is {box_height:g}x{box_width:g} and uv_data {header.height}x{header.width}")

    return Detection(number, int(x), int(y), header.height, header.width, score, data)  # int, as detectron2 cuts them


def match_pictures(names: Iterable[str], paths: Sequence[str], *, raw: Path, source: Path) -> dict[str, str]:
    """Whose each name is: name -> path in the index; names of no picture are left out.

    A name is a picture's path, or as much of its end as no other picture shares, or a longer path that ends with it
    (an absolute one, of another machine perhaps); the ending .jpg may be missing. Below `raw` it is what it says.
    InputError where a name fits several pictures, or several names fit one.
    """
    whole, bare = _Ends(paths, str), _Ends(paths, lambda path: str(PurePosixPath(path).with_suffix("")))
    folders = [f"{folder.as_posix().rstrip('/')}/" for folder in (raw.absolute(), raw.resolve())]

    matched, several = {}, []
    for name in names:
        clean = name.replace("\\", "/")
        below = [path for folder in folders if clean.startswith(folder)
                 for path in whole.exact.get(clean.removeprefix(folder), [])]
        fits = below[:1] or whole.fitting(clean) or bare.fitting(clean)
        if len(fits) > 1:
            several.append((name, fits))
        elif fits:
            matched[name] = fits[0]

    if several:
        name, fits = several[0]
        raise InputError(f"{str(source)!r}: {name!r} is the name of {fits[0]!r} and of {fits[1]!r} ({len(several)} "
                         "such names); write the pictures' paths as the index has them, with their endings, or whole "
                         f"ones below {str(raw.absolute())!r}")

    owners: dict[str, str] = {}
    for name, path in matched.items():
        if path in owners:
            raise InputError(f"{str(source)!r}: {owners[path]!r} and {name!r} both fit the picture {path!r}; leave out "
                             "the detections of other pictures, or write the pictures' paths as the index has them")
        owners[path] = name

    return matched


class _Ends:
    """Paths, looked up by their ends, whole folder names at a time; `form`: what of a path is written."""

    def __init__(self, paths: Sequence[str], form: Callable[[str], str]) -> None:
        self.exact: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.form = form
        for path in paths:
            self.exact[form(path)].append(path)
            self.by_name[PurePosixPath(form(path)).name].append(path)

    def fitting(self, name: str) -> list[str]:
        """The paths that a name may mean."""
        parts = PurePosixPath(name).parts
        longer = [path for path in self.by_name.get(parts[-1], []) if PurePosixPath(self.form(path)).parts[-len(parts):]
                  == parts]
        if len(parts) == 1:
            return longer  # a bare name: one picture's, or nobody's

        for start in range(len(parts)):
            if same := self.exact.get("/".join(parts[start:])):
                return same
        return longer


def out_of_frame(detections: Sequence[Detection], height: int, width: int) -> str:
    """Which box leaves a picture of this size, or ""."""
    for one in detections:
        if min(one.x, one.y) < 0 or one.y + one.height > height or one.x + one.width > width:
            return (f"detection {one.number} fills rows {one.y} to {one.y + one.height} and columns {one.x} to "
                    f"{one.x + one.width} of a picture of {height}x{width}")
    return ""


def surest(detections: Sequence[Detection], height: int, width: int, *, min_score: float, source: Path) -> np.ndarray:
    """I, U, V (height, width, 3) uint8 of the surest detection, where its box is; nobody where none is sure enough."""
    canvas = np.zeros((height, width, 3), np.uint8)
    sure = [one for one in detections if one.score >= min_score]
    if sure:
        best = max(sure, key=lambda one: one.score)  # of equals the first
        canvas[best.y:best.y + best.height, best.x:best.x + best.width] = decode_iuv(best.data, source, red_first=True)
    return canvas
