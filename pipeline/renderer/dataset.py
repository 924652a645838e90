"""Data sets of rendered people: who is seen where, and the files.

Every random draw has a named stream under the data set's key, so that a picture does not depend on how many processes
render, nor on the pictures before it.
"""

import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import h5py
import numpy as np

from pipeline.base.body_parts import SURFACE_PARTS
from pipeline.base.errors import InputError
from pipeline.base.files import new_folder
from pipeline.base.images import write_image
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.renderer.person import Person, draw_person
from pipeline.renderer.picture import Picture, Wish, render_picture
from pipeline.renderer.scene import Look, draw_look

FORMAT = 2                      # of labels.h5; 1 had the u of left hands and left feet run the other way
KINDS = ("holistic", "occluded", "partial", "parsing")
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
CAMERAS = 6
PARSING_LOOKS = 40              # places of the parsing set, for each of its two parts
# Of the parsing set's two parts: share of pictures with something in front, share cropped to a part of the body, and
# how far the box is off. Held-out pictures are like those of the re-ID sets taken together, which the parser is for
# (an eighth hidden, a twentieth cropped); there is more to learn from in the others.
PARSING_PARTS = {"train": (.30, .12, 1.5), "val": (.12, .05, 1.0)}
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Plan:
    """A data set to render. Counts as in the parameters: people, and pictures per person."""

    key: str
    kind: str
    seed: int
    height: int
    width: int
    train_ids: int
    train_images: int
    test_ids: int
    query_images: int
    gallery_images: int


@dataclass(frozen=True)
class Shot:
    """One picture: its file, whose it is, the name of the camera's stream, and how it should be."""

    path: str
    person: str
    look: str
    wish: Wish
    varied: bool


def check_plan(plan: Plan) -> None:
    """InputError for an unknown kind, an empty part or an impossible size."""
    if plan.kind not in KINDS:
        raise InputError(f"render.{plan.key}.kind: unknown kind {plan.kind!r}; a rendered set is one of "
                         f"{', '.join(KINDS)}")

    counts = {"test_ids": plan.test_ids, "gallery_images": plan.gallery_images}
    if plan.kind != "parsing":
        counts["query_images"] = plan.query_images
    if plan.kind != "partial" or plan.train_ids:          # a partial set may be a test set only
        counts |= {"train_ids": plan.train_ids, "train_images": plan.train_images}

    for name, count in counts.items():
        if count < 1:
            raise InputError(f"render.{plan.key}.{name}: is {count}, but a {plan.kind} set needs at least 1")

    if min(plan.height, plan.width) < 16:
        raise InputError(f"render.{plan.key}: a picture of {plan.height} x {plan.width} pixels is too small; use at "
                         "least 16 on each side")


def shots(plan: Plan) -> list[Shot]:
    """Every picture of the set, sorted by path. InputError if the plan is impossible."""
    check_plan(plan)
    listed = _parsing_shots(plan) if plan.kind == "parsing" else [*_train_shots(plan), *_test_shots(plan)]
    return sorted(listed, key=lambda shot: shot.path)


def _parsing_shots(plan: Plan) -> Iterator[Shot]:
    for part, people, count in (("train", plan.train_ids, plan.train_images),
                                ("val", plan.test_ids, plan.gallery_images)):
        hidden_share, cropped_share, fault = PARSING_PARTS[part]
        for number in range(people * count):
            draw = rng(plan.seed, "render", plan.key, "shot", part, number)
            hidden = (.05, .6) if draw.random() < hidden_share else None
            crop = "partial" if draw.random() < cropped_share else "box"
            wish = Wish(hidden=hidden, style="parsing", crop=crop, fault=fault)
            yield Shot(path=f"{part}/{number:05d}.jpg", person=f"{part}/{number // count}",
                       look=f"{part}/{draw.integers(PARSING_LOOKS)}", wish=wish, varied=True)


def _train_shots(plan: Plan) -> Iterator[Shot]:
    for pid in range(1, plan.train_ids + 1):
        draw = rng(plan.seed, "render", plan.key, "shot", "train", pid)
        order = draw.permutation(CAMERAS)
        for number in range(plan.train_images):
            hidden = _incidental(plan.kind, draw)
            wish = Wish(hidden=hidden, style="train", crop="box", fault=1.0)
            yield _shot("train", pid, int(order[number % CAMERAS]) + 1, number, wish)


