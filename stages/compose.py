"""Compose an experiment from its profile: python -m stages.compose [NAME] [--with DATASET ...] [--force | --check]

Writes params.yaml and plan.yaml: the default's at the root, another's under experiments/NAME/, together with a copy of
the one dvc.yaml (a link would do but for DVC, which cannot follow one in an earlier commit, as `params diff` has to).
Experiments that it stands on are composed too where they are not yet. Hand edits stop it, named one by one; `--check`
writes nothing and says whether every experiment here is what its profile gives.

Data sets in users' folders have to be there; `--with` names those to keep and leaves the others out together with what
needs them.
"""

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_text
from pipeline.config import paths
from pipeline.config.compose import Composed, compose, folders, lies_in, outputs
from pipeline.config.loader import load_plan, parse
from pipeline.config.names import nearest
from pipeline.config.plan import Plan
from pipeline.config.schema import MatchParams, RunParams
from pipeline.config.writer import changes, composed_from, edits, params_text, plan_text
from pipeline.config.yaml12 import read_yaml
from stages import sentences

STAGES = Path("dvc.yaml")
HUB = re.compile(r"[\w.-]+/[\w.-]+")  # an id without its commit; users' files lie deeper, under data/
TORCHVISION = ("resnet18", "resnet50")  # backbones that need neither timm nor a look
TOKENS = {"stride", "drop_path", "camera", "camera_weight"}  # settings of transformers alone
Kept = tuple[str, ...] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", nargs="?", default="default", help="a file of profiles/ without its ending")
    parser.add_argument("--with", nargs="+", metavar="DATASET", dest="kept", help="the users' data sets to keep")
    parser.add_argument("--force", action="store_true",
                        help="overwrite hand edits, and do not ask other experiments' plans that cannot be read")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an experiment here is stale")
    arguments = parser.parse_args()
    if arguments.check and (arguments.force or arguments.kept or arguments.profile != "default"):
        parser.error("--check takes nothing else: it reads every experiment that is composed here")
    with sentences():
        if arguments.check:
            check_all()
        else:
            write_all(arguments.profile, tuple(arguments.kept) if arguments.kept else None, force=arguments.force)


def write_all(name: str, kept: Kept, *, force: bool) -> None:
    """Compose an experiment, and before it those that it stands on and that are not composed yet."""
    composed = compose(name, kept)
    check_kept(name, composed, kept)
    for base, theirs in composed.bases.items():
        if not (paths.experiment_folder(base) / "params.yaml").exists():
            write_all(base, kept and tuple(set(kept) & theirs.folders.keys()), force=force)
    print(write(name, composed, kept, force=force))


def write(name: str, composed: Composed, kept: Kept, *, force: bool) -> str:
    """Write an experiment's folder. What was written, in a line."""
    check_bases(name, composed, kept)
    check_owners(name, composed, force=force)
    check_backbones(name, composed)
    check_starts(name, composed)
    folder = paths.experiment_folder(name)
    files = ((folder / "params.yaml", composed.params), (folder / "plan.yaml", composed.plan))
    for path, tree in files:
        edited = [] if force or not path.exists() else edits(path, tree)
        if edited:
            raise InputError(f"{str(path)!r}: was edited by hand: {'; '.join(edited)}; take the edits into profiles/, "
                             f"`git checkout {path}`, or compose with --force")

    for path in (*(path for path, _ in files), *([folder / STAGES] if name != "default" else [])):
        writable(path)
    for (path, _), text in zip(files, texts(name, composed, kept), strict=True):
        write_text(path, text)
    if name != "default":
        write_text(folder / STAGES, stages_text())
    if absent := absent_files(composed):
        print(f"not here yet, and `dvc repro` will ask for them: {', '.join(absent)}", file=sys.stderr)
    runs, datasets = len(composed.params["runs"]), len(composed.params["datasets"])
    left_out = [one for one in composed.folders if kept is not None and one not in kept]
    return (f"{files[0][0]}: profile {name}, {runs} runs and {datasets} data sets of its own"
            f"{', without ' if left_out else ''}{', '.join(left_out)}")


def absent_files(composed: Composed) -> list[str]:
    """What trainings start from and parsers read that users put there and that is not there, with what may be meant."""
    plan = composed.plan["plan"]
    starts = dict.fromkeys(entry["file"] for entry in plan["train_file"].values())
    sources = dict.fromkeys(entry["source"] for section in ("parse_external", "parse_described", "joints")
                            for entry in plan[section].values())
    made = paths.CHECKPOINTS.as_posix()
    return [f"{path!r}" + (" (a checkpoint of the Hub is named owner/name@COMMIT)" if HUB.fullmatch(path) else "")
            for path in (*starts, *sources) if not path.startswith(f"{made}/") and not Path(path).exists()]


