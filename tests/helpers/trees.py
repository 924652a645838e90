"""Folders of empty files with names as published: for a data set's loader, names are what counts."""

from pathlib import Path

import pandas as pd


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
