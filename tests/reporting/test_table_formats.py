"""The papers' tables laid out: against the papers' text, in Markdown, LaTeX and HTML."""

import csv
import doctest
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.reporting import paper_tables, table_formats
from pipeline.reporting.paper_page import remarks, table_page, tables_page
from pipeline.reporting.paper_tables import Own, Printed, Score, compare, read_field, read_notes, read_printed
from pipeline.reporting.table_formats import as_html, as_latex, as_markdown, latex, show
from tests.helpers.paper_tables import NOTES, PRINTED, TABLES, sorn_v, table, write_result


def printed_alone(paper, number):
    """A table without anything of ours."""
    lines = read_printed(PRINTED, paper, number)
    return show(compare(lines, {}, {}), key=f"x-{paper}", paper=paper, table=number, caption=lines[0].table_title,
                notes=read_notes(NOTES, paper, number), remarks=[])


def paper_block(shown):
    """The paper's own cells, a list a row, with the row's labels before them and marks of notes taken off."""
    block = shown.cells[table_formats.PAPER]
    labels = [place if isinstance(place, tuple) else (place,) for place in block.index]
    return [[*(re.sub(r" \[[a-z]\]", "", label) for label in names), *cells]
            for names, cells in zip(labels, block.to_numpy().tolist(), strict=True)]


# Typed from the papers.
SORN_VI = """BoW+Kissme 44.4 20.8 25.1 12.2
SVDNet 82.3 62.1 76.7 56.8
PAN (printed as PAN [45]) 82.8 63.4 71.7 51.5
PAR 81.0 63.4 - -
PAN (printed as PAN [20]) 82.0 63.0 - -
DSR 83.5 64.2 - -
Triplet loss 84.9 69.1 - -
Quadruplet loss 86.3 72.2 73.4 58.0
AOS 86.5 78.3 79.1 62.1
APR 87.0 66.9 73.9 55.6
DPFL 88.9 73.1 79.2 60.6
MLFN 90.0 74.3 81.0 62.8
PCB 92.4 77.3 81.9 65.3
SPReID 92.3 80.5 83.8 69.3
PGFA 91.2 76.8 82.6 65.5
SORN (ours) 94.8 84.5 86.9 74.1"""
ESA_4 = """g 76.33 70.59 0.84
w 75.31 65.79 0.79
d 76.00 66.39 0.81
our 78.6 73.6 0.86"""
DSA_2 = """IDE(ECCV18) 85.3 68.5 43.8 38.9 - - - - 73.2 52.8
Gp-reid(Arxiv18) 92.2 81.2 - - - - - - 85.2 72.8
Spindle(CVPR17) 76.9 - - - - - 79.9 94.4 - -
PIE(Arxiv17) 78.7 53.9 - - - - - - - -"""
DSA_2_LAST = "DSA-reID 95.7 87.6 78.9 75.2 78.2 73.1 90.4 97.8 86.2 74.3"
SORN_II = """w/o SPC Loss: Global Features 51.5 66.5 71.9 41.6
w/o SPC Loss: Global+Local Features 50.0 63.2 68.5 41.0
w/o SPC Loss: SORN 55.3 71.4 77.1 44.3
SPC Loss: Global Features 54.1 69.7 74.3 44.1
SPC Loss: Global+Local Features 50.2 65.1 70.9 41.7
SPC Loss: SORN 57.6 73.7 79.0 46.3"""


def typed(text, columns):
    """Lines of a table in a paper: labels, then figures."""
    split = [line.rsplit(maxsplit=columns) for line in text.splitlines()]
    return [[*label.split(": "), *figures] for label, *figures in split]


