"""Features of a data set's query and gallery images: python -m stages.embed default-sorn-on-synth-occluded

Writes runs/RUN/features/DATASET.h5 from runs/RUN/weights.safetensors.
"""

from pathlib import Path
from typing import Any

from pipeline.embedding import embed_images, write_features
from pipeline.errors import InputError
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.loading import Pictures, embedding_rows, images_sha256, ordered_batches
from pipeline.params import Params, pick
from pipeline.weights import load_weights, read_weights
from stages import main
from stages.device import choose_device
from stages.networks import build, cache_of, check_reads, check_recorded, pins, versions


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
    pictures = Pictures(frame, raw=dataset.raw, cache=cache, height=trained.height, width=trained.width)
    batches = ordered_batches(pictures, batch=settings.batch, workers=trained.workers,
                              pin_memory=device.type == "cuda")
    features, visibility = embed_images(network, batches, count=len(frame), device=device)
    maker = {
        "run": settings.run, "dataset": settings.dataset, "model": trained.model.name, "distance": network.distance,
        "reduction": network.reduction, "weights_sha256": file_sha256(weights), "index_sha256": file_sha256(index),
        "seed": trained.seed, "image_steps": trained.image_steps, "init": trained.init, "train_on": trained.train_on,
        "caches": about["caches"] | pins(cache), "protocol": dataset.layout, "versions": versions()}
    write_features(Path("runs") / settings.run / "features" / f"{settings.dataset}.h5", frame=frame, features=features,
                   visibility=visibility, sizes=network.sizes, maker=maker,
                   dtype=settings.dtype)


if __name__ == "__main__":
    main(run)
