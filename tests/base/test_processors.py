"""Processors that may be kept busy, by files as Linux has them."""

import os
from pathlib import Path

import pytest

from pipeline.base.processors import processors


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Makes the files of a machine of 8 processors; returns what to call."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))

    def made(groups: str, **files: str) -> int:
        (tmp_path / "groups").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return processors(groups=tmp_path / "groups", mounted=tmp_path / "sys")

    return made


V2, V1 = "0::/\n", "9:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n"


@pytest.mark.parametrize("name,groups,files,expected", [
    ("no group", "", {}, 8),
    ("version 2 without a limit", V2, {"cpu.max": "max 100000\n"}, 8),
    ("2 processors", V2, {"cpu.max": "200000 100000\n"}, 2),
    ("one and a half", V2, {"cpu.max": "150000 100000\n"}, 2),
    ("a tenth", V2, {"cpu.max": "10000 100000\n"}, 1),
    ("more than there are", V2, {"cpu.max": "6400000 100000\n"}, 8),
    ("a group's own", "0::/a/b\n", {"a/b/cpu.max": "300000 100000"}, 3),
    ("that of a group above", "0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
    ("the least of both", "0::/a/b\n", {"a/b/cpu.max": "500000 100000", "a/cpu.max": "400000 100000"}, 4),
    ("another group's", "0::/a/b\n", {"a/c/cpu.max": "100000 100000"}, 8),
    ("version 1", V1, {"cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000\n",
                       "cpu,cpuacct/docker/1/cpu.cfs_period_us": "50000\n"}, 5),
    ("version 1 from inside a container", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                                               "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1),
    ("version 1 without a limit", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                                       "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 8),
    ("memory's quota", "9:memory:/\n", {"memory/cpu.max": "100000 100000"}, 8),
    ("no numbers", V2, {"cpu.max": "much 0\n"}, 8), ("a period of none", V2, {"cpu.max": "100000 0\n"}, 8),
    ("an empty file", V2, {"cpu.max": ""}, 8), ("a line of another kind", "nonsense\n", {}, 8),
])
def test_quota(linux, name, groups, files, expected):
    assert linux(groups, **files) == expected


def test_affinity_counts_where_it_is_less(linux, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert linux(V2, **{"cpu.max": "400000 100000"}) == 1


def test_this_process(monkeypatch):
    """Whatever this machine limits, the affinity bounds it."""
    assert 1 <= processors() <= len(os.sched_getaffinity(0))
    assert processors(groups=Path("/nowhere"), mounted=Path("/nowhere")) == len(os.sched_getaffinity(0))
