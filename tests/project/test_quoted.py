"""The tables of README.md and docs/results.md quote data/results: means over the seeds that were made, as printed."""

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


def mean(experiment: str, run: str, dataset: str, metric: str) -> float:
    """Over the three seeds where others than 0 were made beside the experiment; the default's tables are of seed 0."""
    results = ROOT / "data/results"
    first = experiment if (results / experiment / run).is_dir() else f"{experiment}-rows"
    folders = [f"{first}/{run}", *(f"{experiment}-seeds/{run}-seed{seed}" for seed in SEEDS[1:])]
    files = [results / folder / f"{dataset}.json" for folder in folders]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    assert len(found) in (1, len(SEEDS)), files
    return float(np.mean([section.get(metric, section["details"][0].get(metric)) for section in found]))


@pytest.mark.parametrize(("file", "heading", "columns", "rows"), TABLES)
def test_tables_quote_results(file, heading, columns, rows):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text.count(f"\n{heading}") == 1
    lines = text.partition(f"\n{heading}")[2].partition("\n\n")[0].splitlines()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert len(lines) == rows

    for name, *cells in lines:
        for cell, ((experiment, named), dataset, metrics) in zip(cells, columns, strict=True):
            if not cell:
                assert (experiment, RUNS[name]) == ("partial", "dsa")  # is not trained there
                continue
            for said, metric in zip(cell.split(" / "), metrics, strict=True):
                value = mean(experiment, named.format(RUNS[name]), dataset, metric)
                half = 0.5 * 10 ** -len(re.fullmatch(r"\d+\.(\d+)", said)[1])
                assert abs(float(said) - value) <= half + 1e-6, (name, dataset, said, value)
