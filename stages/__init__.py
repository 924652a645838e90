"""Commands: one file per DVC stage, `python -m stages.NAME KEY [--experiment NAME]`.

In: an experiment's params.yaml and plan.yaml, files. Out: files. Who enters: nobody imports a command; what several of
them do is in stages/shared, commands run by hand are in stages/tools.
"""

import argparse
import sys
from collections.abc import Callable

from pipeline.base.errors import InputError
from pipeline.config.loader import Experiment, load_experiment


def main(run: Callable[[Experiment, str], None]) -> None:
    """Read the experiment and run one stage for one key; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", help="which entry of plan.yaml to make, such as sorn")
    parser.add_argument("--experiment", default="default", metavar="NAME", help="whose params.yaml and plan.yaml")
    arguments = parser.parse_args()
    with sentences():
        run(load_experiment(arguments.experiment), arguments.key)


class sentences:
    """A user's mistake inside becomes one line and exit status 2, Ctrl-C one line and 130."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, KeyboardInterrupt):
            print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
            sys.exit(130)
