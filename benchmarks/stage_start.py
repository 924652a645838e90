"""A stage's start: python -m benchmarks.stage_start [--repeats 5] [STAGE ...]

Seconds that a stage's imports take in a process of its own, beside `import torch` and beside a Python that does
nothing, and the ratio to the one of the two that the stage cannot do without. Stages and rivals take turns; of each
the fastest repeat counts, since whatever else runs on the machine only adds. About a minute on two quiet cores.
tests/project/test_start.py has what a stage does not import after its work.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.project import ROOT

STAGES = ("link", "render", "prepare", "occlude", "warp", "paper_tables", "sweep", "report", "compose",
          "ignore", "evaluate", "train", "embed", "paper_figure", "parse", "train_parser", "train_photographs",
          "train_taught")
NOTHING, TORCH = "pass", "import torch"


def seconds(code: str) -> float:
    """Of a fresh Python that runs `code`."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return time.perf_counter() - begun


def needs_torch(stage: str) -> bool:
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each, of which the fastest counts")
    parser.add_argument("stages", nargs="*", default=STAGES, metavar="STAGE")
    arguments = parser.parse_args()

    codes = {NOTHING: NOTHING, TORCH: TORCH, **{stage: f"import stages.{stage}" for stage in arguments.stages}}
    times = [{name: seconds(code) for name, code in codes.items()} for _ in range(arguments.repeats)]
    best = {name: min(row[name] for row in times) for name in codes}

    print(f"{'':20}{'seconds':>8}{'ratio':>8}  to")
    for name, fastest in best.items():
        rival = TORCH if name in arguments.stages and needs_torch(name) else NOTHING
        print(f"{name:20}{fastest:8.2f}{fastest / best[rival]:8.2f}  {rival}")


if __name__ == "__main__":
    main()
