"""CI's ranges: each ci row trained from the pinned caches under 5 seeds, on the machine's own instruction set and on
AVX2 alone.

    python -m benchmarks.ci_ranges           about 25 minutes on two cores
    python -m benchmarks.ci_ranges ci-dsa    the rows named, the others' ranges kept
    python -m benchmarks.ci_ranges --push    fill ci/pins anew after `dvc repro experiments/ci/dvc.yaml`, first

Writes ci/ranges.json: for each row the smallest and largest final loss (mean of the last tenth of training), mAP
(percent) and what its caches do at test time, as differences in mAP: DSA's `fused`, by how much the fused features,
which read the warps, are better than those of the image alone; SGAM's `parts`, by how much the global feature with
the regions' is better than the global one alone.
tests/project/test_pins.py trains each row once and compares. Run it again when the experiment's pins change.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.project import ROOT, Project, new_project
from pipeline.config import paths
from pipeline.config.loader import load_plan
from pipeline.config.yaml12 import read_yaml

EXPERIMENT = "ci"
FOLDER = paths.experiment_folder(EXPERIMENT)
ROWS = ("ci-baseline", "ci-sorn", "ci-dsa", "ci-sgam", "ci-sgam-1")
# Differences in mAP between two results of one row's weights, and their names in ci/ranges.json.
DIFFERENCES = {"ci-dsa": {"fused": ("ci-dsa-fused", "ci-dsa")}, "ci-sgam": {"parts": ("ci-sgam", "ci-sgam-global")}}
SCORED = (*ROWS, "ci-dsa-fused", "ci-sgam-2")  # the rows of tables that are scored from pinned embeddings
DATA = "ci-synth-occluded"
PINNED = ("render", "prepare", "parse", "warp", "embed")  # stages in which no network and no parser is trained
SEEDS = range(5)
INSTRUCTION_SETS = {"default": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}
RANGES = ROOT / "ci" / "ranges.json"


def pinned_project(folder: Path, source: Path = ROOT) -> Project:
    """A project with the sources, locks and metrics of `source` and all that it has pinned: images, index, caches,
    features. Of its experiments only ci, and of the default what ci stands on."""
    project = new_project(folder, experiments=(EXPERIMENT,), source=source)
    for name in ("dvc.lock", FOLDER / "dvc.lock"):
        shutil.copy(source / name, folder / name)
    for name in (EXPERIMENT, paths.PARSER_RESULTS):  # these are in git
        shutil.copytree(source / paths.RESULTS / name, folder / paths.RESULTS / name)

    project.run("dvc", "remote", "modify", "--local", "pins", "url", str(source / "ci" / "pins"))
    project.run("dvc", "pull", "-r", "pins", *pinned_stages(project))
    return project


def pinned_stages(project: Project) -> list[str]:
    """The stages whose outputs are in the pins."""
    plan = load_plan(project.folder / FOLDER / "plan.yaml")
    return [f"{FOLDER}/dvc.yaml:{stage}@{key}" for stage in PINNED for key in getattr(plan, stage)]


def train_row(project: Project, row: str, *, seed: int = 0, instructions: str = "default") -> dict[str, float]:
    """Train, embed and score one row from what lies in the project: {"loss": final loss, "mAP": percent, differences}.

    The seed stays in the project's params.yaml, for the stages that read the weights.
    """
    params = project.folder / FOLDER / "params.yaml"
    tree = read_yaml(params)
    tree["runs"][row]["seed"] = seed
    params.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

    _stage(project, "train", row, instructions)
    final = json.loads((project.folder / paths.train_record(row)).read_text(encoding="utf-8"))["final"]
    return {"loss": final["loss"], **score_row(project, row, instructions=instructions)}


def score_row(project: Project, row: str, *, instructions: str = "default") -> dict[str, float]:
    """Embed and score one row with the weights that `train_row` left: {"mAP": percent, differences}."""
    pairs = DIFFERENCES.get(row, {})
    found = {}
    for result in sorted({row, *(result for pair in pairs.values() for result in pair)}):
        _stage(project, "embed", result, instructions)
        _stage(project, "evaluate", result, instructions)
        found[result] = metrics(project.folder, result)["mAP"]
    return {"mAP": found[row], **{name: round(found[one] - found[other], 2) for name, (one, other) in pairs.items()}}


def metrics(root: Path, result: str) -> dict:
    """A result's metrics on the data set, as they lie in a project."""
    content = json.loads((root / paths.metrics(EXPERIMENT, result) / f"{DATA}.json").read_text(encoding="utf-8"))
    return {name: value for name, value in content.items() if name != "provenance"}


def _stage(project: Project, stage: str, key: str, instructions: str) -> None:
    project.run("python", "-m", f"stages.{stage}", key, "--experiment", EXPERIMENT, env=INSTRUCTION_SETS[instructions])


def outside(row: str, found: dict[str, float]) -> list[str]:
    """What of `found` lies outside the committed range of its row, in words; empty if nothing does."""
    ranges = json.loads(RANGES.read_text(encoding="utf-8"))["rows"][row]
    return [f"{row}: {name} {value} is outside {ranges[name]}" for name, value in found.items()
            if not ranges[name][0] <= value <= ranges[name][1]]


def push(project: Project) -> None:
    """Put what CI needs of a project whose experiment ci is up to date into its ci/pins, and nothing else."""
    shutil.rmtree(project.folder / "ci" / "pins", ignore_errors=True)
    project.run("dvc", "push", "-r", "pins", *pinned_stages(project))


def main(rows: Sequence[str]) -> None:
    found: dict[str, list[dict]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        project = pinned_project(Path(folder))
        for instructions in INSTRUCTION_SETS:
            for seed in SEEDS:
                for row in rows:
                    values = train_row(project, row, seed=seed, instructions=instructions)
                    found[row].append({"instructions": instructions, "seed": seed, **values})
                    print(f"{row} seed {seed} on {instructions}: {values}", flush=True)

    if RANGES.exists():
        found = json.loads(RANGES.read_text(encoding="utf-8"))["trainings"] | found
    ranges = {row: {name: [min(each[name] for each in runs), max(each[name] for each in runs)]
                    for name in runs[0] if name not in ("instructions", "seed", "pins")} for row, runs in found.items()}
    RANGES.parent.mkdir(exist_ok=True)
    RANGES.write_text(json.dumps({"rows": ranges, "trainings": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    push(Project(ROOT)) if sys.argv[1:] == ["--push"] else main(sys.argv[1:] or ROWS)
