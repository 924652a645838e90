"""`python -m stages.X` and `dvc`, each a fork of one process that has imported what they import (run_commands.py).

A start costs a twentieth of a second, not the two that torch takes. The code is this checkout's, wherever it runs.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.project import ROOT

Told = tuple[int, str, str]  # exit status, stdout, stderr

# A program that hands itself over. Any other Python than a stage's is one of its own.
PROGRAM = """#!{python} -SE
import json, os, socket, sys
name, *words = os.path.basename(sys.argv[0]), *sys.argv[1:]
if name == "python":
    if words[:1] != ["-m"] or not words[1].startswith("stages."):
        os.execv({python!r}, [{python!r}, *words])
    _, name, *words = words
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as place:
    place.connect({address!r})
    message = dict(module=name, words=words, folder=os.getcwd(), environment=dict(os.environ), limit=None)
    socket.send_fds(place, [json.dumps(message).encode()], [0, 1, 2])
    sys.exit(int(place.recv(16) or 1))
"""


@contextlib.contextmanager
def forking(**environment: str) -> Iterator[Path]:
    """A folder with programs `python` and `dvc`, and `fork`'s socket; all ends with the block.

    environment: what the process that is forked has beside this one's, when it imports.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("python", "dvc"):
            (place / name).write_text(PROGRAM.format(python=sys.executable, address=str(place / "socket")))
            (place / name).chmod(0o755)
        script = Path(__file__).with_name("run_commands.py")
        with subprocess.Popen([sys.executable, str(script), str(place / "socket")], stdin=subprocess.PIPE,
                              env=os.environ | {"PYTHONPATH": str(ROOT), **environment}) as process:
            while not (place / "socket").exists():
                assert process.poll() is None, "the process that is forked did not start"
            yield place
            process.stdin.close()


def fork(programs: Path, folder: Path, module: str, words: Sequence[str], *, limit: int | None = None,
         stdout: str | None = None) -> Told:
    """As `python -m MODULE WORDS` in a folder. limit: of a file's bytes; stdout: the file to print into instead."""
    message = {"module": module, "words": [*words], "folder": str(folder), "environment": dict(os.environ),
               "limit": limit}
    (shown, printed), (said, told) = os.pipe(), os.pipe()  # a limit of files' sizes is none of theirs
    files = [os.open(os.devnull, os.O_RDONLY), printed if stdout is None else os.open(stdout, os.O_WRONLY), told]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as place:
        place.connect(str(programs / "socket"))
        socket.send_fds(place, [json.dumps(message).encode()], files)
        for file in {*files, printed}:
            os.close(file)
        with open(shown) as output, open(said) as errors, ThreadPoolExecutor(2) as pool:
            texts = [*pool.map(lambda file: file.read(), (output, errors))]
        return int(place.recv(16)), *texts
