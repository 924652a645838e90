"""One table of a paper, its own rows made here beside it: python -m stages.table default-sorn-6

Reads docs/papers/tables.csv and notes.csv and the results of the table's own rows (metrics/SCALE, curves/SCALE, those
of further seeds included where they lie there); writes reports/tables/KEY/table.md, .csv, .tex and .html.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import page
from pipeline.papershow import DATASETS, as_html, as_latex, as_markdown, data_name, show
from pipeline.papertables import Own, compare, read_notes, read_printed, read_seeds
from pipeline.params import Params, TableParams, pick
from stages import main

PAPERS = Path("docs/papers")
INTRODUCTION = ("The first block of columns is what the paper prints, its competitors' rows and its own; the second is "
                "what this pipeline gives for its own rows, with 95 % bootstrap intervals over queries where one was "
                "made (rank-1 and mAP); the third is the difference. Percent, PR-AUC 0 to 1.")


def run(params: Params, key: str) -> None:
    """Build the table in a folder beside its place and put it there whole."""
    wanted = pick(params.tables, key, "tables")
    printed = read_printed(PAPERS / "tables.csv", wanted.paper, wanted.table)
    own = {(row.row, row.setting, row.dataset): Own(row.result, row.data, row.full, row.missing)
           for row in wanted.rows.values()}
    results = dict.fromkeys(row.result for row in own.values() if not row.missing)
    read = {name: read_seeds(Path("metrics") / params.scale, Path("curves") / params.scale, name) for name in results}
    frame = compare(printed, own, {name: seeds for name, (seeds, _) in read.items()})
    remarks = list(_remarks(wanted, key, params.scale, {name: about for name, (_, about) in read.items()}))
    shown = show(frame, key=key, paper=wanted.paper, table=wanted.table, title=printed[0].table_title,
                 scale=params.scale, notes=read_notes(PAPERS / "notes.csv", wanted.paper, wanted.table),
                 remarks=remarks)
    target, work = Path("reports/tables") / key, Path("reports/tables") / f"{key}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    html = page.page(title=shown.title, introduction=INTRODUCTION, sections=[(key, shown.title, as_html(shown))])
    for name, text in (("md", as_markdown(shown)), ("tex", as_latex(shown)), ("html", html),
                       ("csv", frame.to_csv(index=False, lineterminator="\n"))):
        (work / f"table.{name}").write_text(text, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _remarks(wanted: TableParams, key: str, scale: str, made: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What our side is: counterparts, what is missing and how to get it, budgets; and what to know of the data."""
    places: dict[str, list[str]] = {}
    for row in wanted.rows.values():
        known = row.data.removeprefix(f"{scale}-") in DATASETS
        if not known and DATASETS[row.dataset] not in places.setdefault(row.data, []):
            places[row.data].append(DATASETS[row.dataset])
    if places:
        yield ("Other people stand in the place of the paper's: "
               + ", ".join(f"{data_name(ours, scale)} for {_joined(names)}" for ours, names in places.items())
               + ". Differences to the paper's figures mean nothing there; the order of rows, and signs, can be "
                 "compared.")
    if any(row.missing for row in wanted.rows.values()):
        yield ("not here: a data set is not on this machine. Do what the mark says, compose the profile again and run "
               f"`dvc repro table@{key}`.")
    budgets: dict[str, list[str]] = {}
    for name, about in made.items():
        budgets.setdefault(_budget(about, scale), []).append(name.removeprefix(f"{scale}-"))
    for budget, names in budgets.items():
        yield f"Here: {', '.join(names)}: {budget}."
    if any("duke" in row.dataset for row in wanted.rows.values()):
        yield page.WITHDRAWN


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _budget(about: Mapping[str, Any], scale: str) -> str:
    start = "random weights" if about["init"] == "none" else f"weights {about['init']}"
    return (f"trained on {data_name(about['train_on'], scale)} with {about['image_steps']:,} image steps from {start}, "
            f"seed {about['seed']}")


if __name__ == "__main__":
    main(run)
