"""Parses of what SGAM's crop leaves of a data set's images: python -m stages.parse_crops KEY

Writes data/cache/KEY/crops.h5 (SGAM Fig. 4, L315-316: the cropped picture goes through the parser again). The box of an
image is that of its parts.h5's maps, by the medians of a training set's; both files have to be there, of one parser.
Stopped, it goes on where it was, and `torchrun` shares it, as stages.parse.
"""

import dataclasses
import functools
from pathlib import Path

import pandas as pd

from models.sgam import crop_rule, visible_regions
from pipeline.base.errors import InputError
from pipeline.base.files import writable
from pipeline.base.images import Box, image_size
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from pipeline.loading.dataset import images_sha256, keyed_sha256, training_rows
from pipeline.loading.sgam_crop import Visible, automatic_crop, frame_medians
from stages import main
from stages.shared.cache_parsers import CacheParser, open_parser, parse_index
from stages.shared.device import choose_device

# of the makers of whole images' parses and crops'
SAME = ("parser", "taxonomy", "height", "width", "fit", "source_sha256")


def run(experiment: Experiment, key: str) -> None:
    plans = experiment.plan
    plan = pick({**plans.parse_crops, **plans.parse_crops_external, **plans.parse_crops_described}, key,
                "plan.parse_crops")
    rule, settings = pick(experiment.params.crops, key, "crops"), experiment.cache(plan.cache, plan.owner)
    target, scratch = paths.cache(key, "crops.h5"), paths.SCRATCH / f"parse-crops-{key}"
    for path in (target, scratch / "units"):
        writable(path)

    index = read_index(plan.index)
    device = choose_device(experiment.params.device, threads=settings.threads)
    parser = open_parser(settings, plan, index, device, key=plan.cache)
    whole, train = Cache(plan.parts), Cache(plan.train_parts)
    for cache in (whole, train):
        check_parser(cache, parser)

    images_sha256(index, plan.raw, whole.path)  # its maps belong to these images
    try:
        frame = training_rows(read_index(plan.train_index), max_ids=rule.max_ids)
    except InputError as error:
        raise InputError(f"crops.{key}: {plan.train_index!r}: {error}") from error
    rows = train.rows(frame["image"])
    medians = frame_medians(train.read("probs/parts4", int(row)) for row in rows)
    crop = crop_rule(medians, scores=rule.scores, thresholds=rule.thresholds)
    made = {"parts": whole.maker, "crop": crop, "training_medians": medians.tolist(),
            "training_sha256": keyed_sha256(frame["image"], train.column("image_sha256")[rows])}

    boxes = crop_boxes(whole, index, Path(plan.raw), functools.partial(visible_regions, **crop))
    parse_index(dataclasses.replace(parser, maker=parser.maker | made), settings, index, raw=plan.raw, target=target,
                scratch=scratch, device=device, boxes=boxes)


def check_parser(cache: Cache, parser: CacheParser) -> None:
    """InputError, naming both, if whole images were parsed by another parser than their crops are to be."""
    maker = cache.maker
    for name in SAME:
        if maker.get(name) != parser.maker.get(name):
            raise InputError(f"{str(cache.path)!r}: was parsed with {name} {maker.get(name)!r}, and its crops would be "
                             f"with {parser.maker.get(name)!r}; make it again with the stage parse")


def crop_boxes(whole: Cache, index: pd.DataFrame, raw: Path, visible: Visible) -> list[Box]:
    """The box of each image of an index, by its maps. InputError for one without a parse."""
    rows, status = whole.rows(index["image"]), whole.column("status")
    for key, row in zip(index["image"], rows, strict=True):
        if status[row].startswith("failed"):
            raise InputError(f"{str(whole.path)!r}: holds no parse of {key!r} ({status[row]}); mend the image and run "
                             "the stage parse again")
    return [automatic_crop(whole.read("probs/parts4", int(row)), *image_size(raw / path), visible=visible)
            for path, row in zip(index["path"], rows, strict=True)]


if __name__ == "__main__":
    main(run)
