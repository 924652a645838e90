"""Occluded queries: objects in front of a data set's queries, `python -m stages.occlude market1501-dev-occluded`."""

from pipeline.base.files import writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from pipeline.renderer.occlude_queries import occlude_queries
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """Write data/raw/KEY: the queries of another data set occluded, and its gallery."""
    settings, plan = pick(experiment.params.occlude, key, "occlude"), pick(experiment.plan.occlude, key, "plan.occlude")
    folder = paths.raw(key)
    writable(folder, folder=True)
    count = occlude_queries(read_index(plan.index), plan.raw, folder, key=settings.stream, seed=settings.seed,
                            low=settings.low, high=settings.high)
    print(f"{count} occluded queries in {folder}")


if __name__ == "__main__":
    main(run)