@pytest.mark.parametrize(("paper", "number", "expected", "heads"), [
    ("sorn", "VI", typed(SORN_VI, 4), ["Market-1501 rank-1", "Market-1501 mAP", "DukeMTMC-reID rank-1",
                                       "DukeMTMC-reID mAP"]),
    ("sorn", "II", typed(SORN_II, 4), [f"Occluded-DukeMTMC {name}" for name in ("rank-1", "rank-5", "rank-10", "mAP")]),
    ("esa", "4", typed(ESA_4, 3), ["Partial-REID rank-1", "Partial-iLIDS rank-1", "Drama-ReID PR-AUC"])])
def test_a_table_is_laid_out_as_in_the_paper(paper, number, expected, heads):
    shown = printed_alone(paper, number)
    assert paper_block(shown) == expected
    assert [" ".join(names) for names in shown.cells[table_formats.PAPER].columns] == heads


def test_columns_that_no_cited_row_fills_in_order_stand_as_in_the_paper():
    shown = printed_alone("dsa", "2")
    names = [names for names in shown.cells[table_formats.PAPER].columns]
    assert list(dict.fromkeys(name for name, _ in names)) == [
        "Market-1501", "CUHK03 labeled", "CUHK03 detected", "CUHK01", "DukeMTMC-reID"]
    assert paper_block(shown)[:4] == typed(DSA_2, 10) and paper_block(shown)[-1] == typed(DSA_2_LAST, 10)[0]


def test_there_are_25_tables():
    assert len(TABLES) == 25


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_every_table_prints_all_its_figures_without_results(paper, number):
    shown, lines = printed_alone(paper, number), read_printed(PRINTED, paper, number)
    figures = [cell for row in paper_block(shown) for cell in row[shown.cells.index.nlevels:] if cell != "-"]
    assert sorted(figures) == sorted(line.value for line in lines)
    for text in (as_markdown(shown), as_latex(shown), as_html(shown)):
        assert all(line.value in text for line in lines)
    assert set(shown.cells[table_formats.MINUS].to_numpy().ravel()) <= {"", "-"}
    assert all(re.fullmatch(r"not here \[[a-z]\]|-|", cell)
               for cell in shown.cells[table_formats.HERE].to_numpy().ravel())


def test_notes_belong_to_rows_that_are_there():
    with open(NOTES, encoding="utf-8", newline="") as file:
        notes = list(csv.DictReader(file))
    for note in notes:
        rows = {line.row for line in read_printed(PRINTED, note["paper"], note["table"])}
        assert note["note"].endswith(".") and note["row"] in rows | {""}, note


def test_letters_do_not_run_out():
    """A table of many rows of which another profile has the runs: a reason each."""
    lines = read_printed(PRINTED, "sorn", "III")
    places = {(line.row, line.setting, line.dataset): None for line in lines if line.is_own}
    own = {place: Own("r", (), "synth", False, f"make run {number}") for number, place in enumerate(places)}
    own |= {(f"{row}, again", setting, data): Own("r", (), "synth", False, f"make run {number} again")
            for number, (row, setting, data) in enumerate(places)}
    again = [replace(line, row=f"{line.row}, again") for line in lines if line.is_own]
    shown = show(compare([*lines, *again], own, {}), key="k", paper="sorn", table="III", caption="t", notes=[],
                 remarks=[])
    letters = [letter for letter, text in shown.notes if text.startswith("make run")]
    assert len(letters) == len(set(letters)) == 2 * len(places) > 26 and letters[25:28] == ["z", "aa", "ab"]


def test_columns_that_share_a_counterpart_stand_once():
    lines = read_printed(PRINTED, "sorn", "VI")
    own = {("SORN (ours)", "", name): Own("r", (), "synth-holistic", True, "") for name in
           ("market1501", "dukemtmc-reid")}
    scores = {"r": {0: {"synth-holistic": {"rank1": Score(12.5, 10.0, 15.25), "mAP": Score(7.0)}}}}
    shown = show(compare(lines, own, scores), key="k", paper="sorn", table="VI", caption="t", notes=[], remarks=[])
    assert list(shown.cells[table_formats.HERE].columns) == [("synth-holistic", "rank-1"), ("synth-holistic", "mAP")]
    assert shown.cells[table_formats.HERE].loc["SORN (ours)"].tolist() == ["12.50 [10.00, 15.25]", "7.00"]
    assert shown.cells[table_formats.MINUS].loc["SORN (ours)"].tolist() == ["-82.30", "-77.50", "-74.40", "-67.10"]


