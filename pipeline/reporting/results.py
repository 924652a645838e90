"""Results on disk -> tables, as Markdown and CSV; pipeline/reporting/html_page.py makes the HTML page of them."""

import csv
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open

from pipeline.base.errors import InputError
from pipeline.reporting.protocol import protocol_line

METRICS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
COUNTS = ("queries", "skipped", "gallery")
CONTROLS = ("histogram", "untrained", "baseline")  # what methods are compared with, in this order before them
LISTS = ["dataset", "query", "position", "gallery", "distance", "match"]
CURVES = ["run", "dataset", "rank", "cmc"]


@dataclass(frozen=True)
class Result:
    """One result on one data set: `metrics` in percent with their counts, `provenance` (model, seed, image_steps, ...).
    """
    name: str
    dataset: str
    metrics: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Text cells under `columns`; `note` says in sentences what they are."""
    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def read_results(folder: str | os.PathLike, names: Sequence[str]) -> list[Result]:
    """The results FOLDER/NAME of an experiment, controls first. InputError if one is missing or damaged."""
    if not names:
        raise InputError(f"{os.fspath(folder)!r}: no result is named; let the experiment's runs be evaluated on a data "
                         "set (eval_on)")

    results = [result for name in names for result in _read(Path(folder) / name, name)]
    return sorted(results, key=lambda result: (_place(result), result.name))


def _read(folder: Path, name: str) -> list[Result]:
    """A result on each of its data sets."""
    results = [Result(name, dataset, metrics, made) for dataset, (metrics, made) in read_metrics(folder).items()]
    for result in results:
        if not result.metrics.keys() >= {*METRICS, *COUNTS}:
            raise InputError(f"'{folder / result.dataset}.json': is no result of `evaluate`; run "
                             f"`dvc repro evaluate@{name}` again")
    return results


def read_metrics(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """A result's folder: data set -> all of its metrics, the details among them, and what made them.

    Intervals of results that do not say that theirs are over identities are left out: they were over queries, as if
    those of one person were independent. InputError if there is none, if a file is damaged or no result.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{str(folder)!r}: has no metrics; make them with `dvc repro evaluate@{folder.name}`")

    sections = {}
    for path in files:
        content = read_json(path)
        try:
            made, details = dict(content.pop("provenance")[0]), dict(content.pop("details")[0])
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(f"{str(path)!r}: is no result of `evaluate`; run `dvc repro evaluate@{folder.name}` "
                             "again") from error
        over_identities = "identities" in str(made.get("intervals"))
        sections[path.stem] = {name: value for name, value in (content | details).items()
                               if over_identities or not name.endswith(("_low", "_high"))}, made
    return sections


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
    if result.provenance["model"] == "baseline" and not result.provenance["image_steps"]:
        return "untrained"
    return result.provenance["model"] if result.provenance["model"] in CONTROLS else None


