"""Index of a data set's folder: image, person, camera, split; `python -m stages.prepare synth-occluded`.

Writes data/index/KEY.csv and, for who reads the metrics, KEY.txt with the counts and all that is to be said of them.
"""

import sys

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_text
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import PreparePlan
from pipeline.datasets.hold_out import hold_out
from pipeline.datasets.index import write_index
from pipeline.datasets.layouts import Layout, add_occlusion, check_layout, pick_layout, remarks
from pipeline.datasets.protocol import check_protocol
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """Write the index. InputError, naming the data set, for a folder that is not read whole or cannot be scored."""
    settings = pick(experiment.params.datasets, key, "datasets")
    entry = pick(experiment.plan.prepare, key, "plan.prepare")
    for path in (paths.index(key), paths.remarks(key)):
        writable(path)
    try:
        layout = pick_layout(settings.layout)
    except InputError as error:
        raise InputError(f"datasets.{key}.layout: {error}") from error

    try:
        whole = add_occlusion(layout.read(entry.raw), entry.raw)
        frame = hold_out(whole, settings.hold_out, entry.raw) if settings.hold_out else whole
        check_needs(entry, layout, set(frame["split"]))
        if settings.hold_out:  # what is scored, not the set's own test part, which is left out
            said = [*remarks(layout, whole), *check_protocol(frame, entry.raw, listed=True, published=False),
                    f"queries and gallery are {settings.hold_out} of its training people; its own are left out"]
        else:
            said = check_layout(layout, whole, entry.raw)
        write_index(frame, paths.index(key))
    except InputError as error:
        raise InputError(f"datasets.{key}: {error}") from error

    counts = ", ".join(f"{split} {len(part)} images of {part['pid'].nunique()} people"
                       for split, part in frame.groupby("split"))
    write_text(paths.remarks(key), "".join(f"{line}\n" for line in [counts, *said]))
    for remark in said:
        print(f"{key}: {remark}", file=sys.stderr)
    print(f"{key}: {counts}")


def check_needs(entry: PreparePlan, layout: Layout, splits: set[str]) -> None:
    """InputError if the experiment trains or scores on images that the data set does not have."""
    if "train" in entry.needs and "train" not in splits:
        raise InputError(f"{entry.raw!r}: has no training images, and runs train on it (their train_on); put them "
                         "where its layout has them, or let the runs train on another data set")
    if "test" in entry.needs and not {"query", "gallery"} & splits:
        raise InputError(f"{entry.raw!r}: has neither queries nor a gallery, and runs are scored on it (their "
                         "eval_on); put them where its layout has them, or take it out of eval_on")
    if "test" in entry.needs and not layout.known:
        raise InputError(f"{entry.raw!r}: has `layout: folder`, which knows of no queries and of nobody in it, and "
                         "runs are scored on it (their eval_on); give it its own layout's name, or take it out of "
                         "eval_on")


if __name__ == "__main__":
    main(run)
