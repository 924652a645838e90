"""One short file per DVC stage, run as `python -m stages.<name> <key>`: what knows both parameters and networks."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import Params
from pipeline.params_file import load_params


def main(run: Callable[[Params, str], None]) -> None:
    """Read the parameters and run one stage for one key; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("key", help="which entry of params.yaml to work on, such as default-sorn")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    arguments = parser.parse_args()
    try:
        run(load_params(arguments.params), arguments.key)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
        sys.exit(130)
