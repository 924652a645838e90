"""A checkpoint of the Hub at a pinned revision, data/checkpoints/KEY: python -m stages.fetch KEY

KEY stands in plan.yaml, from `source: owner/name@COMMIT` in a profile. Only this stage needs the network.
"""

from models.parsers.hub import download_checkpoint
from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from stages import main


def run(experiment: Experiment, key: str) -> None:
    planned = pick(experiment.plan.fetch, key, "plan.fetch")
    target = paths.checkpoint(key)
    writable(target, folder=True)
    try:
        with new_folder(target) as folder:
            download_checkpoint(planned.repository, planned.revision, folder)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(str(error)) from error
    print(f"{key}: {planned.repository} at {planned.revision}, {target}")


if __name__ == "__main__":
    main(run)
