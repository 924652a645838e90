"""One network for its paper's epochs, ten minutes of a GPU at a time: python -m benchmarks.gpu_cells [--minutes 9.5]

Trains, embeds and scores SGAM at 256 x 128 for 80 epochs of Market-1501's training part (profile partial-gpu) and
prints its cells, without DVC: the commands are those that `dvc repro` would run. Before it, on any machine with DVC,
compose partial and partial-gpu and parse (`dvc repro experiments/partial/dvc.yaml:parse`). Where the minutes are over
before the end it says so, with exit status 3, and the same command goes on from the last checkpoint. What was trained
to the end is not trained again, and with other parameters it is refused; delete data/runs/RUN to train it anew.
"""

import argparse
import subprocess
import sys
import time

from pipeline.config import paths
from pipeline.config.loader import load_experiment, pick
from pipeline.reporting.paper_tables import read_scores
from stages import sentences

METRICS = ("rank1", "rank3", "mAP")


def run_stages(experiment: str, run: str, minutes: float) -> None:
    """Train, embed and score it. SystemExit with a stage's own status where it fails, with 3 where time is up."""
    end = time.monotonic() + 60 * minutes
    trained = paths.train_record(run).is_file()
    for stage in ("embed", "evaluate") if trained else ("train", "embed", "evaluate"):
        command = [sys.executable, "-m", f"stages.{stage}", run, "--experiment", experiment]
        try:
            done = subprocess.run(command, timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{stage}: stopped, {minutes:g} minutes are over; the same command goes on from the last checkpoint",
                  file=sys.stderr)
            sys.exit(3)
        if done.returncode:
            sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--experiment", default="partial-gpu")
    parser.add_argument("--run", default="sgam-gpu")
    options = parser.parse_args()
    with sentences():
        pick(load_experiment(options.experiment).plan.trainings, options.run, "plan.train")
        run_stages(options.experiment, options.run, options.minutes)
        scores, _ = read_scores(options.run, results=paths.RESULTS / options.experiment,
                                curves=paths.CURVES / options.experiment)
        print("| data set | " + " | ".join(METRICS) + " |\n|---|" + "---:|" * len(METRICS))
        for dataset, found in scores.items():
            print(f"| {dataset} | " + " | ".join(f"{found[name].value:.1f}" for name in METRICS) + " |")


if __name__ == "__main__":
    main()
