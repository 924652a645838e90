"""Rows that stand beside a paper's own: shown with a note that says what they are, and counted nowhere."""

import re

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.reporting import table_formats
from pipeline.reporting.paper_page import PaperTable, tables_page
from pipeline.reporting.paper_tables import (
    Beside,
    Own,
    Printed,
    Score,
    compare,
    mean_agreement,
    order_agreement,
)
from pipeline.reporting.table_formats import as_html, as_latex, as_markdown, show, signs

OCCLUDED, PARTIAL, ILIDS = "partial-reid-occluded", "partial-reid", "partial-ilids"
NOTE = "Not the paper's own reading but beside it: {}; neither Kendall's tau nor the signs count it."


def printed() -> list[Printed]:
    """Three rows of a paper on two sets, the first cited."""
    values = {"cited": ("70.0", "60.0"), "Baseline": ("61.0", "51.0"), "Ours": ("78.7", "73.6")}
    return [Printed("esa", "2", "T", row, row != "cited", dataset, "", "rank1", value)
            for row, pair in values.items() for dataset, value in zip((PARTIAL, ILIDS), pair, strict=True)]


OWN = {(row, "", dataset): Own(row.lower(), (), data, row == "Ours", "")
       for row in ("Baseline", "Ours") for dataset, data in ((PARTIAL, OCCLUDED), (ILIDS, ILIDS))}
SCORES = {"baseline": {seed: {OCCLUDED: {"rank1": Score(20.0 + 1.1 * seed)}, PARTIAL: {"rank1": Score(25.0)},
                              ILIDS: {"rank1": Score(10.0 + 0.1 * seed)}} for seed in range(3)},
          "ours": {seed: {OCCLUDED: {"rank1": Score(30.0 + seed, 28.0, 32.0)}, PARTIAL: {"rank1": Score(35.0)},
                          ILIDS: {"rank1": Score(40.0)}} for seed in range(3)},
          "gated": {0: {OCCLUDED: {"rank1": Score(5.0)}, ILIDS: {"rank1": Score(99.0, 98.0, 100.0)}}}}


def beside(row: str, name: str, reading: str, result: str, data: dict[str, str], missing: str = "") -> list[Beside]:
    return [Beside((row, "", dataset), name, reading, Own(result, (), on, False, missing))
            for dataset, on in data.items()]


GATED = beside("Ours", "gated", "tau in Eq. 3 too", "gated", {PARTIAL: OCCLUDED, ILIDS: ILIDS})
OTHER = [one for row in ("Baseline", "Ours")
         for one in beside(row, "on partial-reid", "the same, scored on partial-reid", row.lower(),
                           {PARTIAL: PARTIAL})]


def shown(rows: list[Beside]) -> PaperTable:
    frame = compare(printed(), OWN, SCORES, rows)
    return PaperTable(frame, show(frame, key="esa-2", paper="esa", table="2", caption="T",
                                  notes=[("Ours", "A note of old.")], remarks=[]))


def labels(table: PaperTable) -> list[str]:
    return [re.sub(r" \[[a-z]\]", "", label) for label in table.shown.cells.index]


def test_they_stand_behind_their_row_and_have_metrics_of_ours_alone():
    table = shown([*GATED, *OTHER])
    assert labels(table) == ["cited", "Baseline", "beside Baseline: on partial-reid", "Ours", "beside Ours: gated",
                             "beside Ours: on partial-reid"]
    cells = table.shown.cells.set_axis(labels(table))
    for label in ("beside Ours: gated", "beside Ours: on partial-reid"):
        assert {*cells.loc[label, table_formats.PAPER], *cells.loc[label, table_formats.MINUS]} == {""}

    heads = ["Partial-REID, occluded probes", "Partial-iLIDS", "Partial-REID, partial probes"]
    here = cells[table_formats.HERE]
    assert [name for name, _ in here.columns] == heads
    assert here.loc["Ours"].tolist() == ["30.00 [28.00, 32.00]", "40.00", "-"]
    assert here.loc["beside Ours: gated"].tolist() == ["5.00", "99.00 [98.00, 100.00]", "-"]
    assert here.loc["beside Ours: on partial-reid"].tolist() == ["-", "-", "35.00"]
    assert here.loc["beside Baseline: on partial-reid"].tolist() == ["-", "-", "25.00"]
    assert here.loc["cited"].tolist() == ["", "", ""]


