"""Paper tables, ours beside what is printed: docs/papers/tables.csv and results -> one frame of all the metrics.

`compare` makes a frame with one line per printed metric, in the paper's order; pipeline/reporting/table_formats.py lays
it out. Percent everywhere but for PR-AUC, which is 0..1 as ESA-ReID prints it.
"""

import csv
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.base.errors import InputError
from pipeline.reporting.results import CURVES, read_csv, read_metrics

DATASETS = {"market1501": "Market-1501", "dukemtmc-reid": "DukeMTMC-reID", "occluded-dukemtmc": "Occluded-DukeMTMC",
            "p-dukemtmc-reid": "P-DukeMTMC-reID", "occluded-reid": "Occluded-REID", "partial-reid": "Partial-REID",
            "partial-ilids": "Partial-iLIDS", "drama-reid": "Drama-ReID", "cuhk03-labeled": "CUHK03 labeled",
            "cuhk03-detected": "CUHK03 detected", "cuhk01": "CUHK01",
            "partial-reid-occluded": "Partial-REID, occluded probes",
            "partial-ilids-uncropped": "Partial-iLIDS, uncropped"}
METRICS = {"rank1": "rank-1", "rank3": "rank-3", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP",
           "pr_auc": "PR-AUC"}
SEEDS = 3
DIGITS = {"pr_auc": 4}  # decimals of a metric of ours; 2 elsewhere
HIGHEST = {"pr_auc": 1}  # largest value of a metric; 100 elsewhere
SAME = ("model", "image_steps", "init", "checkpoint", "train_on", "distance", "reduction", "flip", "ignored",
        "protocol", "code")  # what seeds of a result share on each data set
NOTES = ("paper", "table", "row", "note")  # columns of docs/papers/notes.csv
FIELD = ("method", "backbone", "dataset", "mAP", "rank1", "source", "needs")  # and of field.csv
COLUMNS = ["group", "row", "own", "beside", "dataset", "metric", "paper", "result", "data", "missing", "here", "low",
           "high", "here_minus_paper", "paper_minus_full", "here_minus_full", "minus_full_low", "minus_full_high",
           "seeds", "verdict"]


@dataclass(frozen=True)
class Printed:
    """One metric of a paper: a line of docs/papers/tables.csv. `value` is text, with the decimals that are printed."""
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

    seeds: the results of further trainings that differ from `result` in their seed alone; full: it is the paper's full
    model, which the table's other rows are compared with.
    """
    result: str
    seeds: tuple[str, ...]
    data: str
    full: bool
    missing: str


@dataclass(frozen=True)
class Beside:
    """What stands beside one of a paper's own rows: `reading` says what it is that the row is not, `own` what it is
    here. It is no row of the paper's, so neither Kendall's tau nor the signs of differences count it.
    """
    place: "OwnKey"
    name: str
    reading: str
    own: Own


@dataclass(frozen=True)
class Score:
    """A metric of ours in the papers' unit, and its 95 % bootstrap interval where one was made."""
    value: float
    low: float = np.nan
    high: float = np.nan


OwnKey = tuple[str, str, str]  # row, setting or "", data set: an own row as docs/papers/tables.csv has it
Scores = Mapping[str, Mapping[str, Score]]  # data set -> metric -> score
Made = Mapping[str, Mapping[str, Any]]  # data set -> `provenance`
Seeds = Mapping[int, Scores]  # of trainings that differ in their seed alone; the first is the one a table shows


def read_printed(path: str | os.PathLike, paper: str, table: str) -> list[Printed]:
    """One table's metrics, in the file's order. InputError if it has none of them, is no such file, or a cell of the
    table's is no number, no metric or data set of the papers', or stands twice."""
    printed: dict[tuple[str, ...], Printed] = {}
    for number, line in _read_lines(path, [item.name for item in fields(Printed)]):
        if (line["paper"], line["table"]) == (paper, table):
            place = tuple(line[name] for name in ("row", "setting", "dataset", "metric"))
            wrong = _wrong(line) or ("says again what a line above says; take one out" if place in printed else "")
            if wrong:
                raise InputError(f"{os.fspath(path)!r}: line {number} {wrong}, or `git checkout {os.fspath(path)}`")
            printed[place] = Printed(**(line | {"is_own": line["is_own"] == "1"}))  # type: ignore[arg-type]
    if not printed:
        raise InputError(f"{os.fspath(path)!r}: has no table {table!r} of paper {paper!r}; its first two columns say "
                         "which it has")
    return [*printed.values()]


