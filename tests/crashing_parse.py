"""Run by test_parsing: parses a tiny set again and again in forked children that are killed, and in shared ranks.

`python crashing_parse.py ROOT KILLS` prints one line a case, "<case> <md5 of parts.h5>". Nothing here computes before
it forks, so that no thread pool is inherited.
"""

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from test_parsing import make_job, soft_forward

from pipeline import parsing, units


def child(work: Callable[[], object]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        torch.set_num_threads(1)
        work()
    except BaseException as error:
        print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def parse(root: Path, rank: int = 0, world: int = 1) -> None:
    def forward(images, paths):
        time.sleep(0.004)
        return soft_forward(images, paths)
    parsing.parse_images(make_job(root), forward, root / "parts.h5", scratch=root / "scratch", rank=rank, world=world)


def die_at_call(module: object, name: str, number: int) -> None:
    """Replace a function by one that is killed as its `number`-th call begins."""
    function, calls = getattr(module, name), [0]

    def deadly(*arguments, **named):
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    setattr(module, name, deadly)


def finish(root: Path, case: str) -> None:
    done = [os.waitpid(child(lambda: parse(root)), 0)[1]]
    left = [path.name for path in (root / "scratch").rglob("*") if path.is_dir() or path.suffix == ".tmp"]
    print(case, hashlib.md5((root / "parts.h5").read_bytes()).hexdigest() if done == [0] and not left else "failed")
    start_over(root)


def start_over(root: Path) -> None:
    (root / "parts.h5").unlink(missing_ok=True)
    shutil.rmtree(root / "scratch", ignore_errors=True)


def main(root: Path, kills: int) -> None:
    start_over(root)
    finish(root, "undisturbed")
    for case, module, name, number in (
            ("decode", parsing, "decode_image", 9), ("unit", units, "save_unit", 3),
            ("last unit", units, "save_unit", 6),
            ("first packed row", units, "load_unit", 1), ("half packed", units, "load_unit", 4),
            ("before rename", os, "fsync", 1), ("before cleaning up", units, "clean", 1)):
        def killed(module=module, name=name, number=number):
            die_at_call(module, name, number)
            parse(root)
        _, status = os.waitpid(child(killed), 0)
        finish(root, case if os.WIFSIGNALED(status) else f"{case}: not killed")
    for number in range(kills):
        running = child(lambda: parse(root))
        time.sleep(0.01 + 0.11 * number / kills)
        os.kill(running, signal.SIGKILL)
        os.waitpid(running, 0)
        finish(root, f"after {number}")
    for world in (2, 4):
        ranks = [child(lambda rank=rank, world=world: parse(root, rank, world)) for rank in range(world)]
        codes = [os.waitpid(rank, 0)[1] for rank in ranks]
        finish(root, f"{world} ranks" if not any(codes) else f"{world} ranks failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
