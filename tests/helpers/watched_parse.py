"""Run under torchrun by test_torchrun: stages.parse, which says in the file LOG what units were written.

DIE="RANK:NUMBER" kills that rank as it begins to write its unit of that number, counted from 0.
"""

import os
import signal
from pathlib import Path

from pipeline.caches import resumable
from stages import main
from stages.parse import run

RANK = os.environ["RANK"]
save, written = resumable.save_unit, []


def watched(path: Path, rows: list) -> None:
    if os.environ.get("DIE") == f"{RANK}:{len(written)}":
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, rows)
    written.append(path)
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{RANK} {path.name}\n")


resumable.save_unit = watched
main(run)
