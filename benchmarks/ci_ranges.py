"""The spread that CI holds trainings to: each ci row trained from the pinned caches under 5 seeds, on the machine's own
instruction set and on AVX2 alone.

    python -m benchmarks.ci_ranges           about 25 minutes on two cores
    python -m benchmarks.ci_ranges ci-dsa    the rows named, the others' ranges kept
    python -m benchmarks.ci_ranges --push    fill ci/pins anew from a project at the ci scale, first

Writes ci/ranges.json: for each row the smallest and largest final loss (mean of the last tenth of training), mAP
(percent) and what its caches do at test time, as differences in mAP: DSA's `fused`, by how much the fused features,
which read the warps, are better than those of the picture alone; SGAM's `parts`, by how much the global feature with
the regions' is better than the global one alone.
tests/test_pins.py trains each row once and compares. Run it again when the ci scale's pins change.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.project import ROOT, Project, new_project

ROWS = ("ci-baseline", "ci-sorn", "ci-dsa", "ci-sgam", "ci-sgam-1")
# Differences in mAP between two results of one row's weights, and their names in ci/ranges.json.
DIFFERENCES = {"ci-dsa": {"fused": ("ci-dsa-fused", "ci-dsa")}, "ci-sgam": {"parts": ("ci-sgam", "ci-sgam-global")}}
SCORED = (*ROWS, "ci-dsa-fused", "ci-sgam-2")  # the rows of tables that are scored from pinned embeddings
DATA = "ci-synth-occluded"
SEEDS = range(5)
INSTRUCTION_SETS = {"default": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}
RANGES = ROOT / "ci" / "ranges.json"


def pinned_project(folder: Path) -> Project:
    """A project at the ci scale, with the lock file and everything that was pinned: index, images, caches, features."""
    project = new_project(folder, profile="ci")
    shutil.copy(ROOT / "dvc.lock", folder / "dvc.lock")
    for name in ("metrics", "curves", "ranks"):  # these are in git
        shutil.copytree(ROOT / name, folder / name)
    for row in ROWS:
        (folder / "runs" / row).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "runs" / row / "train.json", folder / "runs" / row)
    for ignored in (ROOT / "features").glob("ci-*/.gitignore"):  # lies in the folder that is scored
        (folder / "features" / ignored.parent.name).mkdir(parents=True)
        shutil.copy(ignored, folder / "features" / ignored.parent.name)
    project.run("dvc", "remote", "modify", "--local", "pins", "url", str(ROOT / "ci" / "pins"))
    project.run("dvc", "pull", *pinned_stages(project))
    return project


def pinned_stages(project: Project) -> list[str]:
    """The stages whose outputs are in the pins: those of the ci scale that no network and no parser is made in."""
    names = [line.split()[0] for line in project.run("dvc", "stage", "list").stdout.splitlines()]
    return [name for name in names if "@ci-" in name and name.split("@")[0] in
            ("render", "prepare", "parse", "warp", "embed")]


def train_row(project: Project, row: str, *, seed: int = 0, instructions: str = "default") -> dict[str, float]:
    """Train, embed and score one row from what lies in the project: {"loss": final loss, "mAP": percent, differences}.
    """
    tree = yaml.safe_load((project.folder / "params.yaml").read_text())
    tree["runs"][row]["seed"] = seed
    (project.folder / "seeded.yaml").write_text(yaml.safe_dump(tree))
    _stage(project, "train", row, instructions)
    final = json.loads((project.folder / "runs" / row / "train.json").read_text())["final"]
    return {"loss": final["loss"], **score_row(project, row, instructions=instructions)}


def score_row(project: Project, row: str, *, instructions: str = "default") -> dict[str, float]:
    """Embed and score one row with the weights that `train_row` left: {"mAP": percent, differences}."""
    pairs = DIFFERENCES.get(row, {})
    found = {}
    for result in sorted({row, *(result for pair in pairs.values() for result in pair)}):
        _stage(project, "embed", f"{result}-on-synth-occluded", instructions)
        _stage(project, "evaluate", result, instructions)
        found[result] = json.loads((project.folder / "metrics" / "ci" / f"{result}.json").read_text())[DATA]["mAP"]
    return {"mAP": found[row], **{name: round(found[one] - found[other], 2) for name, (one, other) in pairs.items()}}


def _stage(project: Project, stage: str, key: str, instructions: str) -> None:
    project.run("python", "-m", f"stages.{stage}", key, "--params", "seeded.yaml", env=INSTRUCTION_SETS[instructions])


def outside(row: str, found: dict[str, float]) -> list[str]:
    """What of `found` lies outside the committed range of its row, in words; empty if nothing does."""
    ranges = json.loads(RANGES.read_text())["rows"][row]
    return [f"{row}: {name} {value} is outside {ranges[name]}" for name, value in found.items()
            if not ranges[name][0] <= value <= ranges[name][1]]


def push() -> None:
    """Put what CI needs of this project, composed from profile ci and reproduced, into ci/pins, and nothing else."""
    project = Project(ROOT)
    shutil.rmtree(ROOT / "ci" / "pins", ignore_errors=True)
    project.run("dvc", "push", *pinned_stages(project))


def main(rows: Sequence[str]) -> None:
    found: dict[str, list[dict]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        project = pinned_project(Path(folder))
        for instructions in INSTRUCTION_SETS:
            for seed in SEEDS:
                for row in rows:
                    figures = train_row(project, row, seed=seed, instructions=instructions)
                    found[row].append({"instructions": instructions, "seed": seed, **figures})
                    print(f"{row} seed {seed} on {instructions}: {figures}", flush=True)
    if RANGES.exists():
        found = json.loads(RANGES.read_text())["trainings"] | found
    ranges = {row: {name: [min(each[name] for each in runs), max(each[name] for each in runs)]
                    for name in runs[0] if name not in ("instructions", "seed")} for row, runs in found.items()}
    RANGES.parent.mkdir(exist_ok=True)
    RANGES.write_text(json.dumps({"rows": ranges, "trainings": found}, indent=1) + "\n")


if __name__ == "__main__":
    push() if sys.argv[1:] == ["--push"] else main(sys.argv[1:] or ROWS)
