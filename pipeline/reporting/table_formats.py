"""Table formats: a compared table (pipeline/reporting/paper_tables.py) as its paper has it, in Markdown, LaTeX, HTML.

Three blocks of columns: the paper's metrics, ours (here), and ours - the paper's. Columns of ours stand once for each
data set of ours, so that several of the paper's data sets which share a counterpart share them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count, groupby, product
from string import ascii_lowercase
from typing import Any

import pandas as pd

from pipeline.reporting import html_page
from pipeline.reporting.paper_tables import DATASETS, DIGITS, METRICS, mean_agreement, order_agreement

PAPERS = {"esa": "ESA-ReID", "sgsfa": "SGSFA", "sgam": "SGAM", "dsa": "DSA-reID", "sorn": "SORN"}
# Profile partial's names of the papers' own pictures, which have masks of another parser and size than profile paper's.
SAME_PICTURES = {"real-market": "market1501", "real-partial-reid": "partial-reid",
                 "real-partial-reid-occluded": "partial-reid-occluded", "real-partial-ilids": "partial-ilids",
                 "real-partial-ilids-uncropped": "partial-ilids-uncropped"}
OURS = DATASETS | {"partial-reid": "Partial-REID, partial probes"}  # of which a paper may have either
PAPER, HERE, MINUS = "paper", "here", "here - paper"
BESIDE = "Not the paper's own reading but beside it: {}; neither Kendall's tau nor the signs count it."
HYPHEN = "\u2011"  # at which no line is broken
EDGE = "border-left: 1px solid #9aa5b1"  # where a block of columns starts
LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
         "|": r"\textbar{}"}


@dataclass(frozen=True)
class Shown:
    """Text under columns of three levels (block, data set, metric); an index level for the setting where rows have one.

    name: the paper and the table's number; caption: the paper's; notes: (mark or "", sentence). ablations: the same as
    cells for differences to the full model's row; None where there are none.
    """
    key: str
    name: str
    caption: str
    cells: pd.DataFrame
    ablations: pd.DataFrame | None
    notes: Sequence[tuple[str, str]]

    @property
    def title(self) -> str:
        return f"{self.name}: {self.caption}"


def show(frame: pd.DataFrame, *, key: str, paper: str, table: str, caption: str, notes: Sequence[tuple[str, str]],
         remarks: Sequence[str]) -> Shown:
    """Lay out a frame of `compare`. notes: (row, or "" for the table; text), from the papers' contradictions; remarks:
    sentences about our side."""
    marked = _marks(frame, notes)
    marks = {text: letter for letter, _, text in marked}

    rows = list(dict.fromkeys(zip(frame["group"], frame["row"], strict=True)))
    blocks = {(line["group"], line["row"]): _blocks(line) for _, line in frame.iterrows()}
    cells: dict[Any, dict[Any, str]] = {place: {} for place in rows}
    for _, line in frame.iterrows():
        cells[line["group"], line["row"]] |= dict(_cells(line, marks))

    columns = list(_columns(frame))
    after = {row: "".join(f" [{letter}]" for letter, labels, _ in marked if row in labels) for _, row in rows}
    text = pd.DataFrame([[cells[place].get(column, "-" if column[0] in blocks[place] else "") for column in columns]
                         for place in rows],
                        index=_index(rows, after),
                        columns=pd.MultiIndex.from_tuples(columns))

    sentences = [("", sentence) for sentence in (*remarks, *_sentences(frame))]
    return Shown(key, f"{PAPERS[paper]}, Table {table}", caption.rstrip("."), text, _ablations(frame),
                 [(letter, note) for letter, _, note in marked] + sentences)


def _marks(frame: pd.DataFrame, notes: Sequence[tuple[str, str]]) -> list[tuple[str, list[str], str]]:
    """(letter, rows, note): a letter for each note that belongs to rows, for what stands beside rows and for what is
    missing here, none for the table's."""
    letters = _letters()
    beside = frame[frame["beside"] != ""].drop_duplicates("row")
    said = [(row, BESIDE.format(reading)) for row, reading in zip(beside["row"], beside["beside"], strict=True)]
    of_rows: dict[str, list[str]] = {}
    for row, text in [*notes, *said]:
        if row:
            of_rows.setdefault(text, []).append(row)

    rowed = [(next(letters), rows, text) for text, rows in of_rows.items()]
    absent: list[tuple[str, list[str], str]] = [
        (next(letters), [], text) for text in dict.fromkeys(frame.loc[frame["missing"] != "", "missing"])]
    return [*rowed, *absent, *(("", [], text) for row, text in notes if not row)]


