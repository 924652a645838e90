"""Read a data set's folder and write its index: python -m stages.prepare default-synth-occluded"""

import sys
from pathlib import Path

from pipeline.datasets import add_occlusion, pick_layout, remarks
from pipeline.errors import InputError
from pipeline.index import write_index
from pipeline.params import Params, pick
from stages import main


def run(params: Params, key: str) -> None:
    """Write data/index/KEY.csv; say on stderr where the counts differ from the published ones."""
    dataset = pick(params.datasets, key, "datasets")
    try:
        layout = pick_layout(dataset.layout)
    except InputError as error:
        raise InputError(f"datasets.{key}.layout: {error}") from error
    frame = add_occlusion(layout.read(dataset.raw), dataset.raw)
    write_index(frame, Path("data/index") / f"{key}.csv")
    for remark in remarks(layout, frame):
        print(f"{key}: {remark}", file=sys.stderr)
    counts = ", ".join(f"{split} {len(part)} images of {part['pid'].nunique()} people"
                       for split, part in frame.groupby("split"))
    print(f"{key}: {counts}")


if __name__ == "__main__":
    main(run)