def test_one_sentence_says_what_each_is_in_every_form():
    table = shown([*GATED, *OTHER])
    mark = {label.split(" [")[0]: label[-2] for label in table.shown.cells.index if label.endswith("]")}
    assert list(mark) == ["beside Baseline: on partial-reid", "Ours", "beside Ours: gated",
                          "beside Ours: on partial-reid"] and len(set(mark.values())) == 3
    assert mark["beside Baseline: on partial-reid"] == mark["beside Ours: on partial-reid"]  # one sentence, one letter
    notes = dict(table.shown.notes)
    assert notes[mark["beside Ours: gated"]] == NOTE.format("tau in Eq. 3 too")
    assert notes[mark["beside Ours: on partial-reid"]] == NOTE.format("the same, scored on partial-reid")
    assert notes[mark["Ours"]] == "A note of old."
    for form in (as_markdown, as_latex, as_html):
        text = form(table.shown)
        assert "tau in Eq. 3 too" in text and "beside Ours: gated" in text and "99.00 [98.00, 100.00]" in text


def test_they_count_in_no_tau_no_sign_and_no_overview():
    alone, with_them = shown([]), shown([*GATED, *OTHER])
    assert order_agreement(with_them.frame) == order_agreement(alone.frame) == [
        (PARTIAL, "rank1", 2, 1.0), (ILIDS, "rank1", 2, 1.0)]
    assert mean_agreement(with_them.frame) == 1.0 and signs(with_them.frame) == signs(alone.frame)
    rows = with_them.frame[with_them.frame["beside"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone.frame)
    lines = with_them.frame[with_them.frame["beside"] != ""]
    assert len(lines) == 4 and not lines["own"].any() and np.isnan(lines["here_minus_paper"].astype(float)).all()
    assert set(lines["verdict"]) == {""} and set(lines["paper"]) == {""}
    assert with_them.shown.ablations.index.tolist() == alone.shown.ablations.index.tolist() == ["Baseline"]
    overview = r"<th scope=\"row\">ESA-ReID, Table 2</th>|ESA-ReID, Table 2</td>.*?</tr>"
    both = [re.search(overview, tables_page([table]), re.DOTALL).group() for table in (alone, with_them)]
    assert both[0] == both[1]


def test_what_is_missing_says_where_to_put_it_and_an_unscored_set_is_named():
    absent = beside("Ours", "on partial-reid", "the same", "ours", {PARTIAL: PARTIAL}, "put it in data/raw")
    table = shown(absent)
    row = table.shown.cells[table_formats.HERE].set_axis(labels(table)).loc["beside Ours: on partial-reid"].tolist()
    assert row[-1].startswith("not here [") and row[:-1] == ["-", "-"]
    assert dict(table.shown.notes)[row[-1][-2]] == "put it in data/raw"
    with pytest.raises(InputError, match="result 'gated' has no rank1 on 'partial-reid'; make it again"):
        shown(beside("Ours", "x", "y", "gated", {PARTIAL: PARTIAL}))


def test_beside_a_row_that_is_not_made_stands_nothing(monkeypatch):
    monkeypatch.setitem(OWN, ("Baseline", "", PARTIAL), Own("baseline", (), OCCLUDED, False, "make it"))
    assert "beside Baseline: on partial-reid" in labels(shown(OTHER))  # it is made on the other data set
    monkeypatch.setitem(OWN, ("Baseline", "", ILIDS), Own("baseline", (), ILIDS, False, "make it"))
    assert labels(shown(OTHER)) == ["cited", "Baseline", "Ours", "beside Ours: on partial-reid"]
