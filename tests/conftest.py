"""A small project in a folder of its own, run once for all tests that look at what `dvc repro` made."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.project import Project, new_project
from tests.helpers.forks import forking

# Everything the default does, on a handful of people: one rendered set, a parser, a run of each network.
TINY = """
include: [whole]
render:
  parsing: {height: 64, width: 32, train_ids: 8, train_images: 4, test_ids: 4, gallery_images: 2}
  synth-occluded: {height: 64, width: 32, train_ids: 8, train_images: 4, test_ids: 4, query_images: 1,
                   gallery_images: 4}
  synth-holistic: null
  synth-partial: null
datasets: {synth-holistic: null, synth-partial: null}
parsers: {lraspp: {init: none, height: 64, width: 32, image_steps: 64, batch: 8}}
caches: {synth-holistic: null, synth-partial: null}
warps: {synth-holistic: null, synth-partial: null}
recipes:
  parse: {height: 64, width: 32}
  warp: {height: 64, width: 32}
  small-baseline: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, eval_on: [synth-occluded]}
  small-sorn: {height: 64, width: 32, image_steps: 32, batch: 16, eval_on: [synth-occluded]}
  small-dsa: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, eval_on: [synth-occluded]}
  small-esa: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, eval_on: [synth-occluded]}
  small-sgsfa: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, eval_on: [synth-occluded]}
  small-sgam: {height: 64, width: 32, image_steps: 32, batch: 16, eval_on: [synth-occluded]}
runs: {histogram: null, untrained: null}
figures:
  esa-7: {kind: entropy, title: ESA-ReID Fig. 7, shows: [esa], names: [ESA-ReID], count: 3, dataset: synth-occluded}
  sgam-7: {kind: lists, title: a list, shows: [baseline, sgam], names: [a, b], count: 2, dataset: synth-occluded}
"""


# Files that share a session's project, which one process makes. pytest-xdist 3.8 cannot: with pytest 9.2 its marks and
# `--dist loadgroup` do nothing.
TOGETHER = {"test_dvc.py": "tiny", "test_end_to_end.py": "tiny", "test_experiments.py": "house",
            "test_staleness.py": "house", "test_clean_tree.py": "house"}
# Groups, or how files begin. With these run first, no process ends with one of them alone.
LONGEST = ("tiny", "house", "tests/models/", "tests/parsing/", "tests/project/", "tests/stages/", "tests/training/")


def group(nodeid: str) -> str:
    """A file's tests go to one process, which makes the file's fixtures; so do those of files that share a project."""
    file = nodeid.split("::")[0]
    return TOGETHER.get(file.removeprefix("tests/project/"), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group
    config.option.loadscopereorder = False  # in the order below
    return scheduler


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # in one of several processes
        items.sort(key=lambda item: next((number for number, name in enumerate(LONGEST)
                                          if group(item.nodeid).startswith(name)), len(LONGEST)))


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Two processes that make one project mean that the groups do not hold."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        (tmp_path_factory.getbasetemp().parent / f"{name}.made").touch(exist_ok=False)


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """`python` and `dvc` for a Project whose sources are this checkout's: forks of a process that has imported all."""
    with forking() as folder:
        yield folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, programs) -> Project:
    """The tiny project after `dvc repro`, committed."""
    made_once(tmp_path_factory, "tiny")
    project = new_project(tmp_path_factory.mktemp("tiny"), default=TINY, programs=programs)
    project.run("dvc", "repro", timeout=600)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "first")
    return project
