"""What a GPU has to show, in one command of at most nine minutes: python -m benchmarks.gpu [--json gpu.json]

Needs Python 3.11 or newer, torch, torchvision and what timm and h5py bring along (PyYAML, safetensors, NumPy): no DVC,
no pandas, no data, no network. Prints Markdown and writes the same as JSON, after every part. Parts, each a process of
its own with a time limit: what one has measured stays when it fails or its time is up, and the others go on.

    networks    each against the CPU: features at test time, loss of one training step and of the step after it
    layouts     a ResNet-50's training step with channels first and last, float32 and bfloat16
    memory      each at its paper's size and batch: the most that was allocated in training and in embedding
    throughput  a ResNet-50 at 384 x 128 in bfloat16: images/s and the share of the chip's peak (MFU)
    branches    DSAG's convolutions as a loop, one grouped convolution, or one batched matrix product
    nccl        what training sends between processes, by one process: sums in both passes, means, copies

Asked: in float32 features to 1e-3 and both losses to 1e-3 of themselves, features to 1e-3 with TF32's convolutions too,
which torch takes unless told otherwise; MFU 0.35 or more; what is sent to 1e-5. Whatever falls short is said below its
table, and the exit status is then 1. FLOPs are torch.utils.flop_counter's, of the same step on the CPU. A training step
is that of pipeline/training/loop.py: forward in autocast, the loss read, backward, fused Adam. `--device cpu --small`
runs the same parts without a GPU, as the tests do; its times mean nothing.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import FULL, PARTS, SMALL, Row, Size
from pipeline.base.processors import processors
from stages.shared.device import choose_device

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 9
# Dense bfloat16 products with float32 sums, TFLOP/s; the first name that is in the device's counts.
PEAKS = {"H200 NVL": 835, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "A30": 165,
         "A10": 125, "L40S": 362, "L4": 121, "B200": 2250, "RTX 4090": 165}
SOURCES = ("NVIDIA's data sheet of each product (BFLOAT16 Tensor Core; half of it where it is the rate with sparsity), "
           "RTX 4090: the Ada GPU architecture white paper, appendix A")


def peak_of(name: str) -> float | None:
    """TFLOP/s of a device by its name, None where it is not known."""
    return next((float(peak) for known, peak in PEAKS.items() if re.search(rf"\b{known}\b", name)), None)


def run_part(command: list[str], rows: Path, seconds: float) -> Row:
    """Rows that the command wrote to the file, one a line, its seconds, and why it ended before its time, or ''."""
    start, failure = time.perf_counter(), ""
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=seconds)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            failure = said[-1] if said else f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"stopped after {seconds:.0f} s"

    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return {"seconds": time.perf_counter() - start, "failure": failure, "rows": [json.loads(line) for line in lines]}


def measure(name: str, size: Size, device: str, peak: float | None, rows: Path) -> None:
    """What a part's own process does: each row is on the disk before the next is begun."""
    choose_device(device, threads=1 if size == SMALL else processors())
    with open(rows, "w", encoding="utf-8") as file:
        for row in PARTS[name][0](size, device, peak):
            print(json.dumps(row), file=file, flush=True)


def table(name: str, part: Row) -> str:
    """A part as Markdown."""
    lines = [f"\n## {name} ({part['seconds']:.0f} s)\n"]
    if part["rows"]:
        columns = list(part["rows"][0])
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(shown(row[column]) for column in columns) + " |" for row in part["rows"]]
    if part["failure"]:
        lines.append(f"\n**failed**: {part['failure']}")
    return "\n".join(lines + [f"\n**short**: {sentence}" for sentence in part["short"]])


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if value == 0 or abs(value) < 0.01 else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def machine(device: str, peak: float | None) -> Row:
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    said: Row = {"device": name, "python": sys.version.split()[0], "torch": torch.__version__,
                 "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
                 "peak, bfloat16 TFLOP/s": peak, "source of the peak": SOURCES}
    if device == "cuda":
        said["memory, MB"] = torch.cuda.get_device_properties(0).total_memory / 1e6
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--peak", type=float, help="dense bfloat16 TFLOP/s of the device, where its name is not known")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no part goes on")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a test")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # measure the one part here, into this file
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("error: torch finds no GPU here; run it where there is one, or see the parts run with --device cpu "
              "--small", file=sys.stderr)
        sys.exit(2)

    peak = given.peak or (peak_of(torch.cuda.get_device_name()) if given.device == "cuda" else None)
    if given.rows:
        measure(given.only[0], SMALL if given.small else FULL, given.device, peak, given.rows)
        return
    sys.exit(1 if measure_all(given, peak) else 0)


def measure_all(given: argparse.Namespace, peak: float | None) -> bool:
    """Run the parts one after another, print and write what they found. Whether anything failed or fell short."""
    end = time.monotonic() + 60 * given.minutes
    found: Row = {"machine": machine(given.device, peak), "parts": {}}
    print("\n".join(f"{name}: {value}" for name, value in found["machine"].items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            rows = Path(folder) / f"{name}.jsonl"
            command = [sys.executable, "-m", "benchmarks.gpu", "--only", name, "--rows", str(rows), "--device",
                       given.device, *(["--small"] if given.small else []), *(["--peak", str(peak)] if peak else [])]
            part = run_part(command, rows, max(1.0, min(PARTS[name][1], end - time.monotonic())))
            part["short"] = PARTS[name][2](part["rows"]) if part["rows"] else []
            found["parts"][name] = part
            print(table(name, part), flush=True)
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return any(part["failure"] or part["short"] for part in found["parts"].values())


if __name__ == "__main__":
    main()
