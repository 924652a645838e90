"""Profiles as people write them: profiles/NAME.yaml with what it includes, recipes copied into entries.

    include: [small]                     # other profiles, merged in first; what stands here goes over them
    on: [default]                        # experiments whose data sets, caches and runs are used; they stay theirs
    recipes: {mine: {like: small-sorn, image_steps: 16000}}
    runs: {my-sorn: {like: mine}, sorn: null}      # null takes out what was included

Whatever is no profile is one sentence that names the file and the place.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config.loader import shown
from pipeline.config.names import check_name, known_name, nearest
from pipeline.config.schema import (
    EXTERNAL,
    CacheParams,
    JointsParams,
    OccludeParams,
    ParserParams,
    PhotographsParams,
    RenderParams,
    RunParams,
    TaughtParams,
    WarpParams,
)
from pipeline.config.yaml12 import read_yaml

Entry = dict[str, Any]
PROFILES = Path("profiles")
LISTS = ("include", "on", "beside")
SCALARS = ("device", "precision", "threads")
ONE_PARSER = ("weights", "source")  # two ways to name a cache's

# Keys of a section's entries that go into the plan, or say what an entry is made of, and what each holds; the others
# are the parameters of the kinds beside.
SECTIONS: dict[str, tuple[dict[str, type], tuple[type, ...]]] = {
    "render": ({}, (RenderParams,)),
    "datasets": ({"layout": str, "raw": str, "joints": bool, "trials": int, "hold_out": int,
                  "ignore": str}, ()),
    "occlude": ({"dataset": str}, (OccludeParams,)),
    "parsers": ({"data": str, "raw": str, "teacher": str}, (ParserParams, PhotographsParams, TaughtParams)),
    "caches": ({"dataset": str, "datasets": list, "weights": str, "source": str, "config": str},
               (CacheParams, *EXTERNAL.values())),
    "warps": ({"dataset": str, "parts": str}, (WarpParams,)),
    "joints": ({"dataset": str, "source": str}, (JointsParams,)),
    "runs": ({"of": str, "train_on": str, "eval_on": list, "cache": str, "masks": list, "model": dict,
              "match": dict, "features_dtype": str, "visible_by": str}, (RunParams,)),
    "report": ({"title": str, "pictures": str, "parser": str}, ()),
    "figures": ({"kind": str, "title": str, "shows": list, "names": list, "count": int, "dataset": str}, ()),
}
KNOWN = (*LISTS, *SCALARS, "recipes", *SECTIONS, "rows")


def load_profile(name: str, within: tuple[str, ...] = ()) -> Entry:
    """A profile's tree with what it includes. InputError if one of the files is no profile."""
    path = str(PROFILES / f"{name}.yaml")
    if name in within:
        raise InputError(f"{path!r}: includes itself ({' -> '.join((*within, name))}); take one `include` out")
    try:
        source = read_yaml(path)
    except FileNotFoundError as error:
        there = profile_names()
        raise InputError(f"{path!r}: no such profile{nearest(name, there)}; there are {', '.join(there) or 'none'}"
                         ) from error

    _check_shape(source, path)
    included: Entry = {}
    for other in source.pop("include", []):
        known_name(other, profile_names(), f"{path!r}: include", "profile")
        part = load_profile(other, (*within, name))
        part.pop("on", None)  # whose experiments are used is said by the profile that is composed
        included = merge(included, part)
    _check_taken_out(source, included, path)
    return merge(included, source)


def profile_names() -> list[str]:
    return sorted(file.stem for file in PROFILES.glob("*.yaml"))


def _check_shape(source: Any, path: str) -> None:
    if not isinstance(source, dict) or not source:
        raise InputError(f"{path!r}: holds {shown(source)} where a profile's sections belong; profiles/default.yaml is "
                         "an example")
    for key, value in source.items():
        if key not in KNOWN:
            raise InputError(f"{path!r}: unknown section {key!r}{nearest(key, KNOWN)}; a profile has "
                             f"{', '.join(KNOWN)}")
        if key in LISTS:
            check_kind(value, list, f"{path!r}: {key}")
        elif key not in SCALARS and not isinstance(value, dict):
            raise InputError(f"{path!r}: {key}: expected entries, got {shown(value)}; an empty section is left out")
        for name, entry in value.items() if key in ("recipes", *SECTIONS) else ():
            check_name(name, f"{path!r}: {key}")
            if entry is not None and not isinstance(entry, dict):
                raise InputError(f"{path!r}: {key}.{name}: expected entries, got {shown(entry)}; null takes out what "
                                 "was included")