def _wrong(line: Mapping[str, str]) -> str:
    """What a line of tables.csv has in a cell that no table prints, and what to write there; "" where nothing."""
    for name, allowed in (("is_own", ("0", "1")), ("dataset", DATASETS), ("metric", METRICS)):
        if line[name] not in allowed:
            return f"has {name} {line[name]!r}; write one of {', '.join(allowed)}"
    value, highest = line["value"], HIGHEST.get(line["metric"], 100)
    number = re.fullmatch(r"\d+(\.\d+)?", value) and float(value) <= highest
    return "" if number else f"has value {value!r}; write the number that the paper prints, 0 to {highest}"


def read_notes(path: str | os.PathLike, paper: str, table: str) -> list[tuple[str, str]]:
    """(row, or "" for the whole table; note) of one table. InputError if it is no such file."""
    return [(line["row"], line["note"]) for _, line in _read_lines(path, NOTES)
            if (line["paper"], line["table"]) == (paper, table)]


def read_field(path: str | os.PathLike) -> list[dict[str, str]]:
    """What is cited of later methods, docs/papers/field.csv: a row each, text as it is printed. InputError if it is no
    such file."""
    return [line for _, line in _read_lines(path, FIELD)]


def _read_lines(path: str | os.PathLike, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """A CSV's lines by column, each with its number, with or without a byte order mark. InputError if it cannot be
    read, has other columns or a line with more or fewer cells: a comma not quoted would shift some and drop the last.
    """
    name = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name!r}: cannot be read ({error}); write it as CSV in UTF-8, or `git checkout {name}`"
                         ) from error

    head = lines[0][1] if lines else []
    if head != list(columns):
        raise InputError(f"{name!r}: its first line has {', '.join(head) or 'nothing'}, not {', '.join(columns)}; "
                         f"write these there, or `git checkout {name}`")
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise InputError(f"{name!r}: line {number} has {len(cells)} cells for {len(columns)} columns; quote what "
                             f"holds a comma, or `git checkout {name}`")
    return [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines[1:]]


def read_own(own: Collection[Own], *, results: str | os.PathLike, curves: str | os.PathLike
             ) -> tuple[dict[str, Seeds], dict[str, Made]]:
    """Of every result that a table's own rows name: its seeds' scores, and what made it on the rows' data sets.

    Read are RESULTS/NAME/*.json and CURVES/NAME.csv of `result` and `seeds`, of rows where nothing is missing.
    """
    rows = [row for row in own if not row.missing]
    scores: dict[str, Seeds] = {}
    provenance: dict[str, Made] = {}
    for result, further in {row.result: row.seeds for row in rows}.items():
        scores[result], made = read_seeds([result, *further], results=results, curves=curves)
        asked = {row.data for row in rows if row.result == result}
        provenance[result] = {data: one for data, one in made.items() if data in asked} or made
    return scores, provenance


def read_seeds(names: Sequence[str], *, results: str | os.PathLike, curves: str | os.PathLike
               ) -> tuple[Seeds, Made]:
    """Scores by seed of results that differ in it alone; what made the first on each data set, which a table shows.

    InputError if a file is missing or damaged, if two have one seed or were made differently.
    """
    first, *others = names
    scores, made = read_scores(first, results=results, curves=curves)
    seeds = {next(iter(made.values())).get("seed", 0): scores}

    for name in others:
        scores, again = read_scores(name, results=results, curves=curves)
        for data, field in product([data for data in made if data in again], SAME):
            mine, other = again[data].get(field), made[data].get(field)
            if mine != other:
                remedy = "make both with `dvc repro`" if field == "code" else "let them differ in `seed` alone"
                raise InputError(f"result {name!r} on {data!r}: has {field} {mine!r}, and {first!r}, of which it is to "
                                 f"be a further seed, has {other!r}; {remedy}")
        seed = next(iter(again.values())).get("seed")
        if seed in seeds:
            raise InputError(f"result {name!r}: has seed {seed!r}, as another of {', '.join(names)} has; give each a "
                             "seed of its own")
        seeds[seed] = scores
    return seeds, made