def leading(results: Sequence[Result]) -> list[Result]:
    """Of one data set's results the controls and each model's first; variants and other seeds are left out."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(control(result) or result.provenance["model"], result)
    return list(first.values())


def _place(result: Result) -> int:
    kind = control(result)
    return CONTROLS.index(kind) if kind else len(CONTROLS)


def dataset_table(dataset: str, results: Sequence[Result], *, rendered: Collection[str],
                  trained: Mapping[str, tuple[int, int]]) -> Table:
    """One data set's table: a row per result.

    rendered: the data sets of rendered people, all others are of real ones; trained: data set -> (images, people) of
    its training part, where known.
    """
    rows = []
    for result in results:
        provenance = result.provenance
        learned, start = _learned(result), _start(result)
        rows.append([result.name, *(f"{result.metrics[name]:.2f}" for name in METRICS),
                     str(provenance["train_on"]) if learned else "-",
                     f"{provenance['image_steps']:,}" if learned else "-",
                     start, str(provenance["seed"]) if start != "-" else "-"])

    return Table(dataset, dataset, ["run", *METRICS.values(), "trained on", "image steps", "start", "seed"], rows,
                 _note(dataset, results, rendered=rendered, trained=trained))


def _learned(result: Result) -> bool:
    return control(result) not in ("histogram", "untrained")


def _start(result: Result) -> str:
    if control(result) == "histogram":
        return "-"
    return "random" if result.provenance["init"] == "none" else str(result.provenance["init"])


def _note(dataset: str, results: Sequence[Result], *, rendered: Collection[str],
          trained: Mapping[str, tuple[int, int]]) -> str:
    counts = {tuple(result.metrics[name] for name in COUNTS) for result in results}
    scored = " or, where runs differ, ".join(
        f"{queries:,} queries scored, {skipped:,} skipped, against {gallery:,} gallery images"
        for queries, skipped, gallery in sorted(counts))
    people = "rendered people" if dataset in rendered else "a data set of real people"
    sentences = [f"Data set {dataset} ({people}): {scored}."]

    for key in sorted({result.provenance["train_on"] for result in results if _learned(result)} & trained.keys()):
        sentences.append(f"The training part of {key} has {trained[key][0]:,} images of {trained[key][1]:,} people.")

    sentences.append(protocol_line([result.provenance for result in results]))
    sentences.append("Metrics are percent. Image steps count the images seen in training; start is what the backbone's "
                     "weights were before it.")
    return " ".join(sentences)


def read_parser_scores(path: Path) -> dict[str, Any]:
    """A parser's scores on held-out people, from its metrics file or released weights. InputError if the file is
    missing, damaged or holds none."""
    if path.suffix == ".safetensors":
        return _released_scores(path)
    try:
        return dict(read_json(path)["details"][0])
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r}: has no scores of a parser; run `dvc repro train_parser` again") from error


def _released_scores(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "np") as file:
            return dict(json.loads(file.metadata()["semalign"])["scores"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r}: is no released parser with its scores ({type(error).__name__}); "
                         "`dvc pull` it again, or name one that stages.tools.release_parser wrote") from error


def parser_table(scores: Mapping[str, Any], *, parser: str, data: str) -> Table:
    """The parser's scores on held-out people, from its metrics file. InputError if that lacks them."""
    mean = next((name for name in scores if name.startswith("miou")), None)
    needed = ("pixel_accuracy", "iou", "images", "image_steps", "architecture")
    absent = [name for name in needed if name not in scores] + ([] if mean else ["miou8"])
    if mean is None or absent:
        raise InputError(f"the scores of parser {parser!r} lack {absent[0]!r}; run `dvc repro train_parser` again")

    columns = ["parser", "mean IoU", *scores["iou"], "pixel accuracy"]
    row = [parser, _score(scores[mean]), *map(_score, scores["iou"].values()),
           _score(scores["pixel_accuracy"])]
    note = (f"{scores['architecture']}, trained on {data} for {scores['image_steps']:,} image steps and "
            f"measured on {scores['images']:,} images of other people. IoU of each class over all held-out pixels, 0 "
            "to 1; pixel accuracy over the parser's own labels.")

    if scores.get("uv_error") is not None:
        columns, row = [*columns, "u,v error"], [*row, _score(scores["uv_error"])]
        note += " The u,v error is the mean absolute one, 0 to 1, over body pixels whose part is right."
    return Table("parser", "Human parser", columns, [row], note)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def differing(results: Sequence[Result], field: str) -> list[str]:
    """`versions` or `caches` of the results, one sentence for each set of results that share them.

    >>> differing([Result("a", "d", {}, {"versions": {"torch": "2"}}), Result("b", "d", {}, {"versions": {}})],
    ...           "versions")
    ['a: torch 2', 'b: none']
    """
    groups: dict[str, list[str]] = {}
    for result in results:
        entries = result.provenance.get(field) or {}
        text = ", ".join(f"{name} {_plain(entries[name])}" for name in sorted(entries)) or "none"

        names = groups.setdefault(text, [])
        if result.name not in names:
            names.append(result.name)
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
    """(row, column) of the highest metric in each column of percents, if there are two rows or more."""
    places = [number for number, name in enumerate(table.columns) if name in METRICS.values()]
    if len(table.rows) < 2:
        return set()

    highest = {column: max(float(row[column]) for row in table.rows) for column in places}
    return {(number, column) for number, row in enumerate(table.rows) for column in places
            if float(row[column]) == highest[column]}
