"""Train a human parser on labelled photographs and measure it on held-out ones: python -m stages.train_photographs KEY

The folder is LIP, CIHP or Clothing Co-Parsing as published (pipeline/labelled.py). Writes, goes on and costs what
stages.train_parser does; the scores are those of LIP's 20 labels and of the four parts they make.
"""

import sys

from pipeline.errors import InputError
from pipeline.params import Params, pick
from pipeline.photographs import Photographs
from pipeline.taxonomy import LIP20_TO_PARTS4, PARTS4
from stages import main
from stages.train_parser import learn


def run(params: Params, key: str) -> None:
    settings = pick(params.photographs, key, "photographs")
    try:
        learned, held_out = (Photographs(settings.raw, part, layout=settings.layout, height=settings.height,
                                         width=settings.width) for part in ("train", "val"))
    except InputError as error:
        raise InputError(f"photographs.{key}: {error}") from error
    for remark in filter(None, (learned.remark(), held_out.remark())):
        print(f"{key}: {remark}", file=sys.stderr)
    learn(params, settings, learned, held_out, key=key, coarser=(LIP20_TO_PARTS4, PARTS4))


if __name__ == "__main__":
    main(run)
