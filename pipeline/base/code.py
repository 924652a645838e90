"""Which code makes something: unfinished work is taken up, and finished rows are kept, by the same code alone.

DVC runs a stage again where its code was edited. What the stage finds under scratch/ then was made by other code, and
the lock would say that all of it was made by this one.
"""

import hashlib
from pathlib import Path

from pipeline.base.files import file_sha256

ROOT = Path(__file__).resolve().parents[2]


def code_sha256(*places: str) -> str:
    """SHA-256 over the Python files of folders (none below them) and single ones, named from the project's root."""
    files = {file for place in places
             for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).glob("*.py"))}
    state = hashlib.sha256()
    for file in sorted(files):
        state.update(f"{file.relative_to(ROOT).as_posix()} {file_sha256(file)}\n".encode())
    return state.hexdigest()