def _letters() -> Iterator[str]:
    """a to z, aa, ab, ..."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def _columns(frame: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(block, data set, metric): the paper's in its own order, which the row with most metrics has."""
    own, beside, rows = frame[frame["own"]], frame[frame["beside"] != ""], frame[frame["beside"] == ""]
    widest = max((list(zip(part["dataset"], part["metric"], strict=True)) for _, part in rows.groupby("row")), key=len)
    printed = dict.fromkeys([*widest, *zip(rows["dataset"], rows["metric"], strict=True)])
    datasets = list(dict.fromkeys(dataset for dataset, _ in printed))
    order = sorted(printed, key=lambda column: datasets.index(column[0]))
    yield from ((PAPER, DATASETS[dataset], METRICS[metric]) for dataset, metric in order)

    ours = {(dataset, metric): part["data"].iloc[0] for (dataset, metric), part in own.groupby(["dataset", "metric"])}
    data = list(dict.fromkeys([*(ours[column] for column in order), *beside["data"]]))
    shared = dict.fromkeys([*((ours[column], column[1]) for column in order),
                            *zip(beside["data"], beside["metric"], strict=True)])
    yield from ((HERE, data_name(on), METRICS[metric])
                for on, metric in sorted(shared, key=lambda column: data.index(column[0])))
    yield from ((MINUS, DATASETS[dataset], METRICS[metric]) for dataset, metric in order)


def _blocks(line: pd.Series) -> tuple[str, ...]:
    """The blocks in which a row has cells: all if it is the paper's own."""
    if line["own"]:
        return PAPER, HERE, MINUS
    return (HERE,) if line["beside"] else (PAPER,)


def data_name(key: str) -> str:
    """What one of our data sets is called: as the papers do where it is theirs, and with which probes.

    >>> data_name("market1501"), data_name("synth-occluded"), data_name("real-partial-reid")
    ('Market-1501', 'synth-occluded', 'Partial-REID, partial probes')
    """
    return OURS.get(papers_set(key), key)


def papers_set(key: str) -> str:
    """The paper's data set of whose pictures one of ours is; its own name where it is of none's."""
    return SAME_PICTURES.get(key, key)


def _cells(line: pd.Series, marks: Mapping[str, str]) -> Iterator[tuple[tuple[str, str, str], str]]:
    metric, dataset, blocks = METRICS[line["metric"]], DATASETS[line["dataset"]], _blocks(line)
    digits = DIGITS.get(line["metric"], 2)
    if PAPER in blocks:
        yield (PAPER, dataset, metric), line["paper"]
    if HERE in blocks:
        here = f"not here [{marks[line['missing']]}]" if line["missing"] else (
            f"{line['here']:.{digits}f}" + ends(line["low"], line["high"], f".{digits}f"))
        yield (HERE, data_name(line["data"]), metric), here
    if MINUS in blocks and not line["missing"]:
        yield (MINUS, dataset, metric), f"{line['here_minus_paper']:+.{digits}f}"


def ends(low: float, high: float, form: str) -> str:
    """An interval after a metric, or nothing.

    >>> ends(1.25, 2.5, ".1f"), ends(float("nan"), float("nan"), ".1f")
    (' [1.2, 2.5]', '')
    """
    return "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"


