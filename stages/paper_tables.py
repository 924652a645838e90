"""Tables of the papers, an experiment's results beside their own: python -m stages.paper_tables all --experiment tables

Reads docs/papers/tables.csv, notes.csv and field.csv and the results and curves that the tables' rows name. Writes
data/reports/EXPERIMENT/tables/index.html, and of each table PAPER-N/table.md, .csv, .tex and .html.
"""

from pathlib import Path

from pipeline.base.files import new_folder, writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.paper_rows import number
from pipeline.config.plan import TablePlan, TablesPlan
from pipeline.reporting.paper_page import PaperTable, remarks, table_page, tables_page
from pipeline.reporting.paper_tables import (
    Beside,
    Own,
    compare,
    read_field,
    read_notes,
    read_own,
    read_printed,
    seeds_behind,
)
from pipeline.reporting.table_formats import as_latex, as_markdown, show
from stages import main

PAPERS = Path("docs/papers")


def run(experiment: Experiment, key: str) -> None:
    """Make the experiment's tables in a folder beside their place and put it there whole."""
    plan = pick(experiment.plan.paper_tables, key, "plan.paper_tables")
    target = paths.report(experiment.name, "tables")
    writable(target, folder=True)
    field = read_field(PAPERS / "field.csv")
    tables = [_table(experiment.name, table, plan) for table in plan.tables]

    with new_folder(target) as folder:
        (folder / "index.html").write_text(tables_page(tables, field), encoding="utf-8")
        for table in tables:
            _write(folder / table.shown.key, table)


def _table(experiment: str, plan: TablePlan, made: TablesPlan) -> PaperTable:
    printed = read_printed(PAPERS / "tables.csv", plan.paper, plan.table)
    own = {(row.row, row.setting, row.dataset): Own(row.result, row.seeds, row.data, row.full, row.missing)
           for row in plan.rows}
    beside = [Beside((other.row, other.setting, other.dataset), other.name, other.reading,
                     Own(other.result, other.seeds, other.data, False, other.missing)) for other in plan.beside]
    scores, provenance = read_own([*own.values(), *(other.own for other in beside)],
                                  results=paths.RESULTS / experiment, curves=paths.CURVES / experiment)

    frame = compare(printed, own, scores, beside)
    shown = show(frame, key=f"{plan.paper}-{number(plan.table)}", paper=plan.paper, table=plan.table,
                 caption=printed[0].table_title, notes=read_notes(PAPERS / "notes.csv", plan.paper, plan.table),
                 remarks=list(remarks(own, provenance, rendered=made.rendered, networks=made.networks,
                                      seeds=seeds_behind(own, scores))))
    return PaperTable(frame, shown)


def _write(folder: Path, table: PaperTable) -> None:
    folder.mkdir()
    texts = {"md": as_markdown(table.shown), "tex": as_latex(table.shown), "html": table_page(table),
             "csv": table.frame.to_csv(index=False, lineterminator="\n")}
    for ending, text in texts.items():
        (folder / f"table.{ending}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(run)
