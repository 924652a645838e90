"""Is one network better than another? The same queries, asked twice: python -m stages.tools.compare A B

    python -m stages.tools.compare data/results/default/sorn/synth-occluded.json theirs.npz
    python -m stages.tools.compare --a sorn.h5 sorn-seed1.h5 --b baseline.h5 baseline-seed1.h5 \\
        --index synth-occluded --images data/raw/synth-occluded --out found

A side is a result's JSON (with its features where they are still there), a features.h5, or an .npz or .mat file of
others' features of the same queries and gallery; several on a side are seeds of one network. Prints the paired
differences of rank-1 and mAP, what to make of them, and both protocols. --out FOLDER writes compare.json, changed.csv
(the queries that one finds first and the other does not) and, with --images, changed.png, which shows some of them.
"""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.files import writable, write_bytes, write_json, write_text
from pipeline.base.images import read_image
from pipeline.reporting.plots import ListedImage, rank_figure
from pipeline.reporting.protocol import protocol_line
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.paired import Difference, chance, changed, collapsed, differences, exchanges, means
from pipeline.retrieval.ranking import nearest
from pipeline.retrieval.scores import INTERVALS
from stages import sentences
from stages.shared.compared import NAMES, Seed, read_seed, same_queries
from stages.shared.ignoring import add_ignore_options, given_index

TOP, SHOWN = 5, 4  # gallery images of a list, queries of each kind that are shown
LEVEL = 0.05  # p below which a difference is called one
COLUMNS = ["trial", "query", "person", "camera", "found by", "A right", "B right", "A AP", "B AP"]

Sides = Mapping[str, Sequence[Seed]]  # A and B


@dataclass(frozen=True)
class Turned:
    """A query that changed sides: its row in its trial, who finds it, and of A and B the shares of seeds that have it
    right and the mean average precision, 0..1."""
    trial: int
    row: int
    finder: str
    right: tuple[float, float]
    precision: tuple[float, float]


def run(given: argparse.Namespace) -> None:
    """Compare, print, and write what is asked for."""
    for name in ("compare.json", "changed.csv", "changed.png") if given.out else ():
        writable(given.out / name)
    index = given_index(given.index)
    sides = {name: [read_seed(path, given) for path in files] for name, files in given.sides.items()}
    same_queries([*sides["A"], *sides["B"]])

    found = differences(*([seed.sums for seed in sides[name]] for name in "AB"))
    turned = turned_queries(sides)
    print("\n".join(lines(sides, found, turned)))
    if given.out is not None:
        write_json(given.out / "compare.json", content(sides, found, turned))
        if turned is not None:
            write_text(given.out / "changed.csv", _csv(sides, turned))
        else:
            (given.out / "changed.csv").unlink(missing_ok=True)  # an earlier comparison's
        if turned and given.images is not None:
            write_bytes(given.out / "changed.png", picture(sides, turned, index, given.images))
        else:
            (given.out / "changed.png").unlink(missing_ok=True)
        print(f"-> {given.out}")


def turned_queries(sides: Sides) -> list[Turned] | None:
    """The queries that changed sides, in the files' order; None where a side has a result without its features."""
    if not all(seed.scores for seeds in sides.values() for seed in seeds):
        return None

    turned = []
    for number in range(len(sides["A"][0].scores)):
        first, precision = ([np.stack([getattr(seed.scores[number], name) for seed in sides[side]]) for side in "AB"]
                            for name in ("first", "precision"))
        kinds = changed(*first)
        for row in np.flatnonzero(kinds).tolist():
            turned.append(Turned(number, row, "A" if kinds[row] > 0 else "B",
                                 *(tuple(float(values[:, row].mean()) for values in pair)  # type: ignore[arg-type]
                                   for pair in ([each == 1 for each in first], precision))))
    return turned


