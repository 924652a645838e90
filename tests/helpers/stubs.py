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
from tests.helpers.parsed_once import patched
from tests.helpers.results import write_result


@contextlib.contextmanager
def opened(project: Project) -> Iterator[Repo]:
    """The project as DVC sees it, in this process: a `dvc` of its own takes seconds to start."""
    with patched(), contextlib.chdir(project.folder), Repo(str(project.folder)) as repo:
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
        if paths.RESULTS in Path(name).parents and not path.suffix:
            _write_metrics(project, path, experiment=path.parent.name)
            continue
        if not path.suffix:  # a folder
            path = path / "content.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_content(Path(name)), encoding="utf-8")
    with opened(project) as repo:
        repo.commit(force=True)


def _content(name: Path) -> str:
    if paths.CURVES in name.parents:
        return "run,dataset,rank,cmc\na,b,1,0.5\n"
    return json.dumps({"mIoU": 0.7}) + "\n" if paths.RESULTS in name.parents else f"{name}\n"


def _write_metrics(project: Project, folder: Path, experiment: str) -> None:
    plan = load_plan(project.folder / paths.experiment_folder(experiment) / "plan.yaml")
    metrics = {"rank1": 50.0, "mAP": 40.0, "mINP": 30.0, "details": [{"rank5": 60.0}]}
    write_result(folder, dict.fromkeys(plan.evaluations[folder.name].datasets, metrics), {})


def stale(project: Project) -> set[str]:
    """The stages that `dvc status` names, without the dvc.yaml they stand in."""
    with opened(project) as repo:
        return {re.sub(r"^.*dvc\.yaml:", "", name) for name in repo.status()}
