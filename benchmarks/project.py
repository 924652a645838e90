"""A copy of the pipeline in a folder of its own, for tests and measurements that run whole stages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pipeline", "stages", "models", "code", "profiles", "docs/papers", "dvc.yaml", ".dvcignore", ".gitignore",
           ".dvc/config", ".dvc/.gitignore", ".dvc/plots")


class Project:
    """A copy of the pipeline in its own folder and git repository, and commands run in it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        """Run a command there, `python` and `dvc` being this environment's; its output in the error if it fails."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "DVC_NO_ANALYTICS": "1"} | more.pop("env", {})
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, **more)
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done


def new_project(folder: Path, *, profile: str, text: str = "") -> Project:
    """A project with the sources of this one, composed from `profile`; `text` is that profile where it is a new one."""
    for name in SOURCES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, target)
    project = Project(folder)
    for command in ("init -q -b main", "config user.name test", "config user.email test@example.org"):
        project.run("git", *command.split())
    if text:
        (folder / "profiles" / f"{profile}.yaml").write_text(text)
    project.run("python", "-m", "stages.compose", profile, "--force")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "sources")
    return project
