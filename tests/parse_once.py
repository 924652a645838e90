"""Run by test_faults: one parse of a tiny set in a process of its own, as the stage would: `python parse_once.py ROOT`

Prints how many batches went through the parser. A user's error is one line and status 2. ROOT/out and ROOT/scratch may
lie on another disk. A second argument limits the size of a file, for a disk that is full.
"""

import resource
import sys
from pathlib import Path

from test_parsing import make_job, soft_forward

from pipeline.errors import InputError
from pipeline.parsing import parse_images


def main(root: Path, limit: int) -> None:
    batches = []
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        parse_images(make_job(root), lambda images, paths: (batches.append(paths), soft_forward(images, paths))[1],
                     root / "out/parts.h5", scratch=root / "out/scratch")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        print(len(batches), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
