"""Text of params.yaml and plan.yaml, their guard against hand edits, and what a first line says of them.

In params.yaml an entry of a kind that was not shown before stands key by key, each with its comment; later ones of that
kind, and plan.yaml, stand in few lines. So every comment stands once.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config.loader import concrete, hints_of, range_text
from pipeline.config.schema import CHOICES, Params
from pipeline.config.yaml12 import is_word, read_yaml

WIDTH = 118
SHORT = 80  # characters of a list that stays on one line, or of a value that is shown in an error
SHOWN = 6  # edits that are named
ABSENT = "absent"
PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./ ()+>=~%")


def fingerprint(tree: Any) -> str:
    """Of a tree as compose makes it; of one that JSON cannot hold, and compose never made, nothing."""
    try:
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
    except TypeError:
        return ""


def head(name: str, kept: tuple[str, ...] | None, tree: Any) -> str:
    """The first line: from which profile, with which data sets kept, and the tree's fingerprint."""
    chosen = "" if kept is None else f" --with {' '.join(kept)}"
    return f"# composed from profile {name}{chosen}, {fingerprint(tree)}\n"


def composed_from(path: Path) -> tuple[str, tuple[str, ...] | None, str]:
    """(profile, data sets kept, fingerprint) out of a file's first line. InputError if it does not say."""
    try:
        words = path.read_text(encoding="utf-8").partition("\n")[0].replace(",", " ").split()
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error.strerror}); move what lies there away") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r}: is no UTF-8 text; move it away and compose again") from error
    if words[:4] != ["#", "composed", "from", "profile"] or len(words) < 6:
        raise InputError(f"{str(path)!r}: the first line does not name the profile it was composed from; "
                         f"`git checkout {path}`, or compose with --force")
    rest = words[5:-1]
    return words[4], tuple(rest[1:]) if rest[:1] == ["--with"] else None, words[-1]


def params_text(tree: dict[str, Any], name: str, kept: tuple[str, ...] | None) -> str:
    """params.yaml: the tree, each key's comment where it stands first."""
    return (head(name, kept, tree)
            + f"# Edit profiles/*.yaml and run `python -m stages.compose {name}`; edits here stop the next compose.\n"
            "# Each key's comment stands where the key stands first. The wiring that goes with it is plan.yaml.\n"
            + "\n".join(_Writer().lines(Params, tree, 0)) + "\n")


def plan_text(tree: dict[str, Any], name: str, kept: tuple[str, ...] | None) -> str:
    """plan.yaml: what dvc.yaml templates from, one entry per stage."""
    lines = [head(name, kept, tree).rstrip("\n"),
             "# The experiment's stages and the files that each reads; dvc.yaml templates from it. Nobody edits it:",
             f"# `python -m stages.compose {name}` writes it beside params.yaml."]
    lines.append("plan:")
    for key, value in tree["plan"].items():
        if isinstance(value, dict) and value:
            lines.append(f"  {key}:")
            for name_, entry in value.items():
                lines += flow(f"    {scalar(name_)}: ", entry, 6)
        else:
            lines += flow(f"  {key}: ", value, 4)
    return "\n".join(lines) + "\n"


class _Writer:
    """Which keys of which kinds of entries have been shown with their comments."""

    def __init__(self) -> None:
        self.shown: set[tuple[type, str]] = set()
        self.said: set[str] = set()  # comments of the section that is being written

    def lines(self, kind: Any, tree: dict[str, Any], depth: int) -> Iterator[str]:
        """A tree of `kind` key by key, in the order of declaration, each with its comment if it was not shown yet."""
        indent = "  " * depth
        hints = hints_of(kind)
        for item in dataclasses.fields(kind):
            if item.name not in tree:
                continue
            key, value, hint = item.name, tree[item.name], hints[item.name]
            if depth == 0:
                self.said = set()
            comment = "" if (kind, key) in self.shown else comment_of(item.metadata)
            comment = "" if f"{key}{comment}" in self.said else comment
            self.shown.add((kind, key))
            self.said.add(f"{key}{comment}")
            if typing.get_origin(hint) is dict and value:
                yield f"{indent}{key}:{comment}"
                for name, entry in value.items():
                    yield from self._entry(typing.get_args(hint)[1], name, entry, depth + 1)
            elif isinstance(value, dict) and value:
                yield from self._entry(hint, key, value, depth, comment)
            else:
                yield f"{indent}{key}: {scalar(value)}{comment}"

    def _entry(self, kind: Any, name: str, entry: dict[str, Any], depth: int, comment: str = "") -> Iterator[str]:
        """An entry in few lines, or key by key where one of its keys was not shown yet."""
        start = f"{'  ' * depth}{scalar(name)}:"
        if kind in CHOICES:
            kind = concrete(kind, entry, name)
            told = " ".join((kind.__doc__ or "").split())
            comment = comment or (f"  # {told}" if not told.startswith(f"{kind.__name__}(") else "")  # dataclass's own
        if set(_keys(kind, entry)) <= self.shown:
            yield from flow(f"{start} ", in_order(kind, entry), 2 * depth + 2)
            return
        new = not any(shown is kind for shown, _ in self.shown)
        yield f"{start}{comment if new else ''}"
        yield from self.lines(kind, entry, depth + 1)


