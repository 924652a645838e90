"""Features of a data set's query and gallery images: python -m stages.embed sorn-on-synth-occluded

Writes data/features/RESULT/DATASET.h5 from data/runs/RUN/weights.safetensors.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256, writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import EmbedPlan, SeenEmbedPlan, cache_among
from pipeline.config.schema import MatchParams
from pipeline.datasets.index import read_index
from pipeline.datasets.joints import read_joints, stripes_with_joints
from pipeline.loading.dataset import Images, embedding_rows, images_sha256, ordered_batches
from pipeline.retrieval.features import embed_images, write_features
from stages import main
from stages.shared.device import choose_device
from stages.shared.trained_run import check_cache, check_unseen, open_run, pins, versions


def run(experiment: Experiment, key: str) -> None:
    plan = pick({**experiment.plan.embed, **experiment.plan.embed_seen}, key, "plan.embed")
    settings = pick(experiment.params.results, plan.result, "results")
    target = paths.features(plan.result, plan.dataset)
    writable(target)
    trained, cache = experiment.run(plan.run), cache_among(plan.reads)
    device = choose_device(experiment.params.device, threads=experiment.params.threads)
    check_cache(cache, trained, name=f"plan.embed.{key}.reads", features=settings.match.features)
    opened = open_run(trained, key=plan.run, weights=plan.weights, match=settings.match, cache=cache)
    try:
        frame = embedding_rows(read_index(plan.index))
    except InputError as error:
        raise InputError(f"plan.embed.{key}: {error}") from error
    try:
        check_unseen(opened.provenance, frame, plan.raw, run=plan.run, dataset=plan.dataset)
    except InputError as error:
        raise InputError(f"plan.embed.{key}: {error}") from error
    if cache is not None:
        images_sha256(frame, plan.raw, cache)  # the cache belongs to these images

    images = Images(frame, raw=plan.raw, cache=cache, arrays=opened.arrays, crop=opened.crop, height=trained.height,
                    width=trained.width)
    batches = ordered_batches(images, batch=trained.batch, workers=trained.workers, device=device)
    network = seen_by(opened.network, experiment, plan, settings.match, frame, device=device)
    features, visibility = embed_images(network, batches, count=len(frame), device=device)

    provenance = {
        "run": plan.run, "result": plan.result, "dataset": plan.dataset, "model": trained.model.name,
        "distance": network.distance, "reduction": network.reduction, "weights_sha256": file_sha256(plan.weights),
        "index_sha256": file_sha256(plan.index), "seed": trained.seed, "image_steps": trained.image_steps,
        "init": trained.init, "train_on": trained.train_on, "caches": opened.provenance["caches"] | pins(cache),
        "protocol": plan.protocol, "versions": versions()}
    if getattr(network, "whole_body", None) is not None:  # the part by which pairs that share none are compared
        provenance["whole_body"] = network.whole_body
    write_features(target, frame=frame, features=features, visibility=visibility, sizes=network.sizes,
                   provenance=provenance, dtype=settings.dtype)


class SeenBy(torch.nn.Module):
    """A network whose stripes' visibility comes from outside: `scores(batch)` -> (B, P)."""

    def __init__(self, network: Any, scores: Callable[[dict[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self.network, self.scores = network, scores
        self.distance, self.reduction, self.sizes = network.distance, network.reduction, network.sizes

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.network.embed(batch | {"visibility": self.scores(batch)})


def seen_by(network: Any, experiment: Experiment, plan: EmbedPlan, match: MatchParams, frame: pd.DataFrame, *,
            device: torch.device) -> Any:
    """The network, or where joints (+P) or another run's weights (+S) say what is seen one that listens to them."""
    if not isinstance(plan, SeenEmbedPlan):
        return network
    if not hasattr(network, "patches"):
        raise InputError(f"plan.embed_seen: {plan.run} has no stripes that could be told from outside what is seen; "
                         "take `visible_by` out of its entry in the profile")

    source = Path(plan.seen_by)
    if source.name != "weights.safetensors":
        shown = torch.from_numpy(stripes_with_joints(*read_joints(source).of(frame["path"].tolist()), network.patches))
        return SeenBy(network, lambda batch: shown.to(device)[batch["row"]])

    other = source.parent.name
    segments = open_run(experiment.run(other), key=other, weights=source,
                        match=MatchParams(features="all", tau=match.tau)).network.to(device)
    from models.sorn import visibility_scores  # only here: other networks do not depend on that file
    return SeenBy(network, lambda batch: visibility_scores(segments.maps(batch)[1], network.patches))


if __name__ == "__main__":
    main(run)
