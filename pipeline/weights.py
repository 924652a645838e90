"""Trained weights on disk: safetensors with one metadata key, `semalign`, that holds JSON about the run.

One key, because safetensors writes several in no fixed order. Nothing in such a file can be executed.
"""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import InputError

METADATA = "semalign"


def save_weights(path: str | os.PathLike, network: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's parameters and buffers and what they are; the same bytes for the same values."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, temporary, metadata={METADATA: json.dumps(about, sort_keys=True)})
    temporary.replace(path)


def read_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, what they are). InputError names a file that is missing, damaged or not this project's."""
    name = repr(os.fspath(path))
    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get(METADATA)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iteration without keys)
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such weights; make them with the stage train") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{name}: is no safetensors file or damaged ({error}); make it again with the stage train"
                         ) from error
    if about is None:
        raise InputError(f"{name}: does not say which run made it (no {METADATA!r} in its metadata); use weights made "
                         "by the stage train")
    return tensors, json.loads(about)


def load_weights(network: nn.Module, tensors: dict[str, Tensor], name: str | os.PathLike) -> None:
    """Put tensors into a network. InputError names the file and the first tensor that does not fit."""
    wanted = network.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        found, expected = (tuple(side[key].shape) if key in side else "absent" for side in (tensors, wanted))
        if found != expected:
            raise InputError(f"{os.fspath(name)!r}: holds weights of another network: {key} is {found}, expected "
                             f"{expected}; train this run again")
    network.load_state_dict(tensors)
