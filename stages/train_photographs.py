"""Human parser trained on labelled photographs and measured on held-out ones: python -m stages.train_photographs KEY

The folder is LIP, CIHP or Clothing Co-Parsing as published (pipeline/parsing/published_sets.py). Writes, goes on and
costs what stages.train_parser does; the scores are those of LIP's 20 labels and of the four parts they make.
"""

import sys

from pipeline.base.body_parts import LIP20_TO_PARTS4, PARTS4
from pipeline.base.errors import InputError
from pipeline.config.loader import Experiment, pick
from pipeline.parsing.photograph_set import Photographs
from stages import main
from stages.shared.parser_training import check_outputs, learn, lesson_of


def run(experiment: Experiment, key: str) -> None:
    settings = pick(experiment.params.photographs, key, "photographs")
    check_outputs(key)
    raw = pick(experiment.plan.train_photographs, key, "plan.train_photographs").raw
    try:
        learned, held_out = (Photographs(raw, part, layout=settings.layout, height=settings.height,
                                         width=settings.width) for part in ("train", "val"))
    except InputError as error:
        raise InputError(f"photographs.{key}: {error}") from error

    for remark in filter(None, (learned.remark(), held_out.remark())):
        print(f"{key}: {remark}", file=sys.stderr)
    lesson = lesson_of(learned, settings, {f"photographs ({settings.layout})": learned.layout.licence})
    learn(experiment.params, settings, lesson, held_out, key=key, coarser=(LIP20_TO_PARTS4, PARTS4))


if __name__ == "__main__":
    main(run)
