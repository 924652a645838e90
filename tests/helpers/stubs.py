"""Stubs: every output of a project as a small file, and the locks that go with them, as after `dvc repro -P`."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from dvc.repo import Repo

from benchmarks.project import Project
from pipeline.config import paths
from pipeline.config.loader import load_plan


@contextlib.contextmanager
def opened(project: Project) -> Iterator[Repo]:
    """The project as DVC sees it, in this process: a `dvc` of its own takes seconds to start."""
    with contextlib.chdir(project.folder), Repo(str(project.folder)) as repo:
        yield repo


def outputs(project: Project) -> list[str]:
    """The outputs of all experiments, relative to the project."""
    with opened(project) as repo:
        return sorted(Path(out.fs_path).relative_to(project.folder).as_posix()
                      for stage in repo.index.stages for out in stage.outs)


def fill(project: Project) -> None:
    """Make every output and say in the locks that it is up to date."""
    for name in outputs(project):
        path = project.folder / name
        if not path.suffix:  # a folder
            path = path / "content.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_content(project, Path(name)), encoding="utf-8")
    with opened(project) as repo:
        repo.commit(force=True)


def _content(project: Project, name: Path) -> str:
    if name.parts[:2] == paths.CURVES.parts:
        return "run,dataset,rank,cmc\na,b,1,0.5\n"
    if name.parts[:2] != paths.RESULTS.parts:
        return f"{name}\n"
    if name.parts[2] == paths.PARSER_RESULTS:
        return json.dumps({"mIoU": 70.0}) + "\n"
    plan = load_plan(project.folder / paths.experiment_folder(name.parts[2]) / "plan.yaml")
    figures = {"rank1": 50.0, "mAP": 40.0, "mINP": 30.0, "details": [{"rank5": 60.0}]}
    return json.dumps({dataset: figures for dataset in plan.evaluate[name.stem].datasets} | {"provenance": [{}]}) + "\n"


def stale(project: Project) -> set[str]:
    """The stages that `dvc status` names, without the dvc.yaml they stand in."""
    with opened(project) as repo:
        return {re.sub(r"^.*dvc\.yaml:", "", name) for name in repo.status()}
