"""params.yaml and plan.yaml of an experiment as typed objects (pipeline/config/schema.py, pipeline/config/plan.py).

A key that is unknown, missing, of the wrong type or out of its range, and one that names what is not there, is an
InputError that names it.
"""

import dataclasses
import functools
import os
import types
import typing
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.names import nearest
from pipeline.config.plan import FileTrainPlan, Plan, StartedTrainPlan
from pipeline.config.schema import CHOICES, CacheParams, Params, RunParams, file_started_from, started_from
from pipeline.config.yaml12 import read_yaml

LONGEST_SHOWN = 200  # characters of a value in an error


@dataclass(frozen=True)
class Experiment:
    """What a stage works from."""

    params: Params
    plan: Plan

    @property
    def name(self) -> str:
        return self.plan.name

    def run(self, key: str) -> RunParams:
        """A run's parameters, those of another experiment's run out of that one's params.yaml."""
        owner = self.plan.owners.get(key, self.name)
        params = self.params if owner == self.name else load_experiment(owner).params
        return pick(params.runs, key, "runs")

    def cache(self, key: str, owner: str = "") -> CacheParams:
        """How a cache was parsed; owner: the experiment whose cache it is, empty for this one."""
        params = self.params if owner in ("", self.name) else load_experiment(owner).params
        return pick({**params.caches, **params.external}, key, "caches")


def load_experiment(name: str = "default") -> Experiment:
    """Read an experiment's params.yaml and plan.yaml. InputError names the file, the key and what belongs there."""
    folder = paths.experiment_folder(name)
    if not (folder / "params.yaml").is_file() and name != "default":
        there = sorted(path.parent.name for path in paths.EXPERIMENTS.glob("*/params.yaml"))
        raise InputError(f"{str(folder)!r}: no such experiment{nearest(name, ['default', *there])}; compose it with "
                         f"`python -m stages.compose {name}`")
    params, plan = load_params(folder / "params.yaml", name), load_plan(folder / "plan.yaml", name)
    if plan.name != name:
        raise InputError(f"{str(folder / 'plan.yaml')!r}: is the plan of experiment {plan.name!r}; compose {name} "
                         "again")

    for key, train in plan.trainings.items():
        run = pick(params.runs, key, f"{str(folder / 'params.yaml')!r}: runs")
        start = train.start if isinstance(train, StartedTrainPlan) else None
        init = run.init if started_from(run.init) == start else f"run:{start}" if start else "no run to start from"
        file = train.file if isinstance(train, FileTrainPlan) else None
        init = init if file_started_from(run.init) == file else file or "no file to start from"
        for field, value, planned in (("train_on", run.train_on, train.train_on), ("cache", run.cache, train.cache),
                                      ("model.name", run.model.name, train.model), ("init", run.init, init)):
            if value != planned:
                raise InputError(f"{str(folder / 'params.yaml')!r}: runs.{key}.{field}: is {value!r}, and plan.yaml "
                                 f"has {planned!r}; change it in the profile and compose again")
    return Experiment(params, plan)


def load_params(path: str | os.PathLike, name: str = "default") -> Params:
    """Read params.yaml. InputError names the file, the key, what was found and what belongs there."""
    return _load(path, Params, name, lambda tree: tree)


def load_plan(path: str | os.PathLike, name: str = "default") -> Plan:
    """Read plan.yaml. InputError likewise."""
    return _load(path, Plan, name, lambda tree: tree.get("plan") if isinstance(tree, dict) else tree)


def _load(path: str | os.PathLike, kind: type, name: str, inside: typing.Callable[[Any], Any]) -> Any:
    quoted = repr(os.fspath(path))
    try:
        return parse(kind, inside(read_yaml(path)), "")
    except FileNotFoundError as error:
        raise InputError(f"{quoted}: no such file; compose it with `python -m stages.compose {name}`") from error
    except InputError as error:
        raise error if str(error).startswith(quoted) else InputError(f"{quoted}: {error}") from error


