"""A house of stubs: the tiny default and two experiments on it, every output a small file that is up to date."""

import shutil

import pytest

from benchmarks.project import Project, new_project
from tests.conftest import TINY, made_once
from tests.helpers.stubs import fill

# A run on what the default has, and an experiment with a data set, a cache and a report of its own.
ONE = """
include: [small]
on: [default]
beside: [sorn]
recipes: {small-sorn: {height: 64, width: 32, image_steps: 32, batch: 16, eval_on: [synth-occluded]}}
runs: {one-sorn: {like: small-sorn, model: {lambda_spc: 0.25}}}
"""
TWO = """
include: [small]
on: [default]
render:
  two-set: {kind: occluded, stream: two-set, seed: 0, height: 64, width: 32, train_ids: 8, train_images: 4, test_ids: 4,
            query_images: 1, gallery_images: 4, processes: 1}
datasets: {two-set: {layout: market}}
caches: {two-set: {like: parse, dataset: two-set}}
warps: {two-set: {like: warp, dataset: two-set}}
recipes:
  parse: {height: 64, width: 32}
  warp: {height: 64, width: 32}
  small-baseline: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, train_on: two-set,
                   eval_on: [two-set, synth-occluded]}
runs: {two-baseline: {like: small-baseline}}
report: {two: {title: two, pictures: two-set, parser: lraspp}}
"""


@pytest.fixture(scope="session")
def _house(tmp_path_factory, programs) -> Project:
    made_once(tmp_path_factory, "house")
    project = new_project(tmp_path_factory.mktemp("house"), default=TINY, profiles={"one": ONE, "two": TWO},
                          programs=programs)
    fill(project)
    project.commit("made")
    return project


@pytest.fixture
def house(_house, tmp_path) -> Project:
    """A copy to do anything with."""
    shutil.copytree(_house.folder, tmp_path / "house", symlinks=True)
    return Project(tmp_path / "house", _house.programs)
