"""Paper tables on one HTML page: how far each has come, then the tables; and what is said of our side of a table."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting import html_page
from pipeline.reporting.paper_tables import DATASETS, Made, Own, OwnKey, mean_agreement
from pipeline.reporting.protocol import parsers, protocol_line, start
from pipeline.reporting.results import Table
from pipeline.reporting.table_formats import Shown, as_html, data_name, papers_set, signs

INTRODUCTION = ("Tables of the papers with this pipeline's metrics beside them. In each, the first block of columns is "
                "what the paper prints, its competitors' rows and its own; the second is what this pipeline gives for "
                "the paper's own rows, with 95 % bootstrap intervals over identities where one was made (rank-1 and "
                "mAP); the third is the difference. Percent, PR-AUC 0 to 1. Wide tables scroll sideways.")
OVERVIEW = ("here: metrics of the paper's own rows that were made on this machine, of all that it prints of them. tau: "
            "Kendall's, between the order that the paper's metrics give its own rows and the order that ours give, "
            "mean over the table's columns; with two rows it is 1 or -1, and undecided rows are not counted. Signs of "
            "the differences to the paper's full model: agree or disagree by 95 % intervals of paired differences "
            "over three seeds, else undecided.")
OTHER_PROBES = {"partial-reid": "partial-reid-occluded", "partial-reid-occluded": "partial-reid"}
FIELD = ("What others print of later methods, for orientation: cited, not made here. Their training data, image sizes "
         "and what they are given at test time differ from those of the tables below; the column source says "
         "where a row stands.")
FIELD_COLUMNS = {"method": "method", "backbone": "backbone", "dataset": "data set", "mAP": "mAP (cited)",
                 "rank1": "rank-1 (cited)", "source": "source", "needs": "needs"}  # docs/papers/field.csv's
COLUMNS = ["table", "own rows", "here", "tau", "agree", "disagree", "undecided"]


@dataclass(frozen=True)
class PaperTable:
    """A table as `paper_tables.compare` made it and as `table_formats.show` laid it out."""
    frame: pd.DataFrame
    shown: Shown


def tables_page(tables: Sequence[PaperTable], field: Sequence[Mapping[str, str]] = ()) -> str:
    """The page of all tables, in their order, under an overview; `field`: what is cited besides, a row each."""
    overview = Table("overview", "Overview", COLUMNS, [_summary(table) for table in tables], OVERVIEW)
    sections = [("overview", overview.title, html_page.table_html(overview))]
    if field:
        rows = [[data_name(row[name]) if name == "dataset" else row[name] for name in FIELD_COLUMNS] for row in field]
        cited = Table("field", "Today's field (cited)", list(FIELD_COLUMNS.values()), rows, FIELD)
        sections.append((cited.name, cited.title, html_page.table_html(cited)))
    sections += [(table.shown.key, table.shown.name, html_page.paragraph(table.shown.caption) + as_html(table.shown))
                 for table in tables]
    return html_page.page(title="The papers' tables", introduction=INTRODUCTION, sections=sections)


def table_page(table: PaperTable) -> str:
    """The page of one table."""
    shown = table.shown
    return html_page.page(title=shown.title, introduction=INTRODUCTION,
                          sections=[(shown.key, shown.title, as_html(shown))])


def _summary(table: PaperTable) -> list[str]:
    """How far a table has come: a line of the overview."""
    own = table.frame[table.frame["own"]]
    tau, counts = mean_agreement(table.frame), signs(table.frame)
    return [table.shown.name, str(len(own.groupby(["group", "row"]))),
            f"{own['here'].notna().sum()} of {len(own)}", "-" if tau is None else f"{tau:.2f}",
            *(str(counts.get(word, "-")) for word in ("agree", "disagree", "undecided"))]


def remarks(own: Mapping[OwnKey, Own], provenance: Mapping[str, Made], *, rendered: Collection[str],
            networks: Mapping[str, str], seeds: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """What our side of a table is, in sentences: counterparts, what is missing, budgets; what to know of the data.

    provenance: result -> what made it on each set, as `paper_tables.read_own` gives it; rendered: the data sets of
    rendered people, all others are of real ones; networks: result -> its backbone and image size; seeds: result ->
    those behind its figures, as `paper_tables.seeds_behind` gives them.
    """
    yield from _counterparts(own, rendered)
    for data in dict.fromkeys(papers_set(row.data) for row in own.values() if papers_set(row.data) in OTHER_PROBES):
        yield (f"{data_name(data)}: those that this paper's row is on. Where the others are on this machine, it stands "
               f"beside itself on {data_name(OTHER_PROBES[data])} too.")
    if any(row.missing for row in own.values()):
        yield ("not here: a data set is not on this machine, or the profile leaves the row out. Do what the mark says, "
               "compose the profile again and run `dvc repro`.")

    if provenance:
        yield protocol_line([one for made in provenance.values() for one in made.values()],
                            seeds=[seed for name in provenance for seed in seeds[name]])
    budgets: dict[str, list[str]] = {}
    for name, made in provenance.items():
        budgets.setdefault(_budget(networks[name], next(iter(made.values())), seeds[name]), []).append(name)
    for budget, names in budgets.items():
        yield f"Here: {', '.join(names)}: {budget}."

    if any("duke" in dataset for _, _, dataset in own):
        yield html_page.WITHDRAWN


def _counterparts(own: Mapping[OwnKey, Own], rendered: Collection[str]) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for (_, _, dataset), row in own.items():
        if papers_set(row.data) not in DATASETS and DATASETS[dataset] not in places.setdefault(row.data, []):
            places[row.data].append(DATASETS[dataset])

    if places:
        counterparts = ", ".join(f"{ours} ({'rendered' if ours in rendered else 'real'} people) for {_joined(names)}"
                                 for ours, names in places.items())
        yield (f"Other people stand in the place of the paper's: {counterparts}. Differences to the paper's metrics "
               "mean nothing there; the order of rows, and signs, can be compared.")


def _joined(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _budget(network: str, made: Mapping[str, Any], seeds: Sequence[int]) -> str:
    masks = parsers([made])
    compared = f" (in differences {', '.join(map(str, sorted(seeds)))})" if len(seeds) > 1 else ""
    return (f"{network} from {start(made['init'])}, trained on {data_name(made['train_on'])} with "
            f"{made['image_steps']:,} image steps, seed {made['seed']}{compared}"
            f"{f', masks by {_joined(masks)}' if masks else ''}")
