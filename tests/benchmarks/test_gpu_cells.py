"""benchmarks/gpu_cells.py on the CPU: its cells, an end before the end, and what is trained is not trained again."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.config import paths
from tests.helpers.bare_params import write_experiment
from tests.helpers.fake_runs import DATA, RAW, fake_sections
from tests.helpers.fake_set import write_fake_set

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu_cells", "--experiment", "small", *options], cwd=folder,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300)


def test_it_trains_scores_and_goes_on(tmp_path):
    write_fake_set(tmp_path / RAW, tmp_path / paths.index(DATA))
    params, plan = fake_sections()
    folder = paths.FEATURES / "baseline"
    write_experiment(tmp_path, "small", params=params, plan=plan | {
        "evaluate": {"baseline": {"features": str(folder), "datasets": [DATA], "rendered": [DATA]}}})

    refused = run(tmp_path, "--run", "basline")
    assert refused.returncode == 2 and "basline" in refused.stderr and refused.stderr.count("\n") == 1

    stopped = run(tmp_path, "--run", "baseline", "--minutes", "0")
    assert stopped.returncode == 3 and "0 minutes are over; the same command goes on" in stopped.stderr

    first = run(tmp_path, "--run", "baseline")
    assert first.returncode == 0, first.stderr
    record = tmp_path / paths.train_record("baseline")
    made = record.stat().st_mtime_ns
    head, _, cells = first.stdout.splitlines()[-3:]
    assert head == "| data set | rank1 | rank3 | mAP |" and cells.startswith(f"| {DATA} | ")
    assert all(0 <= float(cell) <= 100 for cell in cells.split("|")[2:-1])

    again = run(tmp_path, "--run", "baseline")
    assert again.stdout.splitlines()[-1] == cells and record.stat().st_mtime_ns == made

    params["runs"]["baseline"]["image_steps"] = 32  # what was trained is not taken for another run
    write_experiment(tmp_path, "small", params=params, plan=plan)
    other = run(tmp_path, "--run", "baseline")
    assert other.returncode == 2 and "24" in other.stderr and "32" in other.stderr and "|" not in other.stdout
