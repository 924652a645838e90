"""The tables of README.md and docs/results.md quote data/results as printed: means over the seeds that were made, what
they differ by, one method's curve and the sweeps; which differences are decided is benchmarks.paired's to say."""

import json
import re

import numpy as np
import pytest

from benchmarks.project import ROOT

SEEDS = (0, 1, 2)
RUNS = {  # whose row it is: the run, without what an experiment adds to its name
    "common baseline": "baseline", "baseline": "baseline", "strong baseline": "strong",
    "strong baseline, which aligns nothing": "strong", "strong baseline, `augment.occlude`": "strong-occlude",
    "ESA-ReID": "esa", "esa": "esa", "ESA-ReID's Baseline": "esa-baseline", "SGSFA": "sgsfa", "sgsfa": "sgsfa",
    "ESA-ReID, parser's maps": "esa-cache", "SGSFA, all vectors in all losses": "sgsfa-all",
    "SGSFA without parts": "sgsfa-plain", "SGAM": "sgam", "sgam": "sgam",
    "SGAM without crop and parts": "sgam-resnet50", "DSA-reID": "dsa", "dsa": "dsa", "SORN": "sorn", "sorn": "sorn",
    "SORN's global branch": "sorn-global",
    "SORN, all stripes counted": "sorn-unmasked", "SORN, `augment.occlude`": "sorn-occlude",
    "colour histogram": "histogram", "histogram": "histogram", "ImageNet's weights, untrained": "untrained",
    "untrained": "untrained"}
PARTIAL, LARGE, MARKET, DEFAULT = (("partial", "{}-real-market"), ("partial-large", "{}-large-real-market"),
                                   ("market", "market-{}"), ("default", "{}"))
OCCLUDED, PROBES, ILIDS = "real-partial-reid-occluded", "real-partial-reid", "real-partial-ilids"
PAIR, ALL = ("rank1", "mAP"), ("rank1", "mAP", "mINP")
# Of each table: its file, how its heading row begins, its columns (experiment, data set, metrics), how many rows.
TABLES = [
    ("README.md", "| run | rank-1 |",
     [(DEFAULT, "synth-occluded", (metric,)) for metric in ("rank1", "rank5", "rank10", "mAP", "mINP")], 8),
    ("README.md", "| network | Partial-REID, occluded |",
     [*((PARTIAL, dataset, PAIR) for dataset in (OCCLUDED, ILIDS)),
      *((MARKET, dataset, PAIR) for dataset in ("market1501-dev", "market1501-dev-occluded"))], 7),
    ("docs/results.md", "| network | Partial-REID, occluded probes | Partial-REID, partial probes | Partial-iLIDS | P",
     [(PARTIAL, dataset, PAIR) for dataset in (OCCLUDED, PROBES, ILIDS, f"{ILIDS}-uncropped")], 14),
    ("docs/results.md", "| network | Partial-REID, occluded probes | Partial-REID, partial probes | Partial-iLIDS |\n",
     [(LARGE, dataset, PAIR) for dataset in (OCCLUDED, PROBES, ILIDS)], 6),
    ("docs/results.md", "| network | queries as they are | with objects in front |",
     [(MARKET, dataset, ALL) for dataset in ("market1501-dev", "market1501-dev-occluded")], 12),
    ("docs/results.md", "| network | `synth-occluded` |",
     [(DEFAULT, f"synth-{name}", PAIR) for name in ("occluded", "holistic", "partial")], 8)]

OTHERS = {  # the run that a row of differences stands against, where that is not its own name's
    ("SORN", "itself, all stripes counted"): "sorn-unmasked",
    ("SGAM", "itself without crop and parts"): "sgam-resnet50",
    ("ESA-ReID", "its Baseline"): "esa-baseline", ("ESA-ReID, parser's maps", "its Baseline"): "esa-baseline",
    ("SGSFA", "a plain head with its losses"): "sgsfa-plain", ("SORN", "its global branch"): "sorn-global",
    ("SGSFA, all vectors in all losses", "a plain head with its losses"): "sgsfa-plain"}
DIFFERENCES = [("| network | against | Partial-REID", PARTIAL, (OCCLUDED, PROBES, ILIDS), 8),
               ("| network | against | queries", MARKET, ("market1501-dev", "market1501-dev-occluded"), 9)]


