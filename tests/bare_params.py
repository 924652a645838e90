"""Parameters of which a test gives only the sections that it needs."""

import typing
from typing import Any

from pipeline.params import Params

SECTIONS = tuple(name for name, kind in typing.get_type_hints(Params).items() if typing.get_origin(kind) is dict)


def bare_params(**given: Any) -> Params:
    """CPU, float32, one thread, scale toy, and every section that is not given empty."""
    empty: dict[str, Any] = {name: {} for name in SECTIONS}
    return Params(**{"scale": "toy", "device": "cpu", "precision": "float32", "threads": 1, **empty, **given})
