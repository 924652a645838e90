"""Joints of a data set's people, data/cache/KEY/joints.h5: python -m stages.joints occluded-dukemtmc

By ViTPose over every image, or out of key points that others made: KPR's folder, COCO's or AlphaPose's JSON. SORN's
row +P (Table III) reads them: a stripe is visible where a joint lies in it.
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from models.parsers.vitpose import load_vitpose
from pipeline.base.errors import InputError
from pipeline.base.files import writable
from pipeline.base.images import image_size, read_image
from pipeline.base.progress import progress
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from pipeline.parsing.joints_file import Sizes, batches, joints_from_coco, joints_from_kpr, write_joints
from pipeline.parsing.precomputed import source_sha256
from stages import main
from stages.shared.device import choose_device


def run(experiment: Experiment, key: str) -> None:
    settings, planned = pick(experiment.params.joints, key, "joints"), pick(experiment.plan.joints, key, "plan.joints")
    target, source, raw = paths.cache(key, "joints.h5"), Path(planned.source), Path(planned.raw)
    writable(target)

    images = dict.fromkeys(read_index(planned.index)["path"].tolist())  # one file may stand in two rows
    sizes = {path: image_size(raw / path) for path in progress(images, "sizes", unit="images")}
    maker = {"estimator": settings.estimator, "source_sha256": source_sha256(source), "scale": settings.scale}
    if settings.estimator == "vitpose":
        device = choose_device(experiment.params.device, threads=experiment.params.threads)
        points, said = estimated(source, sizes, raw=raw, batch=settings.batch, device=str(device)), ""
        maker |= {"transformers": import_module("transformers").__version__, "batch": settings.batch}
    else:
        read = joints_from_kpr if settings.estimator == "kpr" else joints_from_coco
        points, said = read(source, sizes, raw=raw, scale=settings.scale)

    write_joints(target, sizes, points, maker)
    if said:
        print(f"{str(source)!r}: {said}", file=sys.stderr)
    print(f"{key}: joints of {int((points[..., 2] > 0).any(1).sum())} people in {len(points)} pictures, {target}")


def estimated(source: Path, sizes: Sizes, *, raw: Path, batch: int, device: str) -> np.ndarray:
    """ViTPose's points (M, 17, 3) of every image. InputError names the checkpoint and the remedy."""
    try:
        estimate = load_vitpose(source, device)
    except ValueError as error:
        raise InputError(str(error)) from error
    parts = [estimate([read_image(raw / path) for path in part])
             for part in progress(batches(list(sizes), batch), "joints", unit="batches")]
    return np.concatenate(parts)


if __name__ == "__main__":
    main(run)
