"""Files of finished parsers: safetensors with, under the one metadata key `semalign`, JSON of what they hold.

Nothing in such a file is executed, and the same weights give the same bytes.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def write_parser(path: str | os.PathLike, state: dict[str, Tensor], provenance: dict[str, Any]) -> None:
    """Write weights with what they are, beside and renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(save(state, metadata={"semalign": json.dumps(provenance, sort_keys=True)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_parser(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Provenance and state, 16-bit floats as the 32-bit ones that they stand for."""
    name = os.fspath(path)
    try:
        with safe_open(name, "pt") as file:
            provenance = json.loads((file.metadata() or {}).get("semalign", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            state = {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such weights; make them with the stage train_parser, or name another file as "
                         "the cache's `source`") from error
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{name}: is damaged or no safetensors file ({error}); make it again with the stage "
                         "train_parser, or name another file as the cache's `source`") from error

    kind = provenance.get("kind", "unknown weights") if isinstance(provenance, dict) else "unknown weights"
    if kind != "parser":
        raise ValueError(f"{name}: holds {kind}, not a parser; name a parser's weights as the cache's `source`")
    return provenance, state


def parser_provenance(path: str | os.PathLike) -> dict[str, Any] | None:
    """What a finished parser's file says of itself; None where it is no such file."""
    try:
        return read_parser(path)[0]
    except ValueError:
        return None


def save_released(source: str | os.PathLike, path: str | os.PathLike, *, made: dict[str, Any]) -> None:
    """Write a finished parser's weights as 16-bit floats, half the bytes, with its provenance and `made` beside it.

    ValueError if `source` is no parser's, or if a weight is too large for 16 bits.
    """
    provenance, state = read_parser(source)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in halves.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{os.fspath(source)}: its {name} reaches {float(state[name].abs().max()):.3g}, and "
                             "16-bit floats end at 65504; train the parser again")
    write_parser(path, halves, provenance | made)
