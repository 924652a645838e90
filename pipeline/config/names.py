"""Names that people write: which are allowed, and which one was probably meant."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pipeline.base.errors import InputError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # a dot starts a level in DVC's names of parameters, `@` a stage's key
LONGEST = 64  # a name becomes a file's and, joined with another's, a stage's; listings cut longer ones


def check_name(name: Any, place: str) -> str:
    """The name. InputError if DVC could not take it as a key."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(f"{place}: {name!r} cannot be a name; take letters, digits, - and _, a letter first, at most "
                         f"{LONGEST} of them")
    return name


def nearest(name: Any, known: Iterable[Any]) -> str:
    """What to put behind an unknown name: the known ones that are near, or nothing.

    >>> nearest("sron", ["sorn", "dsa"]), nearest("pcb", ["sorn", "dsa"])
    (" (did you mean 'sorn'?)", '')
    """
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=2)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def known_name(name: Any, known: Iterable[str], place: str, what: str) -> str:
    """The name. InputError, with the nearest ones, if it is none of those known."""
    known = list(known)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{place}: {name!r} is no {what} of this profile{nearest(name, known)}; it has: "
                         f"{', '.join(known) or 'none'}")
    return name
