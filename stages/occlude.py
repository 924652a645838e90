"""Occluded queries: objects in front of a data set's queries, `python -m stages.occlude market1501-dev-occluded`."""

from pathlib import Path

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from pipeline.datasets.market_like import market_name
from pipeline.renderer.occlude_queries import FOLDERS, occlude_queries
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """Write data/raw/KEY: the queries of another data set occluded, and its gallery."""
    settings, plan = pick(experiment.params.occlude, key, "occlude"), pick(experiment.plan.occlude, key, "plan.occlude")
    folder = paths.raw(key)
    writable(folder, folder=True)
    frame = read_index(plan.index)
    check_names(frame, plan.raw, key)
    count = occlude_queries(frame, plan.raw, folder, key=settings.stream, seed=settings.seed, low=settings.low,
                            high=settings.high)
    print(f"{count} occluded queries in {folder}")


def check_names(frame: pd.DataFrame, raw: str, key: str) -> None:
    """InputError where a name says another person or camera than the index: of the occluded set names are all there
    is."""
    frame = frame[frame["split"].isin(list(FOLDERS))]
    for path, pid, camid in zip(frame["path"], frame["pid"], frame["camid"], strict=True):
        try:
            told = market_name(Path(path))
            said = f"its name says person {told[0]}, camera {told[1]}"
        except InputError:
            told, said = None, "its name says neither"
        if told != (pid, camid):
            raise InputError(f"occlude.{key}: {path!r} of {raw!r} is person {pid}, camera {camid} in its index, and "
                             f"{said}; name a data set in Market-1501's layout, whose names say both")


if __name__ == "__main__":
    main(run)