def _keys(kind: Any, entry: dict[str, Any]) -> Iterator[tuple[type, str]]:
    """(kind, key) of an entry and of all entries in it."""
    kind = concrete(kind, entry, "") if kind in CHOICES else kind
    hints = hints_of(kind)
    for key, value in entry.items():
        yield kind, key
        if isinstance(value, dict):
            yield from _keys(hints[key], value)


def in_order(kind: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry's keys in the order of their declaration."""
    kind = concrete(kind, entry, "") if kind in CHOICES else kind
    hints = hints_of(kind)
    names = [item.name for item in dataclasses.fields(kind) if item.name in entry]
    return {name: in_order(hints[name], entry[name]) if isinstance(entry[name], dict) else entry[name]
            for name in names}


def comment_of(metadata: typing.Mapping[str, Any]) -> str:
    """A key's meaning, and the values or the range that it may have."""
    text, choices, low, high = (metadata[key] for key in ("doc", "choices", "low", "high"))
    if choices and len(choices) > 1:
        text = f"{' | '.join(map(str, choices))}; {text}" if text else " | ".join(map(str, choices))
    elif not choices and (low is not None or high is not None):
        text = f"{text}; {range_text(low, high)}"
    return f"  # {text}" if text else ""


def flow(start: str, value: Any, depth: int) -> list[str]:
    """`start` and the value in flow style, over as many lines as it takes."""
    if not isinstance(value, dict | list | tuple):
        return [start + scalar(value)]
    lines, line = [], start
    for word in _words(value):
        glued = line.endswith(("{", "[")) or word in ("}", "]", "},", "],")
        if len(line) + len(word) + (0 if glued else 1) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * depth + word
        else:
            line += word if glued or line == start else f" {word}"
    return [*lines, line]


def _words(value: Any) -> Iterator[str]:
    """Pieces of a value in flow style between which a line may break."""
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    short = f"{opening}{', '.join(map(scalar, value))}{closing}" if not isinstance(value, dict) else ""
    if not value or (short and len(short) < SHORT and not any(isinstance(item, dict | list) for item in value)):
        yield short or opening + closing
        return
    yield opening
    items = list(value.items()) if isinstance(value, dict) else [(None, item) for item in value]
    for place, (key, item) in enumerate(items):
        comma = "," if place < len(items) - 1 else ""
        name = "" if key is None else f"{scalar(key)}: "
        if isinstance(item, dict | list | tuple) and item:
            words = [*_words(item)]
            words[0], words[-1] = name + words[0], words[-1] + comma if len(words) > 1 else name + words[0] + comma
            yield from words
        else:
            yield name + ("{}" if item == {} else "[]" if isinstance(item, list | tuple) else scalar(item)) + comma
    yield closing


def scalar(value: Any) -> str:
    """A value on one line, which YAML 1.1 and 1.2 read back as the same."""
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, dict):
        return "".join(flow("", value, 0)) if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(scalar, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _plain(value) else f'"{"".join(map(_escaped, value))}"'


def _escaped(letter: str) -> str:
    return f"\\U{ord(letter):08x}" if ord(letter) > 0xffff else json.dumps(letter)[1:-1]  # JSON's are two surrogates


def _plain(text: str) -> bool:
    return bool(text) and set(text) <= PLAIN and text.strip() == text and text[0].isalnum() and is_word(text)


def edits(path: Path, tree: Any) -> list[str]:
    """What stands in `path` and was not composed, as `a.b: 1 -> 2`; empty if nothing was edited.

    tree: what composing gives now, to name the edits.
    """
    there = read_yaml(path)
    if composed_from(path)[2] == fingerprint(there):
        return []
    return changes(tree, there) or ["the first line"]


def changes(old: Any, new: Any) -> list[str]:
    """What differs between two trees, as `a.b: 1 -> 2`; of many the first few and how many more there are."""
    found = list(_differences(old, new, ""))
    return found[:SHOWN] + ([f"{len(found) - SHOWN} more"] if len(found) > SHOWN else [])


def _differences(old: Any, new: Any, name: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield f"{name or 'the file'}: {_brief(old)} -> {_brief(new)}"


def _brief(value: Any) -> str:
    try:
        text = value if value is ABSENT else scalar(value)
    except TypeError:
        text = repr(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]} ..."
