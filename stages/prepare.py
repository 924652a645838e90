"""Index of a data set's folder: image, person, camera, split; `python -m stages.prepare synth-occluded`."""

import sys

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import write_index
from pipeline.datasets.layouts import add_occlusion, pick_layout, remarks
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """Write data/index/KEY.csv; say on stderr where the counts differ from the published ones."""
    name = pick(experiment.params.datasets, key, "datasets").layout
    raw = pick(experiment.plan.prepare, key, "plan.prepare").raw
    try:
        layout = pick_layout(name)
    except InputError as error:
        raise InputError(f"datasets.{key}.layout: {error}") from error

    frame = add_occlusion(layout.read(raw), raw)
    write_index(frame, paths.index(key))

    for remark in remarks(layout, frame):
        print(f"{key}: {remark}", file=sys.stderr)
    counts = ", ".join(f"{split} {len(part)} images of {part['pid'].nunique()} people"
                       for split, part in frame.groupby("split"))
    print(f"{key}: {counts}")


if __name__ == "__main__":
    main(run)
