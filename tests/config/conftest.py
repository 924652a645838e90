"""A project of profiles alone, the command `python -m stages.compose` run in it in-process, the papers' experiments."""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config.compose import Composed
from pipeline.config.compose import compose as composition
from stages import compose
from tests.helpers.compositions import PAPERS, Entry, together

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it printed."""

    status: int
    out: str
    error: str


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the profiles and dvc.yaml, in which the test runs."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(project, monkeypatch, capsys) -> Callable[..., Ended]:
    """command("market", "--force"): what `python -m stages.compose market --force` does in `project`."""
    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["compose", *arguments])
        capsys.readouterr()
        try:
            compose.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return Ended(status, printed.out, printed.err)
    return run


@pytest.fixture(scope="module")
def at_root() -> Iterator[None]:
    with contextlib.chdir(ROOT):
        yield


@pytest.fixture(scope="session")
def rendered() -> Entry:
    with contextlib.chdir(ROOT):
        return together("tables")


@pytest.fixture(scope="session")
def papers() -> dict[str, Entry]:
    with contextlib.chdir(ROOT):
        return {paper: together(f"paper-{paper}") for paper in PAPERS}


@pytest.fixture(scope="session")
def own() -> dict[str, Composed]:
    with contextlib.chdir(ROOT):
        return {name: composition(name) for name in ("paper", *(f"paper-{paper}" for paper in PAPERS))}


def experiments() -> list[str]:
    """Every profile that is an experiment, not recipes for others."""
    recipes = ("recipes", "small", "market-recipes", "paper-recipes", "synthetic")
    return sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml") if path.stem not in recipes)
