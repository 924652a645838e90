"""Run by test_faults: parses a tiny set, each time in a forked process of its own.

Each line of stdin is one parse: [root, limit of the size of a file (0: none)] as JSON. Prints [status, batches, stderr]
as JSON: a user's error is status 2, as in a stage. root/out, with the units in it, may lie on another disk.
"""

import gc
import json
import os
import resource
import sys
from pathlib import Path

import torch

from pipeline.base.errors import InputError
from pipeline.parsing.engine import parse_images
from tests.helpers.parsed_set import make_job, soft_forward


def parse(root: Path, limit: int, told: int) -> int:
    os.dup2(told, 2)
    torch.set_num_threads(1)
    batches: list[list[str]] = []
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    status = 0
    try:
        parse_images(make_job(root), lambda images, paths: (batches.append(paths), soft_forward(images, paths))[1],
                     root / "out/parts.h5", scratch=root / "out/scratch")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    print(f"batches {len(batches)}", file=sys.stderr)
    return status


def main() -> None:
    gc.freeze()  # or each fork's end goes through all that was imported, a second and more
    for line in sys.stdin:
        told = os.memfd_create("stderr")
        process = os.fork()
        if not process:
            root, limit = json.loads(line)
            sys.exit(parse(Path(root), limit, told))  # as a stage ends, so that HDF5 closes what it holds
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        error, batches = os.pread(told, 10**6, 0).decode().rsplit("batches ", 1)
        print(json.dumps([status, int(batches), error]), flush=True)


if __name__ == "__main__":
    main()