@pytest.mark.parametrize(("data", "theirs", "others"), [("partial-reid", "partial", "occluded"),
                                                          ("partial-reid-occluded", "occluded", "partial"),
                                                          ("real-partial-reid-occluded", "occluded", "partial")])
def test_a_table_says_which_of_partial_reid_s_probes_are_its_paper_s(data, theirs, others):
    own = {("SGAM", "trained on market1501", "partial-reid"): Own("r", (), data, True, "")}
    (sentence,) = remarks(own, {}, rendered=[], networks={}, seeds={})
    assert sentence.startswith(f"Partial-REID, {theirs} probes: ") and f"Partial-REID, {others} probes too" in sentence
    lines = [line for line in read_printed(PRINTED, "sgam", "2") if line.dataset == "partial-reid"]
    scores = {"r": {0: {data: {name: Score(50.0) for name in ("rank1", "rank3")}}}}
    shown = show(compare(lines, own, scores), key="k", paper="sgam", table="2", caption="t", notes=[], remarks=[])
    assert {name for name, _ in shown.cells[table_formats.HERE].columns} == {f"Partial-REID, {theirs} probes"}
    assert {name for name, _ in shown.cells[table_formats.PAPER].columns} == {"Partial-REID"}


def test_a_table_in_three_forms(folders):
    write_result(folders, "sorn-synth-holistic", {"synth-holistic": (80.0, 60.0), "synth-partial": (20.0, 10.0)},
                 rank3=0.3125)
    made = table(folders, "sorn", "V", sorn_v(), rendered=("synth-partial",))
    own = made.frame[made.frame["own"]]
    assert dict(zip(zip(own["dataset"], own["metric"], strict=True), own["here"], strict=True)) == {
        ("partial-reid", "rank1"): 20.0, ("partial-reid", "rank3"): 31.25,
        ("partial-ilids", "rank1"): 20.0, ("partial-ilids", "rank3"): 31.25}
    for text in (as_markdown(made.shown), as_latex(made.shown), table_page(made)):
        assert "20.00 [19.00, 21.00]" in text and "-56.70" in text and "8,000 image steps" in text
        assert "synth-partial (rendered people) for Partial-REID and Partial-iLIDS" in text
    assert "synth-partial (real people) for" in as_markdown(table(folders, "sorn", "V", sorn_v()).shown)


def test_a_data_set_that_is_not_here_is_named_with_what_to_do(folders):
    write_result(folders, "sgsfa", {"market1501": (92.5, 80.0)}, train_on="market1501")
    own = {("SGSFA", "", "market1501"): Own("sgsfa", (), "market1501", False, ""),
           ("SGSFA", "", "dukemtmc-reid"): Own("sgsfa-duke", (), "dukemtmc-reid", False,
                                               "put dukemtmc-reid in /data/duke")}
    text = as_markdown(table(folders, "sgsfa", "6", own).shown)
    ours = next(line for line in text.splitlines() if line.startswith("| SGSFA"))
    cells = [cell.strip() for cell in ours.strip("|").split("|")]
    mark = cells[7].removeprefix("not here ")
    assert cells[1:] == ["92.3", "80.2", "84.7", "70.8", "92.50 [91.50, 93.50]", "80.00 [78.00, 82.00]",
                         f"not here {mark}", f"not here {mark}", "+0.20", "-0.20", "-", "-"]
    assert f"\n{mark} put dukemtmc-reid in /data/duke\n" in text and "Do what the mark says" in text
    assert "stand in the place" not in text and "withdrawn by its authors" in text


