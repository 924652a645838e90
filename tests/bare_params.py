"""Parameters of which a test gives only the sections that it needs."""

import dataclasses
import typing
from typing import Any

from pipeline.params import Params


def bare_params(**given: Any) -> Params:
    """CPU, float32, one thread, scale toy, and every section that is not given empty."""
    hints = typing.get_type_hints(Params)
    empty = {item.name: {} for item in dataclasses.fields(Params) if typing.get_origin(hints[item.name]) is dict}
    return Params(**{"scale": "toy", "device": "cpu", "precision": "float32", "threads": 1, **empty, **given})
