"""Fields of the typed parameters: a comment, a range or choices, and a neutral value, each declared with the field."""

from dataclasses import MISSING, field
from typing import Any


def doc(text: str, *, choices: tuple[Any, ...] = (), low: float | None = None, high: float | None = None,
        neutral: Any = MISSING, above: str | None = None) -> Any:
    """A field: its comment in params.yaml, the values or the range (ends included) it may have, its neutral value.

    above: the field than which it may not be less.
    """
    return field(default=neutral, kw_only=True,
                 metadata={"doc": text, "choices": choices, "low": low, "high": high, "above": above})


def share(text: str, *, neutral: Any = MISSING) -> Any:
    """A number from 0 to 1."""
    return doc(text, low=0, high=1, neutral=neutral)


def part(text: str, *, neutral: Any = MISSING, above: str | None = None) -> Any:
    """A share that is neither nothing nor all."""
    return doc(text, low=0.01, high=0.99, neutral=neutral, above=above)


def count(text: str, *, low: int = 1, high: int | None = None, neutral: Any = MISSING) -> Any:
    """A whole number, at least 1 where nothing else is said."""
    return doc(text, low=low, high=high, neutral=neutral)


SEED = 2 ** 32 - 1
SIDE = 4096  # pixels
