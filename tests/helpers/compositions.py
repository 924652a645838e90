"""Experiments of the papers' rows, composed with those that they stand on."""

from typing import Any

from pipeline.config.compose import Composed, compose
from pipeline.config.paper_rows import wanted_rows
from pipeline.config.profiles import load_profile
from tests.helpers.bare_params import by_data_set

PAPERS = ("esa", "sgsfa", "sgam", "dsa", "sorn")
Entry = dict[str, Any]


def together(name: str, kept: tuple[str, ...] | None = None) -> Entry:
    """An experiment with those that it stands on: what an entry needs is in one of them."""
    return merged(compose(name, kept))


def merged(composed: Composed) -> Entry:
    tree: Entry = {}
    for base in composed.bases.values():
        for section, entries in merged(base).items():
            tree.setdefault(section, {}).update(entries)
    plan = composed.plan["plan"]
    own = composed.params | plan | {"embed": by_data_set(plan)}
    for section, entries in own.items():
        if isinstance(entries, dict):
            tree.setdefault(section, {}).update(entries)
    return tree


def wanted(profile: str) -> Entry:
    return wanted_rows(load_profile(profile)["rows"])
