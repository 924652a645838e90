"""Exclusion list: pictures that are left out of scoring, because their label is wrong say, each with a reason.

A CSV with the columns `path` and `reason`. A path is that of the data set's index, or the picture's key there, or the
name that a file of others' features has for it.
"""

import csv
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.ranking import JUNK

COLUMNS = ["path", "reason"]


@dataclass(frozen=True)
class Exclusions:
    """The list in `file`: path -> reason, and its SHA-256, by which a result can say which one it was."""
    file: str
    reasons: Mapping[str, str]
    sha256: str


@dataclass(frozen=True)
class Excluded:
    """What a list took out of some features: `query` and `gallery` images, by `reasons`; elsewhere: listed pictures
    that are neither, those of training say."""
    file: str
    sha256: str
    listed: int
    query: int
    gallery: int
    elsewhere: int
    reasons: Mapping[str, int]

    def sentence(self) -> str:
        """
        >>> Excluded("ignore.csv", "", 4, 1, 2, 1, {"wrong person": 3}).sentence()
        'left out by ignore.csv: 1 query and 2 gallery images (3 wrong person); 1 more of its 4 is elsewhere'
        """
        why = "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        more = f"; {self.elsewhere} more of its {self.listed} {'are' if self.elsewhere > 1 else 'is'} elsewhere"
        return (f"left out by {self.file}: {self.query} quer{'y' if self.query == 1 else 'ies'} and {self.gallery} "
                f"gallery image{'s' * (self.gallery != 1)} ({why}){more * bool(self.elsewhere)}")

    def content(self) -> dict[str, Any]:
        """For a result's JSON."""
        return {"file": self.file, "sha256": self.sha256, "listed": self.listed, "query": self.query,
                "gallery": self.gallery, "elsewhere": self.elsewhere, "reasons": dict(self.reasons)}


def read_exclusions(path: str | os.PathLike) -> Exclusions:
    """Read a list. InputError names the file and the line that has no path or no reason, or a path again."""
    name = repr(os.fspath(path))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; an exclusion list is a CSV with the columns path and reason"
                         ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{name}: cannot be read as CSV ({' '.join(str(error).split())}); write it as UTF-8 with the "
                         "columns path and reason") from error

    if not lines or lines[0][1] != COLUMNS:
        here = ", ".join(lines[0][1]) if lines else "nothing"
        raise InputError(f"{name}: begins with {here!r}; its first line must be path,reason")

    reasons: dict[str, str] = {}
    for number, row in lines[1:]:
        cells = [cell.strip() for cell in row]
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{name}: line {number} is {','.join(row)!r}; it must have a path and a reason (in quotes "
                             "where it holds a comma)")
        if cells[0] in reasons:
            raise InputError(f"{name}: line {number} has {cells[0]!r} for the second time; take one of them out")
        reasons[cells[0]] = cells[1]
    return Exclusions(os.fspath(path), reasons, file_sha256(path))


def without(embedded: Embedded, exclusions: Exclusions, *, places: Mapping[str, str] | None = None
            ) -> tuple[Embedded, Excluded]:
    """The features without those listed, and what that took out.

    places: key -> path of every image of the index, those of training too, where there is one; a list may have either
    name where the features have the other. InputError if no listed picture is here, if one is not in the index, or if
    no query or no gallery image would be left.
    """
    if not embedded.named:
        raise InputError(f"{exclusions.file!r}: names pictures, and the features do not say which theirs are; add the "
                         "arrays query_name and gallery_name to their .npz file")
    keys = [side.tolist() for side in (embedded.query_key, embedded.gallery_key)]
    known = {*keys[0], *keys[1], *(places or {}), *(places or {}).values()}
    strange = [path for path in exclusions.reasons if path not in known]
    if strange and places is not None:
        raise InputError(f"{exclusions.file!r}: {strange[0]!r} is no path of the index; take it out or mend the path")

    # A file may stand in two splits, and a key begins with its own.
    by_path = {(key.partition("/")[0], path): key for key, path in (places or {}).items()}
    names = [[(key, (places or {}).get(key) or by_path.get((split, key), key)) for key in side]
             for split, side in zip(("query", "gallery"), keys, strict=True)]
    why = [[next((exclusions.reasons[name] for name in both if name in exclusions.reasons), None) for both in side]
           for side in names]
    taken = [reason for side in why for reason in side if reason is not None]
    if exclusions.reasons and not taken and (strange or places is None):
        raise InputError(f"{exclusions.file!r}: none of its {len(exclusions.reasons)} pictures "
                         f"({next(iter(exclusions.reasons))!r} first) is a query or in the gallery ({keys[0][0]!r} is "
                         "the first query); where it has paths and the features have keys, add --index")

    hit = {name for side in names for both in side for name in both if name in exclusions.reasons}
    kept = [np.flatnonzero([reason is None for reason in side]) for side in why]
    for what, part, rows in (("queries", embedded.query, kept[0]), ("gallery images", embedded.gallery, kept[1])):
        if len(rows) < len(part) and (part.pid[rows] == JUNK).all():
            raise InputError(f"{exclusions.file!r}: leaves out {len(part) - len(rows)} of {len(part)} {what}, so that "
                             "none is left to score; take some out of the list")
    return embedded.take(*kept), Excluded(
        exclusions.file, exclusions.sha256, listed=len(exclusions.reasons), query=len(keys[0]) - len(kept[0]),
        gallery=len(keys[1]) - len(kept[1]), elsewhere=len(exclusions.reasons) - len(hit),
        reasons=dict(Counter(taken)))
