"""Files that are compared: a result's JSON, or features of ours or of others, as scores of the same queries."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.reporting.results import read_json
from pipeline.retrieval.exclusions import Excluded
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.opening import OURS, open_features, zeros
from pipeline.retrieval.paired import identity_sums, means
from pipeline.retrieval.ranking import JUNK, evaluate
from pipeline.retrieval.scores import Scores, sums_of
from stages.shared.ignoring import IDENTITIES, given_index, in_order, leave_out, scorable

NAMES = {"rank1": "rank-1", "mAP": "mAP"}
ROUNDED = 0.011  # percent: what a result's two decimals and its features' may differ by


@dataclass(frozen=True)
class Seed:
    """One file: the `sums` (T, I, 3) of whom `asked` says; its trials and their scores where it has features.

    dataset: "" where the file does not say; gallery: images of somebody's in the first trial's; ignored: the exclusion
    list's SHA-256, "" without one.
    """
    path: Path
    made: dict[str, Any]
    asked: list[tuple[int, int, int]]
    sums: np.ndarray
    dataset: str
    gallery: int
    ignored: str
    trials: list[Embedded] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    excluded: Excluded | None = None


def read_seed(path: Path, given: argparse.Namespace) -> Seed:
    """A file's scores, or of a result whose features are gone what it holds of each person."""
    if path.suffix.lower() != ".json":
        return _scored(path, path, given)

    content = read_json(path)
    try:
        made = dict(content["provenance"][0])
        gallery, ignored = int(content["details"][0]["gallery"]), (made.get("ignored") or {}).get("sha256", "")
        shown = {name: float(content[name]) for name in NAMES}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r}: is no result of `evaluate`; give a DATASET.json under data/results, or "
                         "features") from error

    folder = path.absolute().parent
    file = folder.parents[2] / "features" / folder.name / f"{path.stem}.h5" if len(folder.parents) > 2 else Path("none")
    if file.is_file():
        if made.get("ignored") and given.ignore is None:
            listed = made["ignored"]["file"]
            raise InputError(f"{str(path)!r}: was scored without the pictures of {listed!r}; add --ignore {listed}, "
                             "so that both sides are")
        seed = _scored(path, file, given)
        off = other_numbers(seed.sums, shown)
        if off and seed.excluded is None:
            raise InputError(f"{str(path)!r}: {off} ({str(file)!r}); run `dvc repro evaluate@{folder.name}`")
        return seed

    if given.ignore is not None:
        raise InputError(f"{str(path)!r}: its features {str(file)!r} are gone, and --ignore needs them; make them with "
                         "`dvc repro` or leave --ignore out")
    if not content.get("by_identity"):
        raise InputError(f"{str(path)!r}: its features {str(file)!r} are gone, and it does not hold its people "
                         "(by_identity); make both with `dvc repro`")
    # Only where `evaluate` writes it is a result named by its data set.
    dataset = path.stem if len(folder.parents) > 2 and folder.parents[1].name == paths.RESULTS.name else ""
    return Seed(path, made, *sums_of(content["by_identity"]), dataset, gallery, ignored)


def other_numbers(sums: np.ndarray, shown: Mapping[str, float]) -> str:
    """What a result shows otherwise than the `sums` (T, I, 3) of its features give it; "" but for rounding."""
    given = dict(zip(NAMES, (100 * means(sums)).tolist(), strict=True))
    return "; ".join(f"has a {NAMES[name]} of {shown[name]}, and its features give {value:.2f}"
                     for name, value in given.items() if abs(value - shown[name]) > ROUNDED)


