"""Held-out training people as queries and gallery: what starts and recipes are chosen on, never the test set."""

import os

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.seeds import rng


def hold_out(frame: pd.DataFrame, people: int, raw: str | os.PathLike) -> pd.DataFrame:
    """An index of the training part alone, `people` of whom, drawn under a fixed seed, are queries and gallery.

    As in Market-1501, one image of a person per camera is a query and the others are the gallery; a camera's only
    image goes to the gallery, so that every query has an image from another camera there. The data set's own queries
    and gallery are left out. InputError where fewer people than that can be both, or nobody would be left to train on.
    """
    train = frame[frame["split"] == "train"].sort_values("image")
    images = train.groupby(["pid", "camid"]).size().groupby("pid").agg(["size", "max"])
    able = images.index[(images["size"] > 1) & (images["max"] > 1)].to_numpy()  # two cameras, one with two images
    if len(able) < people or len(images) == people:
        raise InputError(f"{os.fspath(raw)!r}: hold_out is {people}, and of its {len(images)} training people "
                         f"{len(able)} have images from two cameras, two from one of them; hold out fewer than that")

    held = train["pid"].isin(rng(0, "hold out").choice(able, people, replace=False))
    place = ["pid", "camid"]
    first = ~train.duplicated(place) & train.duplicated(place, keep=False)
    train["split"] = first.map({True: "query", False: "gallery"}).where(held, "train")
    train["image"] = train["split"] + train["image"].str.removeprefix("train")
    return train
