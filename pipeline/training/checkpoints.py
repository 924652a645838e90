"""Checkpoints of trained weights: safetensors with one metadata key, `semalign`, that holds their provenance as JSON.

One key, because safetensors writes several in no fixed order. Nothing in such a file can be executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes

METADATA = "semalign"
CHECKSUM = "tensors_sha256"  # safetensors itself has none: a flipped bit would give other features


def save_weights(path: str | os.PathLike, network: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a network's parameters and buffers, what made them and a checksum; the same bytes for the same values."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    told = provenance | {CHECKSUM: tensors_sha256(tensors)}
    write_bytes(path, save(tensors, metadata={METADATA: json.dumps(told, sort_keys=True)}))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over each tensor's name, type, shape and numbers."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def read_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, their provenance). InputError names a file that is missing, damaged or not this project's."""
    name = repr(os.fspath(path))
    try:
        with safe_open(path, framework="pt") as file:
            provenance = (file.metadata() or {}).get(METADATA)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iteration without keys)
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such weights; make them with the stage train") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{name}: is no safetensors file or damaged ({error}); make it again with the stage train"
                         ) from error

    if provenance is None:
        raise InputError(f"{name}: does not say which run made it (no {METADATA!r} in its metadata); use weights made "
                         "by the stage train")
    try:
        told = json.loads(provenance)
        checksum = told.pop(CHECKSUM)
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{name}: is damaged or of an earlier form (no {CHECKSUM} in its metadata); make it again "
                         "with the stage train") from error
    if checksum != tensors_sha256(tensors):
        raise InputError(f"{name}: is damaged (its tensors are not those of its {CHECKSUM}); make it again with the "
                         "stage train")
    return tensors, told


def load_weights(network: nn.Module, tensors: dict[str, Tensor], name: str | os.PathLike) -> None:
    """Put tensors into a network. InputError names the file and the first tensor that does not fit."""
    wrong = misfit(tensors, network.state_dict())
    if wrong:
        raise InputError(f"{os.fspath(name)!r}: holds weights of another network: {wrong}; train this run again")
    network.load_state_dict(tensors)


def misfit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The first of the tensors, by name, that is not of the shape of one's own, or missing on a side; empty if all fit.

    >>> import torch
    >>> misfit({"a": torch.ones(2)}, {"a": torch.ones(3)})
    'a is (2,), expected (3,)'
    """
    for key in sorted(own.keys() | tensors.keys()):
        shape, expected = (tuple(side[key].shape) if key in side else "absent" for side in (tensors, own))
        if shape != expected:
            return f"{key} is {shape}, expected {expected}"
    return ""
