"""Faults around a parse: full disks, readers while the file is replaced, pictures of every kind, odd names."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from test_parsing import COUNT, make_job, soft_forward
from tiny_set import HEIGHT, WIDTH, write_set

from pipeline import units
from pipeline.caches import Cache
from pipeline.errors import InputError
from pipeline.images import read_bytes
from pipeline.index import COLUMNS, read_index, write_index
from pipeline.parsing import Job, parse_images
from pipeline.units import hold, run_units, save_unit

ROOM = 400_000  # bytes of the small disk; the parse needs about 200,000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_set(root, COUNT)
    return root


@pytest.fixture
def root(pictures, tmp_path) -> Path:
    shutil.copytree(pictures, tmp_path / "set")
    (tmp_path / "set/out").mkdir()
    return tmp_path / "set"


def parse_once(root: Path, limit: int = 0) -> tuple[int, int, str]:
    """Exit status, batches parsed, stderr of a parse in a process of its own."""
    script = Path(__file__).with_name("parse_once.py")
    done = subprocess.run([sys.executable, str(script), str(root), str(limit)], capture_output=True, text=True,
                          check=False, timeout=600,
                          env=os.environ | {"PYTHONPATH": f"{script.parents[1]}:{script.parent}"})
    return done.returncode, int(done.stdout.split()[-1]), done.stderr


def expected_md5(root: Path) -> str:
    assert parse_images(make_job(root), soft_forward, root / "whole.h5", scratch=root / "other-scratch") == []
    return hashlib.md5((root / "whole.h5").read_bytes()).hexdigest()


def check_refused(said: tuple[int, int, str], *words: str) -> None:
    """Exit status 2 and one sentence, no traceback, not HDF5's own either."""
    status, _, error = said
    lines = [line for line in error.splitlines() if "it/s" not in line and "s/it" not in line]
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), error
    assert all(word in lines[0] for word in ("cannot be written", "run again", *words)), lines


@pytest.fixture
def small_disk(root) -> Iterator[Path]:
    """root/out on a disk of ROOM bytes."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(root / "out")],
                             capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield root / "out"
    subprocess.run(["umount", str(root / "out")], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk up to so many free bytes."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(free.f_bavail * free.f_bsize - leave, 0)))
    return filler


def test_a_full_disk_keeps_units_and_goes_on_after_room_was_made(root, small_disk):
    """Full from the start, then among the units, then at the packing, at its first or its last bytes."""
    expected = expected_md5(root)
    filler = fill(small_disk, 0)
    check_refused(parse_once(root))
    filler.unlink()
    filler = fill(small_disk, 24_000)
    check_refused(parse_once(root), ".unit", "finished units are kept")
    kept = list((small_disk / "scratch").rglob("*.unit"))
    assert 0 < len(kept) < 6 and not list(small_disk.rglob("*.tmp"))
    filler.unlink()
    for leave in (8_000, 40_000):  # what is left once all units are there
        saved = sum(path.stat().st_size + 4096 for path in kept)
        filler = fill(small_disk, leave + (60_000 - saved if leave == 8_000 else 0))
        status, batches, error = parse_once(root)
        check_refused((status, batches, error))
        assert batches <= 6 - len(kept)
        kept = list((small_disk / "scratch").rglob("*.unit"))
        filler.unlink()
        assert not list(small_disk.rglob("*.tmp"))
    assert len(kept) == 6 and not (small_disk / "parts.h5").exists()
    assert parse_once(root)[:2] == (0, 0)
    assert hashlib.md5((small_disk / "parts.h5").read_bytes()).hexdigest() == expected
