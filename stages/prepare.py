"""Read a data set's folder and write its index: python -m stages.prepare default-synth-occluded"""

from pathlib import Path

from pipeline.datasets import LAYOUTS, add_occlusion
from pipeline.index import write_index
from pipeline.params import Params, pick
from stages import main


def run(params: Params, key: str) -> None:
    dataset = pick(params.datasets, key, "datasets")
    read = pick(LAYOUTS, dataset.layout, f"datasets.{key}.layout: layouts")
    frame = add_occlusion(read(dataset.raw), dataset.raw)
    write_index(frame, Path("data/index") / f"{key}.csv")
    counts = ", ".join(f"{split} {len(part)} images of {part['pid'].nunique()} people"
                       for split, part in frame.groupby("split"))
    print(f"{key}: {counts}")


if __name__ == "__main__":
    main(run)