def texts(name: str, composed: Composed, kept: Kept) -> tuple[str, str]:
    """params.yaml and plan.yaml. What is kept is said where the experiment has users' folders."""
    used = tuple(sorted(set(kept) & composed.folders.keys())) if kept is not None and composed.folders else None
    return params_text(composed.params, name, used), plan_text(composed.plan, name, used)


def stages_text() -> str:
    """The stages, the same for every experiment."""
    try:
        return STAGES.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(STAGES)!r}: cannot be read ({error.strerror}); `git checkout {STAGES}`") from error


def check_kept(name: str, composed: Composed, kept: Kept) -> None:
    """InputError, naming all, for data sets to keep that there are none of, or for folders that are not there."""
    unknown = [one for one in kept or () if one not in composed.folders]
    if unknown:
        raise InputError(f"--with: profile {name} has no data set {unknown[0]!r} in a user's folder"
                         f"{nearest(unknown[0], composed.folders)}; it has: {', '.join(composed.folders) or 'none'}")
    wanted = [one for one in composed.folders if kept is None or one in kept]
    absent = [one for one in wanted if not _is_there(composed.folders[one])]
    if absent:
        there = [one for one in wanted if one not in absent]
        way = (f"or leave it out: `python -m stages.compose {name} --with {' '.join(there)}`" if there else
               "there is no other for this profile")
        gone = ", ".join(f"{one} is not in {composed.folders[one]!r}" for one in absent)
        raise InputError(f"'profiles/{name}.yaml': {gone}; put or link it there, {way}")


def _is_there(path: str) -> bool:
    """A folder of images, or a file of joints."""
    return Path(path).is_file() if path.endswith(".h5") else Path(path).is_dir()


def check_bases(name: str, composed: Composed, kept: Kept) -> None:
    """InputError for an experiment that this one stands on and that is composed with other data sets kept."""
    for base, theirs in composed.bases.items():
        path, folders = paths.experiment_folder(base) / "params.yaml", theirs.folders.keys()
        if path.exists():
            here, there = (folders if these is None else folders & set(these)
                           for these in (kept, composed_from(path)[1]))
            lacking = sorted(here - there)
            if lacking:
                raise InputError(f"{str(path)!r}: was composed without {', '.join(lacking)}, which {name} uses; run "
                                 f"`python -m stages.compose {base} --with {' '.join(sorted(here | there))}` first")
            # As it is written: a base of an earlier commit is no experiment that could be loaded yet.
            runs = read_yaml(path).get("runs") or {}
            for run in sorted(used_runs(composed) & theirs.params["runs"].keys() & runs.keys()):
                mine = theirs.params["runs"][run]["cache"]
                its = runs[run].get("cache", mine)
                if mine != its:
                    raise InputError(f"{str(path)!r}: run {run} reads the cache {its!r}, and {name} counts on "
                                     f"{mine!r}, for other data sets are kept; run `python -m stages.compose {name} "
                                     f"--with {' '.join(sorted(there | set(kept or composed.folders)))}`")


def used_runs(composed: Composed) -> set[str]:
    """Runs of which this experiment has the results or takes the weights, whoever trains them."""
    known, plan = composed.known, composed.plan["plan"]
    results = (name for section in ("evaluate", "evaluate_listed") for name in plan[section])
    return {*plan["owners"], *(known.result_runs[name] for name in results)}


def check_owners(name: str, composed: Composed, *, force: bool) -> None:
    """InputError for an output that another experiment here makes too.

    force: one whose plan.yaml cannot be read, because it is of an earlier commit or broken, is named and not asked, so
    that all can be composed again one after the other.
    """
    plan = parse(Plan, composed.plan["plan"], "plan")
    mine = set(outputs(plan))
    for other in composed_experiments():
        if other != name:
            try:
                theirs = load_plan(paths.experiment_folder(other) / "plan.yaml", other)
            except InputError as error:
                if not force:
                    raise
                print(f"{error}: what {other} makes was not compared; compose it again too", file=sys.stderr)
                continue
            both = mine & set(outputs(theirs))
            if both:
                kind, one = min(both)
                raise InputError(f"'profiles/{name}.yaml': the {kind} {one!r} belongs to experiment {other}; take it "
                                 f"from there (on: [{other}]), or give it another name")
            for path, their in itertools.product(folders(plan), folders(theirs)):
                if lies_in(path, their) or lies_in(their, path):
                    raise InputError(f"'profiles/{name}.yaml': the folder {path!r} and {their!r}, which belongs to "
                                     f"experiment {other}, lie in one another, and DVC takes a folder for one "
                                     f"experiment's; take it from there (on: [{other}]), or link the pictures into a "
                                     "folder of their own")