def lines(sides: Sides, found: Mapping[str, Difference], turned: Sequence[Turned] | None) -> list[str]:
    """The page: who is compared, the differences, seeds, queries that changed sides, protocols."""
    people, queries = sides["A"][0].sums.shape[1], sum(queries for *_, queries in sides["A"][0].asked)
    text = [f"{name}: {', '.join(str(seed.path) for seed in seeds)}" for name, seeds in sides.items()]
    text += ["", f"{'':8}{'A':>8}{'B':>8}{'A - B':>9}   {'95 % interval':18}{'p':>7}"]
    for name, label in NAMES.items():
        each = found[name]
        text.append(f"{label:8}{each.one:8.2f}{each.other:8.2f}{each.difference:+9.2f}   "
                    f"{f'{each.low:+.2f} to {each.high:+.2f}':18}{each.p:7.4f}")
    text += [f"percent; {queries} queries of {people} people; interval: {INTERVALS}; p: {exchanges(people)} "
             "exchanges of A and B, person by person", ""]

    for name, label in NAMES.items():
        text.append(f"{label}: {verdict(found[name])}")
    if min(len(seeds) for seeds in sides.values()) < 2:
        text.append("One training on a side: this is of these weights; another seed of the same network can lie points "
                    "away, so give several (--a, --b) before a method is judged.")
    text += [line for name, seeds in sides.items() for line in _spread(name, seeds)]

    if turned is None:
        text.append("Which queries changed sides cannot be said: a result's features are gone.")
    else:
        counts = {name: sum(each.finder == name for each in turned) for name in "AB"}
        text.append(f"{len(turned)} queries changed sides: {counts['A']} are found first by A alone, {counts['B']} by "
                    "B alone.")
        text += _by_rows(sides)
    text += [f"{name}: {seed.excluded.sentence()}" for name, seeds in sides.items() for seed in seeds[:1]
             if seed.excluded is not None]
    return [*text, "", *(f"{name}: {protocol_line([seed.made for seed in seeds])}" for name, seeds in sides.items())]


def verdict(found: Difference) -> str:
    """
    >>> verdict(Difference(50, 50, 0, -1, 1, 1.0))
    'undecided, chance alone gives as large a difference in 100 of 100 exchanges'
    >>> verdict(Difference(50, 50, 0, -1, 1, 0.9963))[-20:]
    '100 of 100 exchanges'
    """
    often = f"{100 * found.p:.2g}" if found.p < 0.99 else f"{100 * found.p:.0f}"
    decided = found.p < LEVEL and (found.low > 0 or found.high < 0)
    said = f"{'A' if found.difference > 0 else 'B'} is better on these people" if decided else "undecided"
    return f"{said}, chance alone gives as large a difference in {often} of 100 exchanges"


def _spread(name: str, seeds: Sequence[Seed]) -> list[str]:
    """Each seed of a side by itself where there are several, and whichever collapsed."""
    values = np.array([means(seed.sums) for seed in seeds])  # (S, 2)
    text = []
    if len(seeds) > 1:
        told = "; ".join(f"{label} {', '.join(f'{100 * value:.2f}' for value in values[:, place])} (standard deviation "
                         f"{100 * values[:, place].std(ddof=1):.2f})" for place, label in enumerate(NAMES.values()))
        text.append(f"{name}, {len(seeds)} seeds: {told}")
    return text + [f"{name}: {seed.path} looks collapsed, its rank-1 of {100 * value:.2f} is {why}; it counts all the "
                   "same" for seed, value, why in zip(seeds, values[:, 0], _collapsed(seeds), strict=True) if why]


def _by_rows(sides: Sides) -> list[str]:
    """Which files name no pictures where others do: which row is which picture rests on people and cameras alone."""
    seeds = [seed for each in sides.values() for seed in each]
    named = next((seed for seed in seeds if seed.trials[0].named), None)
    without = [str(seed.path) for seed in seeds if named is not None and not seed.trials[0].named]
    return [f"{', '.join(without)}: {'name' if len(without) > 1 else 'names'} no pictures; rows are taken for those of "
            f"{named.path}, sorted by name, whose people and cameras they have"] if without and named else []


def _collapsed(seeds: Sequence[Seed]) -> list[str]:
    trials = next((seed.trials for seed in seeds if seed.trials), [])
    by_chance = np.mean([chance(trial.query, trial.gallery) for trial in trials], axis=0).tolist() if trials else None
    return collapsed([float(means(seed.sums)[0]) for seed in seeds], by_chance)


