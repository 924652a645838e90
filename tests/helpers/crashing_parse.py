"""Run by test_engine: parses a tiny set again and again in forked children that are killed, and in shared ranks.

`python crashing_parse.py ROOT KILLS` prints one line per case, "<case> <md5 of parts.h5>". Nothing here computes before
it forks, so that no thread pool is inherited. ROOT/parts.h5 is at first that of the set's first OLD images.
"""

import dataclasses
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.caches import cache, resumable
from pipeline.parsing import engine
from tests.helpers.parsed_set import make_job, soft_forward

OLD = 4  # images of the cache that the killed parse extends: 18 of 22 are parsed, in five units
# What is killed, in this order, as its n-th call begins: one parse, gone on with after each. Path.replace renames units
# and, once all of them are there, parts.h5.
POINTS = (
    ("hashing images", engine, "image_sha256", 3), ("locking", resumable, "hold", 1),
    ("decoding the first image", engine, "decode_image", 1), ("quantising", engine, "quantise", 1),
    ("compressing", engine, "compress", 3), ("writing unit 0", resumable, "save_unit", 1),
    ("renaming unit 0", Path, "replace", 1), ("decoding unit 2", engine, "decode_image", 9),
    ("writing the second missing unit", resumable, "save_unit", 2),
    ("renaming the second missing unit", Path, "replace", 2), ("renaming the last unit", Path, "replace", 3),
    ("locking to pack", resumable, "hold", 2), ("reading the first unit", resumable, "load_unit", 1),
    ("reading unit 3", resumable, "load_unit", 4), ("writing the columns", cache, "_write_block", 1),
    ("syncing the file", os, "fsync", 1), ("renaming the file", Path, "replace", 1),
    ("cleaning up", resumable, "clean", 1), ("removing units", os, "unlink", 3),
    ("removing their folder", os, "rmdir", 1))


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


def parse(root: Path, rank: int = 0, world: int = 1, count: int | None = None) -> None:
    def forward(images, paths):
        time.sleep(0.004)
        return soft_forward(images, paths)
    job = make_job(root)
    job = dataclasses.replace(job, keys=job.keys[:count], paths=job.paths[:count])
    engine.parse_images(job, forward, root / "parts.h5", scratch=root / "scratch", rank=rank, world=world)


def die_at_call(module: object, name: str, number: int) -> None:
    """Replace a function by one that is killed as its `number`-th call begins."""
    function, calls = getattr(module, name), [0]

    def deadly(*arguments, **named):
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    setattr(module, name, deadly)


def md5(root: Path) -> str:
    return hashlib.md5((root / "parts.h5").read_bytes()).hexdigest()


def finish(root: Path, case: str) -> None:
    done = [os.waitpid(child(lambda: parse(root)), 0)[1]]
    left = [path.name for path in (root / "scratch").rglob("*") if path.is_dir() or path.suffix == ".tmp"]
    print(case, md5(root) if done == [0] and not left else "failed")
    start_over(root)


def start_over(root: Path) -> None:
    (root / "parts.h5").unlink(missing_ok=True)
    shutil.rmtree(root / "scratch", ignore_errors=True)


def kill_at_every_point(root: Path) -> None:
    """One parse, killed at each of POINTS; the file must be the old one until it is the new one."""
    os.waitpid(child(lambda: parse(root, count=OLD)), 0)
    seen = [md5(root)]
    for point, module, name, number in POINTS:
        def killed(module=module, name=name, number=number):
            die_at_call(module, name, number)
            parse(root)
        _, status = os.waitpid(child(killed), 0)
        if (found := md5(root)) != seen[-1]:
            seen.append(found)
        names = [path.suffix for path in (root / "scratch").rglob("*")]
        state = f"{names.count('.unit')} units, {names.count('.tmp')} half ones, file {len(seen)}"
        print(f"killed {point}: {state if os.WIFSIGNALED(status) else 'not killed'}", found)
    finish(root, "killed at every point")


def main(root: Path, kills: int) -> None:
    start_over(root)
    kill_at_every_point(root)
    finish(root, "undisturbed")
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
