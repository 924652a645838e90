"""YAML as DVC reads and writes it: 1.2's numbers, and one sentence for a file that is none."""

import itertools
import os
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.base.errors import InputError

MARKS = ("<<<<<<< ", "=======", ">>>>>>> ")  # of a conflict that git left
DEEPEST = 64  # levels of brackets or of entries; ours have 6, and PyYAML crashes at some ten thousand

# as ruamel.yaml, which DVC reads with, has them for YAML 1.2
BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
INT = re.compile(r"(?:[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]*[0-9][0-9_]*|[-+]?0x[0-9a-fA-F_]+)$")
FLOAT = re.compile(r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
                   r"|[-+]?\.[0-9_]*[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")
REPLACED = {f"tag:yaml.org,2002:{name}": (rule, list(first)) for name, rule, first in (
    ("bool", BOOL, "tTfF"), ("float", FLOAT, "-+.0123456789"), ("int", INT, "-+0123456789"))}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML with YAML 1.2's numbers and truth values: 1e-05 is a number, `on` and `no` are words. A key that stands
    twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice",
                                                            key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        digits = self.construct_scalar(node).replace("_", "")
        base = {"0b": 2, "0o": 8, "0x": 16}.get(digits.lstrip("+-")[:2], 10)
        return int(digits, base)


_Loader.yaml_implicit_resolvers = {first: [rule for rule in rules if rule[0] not in REPLACED]
                                   for first, rules in _Loader.yaml_implicit_resolvers.items()}
for _tag, (_rule, _first) in REPLACED.items():
    _Loader.add_implicit_resolver(_tag, _rule, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)


def is_word(text: str) -> bool:
    """Whether YAML reads a plain text as a string, by 1.1 and by 1.2.

    >>> is_word("sorn"), is_word("no"), is_word("1e-05"), is_word("0o17")
    (True, False, False, False)
    """
    rules = [rule for loader in (yaml.SafeLoader, _Loader)
             for _, rule in loader.yaml_implicit_resolvers.get(text[:1], [])]
    return not any(rule.match(text) for rule in rules)


def read_yaml(path: str | os.PathLike) -> Any:
    """A YAML file's tree. InputError, naming the file and the line, if it cannot be read as one.

    FileNotFoundError passes: what is missing means something else to each caller.
    """
    name = repr(os.fspath(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); put the file in its place") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is no UTF-8 text (byte {error.start}); write it anew") from error
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> Any:
    """The tree of a YAML text; `name` is what errors call it."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(MARKS[::2]) or line.rstrip() == MARKS[1]:
            raise InputError(f"{name}: line {number} is a mark of a conflict that git left; take one side "
                             "(`git checkout --ours` or `--theirs`) and compose again")
        if "\t" in line[:len(line) - len(line.lstrip())]:
            raise InputError(f"{name}: line {number} begins with a tab; YAML wants blanks there")

    brackets = itertools.accumulate(1 if mark in "[{" else -1 for mark in re.findall(r"[][{}]", text))
    if max(brackets, default=0) > DEEPEST or re.search(rf"(?:[-?:] ){{{DEEPEST}}}", text):
        raise InputError(f"{name}: is nested too deeply; write it flatter")

    try:
        tree = yaml.load(text, _Loader)
    except Exception as error:  # PyYAML raises IndexError, AttributeError and KeyError on tags such as `!!int ''`
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{name}: cannot be read as YAML{place}: {' '.join(str(problem).split())}; mend it") from error
    _check_depth(tree, name)
    return tree


def _check_depth(tree: Any, name: str) -> None:
    """InputError for a tree that is too deep or, by an alias, stands in itself."""
    deepest: dict[int, int] = {}
    todo = [(tree, 1)]
    while todo:
        node, level = todo.pop()
        if not isinstance(node, dict | list) or deepest.get(id(node), 0) >= level:
            continue
        if level > DEEPEST:
            raise InputError(f"{name}: is nested too deeply, or an alias (*) in it stands for what it is in; write it "
                             "flatter")
        deepest[id(node)] = level
        todo += [(item, level + 1) for item in (node.values() if isinstance(node, dict) else node)]