def mean(experiment: str, run: str, dataset: str, metric: str) -> float:
    """Over the three seeds where others than 0 were made beside the experiment; the default's tables are of seed 0."""
    results = ROOT / "data/results"
    first = experiment if (results / experiment / run).is_dir() else f"{experiment}-rows"
    folders = [f"{first}/{run}", *(f"{experiment}-seeds/{run}-seed{seed}" for seed in SEEDS[1:])]
    files = [results / folder / f"{dataset}.json" for folder in folders]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    assert len(found) in (1, len(SEEDS)), files
    return float(np.mean([section.get(metric, section["details"][0].get(metric)) for section in found]))


def rows_of(file: str, heading: str) -> list[list[str]]:
    """The one table's cells whose heading row begins so, without bold."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("**", "")
    assert text.count(f"\n{heading}") == 1
    lines = text.partition(f"\n{heading}")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def as_printed(said: str, value: float) -> bool:
    half = 0.5 * 10 ** -len(re.fullmatch(r"[+-]?\d+\.(\d+)", said)[1])
    return abs(float(said) - value) <= half + 1e-6


@pytest.mark.parametrize(("file", "heading", "columns", "rows"), TABLES)
def test_tables_quote_results(file, heading, columns, rows):
    lines = rows_of(file, heading)
    assert len(lines) == rows
    for name, *cells in lines:
        for cell, ((experiment, named), dataset, metrics) in zip(cells, columns, strict=True):
            if not cell:
                assert (experiment, RUNS[name]) == ("partial", "dsa")  # is not trained there
                continue
            for said, metric in zip(cell.split(" / "), metrics, strict=True):
                value = mean(experiment, named.format(RUNS[name]), dataset, metric)
                assert as_printed(said, value), (name, dataset, said, value)


@pytest.mark.parametrize(("heading", "place", "datasets", "rows"), DIFFERENCES)
def test_differences_are_of_the_results(heading, place, datasets, rows):
    lines, (experiment, named) = rows_of("docs/results.md", heading), place
    assert len(lines) == rows
    for name, against, *cells in lines:
        runs = [named.format(run) for run in (RUNS[name], OTHERS.get((name, against)) or RUNS[against])]
        for cell, dataset in zip(cells, datasets, strict=True):
            for said, metric in zip(cell.split(" / "), PAIR, strict=True):
                value, other = (mean(experiment, run, dataset, metric) for run in runs)
                assert as_printed(said, value - other), (name, against, dataset, said, value - other)


def of_seed_0(experiment: str, run: str, dataset: str, metric: str) -> float:
    return json.loads((ROOT / "data/results" / experiment / run / f"{dataset}.json").read_text("utf-8"))[metric]


def test_the_curve_is_of_the_results():
    lines = rows_of("docs/results.md", "| pictures seen | Partial-REID, occluded |")
    assert len(lines) == 5
    for seen, *cells in lines:
        ending = "" if seen == "25,600" else f"-{seen.replace(',', '')}"  # profile partial's own budget
        for cell, dataset in zip(cells, (OCCLUDED, PROBES, ILIDS), strict=True):
            for said, run in zip(cell.split(" -> "), ("sorn-global", "sorn"), strict=True):
                value = of_seed_0("partial-curve", f"{run}-real-market{ending}", dataset, "rank1")
                assert as_printed(said, value), (seen, dataset, said, value)


def test_sweeps_are_of_the_results():
    swept = {"SGSFA's lambda": "sgsfa-lambda", "SGAM's lambda": "sgam-lambda", "SORN's tau": "sorn-tau",
             "SORN's stripes P": "sorn-p", "SORN's N": "sorn-n"}
    lines = rows_of("docs/results.md", "| swept | values | mAP |")
    assert [name for name, *_ in lines] == [*swept]
    for name, values, means in lines:
        paper = swept[name].partition("-")[0]
        runs = [f"{swept[name]}-{value.replace('.', '_')}" for value in values.split(", ")]
        own = [run for run in runs if not (ROOT / f"data/results/sweeps-{paper}" / run).is_dir()]
        assert len(own) == 1, own  # the full model's value, which shares its run
        for value, run, said in zip(values.split(", "), runs, means.split(", "), strict=True):
            run = paper if run in own else run
            found = of_seed_0(f"sweeps-{paper}", run, "synth-occluded", "mAP")
            assert as_printed(said, found), (name, value, said, found)
