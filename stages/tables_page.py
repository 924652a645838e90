"""All tables of a scale that lie in reports/tables on one page: python -m stages.tables_page default-tables

Writes reports/KEY/index.html: how far each table's figures have come, then the tables.
"""

import re
import shutil
from html import unescape
from pathlib import Path

import pandas as pd

from pipeline import page
from pipeline.errors import InputError
from pipeline.papershow import PAPERS, signs
from pipeline.papertables import mean_agreement
from pipeline.params import Params, pick
from pipeline.report import Table
from stages import main

SECTION = re.compile(r"<section .*?<h2>(.*?)</h2>\n(.*?)\n</section>", re.DOTALL)  # as pipeline/page.py writes it
INTRODUCTION = ("Every table of the five papers with this pipeline's figures beside it. In each, the first block of "
                "columns is what the paper prints, the second is what this pipeline gives for the paper's own rows, "
                "with 95 % bootstrap intervals over queries where one was made (rank-1 and mAP), the third is the "
                "difference. Percent, PR-AUC 0 to 1. Wide tables scroll sideways.")
NOTE = ("here: figures of the paper's own rows that were made on this machine, of all that it prints of them. tau: "
        "Kendall's, between the order that the paper's figures give its own rows and the order that ours give, mean "
        "over the table's columns; with two rows it is 1 or -1. Signs of the differences to the paper's full model: "
        "agree or disagree by 95 % intervals of paired differences over three seeds, else undecided.")

COLUMNS = ["table", "own rows", "here", "tau", "agree", "disagree", "undecided"]


def run(params: Params, key: str) -> None:
    """Put the tables on one page. InputError if there are none."""
    scale = pick(params.tables_page, key, "tables_page").scale
    folders = sorted((path.parent for path in Path("reports/tables").glob(f"{scale}-*/table.csv")), key=_place)
    if not folders:
        raise InputError(f"'reports/tables': holds no table of scale {scale!r}; make them with `dvc repro table`")
    tables = [_section(folder) for folder in folders]
    lines = [[name, *_summary(folder)] for folder, (_, name, _) in zip(folders, tables, strict=True)]
    overview = Table("overview", "Overview", COLUMNS, lines, NOTE)
    sections = [("overview", "Overview", page.table_html(overview)), *tables]
    target, work = Path("reports") / key, Path("reports") / f"{key}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    html = page.page(title="The papers' tables", introduction=INTRODUCTION, sections=sections)
    (work / "index.html").write_text(html, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _place(folder: Path) -> tuple[int, int]:
    _, paper, number = folder.name.rsplit("-", 2)
    return list(PAPERS).index(paper), int(number)


def _summary(folder: Path) -> list[str]:
    """How far a table has come: a line of the overview."""
    frame = pd.read_csv(folder / "table.csv", dtype={"group": str, "row": str, "verdict": str})
    own = frame[frame["own"]]
    tau, counts = mean_agreement(frame), signs(frame)
    return [str(len(own.groupby([own["group"].fillna(""), "row"]))),
            f"{own['here'].notna().sum()} of {len(own)}", "-" if tau is None else f"{tau:.2f}",
            *(str(counts.get(word, "-")) for word in ("agree", "disagree", "undecided"))]


def _section(folder: Path) -> tuple[str, str, str]:
    """(anchor, "PAPER, Table N", HTML) of a table's own page."""
    path = folder / "table.html"
    found = SECTION.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise InputError(f"{str(path)!r}: is no page of stage `table`; make it again with "
                         f"`dvc repro -f table@{folder.name}`")
    name, _, title = unescape(found.group(1)).partition(": ")
    return folder.name, name, page.paragraph(title) + found.group(2)


if __name__ == "__main__":
    main(run)
