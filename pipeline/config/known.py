"""Names that an experiment has, its own and those it stands on, and the experiment while it is being composed.

A name that the profile knows and that is left out here (`--with`) drops what needs it; any other is an error with the
nearest names.
"""

import copy
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config.names import known_name
from pipeline.config.profiles import Entry


@dataclass(frozen=True)
class Data:
    """A data set as others see it."""

    raw: str
    layout: str
    rendered: bool
    joints: str | None  # the file with its joints, where there is one
    listed: bool = False  # some of its pictures are left out of scoring
    hold_out: int = 0  # so many of its training people are its queries and gallery


@dataclass(frozen=True)
class Parsed:
    """A cache as others see it."""

    owner: str
    dataset: str
    parser: str
    source: str  # of the parser, as in plan.yaml
    description: str | None  # likewise


@dataclass(frozen=True)
class Warped:
    """A data set's warps as others see them."""

    dataset: str
    parts: str  # the cache whose u,v they follow


@dataclass(frozen=True)
class Run:
    """A trained network as others see it. model: its settings, as in params.yaml."""

    owner: str
    model: Entry
    train_on: str
    masks: str  # the kind of cache that it reads, DATASET-MASKS; empty: the data set's own
    entry: Entry  # as in the profile, recipes copied in: what `of` starts from


@dataclass
class Known:
    """What an experiment and those that it stands on have, by name."""

    rendered: dict[str, None] = field(default_factory=dict)  # sets of rendered people, those for parsers too
    datasets: dict[str, Data] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)  # data sets of a repeated protocol -> how often
    parsers: dict[str, str] = field(default_factory=dict)  # -> the rendered set or folder it learns from
    checkpoints: dict[str, None] = field(default_factory=dict)  # fetched from the Hub
    caches: dict[str, Parsed] = field(default_factory=dict)
    crops: dict[str, None] = field(default_factory=dict)  # parses of crops
    warps: dict[str, Warped] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)  # -> the data sets it is embedded on
    result_runs: dict[str, str] = field(default_factory=dict)  # -> whose weights, of trials the last
    dropped: dict[str, None] = field(default_factory=dict)  # SECTION.NAME of what is left out here


@dataclass
class Composition:
    """An experiment while it is composed: each step adds to `params`, `plan`, `known` and `folders`."""

    name: str
    profile: Entry
    kept: tuple[str, ...] | None  # of what lies in users' folders, the names to keep; None keeps all
    known: Known
    folders: dict[str, str]  # what lies in users' folders, kept or not -> where
    params: Entry  # params.yaml's tree
    plan: Entry  # plan.yaml's


WHAT = {"datasets": "data set", "parsers": "parser", "caches": "cache", "warps": "entry of `warps`", "runs": "run",
        "results": "result"}


def together(bases: Iterable[Known]) -> Known:
    """What several experiments know."""
    known = Known()
    for base in bases:
        for item in dataclasses.fields(Known):
            getattr(known, item.name).update(copy.deepcopy(getattr(base, item.name)))
    return known


def keeps(made: Composition, name: str, folder: str) -> bool:
    """Whether what lies in a user's folder is kept; it is noted as the user's."""
    made.folders[name] = folder
    return made.kept is None or name in made.kept


def find(known: Known, section: str, name: Any, place: str) -> str | None:
    """The name, one of `section`; None where it is left out here. InputError, with the nearest, for any other."""
    if f"{section}.{name}" in known.dropped:
        return None
    return known_name(name, getattr(known, section), place, WHAT[section])


def drop(known: Known, section: str, *names: str) -> None:
    """Note that names of `section` are left out here."""
    known.dropped |= dict.fromkeys(f"{section}.{name}" for name in names)


def check_new(known: Known, section: str, name: str, place: str) -> None:
    """InputError for a name that `section` has already."""
    if name in getattr(known, section):
        raise InputError(f"{place}: there is a {WHAT[section]} of that name already, here or in an experiment that "
                         "this one stands on; use that one, or choose another name")
