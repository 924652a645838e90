"""Data sets of an experiment: rendered ones, folders of images that get an index, occluded ones made of others, and
the joints of their people."""

import dataclasses
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.checkpoints import checkpoint_source
from pipeline.config.known import Composition, Data, check_new, drop, find, keeps
from pipeline.config.plan import EMBED, EMBED_SEEN, TRAIN
from pipeline.config.profiles import entries, take


def add_rendered(made: Composition) -> None:
    made.params["render"] = entries(made.profile, "render")
    made.plan["render"] = list(made.params["render"])
    for name in made.plan["render"]:
        check_new(made.known, "datasets", name, f"render.{name}")
        made.known.rendered[name] = None


def add_datasets(made: Composition) -> None:
    """Folders of images. One with `trials: 10` is ten data sets, each with a number at the end of name and layout."""
    made.params["datasets"], made.plan["prepare"], made.plan["ignore"] = {}, {}, {}
    for name, entry in entries(made.profile, "datasets").items():
        place, rendered = f"datasets.{name}", name in made.plan["render"]
        layout, trials = take(entry, "layout", place), entry.get("trials")
        if trials is not None and not 1 <= trials <= 100:
            raise InputError(f"{place}.trials: is {trials}; it is 1 to 100")
        raw = Path(entry.get("raw") or (paths.raw(name) if rendered else take(entry, "raw", place))).as_posix()

        joints = paths.labels(raw).as_posix() if rendered and entry.get("joints", True) else None
        if not rendered and entry.get("joints") and keeps(made, f"{name}-joints", paths.joints(raw).as_posix()):
            joints = paths.joints(raw).as_posix()
        if trials is not None and entry.get("ignore"):
            raise InputError(f"{place}.ignore: the data set is {trials} trials, and a list is of one; take it out")
        members = {name: layout}
        if trials is not None:
            members = {f"{name}-{trial}": f"{layout}-{trial}" for trial in range(trials)}
            made.known.trials[name] = trials
        if not rendered and not keeps(made, name, raw):
            drop(made.known, "datasets", name, *members)
            continue
        for member, numbered in members.items():
            check_new(made.known, "datasets", member, place)
            held = entry.get("hold_out") or 0
            listed = entry.get("ignore")
            _add(made, member, Data(raw, numbered, rendered, joints, bool(listed), held))
            if listed:
                made.plan["ignore"][member] = {"index": paths.index(member).as_posix(), "list": listed}
            if held:
                made.params["datasets"][member]["hold_out"] = held


def add_occluded(made: Composition) -> None:
    """Data sets with objects in front of another's queries."""
    made.params["occlude"], made.plan["occlude"] = {}, {}
    for name, entry in entries(made.profile, "occlude").items():
        place = f"occlude.{name}"
        dataset = find(made.known, "datasets", take(entry, "dataset", place), f"{place}.dataset")
        check_new(made.known, "datasets", name, place)
        if dataset is None:
            drop(made.known, "datasets", name)
            continue
        made.params["occlude"][name] = entry
        made.plan["occlude"][name] = {"index": paths.index(dataset).as_posix(),
                                      "raw": made.known.datasets[dataset].raw}
        _add(made, name, Data(paths.raw(name).as_posix(), "market", rendered=False, joints=None))


def add_joints(made: Composition) -> None:
    """Joints of data sets, by an estimator or out of others' key points; from here on these have them."""
    made.params["joints"], made.plan["joints"] = {}, {}
    for name, entry in entries(made.profile, "joints").items():
        place = f"joints.{name}"
        dataset = find(made.known, "datasets", take(entry, "dataset", place), f"{place}.dataset")
        source = take(entry, "source", place)
        if dataset is None:
            continue
        data = made.known.datasets[dataset]
        if data.joints:
            own = next((name for name, path in made.folders.items() if path == data.joints), "")
            way = f"compose with `--with` the data sets that are there but {own!r}" if own else "take out what says so"
            raise InputError(f"{place}.dataset: {dataset!r} has joints already, {data.joints!r}; use those, or {way}")
        if entry.get("estimator") == "vitpose":
            source = checkpoint_source(made, source, f"{place}.source")
        made.params["joints"][name] = entry
        made.plan["joints"][name] = {"dataset": dataset, "index": paths.index(dataset).as_posix(), "raw": data.raw,
                                     "source": source}
        made.known.datasets[dataset] = dataclasses.replace(data, joints=paths.cache(name, "joints.h5").as_posix())


def note_needs(made: Composition) -> None:
    """Which images of each data set the runs, once they stand, train and are scored on."""
    plan = made.plan
    trained = {entry["train_on"] for section in TRAIN for entry in plan[section].values()}
    scored = {test["dataset"] for section in (*EMBED, EMBED_SEEN) for entry in plan[section].values()
              for test in entry["sets"]}
    for name, entry in plan["prepare"].items():
        needs = ["train"] * (name in trained) + ["test"] * (name in scored)
        entry |= {"needs": needs} if needs else {}


def _add(made: Composition, name: str, data: Data) -> None:
    made.known.datasets[name] = data
    made.params["datasets"][name] = {"layout": data.layout}
    made.plan["prepare"][name] = {"raw": data.raw}
