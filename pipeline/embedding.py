"""Features of query and gallery images: one file, in the layout that every later step reads."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.errors import InputError


@torch.inference_mode()
def embed_images(network: Any, batches: Iterator[dict[str, Tensor]], *, count: int, device: torch.device
                 ) -> tuple[np.ndarray, np.ndarray]:
    """(count, sum D_p) features and (count, P) visibilities, float32; rows after `count` are padding and dropped."""
    network.to(device).eval()
    features, visibility = [], []
    with tqdm(total=count, unit="image", mininterval=1, leave=False) as bar:
        for batch in batches:
            found = network.embed({name: tensor.to(device) for name, tensor in batch.items()})
            features.append(found[0].float().cpu().numpy())
            visibility.append(found[1].float().cpu().numpy())
            bar.update(len(features[-1]))
    return np.concatenate(features)[:count], np.concatenate(visibility)[:count]


def write_features(path: str | os.PathLike, *, frame: pd.DataFrame, features: np.ndarray, visibility: np.ndarray,
                   sizes: tuple[int, ...], maker: dict[str, Any], dtype: str = "float32") -> None:
    """Write features.h5 under a temporary name, and rename; the same bytes for the same values.

    frame: the N rows' `image`, `pid`, `camid`, `split` and, where the index has them, `occlusion` and `trial`; features
    (N, sum D_p), visibility (N, P), sizes: D_p of the P parts; maker: what made them, stored as JSON;
    dtype: float32 | float16, of the stored features. InputError for another.
    """
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype: unknown dtype {dtype!r} for features; it is float32 or float16")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    text = h5py.string_dtype("utf-8")
    columns: dict[str, tuple[Any, Any]] = {
        "key": (frame["image"].to_numpy(object), text), "pid": (frame["pid"], np.int64),
        "camid": (frame["camid"], np.int64), "split": (frame["split"].to_numpy(object), text),
        "features": (features, dtype), "visibility": (visibility, np.float32),
        "sizes": (sizes, np.int64)}
    if "occlusion" in frame:
        columns["occlusion"] = frame["occlusion"], np.float32
    if "trial" in frame:
        columns["trial"] = frame["trial"], np.int64
    with h5py.File(temporary, "w") as file:
        for name, (values, dtype) in sorted(columns.items()):
            file.create_dataset(name, data=np.asarray(values), dtype=dtype, track_times=False)
        file.attrs["maker"] = json.dumps(maker, sort_keys=True)
    temporary.replace(path)
