"""Results on disk -> tables, as Markdown and CSV; pipeline/page.py makes the HTML page of them."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import InputError

FIGURES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
PROTOCOLS = {"market": "Market-1501's rule: gallery images of the query's person and camera are removed, a query with "
                       "no match left is skipped, AP is the step sum"}
CONTROLS = ("histogram", "untrained", "baseline")  # what methods are compared with, in this order before them
LISTS = ["dataset", "query", "position", "gallery", "distance", "match"]
CURVES = ["run", "dataset", "rank", "cmc"]


@dataclass(frozen=True)
class Result:
    """One run on one data set: `figures` in percent with their counts, `about` the run (seed, image_steps, ...)."""
    run: str
    dataset: str
    figures: dict[str, Any]
    about: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Text cells under `columns`; `note` says in sentences what they are."""
    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def read_results(folder: str | os.PathLike) -> list[Result]:
    """All results of metrics/SCALE, controls first. InputError if there are none or a file is damaged."""
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        content = read_json(path)
        about = content.pop("_made", [None])[0]
        if about is None or not all(isinstance(figures, dict) and figures.keys() >= FIGURES.keys()
                                    for figures in content.values()):
            raise InputError(f"{str(path)!r}: is no result of `evaluate`; remove it or run `dvc repro evaluate`")
        protocols = about.pop("protocols", {})  # of each data set, where they differ
        found += [Result(path.stem, dataset, figures, about | ({"protocol": protocols[dataset]} if dataset in protocols
                                                               else {})) for dataset, figures in content.items()]
    if not found:
        raise InputError(f"{os.fspath(folder)!r}: holds no results; make them with `dvc repro evaluate`")
    return sorted(found, key=lambda result: (_place(result), result.run))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. InputError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: cannot be read as JSON ({error}); make it again with `dvc repro`") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r}: holds no JSON object; make it again with `dvc repro`")
    return content


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV of `evaluate`. InputError if it is missing, damaged or lacks a column."""
    try:
        frame = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: cannot be read as CSV ({error}); make it again with "
                         "`dvc repro evaluate`") from error
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(f"{str(path)!r}: lacks the column {missing[0]!r}; make it again with `dvc repro evaluate`")
    return frame


def control(result: Result) -> str | None:
    """Which control a result is, if any; a baseline that has seen no image is the untrained network."""
    if result.about["model"] == "baseline" and not result.about["image_steps"]:
        return "untrained"
    return result.about["model"] if result.about["model"] in CONTROLS else None


def leading(results: Sequence[Result]) -> list[Result]:
    """Of one data set's results the controls and each model's first run; variants and other seeds are left out."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(control(result) or result.about["model"], result)
    return list(first.values())


def _place(result: Result) -> int:
    found = control(result)
    return CONTROLS.index(found) if found else len(CONTROLS)


def short(key: str, scale: str) -> str:
    """A key without its scale.

    >>> short("default-sorn", "default")
    'sorn'
    """
    return key.removeprefix(f"{scale}-")


def dataset_table(dataset: str, results: Sequence[Result], *, scale: str, rendered: bool,
                  trained: Mapping[str, tuple[int, int]]) -> Table:
    """One data set's table: a row a run. `trained`: data set -> (images, people) of its training part, where known."""
    rows = [[short(result.run, scale), *(f"{result.figures[name]:.2f}" for name in FIGURES),
             short(str(result.about["train_on"]), scale) if _learned(result) else "-",
             f"{result.about['image_steps']:,}" if _learned(result) else "-", _start(result),
             str(result.about["seed"]) if _start(result) != "-" else "-"] for result in results]
    name = short(dataset, scale)
    return Table(name, name, ["run", *FIGURES.values(), "trained on", "image steps", "start", "seed"], rows,
                 _note(dataset, results, scale=scale, rendered=rendered, trained=trained))


def _learned(result: Result) -> bool:
    return control(result) not in ("histogram", "untrained")


def _start(result: Result) -> str:
    if control(result) == "histogram":
        return "-"
    return "random" if result.about["init"] == "none" else str(result.about["init"])