def _index(rows: Sequence[tuple[str, str]], after: Mapping[str, str]) -> pd.Index:
    """Labels of (setting, row)s, each with what stands after it; the setting is an outer level where all have one."""
    if all(group for group, _ in rows):
        return pd.MultiIndex.from_tuples([(group, row + after.get(row, "")) for group, row in rows],
                                         names=["setting", "method"])
    return pd.Index([(f"{row} ({group})" if group else row) + after.get(row, "") for group, row in rows], name="method")


def _ablations(frame: pd.DataFrame) -> pd.DataFrame | None:
    """The differences of each own row to the full model's: the paper's, ours with its interval, and whether the signs
    agree; columns (data set, metric, which)."""
    part = frame[frame["paper_minus_full"].notna()]
    if part.empty:
        return None

    rows = list(dict.fromkeys(zip(part["group"], part["row"], strict=True)))
    cells: dict[Any, dict[Any, str]] = {place: {} for place in rows}
    for _, line in part.iterrows():
        digits = DIGITS.get(line["metric"], 2)
        here = "not here" if pd.isna(line["here_minus_full"]) else (
            f"{line['here_minus_full']:+.{digits}f}" + ends(line["minus_full_low"], line["minus_full_high"],
                                                           f"+.{digits}f"))
        for which, text in ((PAPER, f"{line['paper_minus_full']:+.{digits}f}"), (HERE, here),
                            ("signs", line["verdict"] or "-")):
            cells[line["group"], line["row"]][DATASETS[line["dataset"]], METRICS[line["metric"]], which] = text

    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    return pd.DataFrame([[cells[place].get(column, "-") for column in columns] for place in rows],
                        index=_index(rows, {}),
                        columns=pd.MultiIndex.from_tuples(columns))


def _sentences(frame: pd.DataFrame) -> Iterator[str]:
    """What the whole table says of the paper's order and signs."""
    taus = order_agreement(frame)
    if taus:
        several = len({dataset for dataset, *_ in taus}) > 1
        agreement = ", ".join((f"{DATASETS[dataset]} " if several else "") + f"{METRICS[metric]} "
                              + ("undefined" if tau is None else f"{tau:.2f}") for dataset, metric, _, tau in taus)
        mean = mean_agreement(frame)
        yield (f"Order of the paper's own rows: Kendall's tau between its metrics and ours is {agreement}"
               + ("" if mean is None or len(taus) == 1 else f", on average {mean:.2f}")
               + f" (over {max(count for *_, count, _ in taus)} rows).")

    counts = signs(frame)
    if counts:
        yield ("Signs of the differences to the full model's row: "
               + ", ".join(f"{count} {word}" for word, count in counts.items())
               + ". Undecided where fewer than three seeds were run or their 95 % interval of the paired differences "
                 "holds 0.")


def signs(frame: pd.DataFrame) -> dict[str, int]:
    """How many differences to the full model agree, disagree and are undecided; empty where none was made."""
    words = frame.loc[frame["verdict"].fillna("") != "", "verdict"].str.split(" ").str[0]
    return {word: int((words == word).sum()) for word in ("agree", "disagree", "undecided")} if len(words) else {}


def as_markdown(shown: Shown) -> str:
    """Both tables and the notes; a header cell holds all levels of its column."""
    parts = [f"### {shown.title}", _markdown(shown.cells)]
    if shown.ablations is not None:
        parts += ["Differences to the full model's row:", _markdown(shown.ablations)]
    return "\n\n".join([*parts, *(f"[{mark}] {text}" if mark else text for mark, text in shown.notes)]) + "\n"


def _markdown(cells: pd.DataFrame) -> str:
    """Heads of one line: a column's names without the data set of the paper's, where it has but one."""
    theirs = {name for names in cells.columns for name in names if name in DATASETS.values()}

    flat = cells.reset_index()
    flat.columns = [name if isinstance(name, str) else " ".join(
        part for part in name if part and (len(theirs) > 1 or part not in theirs or name[0] == HERE))
        for name in flat.columns]
    flat = flat.map(lambda text: str(text).replace("|", "\\|"))
    left = ("left",) * cells.index.nlevels
    return flat.to_markdown(index=False, disable_numparse=True, colalign=left + ("right",) * cells.shape[1])