def read_scores(name: str, *, results: str | os.PathLike, curves: str | os.PathLike) -> tuple[Scores, Made]:
    """A result's scores on each of its data sets, and what made them, from RESULTS/NAME/*.json and CURVES/NAME.csv.

    InputError if a file is missing or damaged.
    """
    sections = read_metrics(Path(results) / name)
    curve = read_csv(Path(curves) / f"{name}.csv", CURVES).set_index(["dataset", "rank"])["cmc"]
    try:
        scores = {data: dict(_scores(metrics, curve.loc[data])) for data, (metrics, _) in sections.items()}
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{str(Path(results) / name)!r} and '{Path(curves) / name}.csv': do not hold what a table "
                         f"shows ({error!r}); make them again with `dvc repro evaluate@{name}`") from error
    return scores, {data: made for data, (_, made) in sections.items()}


def _scores(metrics: Mapping[str, Any], curve: pd.Series) -> Iterator[tuple[str, Score]]:
    for name in ("rank1", "rank5", "rank10", "mAP"):
        yield name, Score(metrics[name], metrics.get(f"{name}_low", np.nan), metrics.get(f"{name}_high", np.nan))

    yield "rank3", Score(round(100 * float(curve.loc[3]), 2))  # the metrics have it not
    if "PR_AUC" in metrics:
        yield "pr_auc", Score(round(metrics["PR_AUC"] / 100, 4))


def compare(printed: Sequence[Printed], own: Mapping[OwnKey, Own], scores: Mapping[str, Seeds],
            beside: Sequence[Beside] = ()) -> pd.DataFrame:
    """All metrics of one table with ours beside the paper's own rows; COLUMNS, one line per printed metric, and behind
    a row's lines those of what stands beside it.

    own: (row, setting, data set) -> what it is here; rows that are not in it are not made here. scores: result -> those
    of its seeds. here is the first seed's; differences to the full model's row are means over the
    seeds, with a 95 % interval of the paired differences where there are three. group: the setting, in tables that
    print one row under several. Metrics are numbers or NaN, `paper` is text.
    """
    groups = set(_groups(printed))
    lines = [_line(entry, own, scores) | {"group": entry.setting if entry.setting in groups else ""}
             for entry in printed]

    full = {(entry.dataset, entry.metric): line for entry, line in zip(printed, lines, strict=True)
            if _is_full(entry, own) is True}
    for entry, line in zip(printed, lines, strict=True):
        other = full.get((entry.dataset, entry.metric))
        if _is_full(entry, own) is False and other is not None:
            line |= _against_full(line, other, scores)

    return pd.DataFrame(list(_with_beside(printed, lines, beside, scores)), columns=COLUMNS)


def _with_beside(printed: Sequence[Printed], lines: Sequence[dict[str, Any]], beside: Sequence[Beside],
                 scores: Mapping[str, Seeds]) -> Iterator[dict[str, Any]]:
    """The table's lines, behind each row's those of what stands beside it, with the row's metrics; beside a row of
    which nothing was made stands nothing."""
    for _, part in groupby(zip(printed, lines, strict=True), lambda pair: (pair[1]["group"], pair[0].row)):
        row = list(part)
        yield from (line for _, line in row)
        for other in beside if any(not line["missing"] for _, line in row) else ():
            for entry, line in row:
                if (entry.row, entry.setting, entry.dataset) == other.place:
                    label = {"group": line["group"], "beside": other.reading}
                    yield (_empty(entry, f"beside {entry.row}: {other.name}")
                           | _here(other.own, entry.metric, scores) | label)


def _is_full(entry: Printed, own: Mapping[OwnKey, Own]) -> bool | None:
    """Whether it is a metric of the paper's full model; None for rows that are not the paper's own or not made here."""
    here = own.get((entry.row, entry.setting, entry.dataset)) if entry.is_own else None
    return None if here is None else here.full