def _scored(path: Path, file: Path, given: argparse.Namespace) -> Seed:
    ours = file.suffix.lower() in OURS
    embedded = open_features(file, distance=None if ours else given.distance,
                             reduction=None if ours else given.reduction)
    scorable(embedded, file, IDENTITIES)
    embedded, excluded = leave_out(in_order(embedded, given_index(given.index)), given)
    for sentence in zeros(embedded, file):
        print(sentence, file=sys.stderr)

    trials = [trial.take(np.flatnonzero(trial.query.pid != JUNK), np.arange(len(trial.gallery)))
              for trial in embedded.trials()]
    try:
        scores = [evaluate(trial.query, trial.gallery, trial.matching) for trial in trials]
    except InputError as error:
        raise InputError(f"{str(file)!r}: {error}") from error
    made = embedded.provenance | {"distance": embedded.matching.distance, "reduction": embedded.matching.reduction}
    return Seed(path, made, *identity_sums(scores), made.get("dataset", ""), scores[0].gallery,
                "" if excluded is None else excluded.sha256, trials, scores, excluded)


def same_queries(seeds: Sequence[Seed]) -> None:
    """InputError names what a file is of and the first one, or the first that has images, is not: a data set, a list
    of what was left out, a query or gallery image, a gallery of that size."""
    first, *others = seeds
    shown = next((seed for seed in seeds if seed.trials), first)
    named = next((seed for seed in seeds if seed.dataset), first)
    for seed in others:
        if seed.dataset and seed.dataset != named.dataset:
            raise InputError(f"{str(seed.path)!r}: is of the data set {seed.dataset!r}, and {str(named.path)!r} is of "
                             f"{named.dataset!r}; compare results on one data set")
        if len(seed.sums) != len(first.sums):
            raise InputError(f"{str(seed.path)!r}: has {len(seed.sums)} trials, and {str(first.path)!r} has "
                             f"{len(first.sums)}; compare results of one protocol")
        if seed.ignored != first.ignored:
            told = [f"the exclusion list {each.ignored[:12]}.." if each.ignored else "none" for each in (seed, first)]
            raise InputError(f"{str(seed.path)!r}: was scored with {told[0]}, and {str(first.path)!r} with {told[1]}; "
                             "make the features of both with `dvc repro` and give one list with --ignore")
        for one, other in zip(shown.trials, seed.trials, strict=False):
            for part in ("query", "gallery"):
                _same_images(part, (shown.path, one), (seed.path, other))
        if seed.gallery != first.gallery:
            raise InputError(f"{str(seed.path)!r}: has {seed.gallery} gallery images, and {str(first.path)!r} has "
                             f"{first.gallery}; compare results on one gallery")

        if seed.asked != first.asked:
            place = next((place for place, (one, other) in enumerate(zip(first.asked, seed.asked, strict=False))
                          if one != other), min(len(first.asked), len(seed.asked)))
            told = [f"{asked[place][2]} queries of person {asked[place][1]}" if place < len(asked) else "nobody more"
                    for asked in (first.asked, seed.asked)]
            raise InputError(f"{str(seed.path)!r}: was asked for {told[1]} where {str(first.path)!r} was for "
                             f"{told[0]}; compare results on the same queries")


def _same_images(part: str, first: tuple[Path, Embedded], second: tuple[Path, Embedded]) -> None:
    sides = [getattr(embedded, part) for _, embedded in (first, second)]
    keys = [getattr(embedded, f"{part}_key") for _, embedded in (first, second)]
    length = min(map(len, sides))
    same = (sides[0].pid[:length] == sides[1].pid[:length]) & (sides[0].camid[:length] == sides[1].camid[:length])
    if first[1].named and second[1].named:
        same &= keys[0][:length] == keys[1][:length]
    if same.all() and len(sides[0]) == len(sides[1]):
        return

    row = length if same.all() else int(np.argmin(same))
    told = [f"{str(names[row])!r} (person {side.pid[row]}, camera {side.camid[row]})" if row < len(side) else "none"
            for side, names in zip(sides, keys, strict=True)]
    raise InputError(f"{str(second[0])!r}: {part} {row} is {told[1]}, and in {str(first[0])!r} it is {told[0]}; "
                     "compare features of the same images in the same order")