def parse(kind: Any, value: Any, name: str) -> Any:
    """Turn a YAML value into `kind`; `name` is its dotted place, for errors."""
    if kind in CHOICES:
        return parse(concrete(kind, value, name), value, name)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, name)

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{name}: expected entries, got {shown(value)}; an empty section is written {{}}")
        return types.MappingProxyType({key: parse(arguments[1], item, f"{name}.{key}") for key, item in value.items()})
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{name}: expected a list, got {shown(value)}")
        return tuple(parse(arguments[0], item, f"{name}[{place}]") for place, item in enumerate(value))
    return _parse_scalar(kind, value, name)


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)


def concrete(kind: Any, value: Any, name: str) -> Any:
    """The dataclass of `kind`, one of CHOICES, that an entry asks for."""
    key, known = CHOICES[kind]
    chosen = value.get(key) if isinstance(value, dict) else None
    if not isinstance(chosen, str) or chosen not in known:
        what = "model" if key == "name" else key
        raise InputError(f"{name}.{key}: unknown {what} {shown(chosen)}{nearest(chosen, known)}; it is one of "
                         f"{', '.join(known)}")
    return known[chosen]


def _parse_dataclass(kind: Any, value: Any, name: str) -> Any:
    place = f"{name}." if name else ""
    if not isinstance(value, dict):
        raise InputError(f"{name or 'the file'}: expected entries, got {shown(value)}")

    hints = hints_of(kind)
    unknown = [key for key in value if key not in hints]
    if unknown:
        raise InputError(f"{place}{unknown[0]}: unknown parameter{nearest(unknown[0], hints)}; known here are "
                         f"{', '.join(hints)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [key for key in hints if key not in value
               and fields[key].default is fields[key].default_factory is dataclasses.MISSING]
    if missing:
        raise InputError(f"{place}{missing[0]}: is missing; write it in the profile and compose again")

    parsed = {key: parse(hints[key], item, f"{place}{key}") for key, item in value.items()}
    for key, item in parsed.items():
        check_range(fields[key].metadata, item, f"{place}{key}")
    made = kind(**parsed)
    for key, field in fields.items():
        if field.metadata.get("above"):
            lower, low, high = field.metadata["above"], getattr(made, field.metadata["above"]), getattr(made, key)
            if low > high:
                raise InputError(f"{place}{lower}: is {low!r}, and {key} is {high!r}; write {lower} <= {key}")
    return made


def check_range(metadata: typing.Mapping[str, Any], value: Any, name: str) -> None:
    """InputError if a value, or one of a tuple's, is not among its declared choices or not in its declared range."""
    choices, low, high = (metadata.get(part) for part in ("choices", "low", "high"))
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            raise InputError(f"{name}: is {item!r}{nearest(item, choices)}; it is one of "
                             f"{', '.join(map(str, choices))}")
        if isinstance(item, int | float) and not isinstance(item, bool):
            if item != item or item in (float("inf"), float("-inf")):
                raise InputError(f"{name}: is {item!r}, and a finite number is needed")
            if (low is not None and item < low) or (high is not None and item > high):
                raise InputError(f"{name}: is {item!r}; it is {range_text(low, high)}")


def range_text(low: float | None, high: float | None) -> str:
    """
    >>> range_text(0, 1), range_text(1, None)
    ('0 to 1', 'at least 1')
    """
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _parse_scalar(kind: type, value: Any, name: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) >= 2 ** 53 and abs(value) != float("inf"):
        raise InputError(f"{name}: is {shown(value)}, beyond what is counted here; write a smaller number")
    if kind is float and number:
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e5, as YAML writes a whole number
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[kind]
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value and what it is, for errors."""
    names = {str: "a string", int: "a whole number", float: "a number", bool: "a truth value", type(None): "nothing",
             dict: "entries", list: "a list"}
    text = repr(value)
    return (f"{text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + ' ...'} "
            f"({names.get(type(value), type(value).__name__)})")


def pick(section: typing.Mapping[str, Any], key: str, name: str) -> Any:
    """`section[key]`, or an InputError with the nearest names; `name` is the section's."""
    if key not in section:
        raise InputError(f"{name}: has no entry {key!r}{nearest(key, section)}; there are: "
                         f"{', '.join(section) or 'none'}")
    return section[key]
