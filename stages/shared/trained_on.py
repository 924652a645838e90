"""Training pictures of a run and of those whose weights it starts from: trained_on.json beside its weights, so that it
is not scored on people whom it knows.

A person is known again by a picture that both sets have, byte for byte, whatever they call it; one who is there in
other pictures alone is not.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open

from pipeline.base.errors import InputError
from pipeline.base.images import read_bytes
from pipeline.config import paths
from pipeline.training.checkpoints import METADATA

DIGITS = 16  # of a picture's SHA-256
TrainedOn = dict[str, dict[str, Any]]  # run -> its data set, `train_on`, and the digits of its pictures, `images`


def own_pictures(frame: pd.DataFrame, raw: str | os.PathLike, *, key: str, train_on: str) -> TrainedOn:
    """What run `key` itself is trained on; frame: its training rows."""
    return {key: {"train_on": train_on, "images": sorted(set(_digests(frame, raw)))}}


def read_trained_on(path: str | os.PathLike) -> TrainedOn:
    """The record of a run. InputError names a file that is missing or damaged."""
    name, remedy = repr(os.fspath(path)), "make it with the stage train"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{name}: is not there, and says which pictures the run was trained on; {remedy}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({' '.join(str(error).split())}); {remedy}") from error
    if not isinstance(record, dict) or not all(
            isinstance(entry, dict) and isinstance(entry.get("train_on"), str) and isinstance(entry.get("images"), list)
            for entry in record.values()):
        raise InputError(f"{name}: is no record of the pictures that runs were trained on; {remedy}")
    return record


def of_weight_file(path: str, *, key: str) -> TrainedOn:
    """What a file that run `key` names as its `init` was trained on; nothing where it is not this project's.

    InputError, naming both runs, where it is and its record does not lie beside it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (OSError, SafetensorError, ValueError):  # of others, or damaged, which is said where they are read
        return {}
    other, settings = made.get("run"), made.get("parameters", {})
    if other is None or not (settings.get("image_steps") or "start" in made or "checkpoint" in made):
        return {}

    beside = Path(path).with_name(paths.trained_on(other).name)
    record = read_trained_on(beside) if beside.exists() else {}
    if settings.get("image_steps") and other not in record:
        raise InputError(f"runs.{key}.init: {path!r} holds weights of run {other!r}, which was trained on "
                         f"{settings.get('train_on')!r}, and {beside.as_posix()!r} "
                         f"{'is of other runs' if record else 'is not there'}, so that {key!r} could be scored on "
                         f"people whom it knows; put that run's own beside the weights, or start from run:{other}")
    return record


def check_unseen(trained_on: TrainedOn, frame: pd.DataFrame, raw: str | os.PathLike, *, run: str, dataset: str) -> None:
    """InputError, naming both, if the run or one that it comes from was trained on a person of the query or gallery.

    frame: the query's and gallery's images. Training and test part of the data set that the run itself is trained on
    are not compared here: the stage prepare does that, and knows what its makers gave out.
    """
    own = trained_on.get(run, {})
    others = {key: seen for key, seen in trained_on.items()
              if own.get("train_on") != dataset or seen["images"] != own["images"]}
    if not others:
        return
    digests = pd.Series(_digests(frame, raw), index=frame.index)
    for other, seen in others.items():
        there = frame[digests.isin(seen["images"])]
        if len(there):
            who = f"run {run!r}" if other == run else f"run {run!r} comes from {other!r}, which"
            way = "train it on other people" if other == run else "start from a run that has not seen them"
            raise InputError(f"{who} was trained on {seen['train_on']!r}, and that has {there['pid'].nunique()} of the "
                             f"people whom {dataset!r} asks for (such as image {there['image'].iloc[0]!r}); {way}, or "
                             "evaluate on another data set")


def _digests(frame: pd.DataFrame, raw: str | os.PathLike) -> list[str]:
    return [hashlib.sha256(read_bytes(Path(raw) / path)).hexdigest()[:DIGITS] for path in frame["path"]]
