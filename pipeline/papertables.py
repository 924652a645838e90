"""The papers' own figures beside ours: docs/papers/tables.csv and result files -> one table of all that is printed.

`compare` makes a frame with one line a figure that the paper prints, in the paper's order; pipeline/papershow.py lays
it out. Percent everywhere but for PR-AUC, which is 0..1 as ESA-ReID prints it.
"""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.errors import InputError
from pipeline.report import read_json

SEEDS = 3
DIGITS = {"pr_auc": 4}  # decimals of a figure of ours; 2 elsewhere
SAME = ("model", "image_steps", "init", "train_on", "distance", "reduction", "protocol")  # what seeds of a result share
COLUMNS = ["group", "row", "own", "dataset", "metric", "paper", "result", "data", "missing", "here", "low", "high",
           "here_minus_paper", "paper_minus_full", "here_minus_full", "minus_full_low", "minus_full_high", "seeds",
           "verdict"]


@dataclass(frozen=True)
class Printed:
    """One figure of a paper: a line of docs/papers/tables.csv. `value` is text, with the decimals that are printed."""
    paper: str
    table: str
    table_title: str
    row: str
    is_own: bool
    dataset: str
    setting: str
    metric: str
    value: str


@dataclass(frozen=True)
class Own:
    """What one of a paper's own rows is here: `result` scored on `data`; what is `missing` before it can be made.

    full: it is the paper's full model, which the table's other rows are compared with.
    """
    result: str
    data: str
    full: bool
    missing: str


@dataclass(frozen=True)
class Score:
    """A figure of ours in the papers' unit, and its 95 % bootstrap interval where one was made."""
    value: float
    low: float = np.nan
    high: float = np.nan


OwnKey = tuple[str, str, str]  # row, setting or "", data set: an own row as docs/papers/tables.csv has it
Scores = Mapping[str, Mapping[str, Score]]  # data set -> metric -> score
Seeds = Mapping[int, Scores]  # of trainings that differ in their seed alone; the first is the one a table shows


def read_printed(path: str | os.PathLike, paper: str, table: str) -> list[Printed]:
    """One table's figures, in the file's order. InputError if it has none of them."""
    with open(path, encoding="utf-8", newline="") as file:
        found = [Printed(**(line | {"is_own": line["is_own"] == "1"})) for line in csv.DictReader(file)
                 if (line["paper"], line["table"]) == (paper, table)]
    if not found:
        raise InputError(f"{os.fspath(path)!r}: has no table {table!r} of paper {paper!r}; its first two columns say "
                         "which it has")
    return found


def read_notes(path: str | os.PathLike, paper: str, table: str) -> list[tuple[str, str]]:
    """(row, or "" for the whole table; note) of one table."""
    with open(path, encoding="utf-8", newline="") as file:
        return [(line["row"], line["note"]) for line in csv.DictReader(file)
                if (line["paper"], line["table"]) == (paper, table)]


def read_scores(folder: str | os.PathLike, curves: str | os.PathLike, result: str) -> tuple[Scores, dict[str, Any]]:
    """A result's scores on each of its data sets, and what made it, from FOLDER/RESULT.json and CURVES/RESULT.csv.

    InputError if a file is missing or damaged.
    """
    content = read_json(Path(folder) / f"{result}.json")
    about = content.pop("_made", [{}])[0]
    try:
        curve = pd.read_csv(Path(curves) / f"{result}.csv").set_index(["dataset", "rank"])["cmc"]
        return {data: dict(_scores(figures, curve.loc[data])) for data, figures in content.items()}, about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{Path(curves) / result}.csv' or its metrics: cannot be read ({error!r}); make them again "
                         f"with `dvc repro evaluate@{result}`") from error


def _scores(figures: Mapping[str, Any], curve: pd.Series) -> Iterator[tuple[str, Score]]:
    details = figures.get("details", [{}])[0]
    for name in ("rank1", "rank5", "rank10", "mAP"):
        yield name, Score(figures[name], details.get(f"{name}_low", np.nan), details.get(f"{name}_high", np.nan))
    yield "rank3", Score(round(100 * float(curve.loc[3]), 2))
    if "PR_AUC" in figures:
        yield "pr_auc", Score(round(figures["PR_AUC"] / 100, 4))


def read_seeds(folder: str | os.PathLike, curves: str | os.PathLike, result: str) -> tuple[Seeds, dict[str, Any]]:
    """`read_scores` of a result, then of RESULT-seed1, RESULT-seed2 where those were trained as it was; what made it.

    A file of that name that was made otherwise (another budget, say) is left out. A table can be made without any.
    """
    scores, about = read_scores(folder, curves, result)
    found = {about.get("seed", 0): scores}
    for path in sorted(Path(folder).glob(f"{result}-seed*.json")):
        other, made = read_scores(folder, curves, path.stem)
        if path.stem == f"{result}-seed{made.get('seed')}" and all(made.get(name) == about.get(name) for name in SAME):
            found[made["seed"]] = other
    return found, about


