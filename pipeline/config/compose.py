"""Composition: a profile -> params.yaml (what a person may turn) and plan.yaml (wiring for DVC) of an experiment.

What is composed depends on the profiles and on what is kept of the users' folders (`--with`) alone, never on what lies
on the disk. An experiment stands `on` others: it uses their data sets, caches, parsers and runs, and what it uses stays
theirs, so that every output has one owner. stages/compose.py is the command; compose_*.py are the steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.compose_caches import add_caches, add_parsers, add_warps
from pipeline.config.compose_crops import SECTIONS as CROPS
from pipeline.config.compose_datasets import add_datasets, add_joints, add_occluded, add_rendered, note_needs
from pipeline.config.compose_results import add_evaluations, add_papers, add_reports, prune
from pipeline.config.compose_runs import add_runs
from pipeline.config.known import Composition, Known, find, together
from pipeline.config.loader import parse
from pipeline.config.names import check_name, known_name
from pipeline.config.paper_rows import add_rows
from pipeline.config.plan import TRAIN, Plan
from pipeline.config.profiles import PROFILES, SCALARS, Entry, like, load_profile, profile_names
from pipeline.config.schema import Params, without_neutral


@dataclass(frozen=True)
class Composed:
    """An experiment: the trees of its two files, and what others may use of it."""

    params: Entry
    plan: Entry
    known: Known
    folders: dict[str, str]  # what lies in users' folders, kept or not -> where
    bases: dict[str, "Composed"]  # the experiments that it stands on


def compose(name: str, kept: tuple[str, ...] | None = None, within: tuple[str, ...] = ()) -> Composed:
    """The experiment of profile `name`. kept: of what lies in users' folders, the names to keep; None keeps all.

    InputError names the profile's file, the section and what is wrong there.
    """
    path = repr(str(PROFILES / f"{name}.yaml"))
    if name in within:
        raise InputError(f"{path}: stands on itself ({' -> '.join((*within, name))}); take one `on` out")
    check_name(name, "a profile")
    if name == paths.PARSER_RESULTS:
        raise InputError(f"{path}: {name!r} is where parsers' scores lie; give the profile another name")
    profile = load_profile(name)
    on = [known_name(base, profile_names(), f"{path}: on", "profile") for base in profile.get("on", [])]
    bases = {base: compose(base, kept, (*within, name)) for base in on}
    try:
        return _compose(name, profile, bases, kept)
    except InputError as error:
        raise error if str(error).startswith(f"'{PROFILES}") else InputError(f"{path}: {error}") from error


def _compose(name: str, profile: Entry, bases: dict[str, Composed], kept: tuple[str, ...] | None) -> Composed:
    """The steps in dvc.yaml's order."""
    for recipe in profile.get("recipes", {}):
        like({"like": recipe}, profile["recipes"], f"recipes.{recipe}")
    for key in SCALARS:
        if profile.get(key) is None:
            raise InputError(f"{key}: is missing; write it, or include a profile that has it (include: [small])")
    folders = {key: folder for base in bases.values() for key, folder in base.folders.items()}
    root = name == "default"
    plan: Entry = {"name": name, "root": "." if root else "../..",
                   "folder": "" if root else f"{paths.experiment_folder(name).as_posix()}/",
                   "on": profile.get("on", []), "owners": {}, "link": {}, "fetch": {}}
    known = together(base.known for base in bases.values())
    left_out = {name.removeprefix("runs.") for name in known.dropped if name.startswith("runs.")}
    profile, rows = add_rows(profile, runs=known.runs.keys() | known.results.keys() | left_out,
                             warps=known.warps.keys(), results=known.results.keys())
    made = Composition(name, profile, kept, known, folders, {key: profile[key] for key in SCALARS}, plan)

    add_rendered(made)
    add_datasets(made)
    add_occluded(made)
    add_joints(made)
    if rows is not None and (rows["papers"] or rows["sweeps"]):
        for dataset in [*filter(None, [rows["main"]]), *rows["beside"].values()]:
            find(known, "datasets", dataset, "rows")
    add_parsers(made)
    add_caches(made)
    add_warps(made)
    add_runs(made)
    if rows is not None:
        prune(made)
    note_needs(made)
    add_evaluations(made)
    add_reports(made)
    add_papers(made, rows)
    add_links(made, bases)

    params, _ = parse(Params, made.params, ""), parse(Plan, made.plan, "plan")
    return Composed(without_neutral(params), {"plan": made.plan}, made.known, made.folders, bases)


