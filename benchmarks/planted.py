"""Planted faults: python -m benchmarks.planted [--only TEXT] [--again] [--list FILE]

Applies the one-line faults of benchmarks/planted.txt, one at a time, to a scratch copy of the tracked files, runs the
tests of the fault's room there, and prints who survives. Exit code 1 if more than 3 % are alive, if one is alive that
is not explained, or if a fault no longer fits the code: its old text must occur exactly once, so the list is kept.

planted.txt, a fault in three or four lines, faults of one file under its name and tests:

    = models/dsa.py tests/models/test_dsa.py
    - self.conv1 = BranchConv(24, 3, c1, 5)
    + self.conv1 = BranchConv(24, 3, c1, 3)
    # Table 1 prints 5x5
    ! why no test can tell (of a survivor alone)

Of a network (models/NAME.py) its rows (tests/models/test_rows.py) are asked too, where its own tests see nothing.
Tests run in forks of this process, which has imported the libraries: a fault takes seconds. What was found is kept in
scratch/planted.jsonl by the contents of code and tests, so that a run that was stopped goes on; --again forgets it.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIST, LOG = ROOT / "benchmarks/planted.txt", ROOT / "scratch/planted.jsonl"
ROWS = "tests/models/test_rows.py"
LIBRARIES = ("models", "cv2", "h5py", "pandas", "scipy.io", "scipy.sparse", "safetensors.torch", "hypothesis",
             "PIL.Image", "tqdm", "yaml", "deflate", "hydra")  # models: torch and torchvision
OURS = ("benchmarks", "models", "pipeline", "stages", "tests")
LEFT_OUT = ("ci/", "data/", "docs/pictures/")  # large, and no test of a room reads them
ALIVE = 0.03  # share that may be
# What fails so is no wrong number but a line that cannot run, whatever the tests look at.
NO_FAULT = ("(NameError)", "(SyntaxError)", "(CollectError)", "(ImportError)", "(UnboundLocalError)")
SECONDS = 900  # for the tests of one fault; a fault may also hang them, which is noticed too


@dataclass(frozen=True)
class Fault:
    """One line of code and what it becomes. tests: those of its room; alive: why none of them can tell."""

    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    why: str
    alive: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old}  ->  {self.new}  ({self.why})"


def read_faults(path: Path) -> list[Fault]:
    """SystemExit, naming the line, for a list that cannot be read."""
    file, tests, faults = "", (), []
    parts: dict[str, str] = {}

    def finish() -> None:
        if parts:
            if not {"-", "+", "#"} <= parts.keys():
                raise SystemExit(f"{path}: the fault {parts} lacks one of its lines -, +, #")
            faults.append(Fault(file, tests, parts["-"], parts["+"], parts["#"], parts.get("!", "")))
            parts.clear()

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, text = line[:1], line[2:].strip()
        if mark in ("", "-", "="):
            finish()
        if mark == "=":
            file, *names = text.split()
            tests = tuple(names)
        elif mark in ("-", "+", "#", "!") and mark not in parts:
            parts[mark] = text
        elif mark:
            raise SystemExit(f"{path}: line {number} begins with none of = - + # !, or its mark stands twice: {line}")
    finish()
    return faults


def unfit(faults: list[Fault], root: Path) -> list[str]:
    """Sentences about faults whose old text is not there, or not alone, whose tests are not, or that change nothing."""
    wrong = []
    for fault in faults:
        path = root / fault.file
        count = path.read_text(encoding="utf-8").count(fault.old) if path.is_file() else 0
        if count != 1:
            wrong.append(f"{fault.file}: the old text stands there {count} times, not once: {fault.old}")
        wrong += [f"{fault.file}: there is no {test}" for test in fault.tests
                  if not (root / test.split("::")[0]).exists()]
        if not fault.tests or fault.old == fault.new:
            wrong.append(f"{fault.file}: has no tests or changes nothing: {fault.old}")
    return wrong


def copied(root: Path, folder: Path) -> None:
    """The tracked files of `root`, and those that git does not ignore, in `folder`."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, text=True,
                           capture_output=True, check=True).stdout.split("\0")
    for name in names:
        if name and not name.startswith(LEFT_OUT) and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)


class Report:
    """A plugin of pytest: short lessons first, and which test failed first."""

    def __init__(self) -> None:
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: "by_heart" in item.name or "last_digit" in item.name)

    def pytest_exception_interact(self, call: pytest.CallInfo,
                                  report: pytest.TestReport | pytest.CollectReport) -> None:
        if not self.failed and call.excinfo is not None:
            self.failed = f"{report.nodeid} ({call.excinfo.typename})"


