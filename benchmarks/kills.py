"""Kill anything at any moment: python -m benchmarks.kills [--count 300] [--only PLACE ...] [--tiny]

SIGKILL, of a command and of all that it started, at moments drawn at random: over render, prepare, train_parser, parse,
warp, train, embed, evaluate and report, each as the stage's own command, and over `dvc repro` itself. Several kills may
fall on one completion. The same command is given again each time, without any mending between (but for dvc.lock, which
DVC may leave empty: docs/dvc.md), and what it makes must have the bytes of an undisturbed run; else it is printed, and
exit code 1.

Half of the moments are uniform over the time that the command takes undisturbed; the others follow the appearance of a
new file, by up to 0.3 s, since most of a small command is the import of libraries.

The project is a copy of this one at the scale of `ci` (--tiny: of the tests), made under scratch/kills and run once. It
takes minutes, 300 kills some hours. Every kill stands in scratch/kills/log.jsonl: where it struck, when, and what lay
half done. Stopped, it goes on: kills of the same code count, and the project is kept.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.project import ROOT, SOURCES, Project, new_project
from pipeline.base.seeds import rng
from pipeline.config.plan import EMBED

PLACES = ("render", "prepare", "train_parser", "parse", "warp", "train", "embed", "evaluate", "report", "repro")
REPRO = ("dvc", "repro", "--no-run-cache")  # with the run cache it would only fetch what it made before
MOST = 6  # kills on one completion
AFTER_FILE = 0.3  # seconds
PATIENCE = 1800  # seconds for a command that is not killed

# Everything that the default does, at the scale of `ci`: its set, 960 images seen, a parser of its own.
CI = """
include: [whole]
render:
  parsing: {height: 128, width: 64, train_ids: 48, train_images: 5, test_ids: 12, gallery_images: 2}
  synth-occluded: {height: 128, width: 64, train_ids: 24, train_images: 8, test_ids: 24, query_images: 2,
                   gallery_images: 5}
  synth-holistic: null
  synth-partial: null
datasets: {synth-holistic: null, synth-partial: null}
parsers: {lraspp: {init: none, image_steps: 960}}
caches: {synth-holistic: null, synth-partial: null}
warps: {synth-holistic: null, synth-partial: null}
recipes:
  small-baseline: &ci {image_steps: 960, eval_on: [synth-occluded]}
  small-sorn: *ci
  small-dsa: *ci
  small-esa: *ci
  small-sgsfa: *ci
  small-sgam: *ci
runs: {histogram: null, untrained: null}
figures:
  esa-7: {kind: entropy, title: ESA-ReID Fig. 7, shows: [esa], names: [ESA-ReID], count: 3, dataset: synth-occluded}
  sgam-7: {kind: lists, title: a list, shows: [baseline, sgam], names: [a, b], count: 2, dataset: synth-occluded}
"""


def code_digest(profile: str) -> str:
    """Of all that the project is made of."""
    state = hashlib.sha256(profile.encode())
    for name in SOURCES:
        for path in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            if path.is_file() and "__pycache__" not in path.parts:
                state.update(path.read_bytes())
    return state.hexdigest()[:16]


def made_project(home: Path, profile: str) -> Project:
    """The project after `dvc repro`, committed; made anew where the code is another."""
    folder, mark = home / "project", home / "code"
    code = code_digest(profile)
    if not mark.is_file() or mark.read_text() != code:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        project = new_project(folder, default=profile)
        project.run("dvc", "repro", timeout=4 * PATIENCE)
        project.commit("made")
        mark.write_text(code)
    else:  # this script itself may have been stopped in the middle of a completion
        project = Project(folder)
        project.run("git", "checkout", "--quiet", ".")
        project.run("dvc", "checkout", "--quiet")
    return project


def locked(project: Project) -> dict[str, dict[str, Any]]:
    """Each stage as dvc.lock has it: cmd, outs and more."""
    return yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


def outputs(stage: dict[str, Any]) -> list[str]:
    return [out["path"] for out in stage["outs"]]


def contents(project: Project, names: list[str]) -> dict[str, str]:
    """SHA-256 of every file under these outputs."""
    found = {}
    for name in names:
        path = project.folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_dir():
                key = file.relative_to(project.folder).as_posix()
                found[key] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "absent"
    return found


def start_over(project: Project, names: list[str], *, lock: bool) -> None:
    """Without the outputs, the lock and what is unfinished."""
    for name in [*names, "scratch", *(["dvc.lock"] if lock else [])]:
        path = project.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def started(project: Project, command: tuple[str, ...]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(project.folder), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(project.folder.parent / "output.txt", "wb") as output:
        return subprocess.Popen(command, cwd=project.folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def descendants(process: int) -> Iterator[int]:
    """A process's children, theirs and so on, and last itself."""
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from descendants(int(child))
    yield process


def kill_all(process: subprocess.Popen) -> None:
    """Stopped first, from the top, so that none starts another meanwhile."""
    for deed in (signal.SIGSTOP, signal.SIGKILL):
        for number in reversed(list(descendants(process.pid))) if deed is signal.SIGSTOP else \
                list(descendants(process.pid)):
            try:
                os.kill(number, deed)
            except ProcessLookupError:
                continue
    process.wait()


