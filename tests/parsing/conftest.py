"""A tiny set of rendered people with a copy of it for each test, and a set of flat figures to learn from."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import figures
from tests.helpers.parsed_set import COUNT
from tests.helpers.tiny_set import write_set


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_set(root, COUNT)
    return root


@pytest.fixture
def root(pictures, tmp_path) -> Path:
    shutil.copytree(pictures, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return figures.write_set(tmp_path_factory.mktemp("set") / "default-parsing", train=8, val=5)