def check_backbones(name: str, composed: Composed) -> None:
    """InputError for a run whose backbone is not known or gives no maps that its network can use, or whose package of
    weights is not installed.

    torchvision's two are known; for others their networks are built, without numbers, which takes timm and seconds.
    """
    compared = set()
    for key, entry in composed.params["runs"].items():
        if entry.get("backbone") in TORCHVISION and entry.get("init") != "package" and not TOKENS & entry.keys() and (
                entry["model"].get("pool", "mean") == "mean"):
            continue
        from stages.shared.starts import check_backbone

        run, match = _run(composed, key)
        settled = (run.backbone, run.init, run.model, run.camera, run.stride, run.height, run.width)
        if settled in compared:
            continue
        compared.add(settled)
        try:
            check_backbone(run, match, key=key)
        except InputError as error:
            raise InputError(f"'profiles/{name}.yaml': {error}") from error


def check_starts(name: str, composed: Composed) -> None:
    """InputError for a run that is to start from one whose weights are of other shapes.

    Networks are built for that, without numbers; torch is imported where a run starts from another, for that takes
    seconds. Of runs that differ in their training alone, as the trials of a protocol do, one is built.
    """
    compared = set()
    for key, plan in composed.plan["plan"]["train_from"].items():
        from stages.shared.starts import check_shapes

        run, match = _run(composed, key)
        start, start_match = _run(composed, plan["start"])
        settled = (run.model, start.model, run.backbone, *((one.camera, one.stride, one.height, one.width)
                                                           for one in (run, start)))
        if settled in compared:
            continue
        compared.add(settled)
        try:
            check_shapes(run, match, key=key, start=start, start_match=start_match, start_key=plan["start"])
        except InputError as error:
            raise InputError(f"'profiles/{name}.yaml': {error}") from error


def _run(composed: Composed, key: str) -> tuple[RunParams, MatchParams]:
    """A run's parameters and how it is matched, its own or of an experiment that this one stands on."""
    found = composed
    while key not in found.params["runs"]:
        found = next(base for base in found.bases.values() if key in base.known.runs)
    return (parse(RunParams, found.params["runs"][key], f"runs.{key}"),
            parse(MatchParams, found.params["results"][key]["match"], f"results.{key}.match"))


def composed_experiments() -> list[str]:
    """The experiments that are composed here, the default first."""
    others = sorted(path.parent.name for path in paths.EXPERIMENTS.glob("*/params.yaml"))
    return [*(["default"] if Path("params.yaml").exists() else []), *others]


def check_all() -> None:
    """InputError, naming the file, if an experiment is not what its profile gives or its lock is damaged."""
    if not Path("params.yaml").exists():
        raise InputError("'params.yaml': is not there; `git checkout params.yaml`, or compose it with "
                         "`python -m stages.compose`")
    for name in composed_experiments():
        check(name)


def check(name: str) -> None:
    """InputError likewise, of one experiment."""
    folder = paths.experiment_folder(name)
    there = {file: _read(folder / file, name) for file in ("params.yaml", "plan.yaml")}
    if (folder / "dvc.lock").exists():
        read_yaml(folder / "dvc.lock")
    profile, kept, _ = composed_from(folder / "params.yaml")
    if profile != name:
        raise InputError(f"{str(folder / 'params.yaml')!r}: was composed from profile {profile!r}; compose {name} "
                         "again")

    composed = compose(name, kept)
    check_bases(name, composed, kept)
    check_starts(name, composed)  # not its backbones: what is committed holds on machines without their packages, too
    for (file, tree), text, wanted in zip(there.items(), texts(name, composed, kept),
                                          (composed.params, composed.plan), strict=True):
        path = folder / file
        if path.read_text(encoding="utf-8") != text:
            differ = "; ".join(changes(wanted, tree)) or "a comment or how it is written"
            raise InputError(f"{str(path)!r}: is not what profile {name} gives ({differ}); run "
                             f"`python -m stages.compose {name}`, with --force over edits by hand")
    path = folder / STAGES
    if name != "default" and (not path.is_file() or path.read_text(encoding="utf-8") != stages_text()):
        raise InputError(f"{str(path)!r}: is no copy of {str(STAGES)!r}; run `python -m stages.compose {name}`")


def _read(path: Path, name: str) -> Any:
    try:
        return read_yaml(path)
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r}: is not there; run `python -m stages.compose {name}`") from error


if __name__ == "__main__":
    main()
