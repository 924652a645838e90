"""Run by forks.forking: commands, each in a forked process of its own, so that torch is imported once.

Each line of stdin is [folder, module, words, limit of a file's bytes or null, stdout or null] as JSON; prints [status,
stdout, stderr] as JSON. stdout: the file to print into instead.
"""

import gc
import importlib
import json
import os
import resource
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What every command imports, once for all of them.
ROOT = Path(__file__).resolve().parents[2]
for place in sorted((ROOT / "stages").rglob("*.py")):
    importlib.import_module(".".join(place.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def command(folder: str, module: str, words: list[str], limit: int | None, stdout: int, stderr: int) -> None:
    """As `python -m MODULE WORDS` in the folder; ends the process."""
    sys.stdin.close()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.chdir(folder)
    sys.argv = [module, *words]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def main() -> None:
    gc.freeze()  # so that a fork copies little
    for line in sys.stdin:
        folder, module, words, limit, place = json.loads(line)
        (shown, stdout), (said, stderr) = os.pipe(), os.pipe()  # a limit of files' sizes is none of theirs
        process = os.fork()
        if not process:
            command(folder, module, words, limit, stdout if place is None else os.open(place, os.O_WRONLY), stderr)
        for end in (stdout, stderr):
            os.close(end)
        with open(shown) as printed, open(said) as told, ThreadPoolExecutor(2) as pool:
            texts = [*pool.map(lambda file: file.read(), (printed, told))]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), *texts]), flush=True)


if __name__ == "__main__":
    main()