def content(sides: Sides, found: Mapping[str, Difference], turned: Sequence[Turned] | None) -> dict[str, Any]:
    """What compare.json holds."""
    def told(seeds: Sequence[Seed]) -> list[dict[str, Any]]:
        return [{"file": str(seed.path), "rank1": round(100 * float(rank1), 4), "mAP": round(100 * float(precision), 4),
                 "collapsed": why or None, "ignored": seed.excluded and seed.excluded.content()}
                for seed, (rank1, precision), why in zip(seeds, [means(seed.sums) for seed in seeds],
                                                         _collapsed(seeds), strict=True)]

    rounded = {name: {key: round(value, 4) for key, value in asdict(each).items()} for name, each in found.items()}
    return {"A": told(sides["A"]), "B": told(sides["B"]), "differences": rounded, "intervals": INTERVALS,
            "exchanges": exchanges(sides["A"][0].sums.shape[1]),
            "changed": None if turned is None else {name: sum(each.finder == name for each in turned) for name in "AB"},
            "protocol": {name: protocol_line([seed.made for seed in seeds]) for name, seeds in sides.items()}}


def _csv(sides: Sides, turned: Sequence[Turned]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in turned:
        trial = sides["A"][0].trials[each.trial]
        writer.writerow([each.trial, _name(sides, each), trial.query.pid[each.row], trial.query.camid[each.row],
                         each.finder, *(f"{share:.4f}" for share in (*each.right, *each.precision))])
    return text.getvalue()


def _named(sides: Sides, trial: int) -> Embedded:
    """The trial of a file that says which pictures it has, where there is one."""
    trials = [seed.trials[trial] for seeds in sides.values() for seed in seeds]
    return next((embedded for embedded in trials if embedded.named), trials[0])


def _name(sides: Sides, each: Turned) -> str:
    return str(_named(sides, each.trial).query_key[each.row])


def picture(sides: Sides, turned: Sequence[Turned], index: pd.DataFrame | None, images: Path) -> bytes:
    """PNG: of each kind the queries whose average precision changed most, with the first TOP of A and of B, each by its
    first seed that is with the majority."""
    chosen = [each for name in "AB" for each in sorted(
        (each for each in turned if each.finder == name), key=lambda each: -abs(each.precision[0] - each.precision[1])
    )[:SHOWN]]
    where = {} if index is None else dict(zip(index["image"], index["path"], strict=True))
    lists, names = [], []
    for each in chosen:
        named = _named(sides, each.trial)
        query = _listed(str(named.query_key[each.row]), int(named.query.pid[each.row]), None, where, images)
        for side in "AB":
            right = side == each.finder
            seed = next(seed for seed in sides[side] if (seed.scores[each.trial].first[each.row] == 1) == right)
            trial = seed.trials[each.trial]
            rows, _ = nearest(trial.query.take(slice(each.row, each.row + 1)), trial.gallery, trial.matching, TOP)
            lists.append((query, [_listed(str(named.gallery_key[row]), int(trial.gallery.pid[row]),
                                          bool(trial.gallery.pid[row] == trial.query.pid[each.row]), where, images)
                                  for row in rows[0] if row >= 0]))
            names.append(f"{side}: {_called(seed)}")
    return rank_figure(lists, names=names)


def _called(seed: Seed) -> str:
    return str(seed.made.get("result") or seed.made.get("run") or seed.path.stem)


def _listed(key: str, pid: int, right: bool | None, where: Mapping[str, str], images: Path) -> ListedImage:
    path = where.get(key, key)
    return ListedImage(read_image(images / path), Path(path).name, pid, right)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="A B", help="two files: .json, .h5, .npz or .mat")
    parser.add_argument("--a", type=Path, nargs="+", default=[], metavar="A", help="seeds of one network")
    parser.add_argument("--b", type=Path, nargs="+", default=[], metavar="B", help="seeds of the other")
    parser.add_argument("--distance", choices=["cosine", "euclidean"], help="of others' parts' features (cosine)")
    parser.add_argument("--reduction", choices=["mean", "sum"], help="over others' parts (mean)")
    add_ignore_options(parser)
    parser.add_argument("--images", type=Path, help="the folder of the pictures, to show queries that changed sides")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write compare.json, changed.csv and .png here")
    given = parser.parse_args(words)

    if bool(given.files) == bool(given.a or given.b) or (given.files and len(given.files) != 2):
        parser.error("give two files, or --a and --b with one or several each")
    if not given.files and not (given.a and given.b):
        parser.error("--a and --b need each other")
    if given.images is not None and given.out is None:
        parser.error("--images is for the picture, and --out says where to write it")
    given.sides = dict(zip("AB", [given.files[:1], given.files[1:]] if given.files else [given.a, given.b],
                           strict=True))
    return given


def main(words: Sequence[str] | None = None) -> None:
    given = parse_arguments(words)
    with sentences():
        run(given)


if __name__ == "__main__":
    main()
