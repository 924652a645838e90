"""Parses of a data set's images, data/cache/KEY/parts.h5: python -m stages.parse synth-occluded

Stopped, it goes on where it was; after images were added or mended it parses only those. Under
`torchrun --nproc-per-node N -m stages.parse KEY` the batches are shared over processes, GPUs or machines.
"""

from pipeline.base.files import writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from stages import main
from stages.shared.cache_parsers import open_parser, parse_index
from stages.shared.device import choose_device


def run(experiment: Experiment, key: str) -> None:
    plan = experiment.plan
    settings = experiment.cache(key)
    planned = pick({**plan.parse, **plan.parse_external, **plan.parse_described}, key, "plan.parse")
    target, scratch = paths.cache(key, "parts.h5"), paths.SCRATCH / f"parse-{key}"
    for path in (target, scratch / "units"):
        writable(path)

    index = read_index(planned.index)
    device = choose_device(experiment.params.device, threads=settings.threads)
    parser = open_parser(settings, planned, index, device, key=key)
    parse_index(parser, settings, index, raw=planned.raw, target=target, scratch=scratch, device=device)


if __name__ == "__main__":
    main(run)