def files(project: Project) -> set[str]:
    """What lies in data/ and scratch/, half written files too."""
    return {os.path.join(top, name) for part in ("data", "scratch")
            for top, _, names in os.walk(project.folder / part) for name in names}


def strike(project: Project, process: subprocess.Popen, random: np.random.Generator, seconds: float) -> str:
    """Wait for the moment and kill; what lay half done then, "" if the command ended before."""
    begun, before = time.monotonic(), files(project)
    waits = random.random() < 0.5
    moment = random.uniform(0, seconds)
    while process.poll() is None:
        now = time.monotonic() - begun
        if waits and (now > moment and files(project) - before or now > seconds):
            time.sleep(random.uniform(0, AFTER_FILE))
            break
        if not waits and now > moment:
            break
        time.sleep(0.02)
    if process.poll() is not None:
        return ""

    kill_all(process)
    new = sorted(files(project) - before)
    half = [Path(name).name for name in new if name.endswith(".tmp")]
    return f"after {time.monotonic() - begun:.2f} of {seconds:.1f} s, {len(new)} new files, half: {half[:3] or 'none'}"


def finished(project: Project, command: tuple[str, ...]) -> float:
    """Seconds of the command, not disturbed. SystemExit with what it said if it fails."""
    begun = time.monotonic()
    if started(project, command).wait(PATIENCE):
        said = (project.folder.parent / "output.txt").read_text(errors="replace")
        raise SystemExit(f"{' '.join(command)} failed where it should have gone on:\n{said[-3000:]}")
    return time.monotonic() - begun


def complete(project: Project, place: str, stages: dict[str, dict[str, Any]], random: np.random.Generator,
             most: int, durations: dict[str, float]) -> list[dict[str, Any]]:
    """One completion of a place with up to `most` kills on it; the kills. SystemExit if the bytes are others."""
    if place == "repro":
        name, command, names = place, REPRO, [out for stage in stages.values() for out in outputs(stage)]
    else:
        sections = EMBED if place == "embed" else (place,)
        name = str(random.choice([name for name in stages if name.split("@")[0] in sections]))
        command, names = tuple(stages[name]["cmd"].split()), outputs(stages[name])
    expected, kept = contents(project, names), (project.folder / "dvc.lock").read_bytes()

    if name not in durations:
        start_over(project, names, lock=place == "repro")
        durations[name] = finished(project, command)
        _compare(project, name, names, expected, kept, "undisturbed")

    start_over(project, names, lock=place == "repro")
    kills: list[dict[str, Any]] = []
    for _ in range(int(random.integers(1, most + 1))):
        struck = strike(project, started(project, command), random, durations[name])
        if not struck:
            break
        lock = project.folder / "dvc.lock"
        if place == "repro" and lock.is_file() and not lock.stat().st_size:  # DVC writes it in place (docs/dvc.md)
            project.run("git", "checkout", "--quiet", "dvc.lock")
            struck += ", dvc.lock empty"
        kills.append({"place": place, "stage": name, "struck": struck})
    finished(project, command)
    _compare(project, name, names, expected, kept, f"after {kills}")
    left = [Path(path).name for path in files(project) if path.endswith(".tmp")]
    if left:
        raise SystemExit(f"{name}: leaves half written files behind after {kills}: {left}")
    return kills


def _compare(project: Project, name: str, names: list[str], expected: dict[str, str], lock: bytes, when: str) -> None:
    found = contents(project, names)
    others = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if others or (project.folder / "dvc.lock").read_bytes() != lock:
        raise SystemExit(f"{name}: has other bytes {when}: {', '.join(others[:5]) or 'dvc.lock'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="kills in all, spread evenly over the places")
    parser.add_argument("--only", nargs="*", default=list(PLACES), choices=PLACES, metavar="PLACE")
    parser.add_argument("--tiny", action="store_true", help="at the scale of the tests")
    parser.add_argument("--home", type=Path, default=ROOT / "scratch/kills")
    given = parser.parse_args()
    profile = CI
    if given.tiny:
        from tests.conftest import TINY  # only here: it is the tests' own
        profile = TINY

    home = given.home.resolve() / ("tiny" if given.tiny else "ci")
    home.mkdir(parents=True, exist_ok=True)
    project, log, code = made_project(home, profile), home / "log.jsonl", code_digest(profile)
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    counts = Counter(line["place"] for line in lines if line["code"] == code)
    stages, durations = locked(project), {}

    each = -(-given.count // len(given.only))
    for place in given.only:
        completions = 0
        while counts[place] < each:
            random = rng(len(lines), "kills", place, completions)
            kills = complete(project, place, stages, random, min(MOST, each - counts[place]), durations)
            completions += 1
            counts[place] += len(kills)
            with open(log, "a", encoding="utf-8") as file:
                for kill in kills:
                    print(json.dumps(kill | {"code": code}), file=file)
                    print(f"{kill['stage']}: {kill['struck']}", flush=True)
        print(f"{place}: {counts[place]} kills", flush=True)
    print(f"{sum(counts[place] for place in given.only)} kills, each gone on from to the same bytes: "
          + ", ".join(f"{place} {counts[place]}" for place in given.only))


if __name__ == "__main__":
    main()