def _groups(printed: Sequence[Printed]) -> Iterator[str]:
    """Settings that tell rows of one label apart, in a table that prints some row under several."""
    seen: dict[tuple[str, str, str], set[str]] = {}
    for entry in printed:
        seen.setdefault((entry.row, entry.dataset, entry.metric), set()).add(entry.setting)

    if any(len(settings) > 1 for settings in seen.values()):
        yield from {entry.setting for entry in printed}


def _line(entry: Printed, own: Mapping[OwnKey, Own], scores: Mapping[str, Seeds]) -> dict[str, Any]:
    line = _empty(entry, entry.row) | {"own": entry.is_own, "paper": entry.value}
    if not entry.is_own:
        return line

    here = own.get((entry.row, entry.setting, entry.dataset))
    if here is None:
        return line | {"missing": "not in the profile that this table was made with", "data": entry.dataset}

    line |= _here(here, entry.metric, scores)
    if not here.missing:
        line["here_minus_paper"] = round(line["here"] - float(entry.value), DIGITS.get(entry.metric, 2))
    return line


def _empty(entry: Printed, row: str) -> dict[str, Any]:
    """A line of `row` for a printed metric, of which nothing is said yet."""
    line: dict[str, Any] = {name: np.nan for name in COLUMNS}
    return line | {"row": row, "own": False, "beside": "", "dataset": entry.dataset, "metric": entry.metric,
                   "paper": "", "result": "", "data": "", "missing": "", "verdict": "", "seeds": 0}


def _here(own: Own, metric: str, scores: Mapping[str, Seeds]) -> dict[str, Any]:
    """Ours of a line: the first seed's metric with its interval, or what is missing."""
    line = {"result": own.result, "data": own.data, "missing": own.missing}
    if own.missing:
        return line
    score = _score(next(iter(scores[own.result].values())), own, metric)
    return line | {"here": score.value, "low": score.low, "high": score.high}


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
                   for seed in _common(mine, line["data"], other, full["data"])]
    if not differences:
        return {"paper_minus_full": paper, "verdict": "undecided (no common seed)"}

    low, high = interval(differences)
    return {"paper_minus_full": paper, "here_minus_full": round(float(np.mean(differences)), digits),
            "minus_full_low": round(low, digits), "minus_full_high": round(high, digits), "seeds": len(differences),
            "verdict": verdict(paper, low, high, len(differences))}


def _common(mine: Seeds, data: str, other: Seeds, full: str) -> list[int]:
    """Seeds that a row, scored on `data`, and the full model's, scored on `full`, both have."""
    return [seed for seed in mine if seed in other and data in mine[seed] and full in other[seed]]


def seeds_behind(own: Mapping[OwnKey, Own], scores: Mapping[str, Seeds]) -> dict[str, list[int]]:
    """Of each result the seeds that a table's figures come from: the first, which is shown, then those that stand
    beside it in differences to the full model's row."""
    behind = {name: [next(iter(seeds))] for name, seeds in scores.items()}
    made = [(dataset, row) for (_, _, dataset), row in own.items() if not row.missing]
    for (dataset, row), (other, full) in product(made, repeat=2):
        if dataset == other and full.full and not row.full:
            common = _common(scores[row.result], row.data, scores[full.result], full.data)
            for name in (row.result, full.result):
                behind[name] += [seed for seed in common if seed not in behind[name]]
    return behind


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
    """Kendall's tau-b between the paper's metrics and ours: (data set, metric, own rows compared, tau) per column.

    Columns with two such rows or more; None where either side is the same in all rows. A row whose difference to the
    full model's is undecided has no place in an order, and is not counted.
    """
    taus = []
    made = frame[frame["own"] & frame["here"].notna() & ~frame["verdict"].fillna("").str.startswith("undecided")]
    for (dataset, metric), part in made.groupby(["dataset", "metric"], sort=False):
        if len(part) >= 2:
            tau = float(stats.kendalltau(part["paper"].astype(float), part["here"].astype(float)).statistic)
            taus.append((str(dataset), str(metric), len(part), None if np.isnan(tau) else tau))
    return taus


def mean_agreement(frame: pd.DataFrame) -> float | None:
    """The table's tau: the mean of its columns' (`order_agreement`); None where no column has one."""
    taus = [tau for *_, tau in order_agreement(frame) if tau is not None]
    return round(float(np.mean(taus)), 10) + 0.0 if taus else None  # opposite ones cancel to no -0.00