def as_latex(shown: Shown) -> str:
    """A table* for a paper, as pandas writes it; needs booktabs, multirow and graphicx."""
    lines = ["% needs \\usepackage{booktabs,multirow,graphicx}", "\\begin{table*}",
             f"\\caption{{{latex(shown.title)}}}", f"\\label{{tab:{shown.key}}}", "\\centering"]
    for cells in (shown.cells, shown.ablations):
        if cells is not None:
            escaped = cells.map(latex).rename(index=latex, columns=latex)
            escaped.index.names = [latex(name) for name in cells.index.names]
            align = "l" * cells.index.nlevels + "r" * cells.shape[1]
            lines += ["\\resizebox{\\textwidth}{!}{%", escaped.to_latex(
                escape=False, column_format=align, multicolumn_format="c", multirow=True).strip() + "}", "\\\\[1ex]"]

    lines += ["\\raggedright\\footnotesize"]
    lines += [latex(f"[{mark}] {text}" if mark else text) + "\\par" for mark, text in shown.notes]
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


def latex(text: str) -> str:
    r"""Text with LaTeX's own characters escaped.

    >>> print(latex("R_1 < 50 %"))
    R\_1 \textless{} 50 \%
    """
    return "".join(LATEX.get(character, character) for character in text)


def as_html(shown: Shown) -> str:
    """Both tables, each scrolling sideways in a box of its own, and the notes; no page around them."""
    html = _html(shown.cells, block=1)
    if shown.ablations is not None:
        html += html_page.heading("Differences to the full model's row") + _html(shown.ablations, block=2)

    marked = "".join(f"<li>[{mark}] {escape(text)}</li>" for mark, text in shown.notes if mark)
    html += f'<ul class="note">{marked}</ul>' if marked else ""
    return html + "".join(html_page.note(text) for mark, text in shown.notes if not mark)


def _html(cells: pd.DataFrame, *, block: int) -> str:
    """Cells under heads of several levels, the first `block` of which make a block; a setting is a line of its own.

    While scrolling, a row's first th stays: lines of heads above the last start with a td, so that nothing of theirs
    does.
    """
    columns = list(cells.columns)
    edges = [f' style="{EDGE}"' if number == 0 or names[:block] != columns[number - 1][:block] else ""
             for number, names in enumerate(columns)]

    head = ""
    for level in range(cells.columns.nlevels - 1):
        spans = [(names[-1], len(list(same))) for names, same in groupby(names[:level + 1] for names in columns)]
        head += "<tr><td></td>" + "".join(f'<th scope="colgroup" colspan="{count}" style="text-align: left; {EDGE}">'
                                          f"{escape(name)}</th>" for name, count in spans) + "</tr>\n"
    head += '<tr><th scope="col">method</th>' + "".join(
        f'<th scope="col"{edge}>{escape(names[-1]).replace("-", HYPHEN)}</th>'
        for names, edge in zip(columns, edges, strict=True)) + "</tr>"

    rows, previous = "", None
    for place, values in zip(cells.index, cells.to_numpy().tolist(), strict=True):
        group, label = place if isinstance(place, tuple) else (None, place)
        if group != previous:
            rows += (f'<tr><th scope="rowgroup"><em>{escape(group)}</em></th>'
                     f'<td colspan="{len(columns)}" style="{EDGE}"></td></tr>\n')
            previous = group

        rows += f'<tr><th scope="row">{escape(label)}</th>' + "".join(
            f"<td{edge}>{escape(value)}</td>" for value, edge in zip(values, edges, strict=True)) + "</tr>\n"

    return (f'<div class="wide" tabindex="0"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}</tbody>\n'
            "</table></div>\n")
