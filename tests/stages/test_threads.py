"""Threads: how they wait is said before torch reads it; more of them than processors are kept, and said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages import SPINS
from stages.shared import device

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("own,expected", [
    ({}, f"GOMP_SPINCOUNT = '{SPINS}'"), ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
    ({"OMP_WAIT_POLICY": "passive"}, "GOMP_SPINCOUNT = '0'")])
def test_openmp_itself_says_how_long_it_spins(own, expected):
    """As a stage's command imports: the package first, then torch, whose libgomp prints what it read."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", "import stages.shared.device"], cwd=ROOT, text=True,
                          capture_output=True, env=bare | own | {"OMP_DISPLAY_ENV": "VERBOSE"}, check=True)
    assert expected in done.stderr


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("threads,most,said", [(3, 2, "threads is 3, and this process may use 2 processors:"),
                                               (2, 1, "may use 1 processor:"), (2, 2, ""), (1, 2, "")])
def test_more_threads_than_processors_are_kept_and_said(_threads, threads, most, said, monkeypatch, capsys):
    monkeypatch.setattr(device, "processors", lambda: most)
    device.choose_device("cpu", threads=threads)
    printed = capsys.readouterr().err
    assert torch.get_num_threads() == threads and said in printed and bool(said) == bool(printed)