def _check_taken_out(source: Entry, included: Entry, path: str) -> None:
    """InputError for an entry that is to be taken out and is not there: a mistyped name."""
    for section in ("recipes", *SECTIONS):
        for name, entry in source.get(section, {}).items():
            if entry is None:
                known_name(name, included.get(section, {}), f"{path!r}: {section}.{name}: null takes out what was "
                           f"included", "entry")


def merge(base: Any, over: Any) -> Any:
    """`over` over `base`, key by key; another model replaces one, and a cache's parser named by `weights` one named by
    its `source`, or the other way round.

    A key that is null in `over` is taken out of `base`; where that does not have it, it stays, to be taken out of what
    the result goes over in its turn.

    >>> merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4, "c": None}})
    {'a': {'b': 4}, 'd': 3}
    """
    if not isinstance(over, dict):
        return copy.deepcopy(over)
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for one, other in (ONE_PARSER, ONE_PARSER[::-1]):
        if over.get(one) is not None and other not in over:
            result.pop(other, None)
    for key, value in over.items():
        if value is None and key in result:
            del result[key]
            continue
        old = result.get(key)
        renamed = (key == "model" and isinstance(old, dict) and isinstance(value, dict)
                   and "name" in old.keys() & value.keys() and old["name"] != value["name"])
        result[key] = merge({} if renamed else old, value)
    return result


def entries(profile: Entry, section: str) -> dict[str, Entry]:
    """A section's entries, their recipes copied in. InputError for an unknown key or a wrong kind of value in one."""
    found = {name: like(entry, profile.get("recipes", {}), f"{section}.{name}")
             for name, entry in profile.get(section, {}).items()}
    wiring, kinds = SECTIONS[section]
    known = list(dict.fromkeys(["like", *wiring, *(item.name for kind in kinds for item in dataclasses.fields(kind))]))
    for name, entry in found.items():
        for key, value in entry.items():
            if key not in known:
                raise InputError(f"{section}.{name}.{key}: unknown key{nearest(key, known)}; an entry of {section} has "
                                 f"{', '.join(known)}")
            if key in wiring and value is not None:
                check_kind(value, wiring[key], f"{section}.{name}.{key}")
            if "of" not in entry:  # which goes over another entry in its turn
                check_idle(value, f"{section}.{name}.{key}")
    return {name: _without_null(entry) | ({"match": entry["match"]} if "of" in entry and entry.get("match") else {})
            for name, entry in found.items()}


def check_idle(value: Any, place: str) -> None:
    """InputError for a key that is null where nothing is left to be taken out: a mistyped name."""
    idle = next((key for key, there in value.items() if there is None), None) if isinstance(value, dict) else None
    if idle is not None:
        raise InputError(f"{place}.{idle}: is null, which takes out what a recipe has, and that has no such key"
                         f"{nearest(idle, value)}; take it out")


def like(entry: Entry, recipes: Entry, place: str, within: tuple[str, ...] = ()) -> Entry:
    """An entry over the recipe that its `like` names, which may be like another. InputError names `place`."""
    entry = dict(entry)
    name = entry.pop("like", None)
    if name is None:
        return entry
    if name in within:
        raise InputError(f"{place}.like: recipe {name!r} is like itself ({' -> '.join((*within, name))}); name another")
    known_name(name, recipes, f"{place}.like", "recipe")
    return merge(like(recipes[name], recipes, f"recipes.{name}", (*within, name)), entry)


def _without_null(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {key: _without_null(value) for key, value in tree.items() if value is not None}


def check_kind(value: Any, kind: type, place: str) -> None:
    """InputError if a value of a profile is of another kind than `kind`, or empty where a name belongs."""
    wanted = {str: "a string", list: "a list of names: write [name]", bool: "true or false", int: "a whole number",
              dict: "entries"}
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool)) and value != ""
    if not right or (kind is list and not all(isinstance(item, str) for item in value)):
        raise InputError(f"{place}: expected {wanted[kind]}, got {shown(value)}")


def take(entry: Entry, field: str, place: str) -> Any:
    """Take a field that has to be there out of an entry. InputError if it is missing."""
    if field not in entry:
        raise InputError(f"{place}.{field}: is missing; write it")
    return entry.pop(field)
