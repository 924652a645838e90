"""Exclusion list of a data set, checked with its index before anything is scored: python -m stages.ignore mine

Writes data/ignored/KEY.csv: the list's pictures under their keys, those of training too, and why they are left out.
"""

import csv
import io

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_text
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.datasets.index import read_index
from pipeline.retrieval.exclusions import COLUMNS, read_exclusions
from stages import main


def run(experiment: Experiment, key: str) -> None:
    """InputError names the list and a line that says no picture of the data set, or why none of it is scored."""
    plan = pick(experiment.plan.ignore, key, "plan.ignore")
    writable(paths.ignored(key))
    listed, index = read_exclusions(plan.list), read_index(plan.index)

    known = {*index["image"], *index["path"]}
    strange = [path for path in listed.reasons if path not in known]
    if strange:
        raise InputError(f"datasets.{key}.ignore: {plan.list!r} has {strange[0]!r}, which is no picture of {key}; take "
                         "it out or mend the path")
    reasons = index["image"].map(listed.reasons).fillna(index["path"].map(listed.reasons))
    counts = index.loc[reasons.notna(), "split"].value_counts()
    if not counts.get("query", 0) + counts.get("gallery", 0):
        raise InputError(f"datasets.{key}.ignore: none of the {len(listed.reasons)} pictures in {plan.list!r} is a "
                         f"query or in the gallery of {key}; list some, or take `ignore` out of the profile")
    for split, what in (("query", "queries"), ("gallery", "gallery images")):
        whole = int((index["split"] == split).sum())
        if whole and counts.get(split, 0) == whole:
            raise InputError(f"datasets.{key}.ignore: {plan.list!r} has all {whole} {what} of {key}, so that nothing "
                             "could be scored; take some out of the list")

    text = io.StringIO()
    rows = zip(index.loc[reasons.notna(), "image"], reasons.dropna(), strict=True)
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(paths.ignored(key), text.getvalue())
    print(f"{key}: {', '.join(f'{counts[split]} of {split}' for split in sorted(counts.index))} listed in {plan.list}")


if __name__ == "__main__":
    main(run)
