"""Scratch copy of the pipeline in a folder of its own, for tests and measurements that run whole stages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pipeline", "stages", "models", "profiles", "docs/papers", "dvc.yaml", "params.yaml", "plan.yaml",
           ".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots")


class Project:
    """A copy of the pipeline in its own folder and git repository, and commands run in it.

    programs: a folder whose `python` and `dvc` are run in the place of this environment's.
    """

    def __init__(self, folder: Path, programs: Path | None = None):
        self.folder, self.programs = folder, programs

    def run(self, *command: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        """Run a command there, `python` and `dvc` being this environment's; its output in the error if it fails."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "DVC_NO_ANALYTICS": "1"} | more.pop("env", {})
        places = [self.programs, Path(sys.executable).parent] if self.programs else [Path(sys.executable).parent]
        environment["PATH"] = os.pathsep.join(map(str, [*places, os.environ["PATH"]]))
        done = subprocess.run(command, cwd=self.folder / more.pop("cwd", ""), env=environment, capture_output=True,
                              text=True, **more)
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)


def new_project(folder: Path, *, default: str = "", profiles: dict[str, str] | None = None,
                experiments: Collection[str] = (), source: Path = ROOT, programs: Path | None = None) -> Project:
    """A project with the sources of this one (or of `source`), committed to a git repository of its own.

    default: a profile that takes the default's place and may include it as `whole`; profiles: others by name. These
    are composed there; experiments: those that are taken over as they are composed, without their locks.
    """
    for name in (*SOURCES, *(f"experiments/{name}" for name in experiments)):
        original, copy = source / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if original.is_dir():
            shutil.copytree(original, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
        elif original.is_file():
            shutil.copy(original, copy)

    project = Project(folder, programs)
    for command in ("init -q -b main", "config user.name test", "config user.email test@example.org"):
        project.run("git", *command.split())
    if default:
        (folder / "profiles/default.yaml").rename(folder / "profiles/whole.yaml")
        (folder / "profiles/default.yaml").write_text(default, encoding="utf-8")
        project.run("python", "-m", "stages.compose", "default", "--force")
    for name, text in (profiles or {}).items():
        (folder / f"profiles/{name}.yaml").write_text(text, encoding="utf-8")
        project.run("python", "-m", "stages.compose", name, "--force")
    project.commit("sources")
    return project
