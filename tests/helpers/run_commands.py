"""Run by forks.forking: stages and `dvc`, each in a forked process, so that torch and DVC are imported once.

Argument: the socket to listen at. A message is {"module", "words", "folder", "environment", "limit" of a file's bytes
or null} as JSON, with the caller's stdin, stdout and stderr; the answer is the exit status. Ends with its own stdin.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

from tests.helpers.parsed_once import patched

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1 << 18  # bytes of a message


def import_all() -> None:
    """What every command imports, once for all of them."""
    for place in sorted((ROOT / "stages").rglob("*.py")):
        importlib.import_module(".".join(place.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for name in ("dvc.cli.parser", "dvc.repo", "dvc.stage.loader", "dvc.dvcfile"):
        importlib.import_module(name)


def command(*, module: str, words: list[str], folder: str, environment: dict[str, str], limit: int | None,
            files: list[int]) -> None:
    """As `python -m MODULE WORDS` in the folder; ends the process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *words]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.modules.pop(module if module != "dvc" else "dvc.__main__", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def serve(listening: socket.socket) -> None:
    gc.freeze()  # so that a fork copies little
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        message, files, *_ = socket.recv_fds(connection, LARGEST, 3)
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            process = os.fork()
            if not process:
                for opened in (connection, listening):
                    opened.close()
                command(**json.loads(message), files=files)
            with contextlib.suppress(BrokenPipeError):  # who asked has been stopped
                connection.send(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())
            os._exit(0)
        for file in files:
            os.close(file)
        connection.close()


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as place:
        place.bind(sys.argv[1])
        place.listen()
        import_all()
        with patched():
            serve(place)
