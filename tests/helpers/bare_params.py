"""Parameters and plans of which a test gives only the sections that it needs.

Entries are what params.yaml and plan.yaml would hold, or typed objects of pipeline/config; both are read as a stage
reads them, so that a wrong key, type or range is an InputError here too.
"""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import paths
from pipeline.config.loader import Experiment, parse
from pipeline.config.plan import EMBED, EMBED_SEEN, Plan
from pipeline.config.schema import Params

Entry = dict[str, Any]
SECTIONS = tuple(name for name, kind in typing.get_type_hints(Params).items() if typing.get_origin(kind) is dict)
PLAN_SECTIONS = tuple(name for name, kind in typing.get_type_hints(Plan).items() if typing.get_origin(kind) is dict)


def bare_params(**given: Any) -> Params:
    """CPU, float32, one thread, and every section that is not given empty."""
    return parse(Params, _params_tree(given), "")


def bare_plan(name: str = "default", **given: Any) -> Plan:
    """The plan of an experiment of that name, on no other, every section that is not given empty."""
    return parse(Plan, _plan_tree(name, given), "plan")


def bare_experiment(name: str = "default", *, params: Entry | None = None, plan: Entry | None = None) -> Experiment:
    """What a stage's `run` takes, out of sections: params={"runs": {...}}, plan={"train": {...}}."""
    return Experiment(bare_params(**params or {}), bare_plan(name, **plan or {}))


def write_experiment(root: Path, name: str = "default", *, params: Entry | None = None, plan: Entry | None = None
                     ) -> Experiment:
    """The same, written as params.yaml and plan.yaml where `load_experiment(name)`, started in `root`, reads them."""
    folder = root / paths.experiment_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(_params_tree(params or {}), sort_keys=False))
    (folder / "plan.yaml").write_text(yaml.safe_dump({"plan": _plan_tree(name, plan or {})}, sort_keys=False))
    return bare_experiment(name, params=params, plan=plan)


def train_entry(model: str, *, train_on: str, raw: str | Path, file: str | None = None) -> Entry:
    """An entry of plan.train. file: parts.h5 | dsap.h5, what the model reads of the cache `train_on` beside images."""
    return {"model": model, "train_on": train_on, "cache": train_on if file else "none",
            "index": paths.index(train_on).as_posix(), "raw": str(raw),
            "reads": paths.cache(train_on, file).as_posix() if file else str(raw)}


def embed_entry(run: str, *, model: str, dataset: str, raw: str | Path, file: str | None = None,
                result: str | None = None, protocol: str = "market", seen_by: str | Path | None = None) -> Entry:
    """An entry of plan.embed, or with seen_by of plan.embed_seen."""
    test = {"dataset": dataset, "index": paths.index(dataset).as_posix(), "raw": str(raw),
            "reads": paths.cache(dataset, file).as_posix() if file else str(raw), "protocol": protocol}
    return {"result": result or run, "run": run, "model": model, "weights": paths.weights(run).as_posix(),
            "sets": [test], **({"seen_by": str(seen_by)} if seen_by is not None else {})}


def by_data_set(plan: Entry) -> dict[str, Entry]:
    """Of a composed plan's tree each embedding of one data set, RESULT-on-DATASET -> its stage's fields and its own."""
    return {f"{entry['result']}-on-{test['dataset']}": {name: value for name, value in entry.items() if name != "sets"}
            | test for section in (*EMBED, EMBED_SEEN) for entry in plan[section].values() for test in entry["sets"]}


def _params_tree(given: Entry) -> Entry:
    empty: Entry = {name: {} for name in SECTIONS}
    return {"device": "cpu", "precision": "float32", "threads": 1} | empty | _plain(given)


def _plan_tree(name: str, given: Entry) -> Entry:
    folder = "" if name == "default" else f"{paths.experiment_folder(name).as_posix()}/"
    empty: Entry = {section: {} for section in PLAN_SECTIONS}
    return {"name": name, "root": "../.." if folder else ".", "folder": folder, "on": [], "render": []} | empty \
        | _plain(given)


def _plain(value: Any) -> Any:
    """Entries and typed objects as YAML has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