def add_links(made: Composition, bases: dict[str, Composed]) -> None:
    """What users put or link under data/, for DVC's jobs in folders of their own; what others have is theirs.

    Not the photographs that parsers learn from, nor what their teachers are made of: several experiments may each train
    one, and an output has one owner.
    """
    taught = {entry["teacher"] for entry in made.plan["train_taught"].values()}
    given = {name: path for name, path in made.folders.items()
             if name not in made.known.parsers and (made.kept is None or name in made.kept)}
    for section in ("parse_external", "parse_described"):
        for name, plan in made.plan[section].items():
            if paths.cache(name, "parts.h5").as_posix() in taught:
                continue
            given |= {f"{name}-{field}": plan[field] for field in ("source", "description") if field in plan}
    given |= {f"{name}-ignored": plan["list"] for name, plan in made.plan["ignore"].items()}
    given |= {f"{name}-keypoints": plan["source"] for name, plan in made.plan["joints"].items()}
    given = {name: Path(path).as_posix() for name, path in given.items()}
    made_here = {path.as_posix() for path in (paths.PARSERS, paths.CACHE, paths.CHECKPOINTS)}
    given = {name: path for name, path in given.items()
             if path.startswith(f"{paths.DATA.as_posix()}/") and not path.startswith(tuple(made_here))}
    taken = {path for base in bases.values() for path in all_folders(base)}
    taken |= {paths.raw(name).as_posix() for name in (*made.plan["render"], *made.plan["occlude"])}
    for name, path in given.items():
        if not any(lies_in(path, other) for other in taken | {other for other in given.values() if other != path}):
            made.plan["link"][name] = {"path": path}
            taken.add(path)


def lies_in(path: str, folder: str) -> bool:
    """Whether a path is the folder, or lies in it.

    >>> lies_in("data/raw/a/b", "data/raw/a"), lies_in("data/raw/ab", "data/raw/a")
    (True, False)
    """
    return f"{path}/".startswith(f"{folder}/")


def folders(plan: Plan) -> list[str]:
    """What DVC takes for an experiment's outputs in users' folders: what it links, and the pictures that it makes."""
    return [*(entry.path for entry in plan.link.values()),
            *(paths.raw(name).as_posix() for name in (*plan.render, *plan.occlude))]


def all_folders(composed: Composed) -> Iterator[str]:
    """Those of an experiment and of those it stands on."""
    yield from folders(parse(Plan, composed.plan["plan"], "plan"))
    for base in composed.bases.values():
        yield from all_folders(base)


KINDS = {"rendered or occluded set": ("render", "occlude"), "data set": ("prepare",), "exclusion list": ("ignore",),
         "parser": ("train_parser", "train_parser_from", "train_photographs", "train_taught"),
         "cache": ("parse", "parse_external", "parse_described"),
         "parse of crops": CROPS, "warp": ("warp",), "joints": ("joints",), "checkpoint": ("fetch",),
         "run": TRAIN}


def outputs(plan: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that an experiment's plan makes for others too, for finding a second owner."""
    for kind, sections in KINDS.items():
        for section in sections:
            yield from ((kind, name) for name in getattr(plan, section))
    yield from (("user's folder", entry.path) for entry in plan.link.values())
    yield from (("result", name) for name in dict.fromkeys(entry.result for entry in plan.embeddings.values()))
