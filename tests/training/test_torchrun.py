"""stages.parse under torchrun: any number of ranks gives the same bytes, a dead one costs its unfinished units."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.datasets.index import read_index, write_index
from tests.helpers.bare_params import write_experiment
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

ROOT = Path(__file__).resolve().parents[2]
WATCHED = str(ROOT / "tests/helpers/watched_parse.py")
UNITS = 6  # of four images, the last padded


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder in which `python -m stages.parse tiny` parses 22 images with their oracle."""
    write_set(tmp_path, 22)
    write_index(read_index(tmp_path / "index.csv"), tmp_path / "data/index/tiny.csv")
    write_experiment(tmp_path, params={"caches": {"tiny": {
        "parser": "oracle", "height": HEIGHT, "width": WIDTH, "batch": 4, "threads": 1}}}, plan={"parse": {"tiny": {
            "dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw", "source": "raw/labels.h5"}}})
    return tmp_path


def launch(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words, "tiny"], cwd=project, capture_output=True, text=True, check=False,
                          timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT), **environment})


def torchrun(project: Path, ranks: int, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return launch(project, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *words,
                  **environment)


def md5(project: Path) -> str:
    return hashlib.md5((project / "data/cache/tiny/parts.h5").read_bytes()).hexdigest()


def parse_alone(project: Path) -> str:
    """The file of a parse by one process, which is taken away again."""
    done = launch(project, "-m", "stages.parse")
    assert done.returncode == 0, done.stderr
    found = md5(project)
    (project / "data/cache/tiny/parts.h5").unlink()
    return found


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_share_the_units_and_pack_the_same_bytes(project, ranks):
    expected = parse_alone(project)
    done = torchrun(project, ranks, WATCHED, LOG=str(project / "log"))
    assert done.returncode == 0, done.stderr
    assert md5(project) == expected
    written = sorted((project / "log").read_text().split("\n")[:-1])
    assert written == sorted(f"{number % ranks} {number:08d}.unit" for number in range(UNITS))
    assert not [path for path in (project / "scratch").rglob("*") if path.is_dir() and path.name != "parse-tiny"]


@pytest.mark.slow
def test_a_dead_rank_ends_the_job_and_costs_its_unfinished_units(project):
    expected = parse_alone(project)
    done = torchrun(project, 2, WATCHED, LOG=str(project / "first"), DIE="1:1")
    assert done.returncode != 0 and "Signal 9" in done.stderr, done.stderr
    assert not (project / "data/cache/tiny/parts.h5").exists()
    kept = {line.split()[1] for line in (project / "first").read_text().splitlines()}
    assert "00000001.unit" in kept and "00000003.unit" not in kept
    assert kept == {path.name for path in (project / "scratch").rglob("*.unit")}
    done = torchrun(project, 2, WATCHED, LOG=str(project / "second"))
    assert done.returncode == 0, done.stderr
    again = [line.split()[1] for line in (project / "second").read_text().splitlines()]
    assert sorted(again) == sorted({f"{number:08d}.unit" for number in range(UNITS)} - kept)
    assert md5(project) == expected
    done = torchrun(project, 2, "-m", "stages.parse")  # the command itself; nothing is left to do
    assert done.returncode == 0 and md5(project) == expected, done.stderr


@pytest.mark.slow
def test_a_user_s_mistake_under_torchrun_ends_the_job_with_its_sentence(project):
    for path in (project / "raw/query").glob("0003*"):
        path.write_bytes(b"no image")
    done = torchrun(project, 2, "-m", "stages.parse")
    assert done.returncode != 0 and (project / "data/cache/tiny/parts.h5").exists()
    assert "1 of 22 images have no parse" in done.stderr