def _note(dataset: str, results: Sequence[Result], *, scale: str, rendered: bool,
          trained: Mapping[str, tuple[int, int]]) -> str:
    counts = {tuple(result.figures[name] for name in ("queries", "skipped", "gallery")) for result in results}
    said = " or, where runs differ, ".join(
        f"{queries:,} queries scored, {skipped:,} skipped, against {gallery:,} gallery images"
        for queries, skipped, gallery in sorted(counts))
    people = "rendered people" if rendered else "a data set of real people"
    sentences = [f"Data set {short(dataset, scale)} ({people}): {said}."]
    for key in sorted({result.about["train_on"] for result in results if _learned(result)} & trained.keys()):
        sentences.append(f"The training part of {short(key, scale)} has {trained[key][0]:,} images of "
                         f"{trained[key][1]:,} people.")
    for protocol in sorted({str(result.about["protocol"]) for result in results}):
        sentences.append(f"Protocol {protocol}: {PROTOCOLS[protocol]}." if protocol in PROTOCOLS
                         else f"Protocol {protocol}.")
    sentences.append("Figures are percent. Image steps count the images seen in training; start is what the backbone's "
                     "weights were before it. ")
    return " ".join(sentences).strip()


def parser_table(scores: Mapping[str, Any], *, parser: str, data: str, scale: str) -> Table:
    """The parser's scores on held-out people, from its metrics file. InputError if that lacks them."""
    mean = next((name for name in scores if name.startswith("miou")), None)
    needed = ("pixel_accuracy", "iou", "images", "image_steps", "architecture")
    absent = [name for name in needed if name not in scores] + ([] if mean else ["miou8"])
    if mean is None or absent:
        raise InputError(f"the scores of parser {parser!r} lack {absent[0]!r}; run `dvc repro train_parser` again")
    columns = ["parser", "mean IoU", *scores["iou"], "pixel accuracy"]
    row = [short(parser, scale), _score(scores[mean]), *map(_score, scores["iou"].values()),
           _score(scores["pixel_accuracy"])]
    note = (f"{scores['architecture']}, trained on {short(data, scale)} for {scores['image_steps']:,} image steps and "
            f"measured on {scores['images']:,} pictures of other people. IoU of each class over all held-out pixels, 0 "
            "to 1; pixel accuracy over the parser's own labels.")
    if scores.get("uv_error") is not None:
        columns, row = [*columns, "u,v error"], [*row, _score(scores["uv_error"])]
        note += " The u,v error is the mean absolute one, 0 to 1, over body pixels whose part is right."
    return Table("parser", "Human parser", columns, [row], note)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def differing(results: Sequence[Result], field: str, *, scale: str) -> list[str]:
    """`versions` or `caches` of the runs, one sentence for each set of runs that share them.

    >>> differing([Result("a", "d", {}, {"versions": {"torch": "2"}}), Result("b", "d", {}, {"versions": {}})],
    ...           "versions", scale="default")
    ['a: torch 2', 'b: none']
    """
    groups: dict[str, list[str]] = {}
    for result in results:
        entries = result.about.get(field) or {}
        text = ", ".join(f"{name} {_plain(entries[name])}" for name in sorted(entries)) or "none"
        names = groups.setdefault(text, [])
        if short(result.run, scale) not in names:
            names.append(short(result.run, scale))
    return [f"{', '.join(names)}: {text}" for text, names in groups.items()]


def _plain(value: Any) -> str:
    """A version or pin in one word; a file by the first digits of its hash."""
    pin = value.get("sha256", value) if isinstance(value, dict) else value
    text = pin if isinstance(pin, str) else json.dumps(pin, sort_keys=True)
    return f"{text[:12]}..." if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def as_markdown(table: Table) -> str:
    """The table and its note; `|` inside a cell is escaped."""
    lines = [table.columns, ["---"] + ["---:" if _number(cell) else "---" for cell in table.rows[0][1:]], *table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"### {table.title}\n\n{body}\n\n{table.note}\n"


def as_csv(table: Table) -> str:
    """Columns and rows, without the note."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def _number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "", 1).isdigit()


def best_cells(table: Table) -> set[tuple[int, int]]:
    """(row, column) of the highest figure in each column of percents, if there are two rows or more."""
    places = [number for number, name in enumerate(table.columns) if name in FIGURES.values()]
    if len(table.rows) < 2:
        return set()
    highest = {column: max(float(row[column]) for row in table.rows) for column in places}
    return {(number, column) for number, row in enumerate(table.rows) for column in places
            if float(row[column]) == highest[column]}
