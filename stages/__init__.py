"""Commands: one file per DVC stage, `python -m stages.NAME KEY [--experiment NAME]`.

In: an experiment's params.yaml and plan.yaml, files. Out: files. Who enters: nobody imports a command; what several of
them do is in stages/shared, commands run by hand are in stages/tools.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable

from pipeline.base.errors import InputError
from pipeline.config.loader import Experiment, load_experiment

# How often a thread of libgomp's (torch's on CPUs) looks for work before it sleeps. Its own 300,000, milliseconds, let
# the threads of two trainings on the same processors keep each other from working. Read when torch is imported.
SPINS = "3000"
if "OMP_WAIT_POLICY" not in os.environ:  # which would not count beside it
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def main(run: Callable[[Experiment, str], None]) -> None:
    """Read the experiment and run one stage for one key; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", help="which entry of plan.yaml to make, such as sorn")
    parser.add_argument("--experiment", default="default", metavar="NAME", help="whose params.yaml and plan.yaml")
    arguments = parser.parse_args()
    with sentences():
        run(load_experiment(arguments.experiment), arguments.key)


# What disks, folders and rights make Python raise; no other OSError is a user's.
OUTSIDE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT,
           errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


class sentences:
    """A user's mistake inside becomes one line and exit status 2, Ctrl-C one line and 130.

    So does a file or folder that cannot be read or written and that nobody told of better, and what was printed into a
    full disk; who closes the pipe that is printed into (`| head`) ends the command without a word, with 141.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            sys.stdout.flush()
        except OSError as failure:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
            error = error if isinstance(error, InputError) else failure

        if isinstance(error, InputError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, KeyboardInterrupt):
            print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, BrokenPipeError):
            sys.exit(141)
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            name = "what is printed" if error.filename is None else repr(os.fsdecode(error.filename))
            print(f"error: {name}: cannot be read or written ({error.strerror}); make room or mend it and run again",
                  file=sys.stderr)
            sys.exit(2)
