"""Features of a data set's query and gallery images: python -m stages.embed default-sorn-on-synth-occluded

Writes features/RESULT/DATASET.h5 from runs/RUN/weights.safetensors.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.embedding import embed_images, write_features
from pipeline.errors import InputError
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.joints import read_joints, stripes_with_joints
from pipeline.loading import Pictures, embedding_rows, images_sha256, ordered_batches
from pipeline.params import EmbedParams, Params, SornParams, pick
from pipeline.weights import load_weights, read_weights
from stages import main
from stages.device import choose_device
from stages.networks import arrays, build, cache_of, check_reads, check_recorded, crop_of, pins, versions


def run(params: Params, key: str) -> None:
    settings = pick(params.embed, key, "embed")
    trained, dataset = pick(params.runs, settings.run, "runs"), pick(params.datasets, settings.dataset, "datasets")
    device = choose_device(params.device, threads=params.threads)
    weights, index = Path("runs") / settings.run / "weights.safetensors", Path("data/index") / f"{settings.dataset}.csv"
    check_reads(settings.reads, trained, key=f"embed.{key}", match=settings.match)
    tensors, about = read_weights(weights)
    check_recorded(about, trained, key=settings.run, path=weights)
    network: Any = build(trained, key=settings.run, ids=about["ids"], match=settings.match)
    load_weights(network, tensors, weights)
    try:
        frame = embedding_rows(read_index(index))
    except InputError as error:
        raise InputError(f"embed.{key}: {error}") from error
    cache = cache_of(settings.reads)
    if cache is not None:
        images_sha256(frame, dataset.raw, cache)  # the cache belongs to these images
    pictures = Pictures(frame, raw=dataset.raw, cache=cache, arrays=arrays(trained, cache), crop=crop_of(about),
                        height=trained.height, width=trained.width)
    batches = ordered_batches(pictures, batch=settings.batch, workers=trained.workers, device=device)
    network = seen_by(network, params, settings, frame, device=device)
    features, visibility = embed_images(network, batches, count=len(frame), device=device)
    maker = {
        "run": settings.run, "result": settings.result, "dataset": settings.dataset,
        "model": trained.model.name, "distance": network.distance,
        "reduction": network.reduction, "weights_sha256": file_sha256(weights), "index_sha256": file_sha256(index),
        "seed": trained.seed, "image_steps": trained.image_steps, "init": trained.init, "train_on": trained.train_on,
        "caches": about["caches"] | pins(cache), "protocol": dataset.layout, "versions": versions()}
    write_features(Path("features") / settings.result / f"{settings.dataset}.h5", frame=frame, features=features,
                   visibility=visibility, sizes=network.sizes, maker=maker, dtype=settings.dtype)


class SeenBy(torch.nn.Module):
    """A network whose stripes' visibility comes from outside: `scores(batch)` -> (B, P)."""

    def __init__(self, network: Any, scores: Callable[[dict[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self.network, self.scores = network, scores
        self.distance, self.reduction, self.sizes = network.distance, network.reduction, network.sizes

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.network.embed(batch | {"visibility": self.scores(batch)})


def seen_by(network: Any, params: Params, settings: EmbedParams, frame: pd.DataFrame, *, device: torch.device) -> Any:
    """The network, or where `visible_by` names joints (+P) or another run's weights (+S) one that listens to them."""
    source = Path(settings.visible_by)
    if settings.visible_by == settings.reads:
        return network
    if not isinstance(params.runs[settings.run].model, SornParams):
        raise InputError(f"embed.visible_by: is {settings.visible_by!r}, and {settings.run} is no SORN; only SORN's "
                         f"stripes can be told from outside, write {settings.reads!r}")
    if source.name != "weights.safetensors":
        shown = torch.from_numpy(stripes_with_joints(*read_joints(source).of(frame["path"].tolist()), network.patches))
        return SeenBy(network, lambda batch: shown.to(device)[batch["row"]])
    from models.sorn import visibility_scores
    other = pick(params.runs, source.parent.name, "embed.visible_by: runs")
    tensors, about = read_weights(source)
    check_recorded(about, other, key=source.parent.name, path=source)
    segments: Any = build(other, key=source.parent.name, ids=about["ids"],
                          match=dataclasses.replace(settings.match, features="all"))
    load_weights(segments, tensors, source)
    segments.to(device).eval()
    return SeenBy(network, lambda batch: visibility_scores(segments.maps(batch)[1], network.patches))


if __name__ == "__main__":
    main(run)
