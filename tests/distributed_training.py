"""The stage train on the made-up set, in double precision, the loss of every step kept; and failures where asked for.

torchrun --nproc-per-node 2 -m tests.distributed_training '{"runs": ["default-baseline"]}'
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parent))

from test_embedding import _params  # noqa: E402

from pipeline import processes, training  # noqa: E402
from pipeline.errors import InputError  # noqa: E402
from stages import train  # noqa: E402

STEPS, BATCH, CHECKPOINT_STEPS = 8, 8, 3


def train_all(*, runs: list[str], kill: list[int] | None = None, nan: list[int] | None = None,
              batch: int = BATCH) -> None:
    """Train `runs` in the current folder, which holds data/; each leaves runs/NAME/losses.json.

    kill, nan: (rank, step) where a process kills itself, or its rows of the batch hold a NaN.
    """
    params = _params(image_steps=STEPS * batch, batch=batch)
    plain, resume, losses, start = training._step, training._resume, [], 0

    def resumed(*given):
        nonlocal start
        found = resume(*given)
        start = found[0]
        return found

    def observed(network, optimizer, rows, **more):
        here = [processes.rank(), start + len(losses)]
        if here == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if here == nan:
            rows["image"][0, 0, 0, 0] = torch.nan
        losses.append(plain(network, optimizer, rows, **more))
        return losses[-1]

    def double(rows, device):
        return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in rows.items()}

    with (processes.joined(torch.device("cpu")),  # once: torchrun's store serves one group
          mock.patch.object(processes, "joined", lambda device: contextlib.nullcontext()),
          mock.patch.object(training, "_step", observed), mock.patch.object(training, "_resume", resumed),
          mock.patch.object(training, "place", lambda network, device: network.double()),
          mock.patch.object(training, "to_device", double),
          mock.patch.dict(training.fit.__kwdefaults__, checkpoint_steps=CHECKPOINT_STEPS)):
        for run in runs:
            losses.clear()
            train.run(params, run)
            if processes.rank() == 0:
                Path(f"runs/{run}/losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    try:
        train_all(**json.loads(sys.argv[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
