"""Which file of a folder is whose parse: by its image's path, as the tools name what they write.

| kind | of the image `query/0001.jpg` |
|---|---|
| labels | `query/0001.png`, `query/0001.jpg.png` |
| iuv | the same, `query/0001_IUV.png` |
| fields | `query/0001.npy`, `query/0001.jpg.npy`, `query/0001.jpg.confidence_fields.npy` |
| keypoints | `query/0001.jpg_keypoints.json`, `query/0001.jpg.predictions.json`, `query/0001.json` |

Fields and key points of `whole_body_images/001/001_01.tif` may lie in `whole_body_images/`, the person's folder left
out, and fields may say .jpg where the image is a .tif. So their publishers name them: VlSomers/bpbreid at c0db0061,
torchreid/data/datasets/image/{market1501,occluded_dukemtmc,occluded_reid,p_dukemtmc_reid}.py and
torchreid/scripts/get_labels.py; VlSomers/keypoint_promptable_reidentification at 8db82635,
torchreid/data/datasets/dataset.py and image/{occluded_reid,partial_reid}.py.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline.base.errors import InputError

ENDING = {"labels": ".png", "iuv": ".png", "fields": ".npy", "keypoints": ".json"}  # of the files of a kind


def find_files(source: Path, paths: Sequence[str], *, raw: Path, kind: str) -> dict[str, Path]:
    """Each image's parse in a folder. InputError where one is missing, could be another's, or is an image itself."""
    files: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    missing = []
    images: dict[tuple[int, int] | None, str] = {}
    for path in paths:
        if number := _file_number(raw / path):
            images[number] = path

    for path in paths:
        places = [place for place in _places(source, path, kind) if _file_number(place)]
        if not places:
            missing.append(path)
            continue

        place = places[0]
        if len(places) > 1:
            raise InputError(f"{str(place)!r}: and {str(places[1])!r} could both be the parse of {path!r}; take one "
                             "away")
        if other := images.get(_file_number(place)):
            raise InputError(f"{str(place)!r}: is the image {other!r} itself, and is looked for as the parse of "
                             f"{path!r}; put the parses into a folder of their own")
        if place in owners:
            raise InputError(f"{str(place)!r}: could be the parse of {owners[place]!r} and of {path!r}; call it after "
                             f"its image's whole name, as {str(source / path) + WHOLE[kind]!r}, and have one for each")
        owners[place], files[path] = path, place

    if missing:
        raise InputError(f"{str(source)!r}: holds no parse of {missing[0]!r} ({len(missing)} of {len(paths)} are "
                         f"missing; looked for {str(next(_places(source, missing[0], kind)))!r}); add them: each "
                         "image of a data set has one, a picture of nobody an empty one")
    return files


def strangers(source: Path, files: dict[str, Path], kind: str) -> list[Path]:
    """Files of a kind that are no image's parse here, sorted."""
    taken = set(files.values())
    return sorted(place for place in source.rglob(f"*{ENDING[kind]}") if place not in taken)


WHOLE = {"labels": ".png", "iuv": ".png", "fields": ".npy", "keypoints": "_keypoints.json"}  # behind a whole name


def _places(source: Path, path: str, kind: str) -> Iterator[Path]:
    """Where an image's parse may lie."""
    image = PurePosixPath(path)
    if kind in ("labels", "iuv"):
        place = (source / path).with_suffix(".png")
        yield place
        if kind == "iuv":
            yield place.with_stem(f"{place.stem}_IUV")
        yield source / f"{path}.png"
        return

    if kind == "fields":
        ends = [f"{image.stem}.npy", f"{image.name}.npy", f"{image.name}.confidence_fields.npy",
                f"{image.stem}.jpg.confidence_fields.npy"]
    else:
        ends = [f"{image.name}_keypoints.json", f"{image.name}.predictions.json", f"{image.stem}.json"]
    for folder in dict.fromkeys((image.parent, image.parent.parent)):
        yield from (source / folder / end for end in dict.fromkeys(ends))


def _file_number(path: Path) -> tuple[int, int] | None:
    """The disk's own number of a file, whatever name leads to it, or None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: no name of a file
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
