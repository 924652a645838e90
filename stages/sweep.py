"""A sweep as a picture, the paper's best value marked: python -m stages.sweep default-sorn-tau-on-synth-occluded

Writes reports/sweeps/KEY/figure.svg, figure.png and values.csv from the metrics of the sweep's results.
"""

import shutil
from pathlib import Path

from pipeline.params import Params, SweepParams, pick
from pipeline.report import read_json, short
from pipeline.sweeps import as_csv, as_png, as_svg, point, sweep_figure
from stages import main

NAMES = {"esa": "ESA-ReID", "sgsfa": "SGSFA", "sgam": "SGAM", "dsa": "DSA-reID", "sorn": "SORN"}


def run(params: Params, key: str) -> None:
    """Write the folder beside its place and put it there whole."""
    wanted = pick(params.sweeps, key, "sweeps")
    points = [point(value, result, read_json(Path(path)), wanted.dataset)
              for value, result, path in zip(wanted.values, wanted.results, wanted.reads, strict=False)]
    figure = sweep_figure(points, title=_title(wanted, params.scale), what=wanted.what, axis=wanted.axis,
                          best=wanted.best)
    target, work = Path("reports/sweeps") / key, Path("reports/sweeps") / f"{key}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "figure.svg").write_bytes(as_svg(figure))
    (work / "figure.png").write_bytes(as_png(figure))
    (work / "values.csv").write_text(as_csv(points), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _title(wanted: SweepParams, scale: str) -> str:
    dataset, trained_on = short(wanted.dataset, scale), short(wanted.trained_on, scale)
    place = "" if (dataset,) == wanted.printed_on else f", in the place of {' and '.join(wanted.printed_on)}"
    return (f"{NAMES.get(wanted.paper, wanted.paper)}, the sweep of Fig. {wanted.figure}\n"
            f"on {dataset}{place}\ntrained on {trained_on}")


if __name__ == "__main__":
    main(run)
