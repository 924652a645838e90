"""Choices: the one sentence that refuses a network's setting and names those there are."""

from collections.abc import Mapping


def check_choices(network: str, choices: Mapping[str, tuple[str, ...]], **settings: str) -> None:
    """ValueError if a setting is none of the choices of its name."""
    for name, value in settings.items():
        if value not in choices[name]:
            known = ", ".join(choices[name])
            raise ValueError(f"unknown {name} {value!r} for {network}; it is one of {known}")
