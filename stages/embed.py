"""Features of the query and gallery images that a result is scored on: python -m stages.embed sorn

Writes data/features/RESULT/DATASET.h5 from data/runs/RUN/weights.safetensors, a file per data set. They are put there
together: what was embedded before a kill or a bad data set waits under scratch/embed, and is not embedded again.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.base.code import code_sha256
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256, new_file, writable
from pipeline.caches.resumable import digest
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import EmbedPlan, SeenEmbedPlan, TestSet, cache_among
from pipeline.config.schema import MatchParams
from pipeline.datasets.index import read_index
from pipeline.datasets.joints import read_joints, stripes_with_joints
from pipeline.loading.dataset import Images, embedding_rows, images_sha256, ordered_batches
from pipeline.retrieval.features import embed_images, read_features, write_features
from stages import main
from stages.shared.device import choose_device, machine
from stages.shared.trained_on import check_unseen, read_trained_on
from stages.shared.trained_run import OpenRun, check_cache, check_cameras, open_run, pins, versions

SCRATCH = paths.SCRATCH / "embed"
CODE = ("models", "pipeline/base", "pipeline/caches", "pipeline/datasets", "pipeline/loading", "pipeline/retrieval",
        "pipeline/training", "stages/embed.py", "stages/shared")  # by other code the same weights are other features


def run(experiment: Experiment, key: str) -> None:
    plan = pick(experiment.plan.embeddings, key, "plan.embed")
    match = pick(experiment.params.results, plan.result, "results").match
    for path in (*(paths.features(plan.result, test.dataset) for test in plan.sets), SCRATCH / key):
        writable(path)
    trained = experiment.run(plan.run)
    device = choose_device(experiment.params.device, threads=experiment.params.threads)
    for test in plan.sets:
        check_cache(cache_among(test.reads), trained, name=f"plan.embed.{key}, {test.dataset}: reads",
                    features=match.features)

    made = []
    for test in plan.sets:
        opened = open_run(trained, key=plan.run, weights=plan.weights, match=match, cache=cache_among(test.reads))
        try:
            made.append(embedded(experiment, plan, test, opened, device=device))
        except InputError as error:
            raise InputError(f"plan.embed.{key}, {test.dataset}: {error}") from error
    for test, file in zip(plan.sets, made, strict=True):
        with new_file(paths.features(plan.result, test.dataset)) as temporary:
            shutil.move(file, temporary)


def embedded(experiment: Experiment, plan: EmbedPlan, test: TestSet, opened: OpenRun, *, device: torch.device) -> Path:
    """The features file of one data set under scratch, named by all that it depends on; made where it is not there."""
    settings, trained, cache = experiment.params.results[plan.result], experiment.run(plan.run), cache_among(test.reads)
    frame = embedding_rows(read_index(test.index))
    check_cameras(opened.provenance, frame, run=plan.run, dataset=test.dataset)
    check_unseen(read_trained_on(paths.trained_on(plan.run)), frame, test.raw, run=plan.run, dataset=test.dataset)

    provenance = {
        "run": plan.run, "result": plan.result, "dataset": test.dataset, "model": trained.model.name,
        "distance": opened.network.distance, "reduction": opened.network.reduction,
        "weights_sha256": file_sha256(plan.weights), "index_sha256": file_sha256(test.index), "seed": trained.seed,
        "image_steps": trained.image_steps, "init": trained.init, "train_on": trained.train_on,
        "caches": opened.provenance["caches"] | pins(cache), "protocol": test.protocol, "versions": versions()}
    if getattr(opened.network, "whole_body", None) is not None:  # by which pairs that share no part are compared
        provenance["whole_body"] = opened.network.whole_body
    if settings.match.flip != "none":
        provenance["flip"] = settings.match.flip
    if "checkpoint" in opened.provenance:  # the file that its backbone started from
        provenance["checkpoint"] = opened.provenance["checkpoint"]

    seen = file_sha256(plan.seen_by) if isinstance(plan, SeenEmbedPlan) else ""
    images = images_sha256(frame, test.raw, cache)  # a cache belongs to these images
    identity = (json.dumps(provenance, sort_keys=True), repr(settings), repr(trained), images, seen,
                str(experiment.params.threads), machine(device), code_sha256(*CODE))
    file = SCRATCH / f"{digest(identity)}.h5"
    if _intact(file):
        return file

    batches = ordered_batches(
        Images(frame, raw=test.raw, cache=cache, arrays=opened.arrays, crop=opened.crop, height=trained.height,
               width=trained.width), batch=trained.batch, workers=trained.workers, device=device)
    network = seen_by(opened.network, experiment, plan, settings.match, frame, device=device)
    features, visibility = embed_images(network, batches, count=len(frame), device=device,
                                        mirrored=settings.match.flip == "mean")
    write_features(file, frame=frame, features=features, visibility=visibility, sizes=network.sizes,
                   provenance=provenance, dtype=settings.dtype)
    return file


def _intact(file: Path) -> bool:
    """Whether a features file is there that can be read to its end."""
    try:
        return file.exists() and bool(read_features(file))
    except InputError:
        return False


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
                        match=MatchParams(features="all", tau=match.tau)).network
    segments.to(device=device, memory_format=torch.channels_last)
    from models.sorn import visibility_scores  # only here: other networks do not depend on that file
    return SeenBy(network, lambda batch: visibility_scores(segments.maps(batch)[1], network.patches))


if __name__ == "__main__":
    main(run)
