"""Folders of files with names as published: for a data set's loader, names are what counts.

`tree` gives a small data set in any layout as path -> bytes, no two pictures the same.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import savemat

Shot = tuple[str, int, int]  # split, person, camera

# Two people to train on and two to test on.
SHOTS: list[Shot] = [("train", 1, 1), ("train", 1, 2), ("train", 2, 1), ("train", 2, 2), ("query", 3, 1),
                     ("query", 4, 2), ("gallery", 3, 2), ("gallery", 3, 1), ("gallery", 4, 1), ("gallery", 4, 2)]
MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PAIRS = {"occluded-reid": ("occluded_body_images", "whole_body_images"),
         "partial-reid-partial": ("partial_body_images", "whole_body_images"),
         "partial-reid-occluded": ("occluded_body_images", "whole_body_images"), "partial-ilids": ("Probe", "Gallery"),
         "partial-ilids-uncropped": ("partial_iLIDS_Probe_nocrop", "Gallery")}


def touch(root: Path, *names: str) -> None:
    """Empty files under `root`, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def rows(frame: pd.DataFrame) -> list[tuple]:
    """(image, path, pid, camid, split) of each row, sorted."""
    return sorted(frame[["image", "path", "pid", "camid", "split"]].itertuples(index=False, name=None))


def counts(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Split -> images, people."""
    return {split: (len(part), part["pid"].nunique()) for split, part in frame.groupby("split")}


def tree(layout: str, shots: Sequence[Shot] = SHOTS) -> dict[str, bytes]:
    """The files of a data set of these shots: path -> bytes. CUHK01 has people enough for its splits instead."""
    named = [(name, *shot) for number, shot in enumerate(shots) if (name := _name(layout, number, *shot))]
    if layout.startswith("cuhk01"):
        people = 103 if "-100" in layout else 489
        named = [(f"campus/{pid:04d}{number:03d}.png", "", pid, 0) for pid in range(1, people + 1)
                 for number in range(1, 5)]
    pictures = {name: f"the picture {name}".encode() for name, *_ in named}
    return pictures | {name: text if isinstance(text, bytes) else text.encode()
                       for name, text in _lists(layout, named).items()}


def _name(layout: str, number: int, split: str, pid: int, camid: int) -> str:
    """A picture's path as its layout has it; "" where there is no such split."""
    if layout == "csv":
        return f"pictures/{number}.jpg"
    if layout == "folder":
        return f"{split}/{number}.jpg"
    if layout in PAIRS:
        place = {"query": PAIRS[layout][0], "gallery": PAIRS[layout][1]}.get(split, "")
        return place and f"{place}/{pid:03d}_{number:02d}.jpg"
    if layout == "p-duke":
        body = "occluded_body_images" if split == "query" or (split == "train" and camid == 1) else "whole_body_images"
        return f"{'train' if split == 'train' else 'test'}/{body}/{pid:04d}/{pid:04d}_c{camid}_f{number:07d}.jpg"
    if layout.startswith("msmt17"):
        part = "train" if split == "train" else "test"
        return f"{part}/{pid:04d}/{pid:04d}_{number:03d}_{camid:02d}_0303morning_0000_0.jpg"
    if layout.startswith("cuhk03"):
        return f"images_{layout.partition('-')[2]}/1_{pid:03d}_{camid}_{number + 1:02d}.png"
    frame = f"_f{number:07d}" if "duke" in layout else f"s1_{number:06d}_00"
    return f"{MARKET[split]}/{pid:04d}_c{camid}{frame}.jpg"


def _lists(layout: str, named: Sequence[tuple[str, str, int, int]]) -> Mapping[str, str | bytes]:
    """The files that name a data set's pictures."""
    if layout == "csv":
        lines = [f"{name},{pid},{camid},{split}\n" for name, split, pid, camid in named]
        return {"images.csv": "path,pid,camid,split\n" + "".join(lines)}
    if layout == "occluded-duke-lists":
        return {f"{part}.list": "".join(f"{Path(name).name}\n" for name, split, *_ in named if split == part)
                for part in MARKET}
    if layout.startswith("msmt17"):
        lists = {part: "".join(f"{name.partition('/')[2]} {pid}\n" for name, split, pid, _ in named if split == part)
                 for part in MARKET}
        return {f"list_{part}.txt": text for part, text in lists.items()} | {"list_val.txt": ""}
    if layout.startswith("cuhk03"):
        cells = np.empty((len(named), 1), dtype=object)
        cells[:, 0] = [Path(name).name for name, *_ in named]
        used = {f"{part}_idx": np.array([[row + 1] for row, (_, split, *_) in enumerate(named) if split == part], float)
                for part in MARKET}
        file = io.BytesIO()
        savemat(file, {"filelist": cells, "labels": np.array([[pid] for *_, pid, _ in named], float),
                       "camId": np.array([[camid] for *_, camid in named], float), **used})
        return {f"cuhk03_new_protocol_config_{layout.partition('-')[2]}.mat": file.getvalue()}
    return {}


def write_tree(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
