"""Finished parser's weights to give on: python -m stages.tools.release_parser WEIGHTS TARGET

Writes them as 16-bit floats, half the bytes, with their provenance and the SHA-256 of what they were made from. Weights
that learned from data whose terms do not allow it are refused.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from models.parsers.parser_files import read_parser, save_released
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256, writable, writing
from pipeline.config import paths
from pipeline.reporting.results import read_parser_scores
from stages import sentences
from stages.shared.parser_licences import FREE, licences_of


def run(source: Path, target: Path) -> None:
    """InputError if the weights are no parser's or may not be given on, or the target cannot be written."""
    writable(target)
    try:
        made, _ = read_parser(source)
        closed = {name: terms for name, terms in licences_of(made).items() if terms not in FREE}
        if closed:
            name, terms = next(iter(closed.items()))
            raise InputError(f"{str(source)!r}: learned from {name}, whose terms are {terms}, and weights are given "
                             f"on only where all that they learned from is under {', '.join(FREE)}; train a parser "
                             "without it")
        with writing(target):
            save_released(source, target, made={"released_from_sha256": file_sha256(source),
                                                "licences": licences_of(made), **_scores(source)})
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(str(error)) from error

    print(json.dumps({"weights": str(target), "bytes": target.stat().st_size, "sha256": file_sha256(target)}))


def _scores(source: Path) -> dict[str, Any]:
    """What the parser of data/parsers/KEY reached on held-out people, if data/results/parsers/KEY.json says it."""
    path = paths.parser_scores(source.parent.name)
    return {"scores": read_parser_scores(path)} if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a finished parser: data/parsers/KEY/weights.safetensors")
    parser.add_argument("target", type=Path, help="the file to write: data/parsers/KEY.safetensors")
    given = parser.parse_args()
    with sentences():
        run(given.weights, given.target)


if __name__ == "__main__":
    main()