def compare(printed: Sequence[Printed], own: Mapping[OwnKey, Own], scores: Mapping[str, Seeds]) -> pd.DataFrame:
    """All figures of one table with ours beside the paper's own rows; COLUMNS, one line a printed figure.

    own: (row, setting, data set) -> what it is here; rows that are not in it are not made here. scores: result -> those
    of its seeds. here is the first seed's; differences to the full model's row are means over the
    seeds, with a 95 % interval of the paired differences where there are three. group: the setting, in tables that
    print one row under several. Figures are numbers or NaN, `paper` is text.
    """
    groups = set(_groups(printed))
    lines = [_line(each, own, scores) | {"group": each.setting if each.setting in groups else ""} for each in printed]
    full = {(each.dataset, each.metric): line for each, line in zip(printed, lines, strict=True)
            if _is_full(each, own) is True}
    for each, line in zip(printed, lines, strict=True):
        other = full.get((each.dataset, each.metric))
        if _is_full(each, own) is False and other is not None:
            line |= _against_full(line, other, scores)
    return pd.DataFrame(lines, columns=COLUMNS)


def _is_full(each: Printed, own: Mapping[OwnKey, Own]) -> bool | None:
    """Whether it is a figure of the paper's full model; None for rows that are not the paper's own or not made here."""
    here = own.get((each.row, each.setting, each.dataset)) if each.is_own else None
    return None if here is None else here.full


def _groups(printed: Sequence[Printed]) -> Iterator[str]:
    """Settings that tell rows of one label apart, in a table that prints some row under several."""
    seen: dict[tuple[str, str, str], set[str]] = {}
    for each in printed:
        seen.setdefault((each.row, each.dataset, each.metric), set()).add(each.setting)
    if any(len(settings) > 1 for settings in seen.values()):
        yield from {each.setting for each in printed}


def _line(each: Printed, own: Mapping[OwnKey, Own], scores: Mapping[str, Seeds]) -> dict[str, Any]:
    line: dict[str, Any] = {"row": each.row, "own": each.is_own, "dataset": each.dataset, "metric": each.metric,
                            "paper": each.value, "result": "", "data": "", "missing": "", "verdict": "", "seeds": 0}
    line |= {name: np.nan for name in COLUMNS if name not in line}
    if not each.is_own:
        return line
    here = own.get((each.row, each.setting, each.dataset))
    if here is None:
        return line | {"missing": "not in the profile that this table was made with", "data": each.dataset}
    line |= {"result": here.result, "data": here.data, "missing": here.missing}
    if not here.missing:
        score = _score(next(iter(scores[here.result].values())), here, each.metric)
        line |= {"here": score.value, "low": score.low, "high": score.high,
                 "here_minus_paper": round(score.value - float(each.value), DIGITS.get(each.metric, 2))}
    return line


def _score(scores: Scores, here: Own, metric: str) -> Score:
    if metric not in scores.get(here.data, {}):
        raise InputError(f"result {here.result!r} has no {metric} on {here.data!r}; make it again with "
                         f"`dvc repro evaluate@{here.result}`")
    return scores[here.data][metric]


def _against_full(line: dict[str, Any], full: dict[str, Any], scores: Mapping[str, Seeds]) -> dict[str, Any]:
    digits = DIGITS.get(line["metric"], 2)
    paper = round(float(line["paper"]) - float(full["paper"]), 4)
    if line["missing"] or full["missing"]:
        return {"paper_minus_full": paper}
    mine, other = scores[line["result"]], scores[full["result"]]
    differences = [mine[seed][line["data"]][line["metric"]].value - other[seed][full["data"]][line["metric"]].value
                   for seed in mine if seed in other and line["data"] in mine[seed] and full["data"] in other[seed]]
    if not differences:
        return {"paper_minus_full": paper, "verdict": "undecided (no common seed)"}
    low, high = interval(differences)
    return {"paper_minus_full": paper, "here_minus_full": round(float(np.mean(differences)), digits),
            "minus_full_low": round(low, digits), "minus_full_high": round(high, digits), "seeds": len(differences),
            "verdict": verdict(paper, low, high, len(differences))}


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences by Student's t; NaN for fewer than three.

    >>> [round(end, 3) for end in interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    if len(differences) < SEEDS:
        return np.nan, np.nan
    half = stats.t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / np.sqrt(len(differences))
    return float(np.mean(differences) - half), float(np.mean(differences) + half)


def verdict(paper: float, low: float, high: float, seeds: int) -> str:
    """Whether ours has the sign of the paper's difference: agree | disagree | undecided, and why undecided.

    >>> verdict(-2.0, -3.0, -1.0, 3), verdict(2.0, -3.0, -1.0, 3), verdict(2.0, -3.0, 1.0, 3)
    ('agree', 'disagree', 'undecided')
    """
    if seeds < SEEDS:
        return "undecided (one seed)" if seeds == 1 else f"undecided ({seeds} seeds)"
    if paper == 0:
        return "undecided (equal in the paper)"
    if low <= 0 <= high:
        return "undecided"
    return "agree" if (low > 0) == (paper > 0) else "disagree"


def order_agreement(frame: pd.DataFrame) -> list[tuple[str, str, int, float | None]]:
    """Kendall's tau-b between the paper's figures and ours: (data set, metric, own rows compared, tau) a column.

    Columns with two such rows or more; None where either side is the same in all rows.
    """
    found = []
    for (dataset, metric), part in frame[frame["here"].notna()].groupby(["dataset", "metric"], sort=False):
        if len(part) >= 2:
            tau = float(stats.kendalltau(part["paper"].astype(float), part["here"].astype(float)).statistic)
            found.append((str(dataset), str(metric), len(part), None if np.isnan(tau) else tau))
    return found


def mean_agreement(frame: pd.DataFrame) -> float | None:
    """The table's tau: the mean of its columns' (`order_agreement`); None where no column has one."""
    found = [tau for *_, tau in order_agreement(frame) if tau is not None]
    return round(float(np.mean(found)), 10) + 0.0 if found else None  # opposite ones cancel to no -0.00
