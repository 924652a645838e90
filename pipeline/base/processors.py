"""Processors that this process may keep busy: its affinity, and the quota of the control group (container) it is in."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")  # lines NUMBER:CONTROLLERS:GROUP
MOUNTED = Path("/sys/fs/cgroup")


def processors(*, groups: Path = GROUPS, mounted: Path = MOUNTED) -> int:
    """How many, at least 1: of its affinity (taskset, Slurm), or fewer where a quota allows less time; 1.5 make 2.

    groups: the control groups it belongs to, of Linux's version 1 or 2; mounted: where these lie. A quota that cannot
    be read is none.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in _quotas(groups, mounted))]))


def _quotas(groups: Path, mounted: Path) -> Iterator[float]:
    """Processors' worth of time that each group above this process allows, where it limits them."""
    for line in _words(groups, "\n"):
        _, controllers, group = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue

        # A container sees its own group as the root, whatever name it has outside.
        home = mounted / controllers
        for folder in ((home / group.strip("/") / "x").parents if group.strip("/") else (home,)):
            limit = _words(folder / "cpu.max") or (_words(folder / "cpu.cfs_quota_us")
                                                   + _words(folder / "cpu.cfs_period_us"))
            if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[0]) and int(limit[1]):
                yield int(limit[0]) / int(limit[1])  # "max" and -1 are no limit
            if folder == home:
                break


def _words(file: Path, separator: str | None = None) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").split(separator)
    except OSError:
        return []
