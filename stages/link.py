"""Link to what a user keeps under data/raw: python -m stages.link market1501

An experiment in a folder of its own, `dvc exp run --temp` or `--queue`, has what git and DVC hold and not what git
ignores: there this makes a link to the main checkout's and copies nothing. In the main checkout it looks that all is
there.
"""

import os
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from stages import main


def run(experiment: Experiment, key: str) -> None:
    path = Path(pick(experiment.plan.link, key, "plan.link").path)
    original = paths.main_checkout() / path
    if not original.exists():
        raise InputError(f"{str(original)!r}: is not there, and {key} is read from it; put or link it there")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link that leads nowhere
        path.symlink_to(os.path.abspath(original))
    print(f"{key}: {path}" + (f" -> {path.readlink()}" if path.is_symlink() else ""))


if __name__ == "__main__":
    main(run)
