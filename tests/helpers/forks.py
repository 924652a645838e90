"""Commands of this checkout, each in a fork of one process that has imported what they import (run_commands.py).

A start costs a tenth of a second, not the two that torch takes. What a command imports late, it imports in each fork.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.project import ROOT

Told = tuple[int, str, str]  # exit status, stdout, stderr


class Python(Protocol):
    """As `python -m MODULE WORDS` in a folder. limit: of a file's bytes; stdout: the file to print into instead."""

    def __call__(self, folder: Path, module: str, words: Sequence[str], *, limit: int | None = None,
                 stdout: str | None = None) -> Told: ...


@contextlib.contextmanager
def forking(**environment: str) -> Iterator[Python]:
    """The process, with so much more in its environment; it ends with the block."""
    script = Path(__file__).with_name("run_commands.py")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), **environment}) as process:
        def python(folder: Path, module: str, words: Sequence[str], *, limit: int | None = None,
                   stdout: str | None = None) -> Told:
            print(json.dumps([str(folder), module, [*words], limit, stdout]), file=process.stdin, flush=True)
            return tuple(json.loads(process.stdout.readline()))

        yield python
        process.stdin.close()