class Reader(HTMLParser):
    """Anchors, links and cells of a page; fails on tags left open."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.open, self.cells = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag != "meta":
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_one_page_has_all_tables(folders):
    write_result(folders, "sorn-synth-holistic", {"synth-holistic": (80.0, 60.0), "synth-partial": (20.0, 10.0)})
    five = table(folders, "sorn", "V", sorn_v())
    six = table(folders, "sorn", "VI", {("SORN (ours)", "", name): Own("sorn-synth-holistic", (), "synth-holistic",
                                                                       True, "")
                                        for name in ("market1501", "dukemtmc-reid")})
    seen = Reader(tables_page([five, six]))
    assert seen.ids == ["overview", "sorn-V", "sorn-VI"]
    assert seen.links == [f"#{anchor}" for anchor in seen.ids]
    assert seen.cells[7:21] == ["SORN, Table V", "1", "4 of 4", "-", "-", "-", "-",
                                "SORN, Table VI", "1", "4 of 4", "-", "-", "-", "-"]
    alone = Reader(table_page(six))
    assert alone.cells == seen.cells[-len(alone.cells):]


def test_today_s_field_stands_on_the_page_as_what_others_print(folders):
    write_result(folders, "sorn-synth-holistic", {"synth-holistic": (80.0, 60.0), "synth-partial": (20.0, 10.0)})
    field = read_field(PRINTED.parent / "field.csv")
    assert all(all(row.values()) for row in field)  # each says where it stands and what it needs
    assert ("DDRN", "62.4", "71.3") in {(row["method"], row["mAP"], row["rank1"]) for row in field}
    seen = Reader(tables_page([table(folders, "sorn", "V", sorn_v())], field))
    assert seen.ids == ["overview", "field", "sorn-V"]
    first = seen.cells.index("method")
    assert seen.cells[first + 7:first + 11] == ["KPR, prompted", "Swin-B + SOLIDER", "Occluded-DukeMTMC", "75.1"]


def test_the_paper_s_text_cannot_break_the_forms():
    lines = [Printed("sorn", "I", "T", "<b> & 50% | a_b {x} \\y", True, "market1501", "", "rank1", "1.0")]
    shown = show(compare(lines, {}, {}), key="k", paper="sorn", table="I", caption="A & B <c>",
                 notes=[("", "100% of_it & more")], remarks=[])
    assert Reader(f"<p>{as_html(shown)}</p>").cells[-3:] == ["1.0", "not here [a]", "-"]
    row = next(line for line in as_markdown(shown).splitlines() if line.startswith("| <b>"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    text = as_latex(shown)
    label = r"\textless{}b\textgreater{} \& 50\% \textbar{} a\_b \{x\} \textbackslash{}y"
    assert f"{label} & 1.0 & not here [a] & -" in text
    assert r"100\% of\_it \& more" in text and r"A \& B \textless{}c\textgreater{}" in text


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_latex_rows_have_their_columns_and_nothing_unescaped(paper, number):
    text = as_latex(printed_alone(paper, number))
    assert text.count("{") == text.count("}")
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") > 0
    for body in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL):
        spec = re.match(r"\\begin\{tabular\}\{(\w+)\}", body).group(1)
        for line in body.splitlines():
            if line.endswith(r"\\"):
                wide = [int(count) for count in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(wide) - len(wide) == len(spec), line
    plain = re.sub(r"% needs.*", "", text).replace("{!}{%", "")
    assert not re.search(r"(?<!\\)[%#$_^~]", plain)


def test_latex_escapes_are_undone_by_their_meaning():
    back = {value: key for key, value in table_formats.LATEX.items()}
    text = "".join(table_formats.LATEX) + "plain 1-2"
    pattern = "|".join(sorted(map(re.escape, back), key=len, reverse=True))
    assert re.sub(pattern, lambda found: back[found.group()], latex(text)) == text


def test_the_examples_in_the_docstrings_hold():
    for module in (paper_tables, table_formats):
        assert doctest.testmod(module).failed == 0
