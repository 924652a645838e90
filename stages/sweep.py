"""Sweep of a parameter as a picture, the paper's best value marked:

    python -m stages.sweep sgsfa-lambda-on-synth-occluded --experiment sweeps-sgsfa

Writes data/reports/EXPERIMENT/sweeps/KEY/figure.svg, figure.png and values.csv from the metrics of the sweep's results.
"""

from pipeline.base.files import new_folder, writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import SweepPlan
from pipeline.reporting.results import read_metrics
from pipeline.reporting.sweep_plot import as_csv, as_png, as_svg, point, sweep_figure
from stages import main

NAMES = {"esa": "ESA-ReID", "sgsfa": "SGSFA", "sgam": "SGAM", "dsa": "DSA-reID", "sorn": "SORN"}


def run(experiment: Experiment, key: str) -> None:
    """Write the folder beside its place and put it there whole."""
    plan = pick(experiment.plan.sweep, key, "plan.sweep")
    target = paths.report(experiment.name, "sweeps", key)
    writable(target, folder=True)
    points = [point(value, result, read_metrics(paths.metrics(experiment.name, result)), plan.dataset)
              for value, result in zip(plan.values, plan.results, strict=True)]
    figure = sweep_figure(points, title=_title(plan), what=plan.what, axis=plan.axis, best=plan.best)

    with new_folder(target) as folder:
        (folder / "figure.svg").write_bytes(as_svg(figure))
        (folder / "figure.png").write_bytes(as_png(figure))
        (folder / "values.csv").write_text(as_csv(points), encoding="utf-8")


def _title(plan: SweepPlan) -> str:
    place = "" if (plan.dataset,) == plan.printed_on else f", in the place of {' and '.join(plan.printed_on)}"
    return (f"{NAMES.get(plan.paper, plan.paper)}, the sweep of Fig. {plan.figure}\n"
            f"on {plan.dataset}{place}\ntrained on {plan.trained_on}")


if __name__ == "__main__":
    main(run)
