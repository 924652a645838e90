"""Fuzz every reader of an outside format: python -m benchmarks.fuzz [--count 2000] [--only READER ...]

So many damaged files for each: index CSV, images.csv, .npz, .mat (features, CUHK03's split, CCP's labels), IUV PNG,
DensePose JSON, label PNG, label map, params.yaml (tests/helpers/damaged_files.py), and every reader of HDF5
(tests/helpers/damaged_h5.py). Each case ends in a right answer or in one sentence that names the file. Anything else is
printed with the case that shows it, and exit code 1: another exception, a crash of a library, no end within a minute.

Cases run in processes of their own, BLOCK at a time, each block named by its number, from which its damages are drawn.
Blocks that are done stand in scratch/fuzz.jsonl with the digest of the code they were done by: stopped, it goes on.
"""

import argparse
import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "scratch/fuzz.jsonl"
FILES, H5 = "tests/helpers/damaged_files.py", "tests/helpers/damaged_h5.py"
READERS = {FILES: ("index", "images-csv", "plain-npz", "small-npz", "plain-mat", "small-mat", "cuhk03-mat", "ccp-mat",
                   "iuv-png", "json", "label-png", "label-map", "params"),
           H5: ("cache", "inspect", "append", "features", "cuhk03", "oracle", "parsing", "joints", "audit",
                "occlusion")}
BLOCK = 100  # cases of a process
SECONDS = 60  # without a line from it


def code_digest() -> str:
    """Of what the cases depend on: the readers' code and the scripts."""
    state = hashlib.sha256()
    for path in sorted([*(ROOT / "pipeline").rglob("*.py"), ROOT / FILES, ROOT / H5]):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def run_block(script: str, reader: str, block: int, folder: Path) -> tuple[Counter, str]:
    """Results of a block's cases, and what went wrong, "" if nothing."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}", "OMP_NUM_THREADS": "1"}
    with open(folder / "stderr", "w+b") as told, subprocess.Popen(
            [sys.executable, str(ROOT / script), str(folder), reader, str(block), str(BLOCK)], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=told, env=environment, text=True) as process:
        assert process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        source = process.stdout

        def listen() -> None:
            for line in source:
                lines.put(line)
            lines.put("")

        threading.Thread(target=listen, daemon=True).start()
        found: Counter = Counter()
        wrong = ""
        while True:
            try:
                line = lines.get(timeout=SECONDS)
            except queue.Empty:
                wrong = f"no end within {SECONDS} s"
                process.kill()
                break
            if not line:
                break
            found[line.split(" ", 2)[1]] += 1

        code = process.wait()
        if code or sum(found.values()) != BLOCK:
            told.seek(0)
            last = told.read().decode(errors="replace")[-2500:]
            wrong = f"{wrong or f'exit status {code}'} after {sum(found.values())} cases\n{last}"
    return found, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help=f"cases of each reader, in blocks of {BLOCK}")
    parser.add_argument("--only", nargs="*", default=[], help="readers by name")
    given = parser.parse_args()

    code, done = code_digest(), {}
    if LOG.is_file():
        lines = [json.loads(line) for line in LOG.read_text().splitlines()]
        done = {(line["reader"], line["block"]): line for line in lines if line["code"] == code}
    LOG.parent.mkdir(exist_ok=True)

    failures = 0
    for script, readers in READERS.items():
        for reader in [name for name in readers if name in (given.only or readers)]:
            total: Counter = Counter()
            for block in range(-(-given.count // BLOCK)):
                if (reader, block) not in done:
                    with tempfile.TemporaryDirectory() as folder:
                        found, wrong = run_block(script, reader, block, Path(folder))
                    if wrong:
                        failures += 1
                        print(f"{reader}, block {block}: {wrong}", flush=True)
                        continue
                    done[reader, block] = {"code": code, "reader": reader, "block": block, "found": dict(found)}
                    with open(LOG, "a", encoding="utf-8") as log:
                        print(json.dumps(done[reader, block]), file=log)
                total.update(done[reader, block]["found"])
            print(f"{reader}: {sum(total.values())} cases, {dict(sorted(total.items()))}", flush=True)
    if failures:
        raise SystemExit(f"{failures} blocks did not end as they should")


if __name__ == "__main__":
    main()
