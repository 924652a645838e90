"""Checkpoints of the Hub in a profile: `source: owner/name@COMMIT`, which the stage fetch puts into a folder.

DVC depends on that folder, which the stage makes, and sees another commit as another folder.
"""

import re

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.known import Composition

PINNED = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[^/]*)")
SHOWN = 12  # digits of the commit in a folder's name


def checkpoint_source(made: Composition, source: str, place: str) -> str:
    """The folder of a checkpoint: `source` itself, or for owner/name@COMMIT the one that it is fetched into.

    InputError for a revision that is no commit: a branch or a tag may be another one tomorrow.
    """
    pinned = PINNED.fullmatch(source)
    if not pinned or source.startswith(f"{paths.DATA.as_posix()}/"):
        return source
    repository, revision = pinned["repository"], pinned["revision"]
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"{place}: pins {repository!r} to {revision!r}, which is no commit; write its 40 hexadecimal "
                         "digits, as the Hub's list of commits shows them")

    key = f"{re.sub(r'[^A-Za-z0-9]+', '-', repository).strip('-').lower()}-{revision[:SHOWN]}"
    if key not in made.known.checkpoints:
        made.known.checkpoints[key] = None
        made.plan["fetch"][key] = {"repository": repository, "revision": revision}
    return paths.checkpoint(key).as_posix()
