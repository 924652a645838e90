"""The terms of what a parser learned from, in its weights' provenance, and whether they let the weights be given on."""

from collections.abc import Mapping
from typing import Any

from models.parsers.parser_files import parser_provenance
from pipeline.base.files import file_sha256

APACHE = "Apache-2.0"
FREE = (APACHE,)  # terms under which weights may be given on
RENDERED = "rendered people"  # the project's own
TEACHERS = {"bodypix": APACHE, "oracle": APACHE}  # parsers from outside, by their name in a cache's maker
UNKNOWN_TERMS = "unknown"


def origin(init: str, licences: Mapping[str, str]) -> dict[str, Any]:
    """What the provenance says of a parser's start and of the terms of each of its sources; nothing where these are
    rendered people alone and random weights."""
    if init == "none":
        return {"licences": dict(licences)} if licences.keys() - {RENDERED} else {}
    start = None if init == "imagenet" else parser_provenance(init)
    if start is None:
        return {"licences": {**licences, f"the start {init}": UNKNOWN_TERMS}}
    return {"start_sha256": file_sha256(init), "licences": {**licences_of(start), **licences}}


def licences_of(made: Mapping[str, Any]) -> dict[str, str]:
    """Source -> terms, by a finished parser's provenance."""
    if "licences" in made:
        return dict(made["licences"])
    return {"photographs": UNKNOWN_TERMS} if "layout" in made.get("parameters", {}) else {RENDERED: APACHE}
