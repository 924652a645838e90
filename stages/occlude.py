"""Put objects in front of a data set's queries: python -m stages.occlude default-market1501-dev-occluded"""

from pathlib import Path

from pipeline.index import read_index
from pipeline.occluding import occlude_queries
from pipeline.params import Params, pick
from stages import main


def run(params: Params, key: str) -> None:
    """Write data/raw/KEY: the queries of another data set occluded, and its gallery."""
    wanted = pick(params.occlude, key, "occlude")
    index = read_index(Path("data/index") / f"{wanted.dataset}.csv")
    folder = Path("data/raw") / key
    count = occlude_queries(index, wanted.images, folder, key=key, seed=wanted.seed, low=wanted.low, high=wanted.high)
    print(f"{count} occluded queries in {folder}")


if __name__ == "__main__":
    main(run)