def _test_shots(plan: Plan) -> Iterator[Shot]:
    """Queries and gallery of a person never share a camera (the Market rule drops such pairs)."""
    for pid in range(plan.train_ids + 1, plan.train_ids + plan.test_ids + 1):
        draw = rng(plan.seed, "render", plan.key, "shot", "test", pid)
        order = draw.permutation(CAMERAS) + 1
        split = min(plan.query_images, CAMERAS // 2)
        for number in range(plan.query_images + plan.gallery_images):
            query = number < plan.query_images
            camera = order[number % split] if query else order[split + number % (CAMERAS - split)]
            shot = _shot("query" if query else "gallery", pid, int(camera), number, _test_wish(plan.kind, query, draw))
            if plan.kind == "partial":                # probes are camera 0, the gallery camera 1, whatever the place
                shot = replace(shot, path=shot.path.replace(f"_c{camera}s", "_c1s" if query else "_c2s"))
            yield shot


def _test_wish(kind: str, query: bool, draw: np.random.Generator) -> Wish:
    if kind == "occluded" and query:
        return Wish(hidden=(.25, .60), style="test", crop="box", fault=.7)
    if kind == "partial" and query:
        return Wish(hidden=(.30, .60) if draw.random() < .35 else None, style="test", crop="partial", fault=1.0)
    return Wish(hidden=None if kind == "partial" else _incidental(kind, draw), style="test", crop="box",
                fault=.4 if kind == "partial" else 1.0)


def _incidental(kind: str, draw: np.random.Generator) -> tuple[float, float] | None:
    share = {"holistic": .05, "occluded": .10, "partial": .05}[kind]
    return (.08, .40) if draw.random() < share else None


def _shot(part: str, pid: int, camera: int, number: int, wish: Wish) -> Shot:
    return Shot(path=f"{FOLDERS[part]}/{pid:04d}_c{camera}s1_{number + 1:06d}_00.jpg", person=str(pid),
                look=str(camera), wish=wish, varied=False)


@lru_cache(maxsize=2 * PARSING_LOOKS)
def _look(seed: int, key: str, name: str) -> Look:
    return draw_look(rng(seed, "render", key, "camera", name))


@lru_cache(maxsize=16)
def _person(seed: int, key: str, name: str, varied: bool) -> Person:
    return draw_person(rng(seed, "render", key, "identity", name), varied)


def render_shot(plan: Plan, shot: Shot) -> Picture:
    """Render one picture of a set."""
    person = _person(plan.seed, plan.key, shot.person, shot.varied)
    draw = rng(plan.seed, "render", plan.key, "picture", shot.path)
    return render_picture(person, _look(plan.seed, plan.key, shot.look), shot.wish, draw, plan.height, plan.width)


@dataclass(frozen=True)
class _Row:
    """What a process sends back: label maps already compressed as HDF5's gzip filter would."""

    maps: dict[str, bytes]
    visible: np.ndarray
    joints: np.ndarray
    occlusion: float


_work: tuple[Plan, Path] | None = None


def _start(plan: Plan, folder: Path) -> None:
    global _work
    cv2.setNumThreads(1)
    _work = plan, folder


def _finish(shot: Shot) -> _Row:
    assert _work is not None
    plan, folder = _work
    picture = render_shot(plan, shot)
    write_image(folder / shot.path, picture.image, JPEG_QUALITY)
    maps = {name: zlib.compress(np.ascontiguousarray(getattr(picture, name)).tobytes(), 4)
            for name in ("lip", "index", "uv")}

    return _Row(maps, picture.visible, picture.joints, picture.occlusion)


def render_dataset(plan: Plan, folder: str | os.PathLike, processes: int) -> int:
    """Render a set into `folder`, which is replaced only when everything is done. Returns the number of pictures.

    The files are the same for every number of `processes`. InputError for an impossible plan.
    """
    listed = shots(plan)
    if processes < 1:
        raise InputError(f"render.{plan.key}.processes: is {processes}; rendering needs at least 1")

    names = ("train", "val") if plan.kind == "parsing" else tuple(FOLDERS.values())
    with new_folder(folder) as work:
        for name in names:
            (work / name).mkdir()
        rows = _rows(plan, listed, work, processes)
        rows = progress(rows, f"render {plan.key}", total=len(listed), unit="pictures")
        _write_labels(work / "labels.h5", plan, listed, rows)

    return len(listed)


def _rows(plan: Plan, listed: list[Shot], folder: Path, processes: int) -> Iterator[_Row]:
    """Finished rows in the order of `listed`."""
    if processes == 1:
        _start(plan, folder)
        yield from map(_finish, listed)
        return
    with multiprocessing.get_context("spawn").Pool(processes, _start, (plan, folder)) as pool:
        yield from pool.imap(_finish, listed, chunksize=8)


def _write_labels(path: Path, plan: Plan, listed: list[Shot], rows: Iterator[_Row]) -> None:
    count, size = len(listed), (plan.height, plan.width)
    shapes = {"lip": size, "index": size, "uv": (*size, 2)}

    visible, joints = np.zeros((count, SURFACE_PARTS), np.float32), np.zeros((count, 18, 3), np.float32)
    occlusion = np.zeros(count, np.float32)
    with h5py.File(path, "w") as file:
        maps = {name: file.create_dataset(name, (count, *shape), np.uint8, chunks=(1, *shape), compression="gzip",
                                          compression_opts=4) for name, shape in shapes.items()}
        for number, row in enumerate(rows):
            for name, data in row.maps.items():
                maps[name].id.write_direct_chunk((number, *[0] * len(shapes[name])), data)
            visible[number], joints[number], occlusion[number] = row.visible, row.joints, row.occlusion
        file.create_dataset("path", data=[shot.path for shot in listed], dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("visible", data=visible)
        file.create_dataset("joints", data=joints)
        file.create_dataset("occlusion", data=occlusion)
        maker = {"format": FORMAT, "parameters": asdict(plan), "numpy": np.__version__, "opencv": cv2.__version__}
        file.attrs["maker"] = json.dumps(maker, sort_keys=True)
