"""The stage train on the made-up set, in double precision, the loss of every step kept; and failures where asked for.

torchrun --nproc-per-node 2 -m tests.helpers.distributed_training '{"runs": ["baseline"]}'
"""

import contextlib
import json
import os
import signal
import sys
from unittest import mock

import torch

from pipeline.base.errors import InputError
from pipeline.base.files import write_text
from pipeline.config import paths
from pipeline.training import distributed, loop
from stages import train
from tests.helpers.fake_runs import fake_experiment

STEPS, BATCH, CHECKPOINT_STEPS = 8, 8, 3


def train_all(*, runs: list[str], kill: list[int] | None = None, nan: list[int] | None = None,
              batch: int = BATCH) -> None:
    """Train `runs` in the current folder, which holds data/; each leaves data/runs/NAME/losses.json.

    kill, nan: (rank, step) where a process kills itself, or its rows of the batch hold a NaN.
    """
    experiment = fake_experiment(image_steps=STEPS * batch, batch=batch)
    plain, resume, losses, start = loop._step, loop._resume, [], 0

    def resumed(*given):
        nonlocal start
        found = resume(*given)
        start = found[0]
        return found

    def observed(network, optimizer, rows, **more):
        here = [distributed.rank(), start + len(losses)]
        if here == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if here == nan:
            rows["image"][0, 0, 0, 0] = torch.nan
        losses.append(plain(network, optimizer, rows, **more))
        return losses[-1]

    def double(rows, device):
        return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in rows.items()}

    with (distributed.joined(torch.device("cpu")),  # once: torchrun's store serves one group
          mock.patch.object(distributed, "joined", lambda device: contextlib.nullcontext()),
          mock.patch.object(loop, "_step", observed), mock.patch.object(loop, "_resume", resumed),
          mock.patch.object(loop, "place", lambda network, device: network.double()),
          mock.patch.object(loop, "to_device", double),
          mock.patch.dict(loop.fit.__kwdefaults__, checkpoint_steps=CHECKPOINT_STEPS)):
        for run in runs:
            losses.clear()
            train.run(experiment, run)
            if distributed.rank() == 0:
                write_text(paths.RUNS / run / "losses.json", json.dumps(losses))


if __name__ == "__main__":
    try:
        train_all(**json.loads(sys.argv[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