def run_tests(folder: Path, *arguments: str) -> tuple[int, str]:
    """pytest's exit code and the first test that failed, in a fork that runs in `folder`."""
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(folder / "planted.log", "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        sys.dont_write_bytecode = True
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]
        report = Report()
        code = int(pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments],
                               plugins=[report]))
        os.write(outside, f"{code} {report.failed}".encode())
        sys.stdout.flush()
        os._exit(0)

    os.close(outside)
    deadline = time.monotonic() + SECONDS
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test left behind

    with os.fdopen(inside, "rb") as pipe:
        code, _, name = pipe.read().decode().partition(" ")
    return (int(code), name) if code else (1, f"(no end after {SECONDS} s, or a crash)")


def groups(fault: Fault) -> list[tuple[str, ...]]:
    """Arguments of pytest: the room's tests, then, of a network, its rows."""
    asked: list[tuple[str, ...]] = [fault.tests]
    name = Path(fault.file).stem
    if fault.file.startswith("models/") and f"tests/models/test_{name}.py" in fault.tests:
        asked.append((ROWS, "-k", name))
    return asked


def judged(folder: Path, arguments: list[tuple[str, ...]]) -> str:
    """The test that fails first, "" if none does."""
    for each in arguments:
        code, name = run_tests(folder, *each)
        if code not in (0, 5):  # 5: no such row
            return name or f"pytest's exit code {code}"
    return ""


def key_of(fault: Fault, folder: Path) -> str:
    """What its verdict depends on: itself, its file and its tests."""
    state = hashlib.sha256(repr((fault.old, fault.new)).encode())
    for name in (fault.file, *fault.tests):
        path = folder / name.split("::")[0]
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            state.update(file.read_bytes())
    return state.hexdigest()[:16]


def plant(fault: Fault, folder: Path) -> str:
    """The test that kills it, "" for none; the copy is as before afterwards."""
    path = folder / fault.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return judged(folder, groups(fault))
    finally:
        path.write_text(whole, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose file or old text contains this")
    parser.add_argument("--again", action="store_true", help="ask also what was found before")
    parser.add_argument("--check", action="store_true", help="only whether every fault fits the code")
    parser.add_argument("--list", type=Path, default=LIST)
    given = parser.parse_args()

    everything = read_faults(given.list)
    faults = [fault for fault in everything if given.only in f"{fault.file} {fault.old}"]
    if wrong := unfit(faults, ROOT):
        raise SystemExit("\n".join(wrong))
    if given.check:
        print(f"{len(faults)} faults fit the code")
        return

    for name in LIBRARIES:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)

    found = {}
    if LOG.is_file() and not given.again:
        found = {line["key"]: line["by"] for line in map(json.loads, LOG.read_text().splitlines())}
    LOG.parent.mkdir(exist_ok=True)

    alive, broken, sound = [], [], set()
    with tempfile.TemporaryDirectory() as name, open(LOG, "a", encoding="utf-8") as log:
        folder = Path(name).resolve()
        copied(ROOT, folder)
        for number, fault in enumerate(faults, 1):
            key, begun = key_of(fault, folder), time.monotonic()
            if key not in found:
                if fault.tests not in sound and (red := judged(folder, [fault.tests])):
                    raise SystemExit(f"{red} fails without any fault; see {folder}/planted.log, or mend it first")
                sound.add(fault.tests)
                found[key] = plant(fault, folder)
                print(json.dumps({"key": key, "fault": str(fault), "by": found[key]}), file=log, flush=True)
            if not found[key]:
                alive.append(fault)
            elif found[key].endswith(NO_FAULT):
                broken.append(f"{fault}: cannot run, {found[key]}; plant another")
            verdict = f"killed by {found[key].rpartition('/')[2]}" if found[key] else "ALIVE"
            print(f"{number}/{len(faults)} {time.monotonic() - begun:.0f} s {fault.file}: {fault.new} | {verdict}",
                  flush=True)

    print(f"\n{len(faults) - len(alive)} of {len(faults)} faults are killed, {len(alive)} are alive "
          f"({100 * len(alive) / max(len(faults), 1):.1f} %)")
    for fault in alive:
        print(f"  {fault}\n    {fault.alive or 'NOT EXPLAINED'}")
    print("\n".join(broken))
    if broken or len(alive) > ALIVE * len(faults) or any(not fault.alive for fault in alive):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
