"""Neighbours of every query: its nearest gallery images part by part, as the stage neighbours leaves them for a report.

One JSON file per result, on one data set: Q queries, P parts, K places shown. It is written and read here.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import write_text

DIGITS = 4  # significant ones of what is shown


@dataclass(frozen=True)
class Listed:
    """A query's list. A picture beyond the first places is the nearest one of the query's person.

    query: its key; hidden: share of its body, 0..1, None where nobody knows; first: place of the first image of its
    person (1 is right), 0 where it has none and is not scored; visibility (P,): v_p of the query; then of each shown
    gallery image its key, place, whether it is the query's person, its distance d (None: no shared part), v_p (P,) and
    D(f_p^q, f_p^g) (P,).
    """
    query: str
    hidden: float | None
    first: int
    visibility: list[float]
    gallery: list[str]
    place: list[int]
    match: list[bool]
    distance: list[float | None]
    visible: list[list[float]]
    parts: list[list[float]]


@dataclass(frozen=True)
class Neighbours:
    """All lists of a result on a data set, sorted by query; model, distance (cosine | euclidean) and reduction (mean |
    sum): how they were ranked; sizes (P,): D_p."""
    result: str
    dataset: str
    model: str
    distance: str
    reduction: str
    sizes: list[int]
    lists: list[Listed]

    def rank1(self) -> float:
        """Share of the scored queries that are right at place 1; 0 where none is scored."""
        firsts = [listed.first for listed in self.lists if listed.first]
        return firsts.count(1) / len(firsts) if firsts else 0.0


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """A query per line, floats with DIGITS significant digits; whole or not at all."""
    head = {field.name: getattr(neighbours, field.name) for field in fields(Neighbours) if field.name != "lists"}
    lines = [json.dumps(_short(asdict(listed)), separators=(",", ":")) for listed in neighbours.lists]
    write_text(path, json.dumps(head)[:-1] + ', "lists": [\n' + ",\n".join(lines) + "\n]}\n")


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read_neighbours(path: Path, *, result: str, dataset: str, remedy: str) -> Neighbours:
    """InputError, with the remedy, if the file is missing, damaged, or of another result or data set."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = [Listed(**entry) for entry in content.pop("lists")]
        found = Neighbours(lists=lists, **content)
        wrong = next((listed for listed in lists if not _fits(listed, len(found.sizes))), None)
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r}: is not there; {remedy}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{str(path)!r}: holds no neighbours of queries ({' '.join(str(error).split())}); {remedy}"
                         ) from error

    if wrong:
        raise InputError(f"{str(path)!r}: the list of {wrong.query!r} does not have {len(found.sizes)} parts for each "
                         f"of its images; {remedy}")
    if (found.result, found.dataset) != (result, dataset):
        raise InputError(f"{str(path)!r}: is of {found.result!r} on {found.dataset!r}, not of {result!r} on "
                         f"{dataset!r}; {remedy}")
    return found


def _fits(listed: Listed, parts: int) -> bool:
    """Whether all of a list's columns have its length, and all that is of parts theirs."""
    columns: Sequence[list] = (listed.place, listed.match, listed.distance, listed.visible, listed.parts)
    of_parts = [listed.visibility, *listed.visible, *listed.parts]
    return ({len(column) for column in columns} == {len(listed.gallery)}
            and all(len(values) == parts for values in of_parts))


def same_queries(runs: Sequence[Neighbours]) -> None:
    """InputError if two runs' lists are of other queries."""
    queries = [{listed.query for listed in run.lists} for run in runs]
    for run, asked in zip(runs, queries, strict=True):
        odd = asked ^ queries[0]
        if odd:
            raise InputError(f"the features of {run.result!r} on {run.dataset!r} are of {len(asked)} queries and those "
                             f"of {runs[0].result!r} of {len(queries[0])}, {min(odd)!r} is not in both: they are of "
                             "another index; run `dvc repro embed neighbours`")
