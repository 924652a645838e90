"""The papers' tables compared with ours: differences, signs and order in plain numbers; which results are read."""

import itertools

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.reporting.paper_tables import (
    Own,
    Printed,
    Score,
    compare,
    mean_agreement,
    order_agreement,
    read_field,
    read_notes,
    read_own,
    read_printed,
    read_seeds,
)
from tests.helpers.paper_tables import PRINTED, sorn_v, table, write_result

OWN_ROWS = {"full": 60.0, "less": 50.0, "other": 55.0, "same": 60.0}


def toy(seeds, rows=OWN_ROWS):
    """A table of `rows` (the paper's figures) and ours: row -> a figure for each seed."""
    lines = [Printed("sorn", "I", "T", "cited", False, "market1501", "", "rank1", "70.0")]
    lines += [Printed("sorn", "I", "T", row, True, "market1501", "", "rank1", str(value))
              for row, value in rows.items()]
    own = {(row, "", "market1501"): Own(row, (), "set", row == "full", "") for row in rows}
    scores = {row: {seed: {"set": {"rank1": Score(value)}} for seed, value in enumerate(values)}
              for row, values in seeds.items()}
    return compare(lines, own, scores).set_index("row")


def test_differences_are_to_the_paper_and_to_the_full_model():
    frame = toy({"full": [40.0], "less": [31.5], "other": [44.25], "same": [40.0]})
    assert frame["here_minus_paper"].to_dict() == pytest.approx(
        {"cited": np.nan, "full": -20.0, "less": -18.5, "other": -10.75, "same": -20.0}, nan_ok=True)
    assert frame["here_minus_full"].to_dict() == pytest.approx(
        {"cited": np.nan, "full": np.nan, "less": -8.5, "other": 4.25, "same": 0.0}, nan_ok=True)
    assert frame["paper_minus_full"].to_dict() == pytest.approx(
        {"cited": np.nan, "full": np.nan, "less": -10.0, "other": -5.0, "same": 0.0}, nan_ok=True)
    assert set(frame["verdict"]) == {"", "undecided (one seed)"}


def test_signs_are_judged_by_paired_intervals():
    full = [40.0, 50.0, 45.0]  # seeds differ more than rows do: unpaired intervals would decide nothing
    frame = toy({"full": full, "less": [35.0, 46.0, 39.5], "other": [44.0, 54.5, 49.9], "same": [41.0, 48.0, 46.0]})
    for row in ("less", "other", "same"):
        differences = {"less": [-5.0, -4.0, -5.5], "other": [4.0, 4.5, 4.9], "same": [1.0, -2.0, 1.0]}[row]
        mean = sum(differences) / 3
        spread = (sum((each - mean) ** 2 for each in differences) / 2) ** 0.5
        half = 4.3027 * spread / 3 ** 0.5  # Student's t, 97.5 %, 2 degrees of freedom, from a printed table
        assert frame.loc[row, ["here_minus_full", "minus_full_low", "minus_full_high"]].tolist() == pytest.approx(
            [mean, mean - half, mean + half], abs=0.006)
    assert frame["verdict"].to_dict() == {"cited": "", "full": "", "less": "agree", "other": "disagree",
                                          "same": "undecided (equal in the paper)"}
    assert toy({"full": full, "less": [39.0, 52.0, 44.0], "other": full, "same": full}).loc["less", "verdict"] \
        == "undecided"


def test_seeds_are_paired_by_number():
    lines = [Printed("sorn", "I", "T", row, True, "market1501", "", "rank1", "1.0") for row in ("full", "less")]
    own = {(row, "", "market1501"): Own(row, (), "set", row == "full", "") for row in ("full", "less")}
    at = {seed: {"set": {"rank1": Score(10.0 * seed)}} for seed in (0, 1, 2)}
    above = {seed: {"set": {"rank1": Score(10.0 * seed + 1)}} for seed in (0, 2)}
    frame = compare(lines, own, {"full": at, "less": above})
    assert frame["here_minus_full"][1] == 1.0 and frame["verdict"][1] == "undecided (2 seeds)"


def naive_tau(one, other):
    """Kendall's tau-b by counting pairs."""
    agreeing = untied_one = untied_other = 0
    for (a, b), (c, d) in itertools.combinations(zip(one, other, strict=True), 2):
        agreeing += np.sign(a - c) * np.sign(b - d)
        untied_one, untied_other = untied_one + (a != c), untied_other + (b != d)
    return agreeing / (untied_one * untied_other) ** 0.5


def test_the_order_of_rows_is_kendalls_tau():
    draw = np.random.default_rng(0)
    for _ in range(20):
        ours = draw.integers(30, 34, len(OWN_ROWS)).astype(float)
        frame = toy({row: [value] for row, value in zip(OWN_ROWS, ours, strict=True)}).reset_index()
        assert order_agreement(frame) == []  # one seed: every difference is undecided
        frame["verdict"] = ""
        (dataset, metric, count, tau), = order_agreement(frame)
        assert (dataset, metric, count) == ("market1501", "rank1", 4)
        if len(set(ours)) == 1:
            assert tau is None and mean_agreement(frame) is None
        else:
            assert tau == pytest.approx(naive_tau(list(OWN_ROWS.values()), ours)) == mean_agreement(frame)


def test_orders_that_cancel_are_a_plain_zero():
    """A tau of 1 and three of -1/3, whose sum in floats is a little below 0."""
    metrics = ("rank1", "rank5", "rank10", "mAP")
    ours = {"full": (3, 1, 1, 1), "a": (2, 3, 3, 3), "b": (1, 2, 2, 2)}
    lines = [Printed("sorn", "I", "T", row, True, "market1501", "", metric, paper)
             for metric in metrics for row, paper in (("full", "3.0"), ("a", "2.0"), ("b", "1.0"))]
    own = {(row, "", "market1501"): Own(row, (), "set", row == "full", "") for row in ours}
    scores = {row: {0: {"set": dict(zip(metrics, map(Score, values), strict=True))}} for row, values in ours.items()}
    assert f"{mean_agreement(compare(lines, own, scores).assign(verdict='')):.2f}" == "0.00"


def test_undecided_rows_have_no_place_in_the_order():
    frame = toy({"full": [40.0, 50.0, 45.0], "less": [35.0, 46.0, 39.5], "other": [39.0, 52.0, 44.0],
                 "same": [44.0, 54.5, 49.9]}).reset_index()
    assert frame["verdict"].tolist()[1:] == ["", "agree", "undecided", "undecided (equal in the paper)"]
    assert [count for _, _, count, _ in order_agreement(frame)] == [2]


def test_exactly_the_named_seeds_are_read(folders):
    for name, seed in (("a", 0), ("a-seed1", 1), ("a-seed2", 2), ("b", 4)):
        write_result(folders, name, {"d": (50.0 + seed, 40.0)}, seed=seed)
    write_result(folders, "a-seed3", {"d": (1.0, 1.0)}, seed=3)  # lies there, but nobody names it
    seeds, provenance = read_seeds(["a", "a-seed1", "a-seed2"], **folders)
    assert {seed: scores["d"]["rank1"].value for seed, scores in seeds.items()} == {0: 50.0, 1: 51.0, 2: 52.0}
    assert provenance["d"]["seed"] == 0
    own = {("x", "", "d"): Own("a", ("a-seed2",), "d", True, ""), ("y", "", "d"): Own("b", (), "d", False, ""),
           ("z", "", "d"): Own("absent", (), "d", False, "put it there")}
    scores, _ = read_own(own.values(), **folders)
    assert {name: list(seeds) for name, seeds in scores.items()} == {"a": [0, 2], "b": [4]}


def test_what_made_a_result_is_said_of_the_rows_own_data_set(folders):
    """It was that of the first by name, whose protocol may be another."""
    write_result(folders, "a", {"c": (10.0, 10.0), "d": (50.0, 40.0)})
    path = folders["results"] / "a/c.json"
    path.write_text(path.read_text().replace('"market"', '"partial-ilids"'))
    _, provenance = read_own([Own("a", (), "d", True, "")], **folders)
    assert {data: made["protocol"] for data, made in provenance["a"].items()} == {"d": "market"}


def test_intervals_over_queries_are_not_shown(folders):
    """Results of before do not say what theirs are; the metrics themselves are read."""
    write_result(folders, "new", {"d": (50.0, 40.0)})
    write_result(folders, "old", {"d": (50.0, 40.0)}, seed=1, intervals=None)
    scores, _ = read_seeds(["new", "old"], **folders)
    assert scores[0]["d"]["mAP"] == Score(40.0, 38.0, 42.0)
    old = scores[1]["d"]["mAP"]
    assert old.value == 40.0 and np.isnan([old.low, old.high]).all()


@pytest.mark.parametrize("made,said", [
    ({"image_steps": 9}, "image_steps 9, and 'a', of which .* has 8000"),
    ({"flip": "mean"}, "flip 'mean', and .* None"),
    ({"checkpoint": {"sha256": "b"}}, "checkpoint .*, and .* None"),
    ({"ignored": {"query": 1}}, "ignored .*, and .* None; let them differ in `seed` alone"),
    ({"code": "earlier"}, "code 'earlier', and .* None; make both with `dvc repro`")])
def test_seeds_that_were_made_otherwise_are_refused(folders, made, said):
    write_result(folders, "a", {"d": (50.0, 40.0)})
    write_result(folders, "a-seed1", {"d": (50.0, 40.0)}, seed=1, **made)
    with pytest.raises(InputError, match=f"'a-seed1' on 'd': has {said}"):
        read_seeds(["a", "a-seed1"], **folders)


def test_seeds_are_held_together_on_each_data_set_that_both_have(folders):
    """It was the first by name alone, while a table may show another."""
    for name, seed in (("a", 0), ("a-seed1", 1), ("a-seed2", 2)):
        write_result(folders, name, {"c": (50.0, 40.0), "d": (50.0, 40.0)}, seed=seed)
    (folders["results"] / "a-seed1/c.json").unlink()  # scored on fewer sets is no other making
    assert list(read_seeds(["a", "a-seed1", "a-seed2"], **folders)[0]) == [0, 1, 2]
    path = folders["results"] / "a-seed2/d.json"
    path.write_text(path.read_text().replace('"cosine"', '"euclidean"'))
    with pytest.raises(InputError, match="'a-seed2' on 'd': has distance 'euclidean', and 'a', .* has 'cosine'"):
        read_seeds(["a", "a-seed1", "a-seed2"], **folders)


def test_two_of_one_seed_are_refused(folders):
    write_result(folders, "a", {"d": (50.0, 40.0)})
    write_result(folders, "a-again", {"d": (50.0, 40.0)})
    with pytest.raises(InputError, match="'a-again': has seed 0, as another of a, a-again has"):
        read_seeds(["a", "a-again"], **folders)


HEADS = {"tables": "paper,table,table_title,row,is_own,dataset,setting,metric,value", "notes": "paper,table,row,note",
         "field": "method,backbone,dataset,mAP,rank1,source,needs"}
READERS = {"tables": lambda path: read_printed(path, "esa", "2"), "notes": lambda path: read_notes(path, "esa", "2"),
           "field": read_field}
LINES = {"tables": ("esa,2,T,\"a, b\",1,market1501,,rank1,5.0", "esa,2,T,a, b,1,market1501,,rank1,5.0"),
         "notes": ("esa,2,r,\"one, two\"", "esa,2,r,one, two"),
         "field": ("X,ViT,p,1,2,\"S, ECCV 2024\",weights", "X,ViT,p,1,2,S, ECCV 2024,weights")}


@pytest.mark.parametrize("name", HEADS)
def test_the_papers_files_are_read_by_their_columns_or_refused(tmp_path, name):
    """A comma that was not quoted dropped what stood behind it."""
    path, head, (line, unquoted) = tmp_path / f"{name}.csv", HEADS[name], LINES[name]
    count = head.count(",") + 1

    def stops(data: bytes, message: str) -> None:
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.csv': {message}.*`git checkout .*{name}.csv`$"):
            READERS[name](path)

    with pytest.raises(InputError, match=f"{name}.csv': cannot be read .*No such file.*`git checkout"):
        READERS[name](path)
    path.write_text(f"{head}\n{line}\n", encoding="utf-8")
    plain = READERS[name](path)
    assert len(plain) == 1 and ("a, b" in str(plain) or "one, two" in str(plain) or "S, ECCV 2024" in str(plain))
    path.write_text(f"{head}\r\n{line}\r\n\r\n", encoding="utf-8-sig")
    assert READERS[name](path) == plain, "as spreadsheets write it"

    stops(f"{head}\n{line}\n{unquoted}\n".encode(),
          f"line 3 has {count + 1} cells for {count} columns; quote what holds a comma")
    stops(f"{head}\nesa,2\n".encode(), f"line 2 has 2 cells for {count} columns")
    lacking = head.rpartition(",")[0]
    stops(f"{lacking}\n".encode(), f"its first line has {lacking.replace(',', ', ')}, not {head.replace(',', ', ')};")
    stops(f"{head}\n{line}\n".replace(",", ";").encode(), "its first line has ")
    stops(b"", "its first line has nothing, not ")
    stops(f"{head}\n{line}\n".encode("utf-16"), "cannot be read .*utf-8")
    stops(f'{head}\n{line}\n"esa,2\n'.encode(), "cannot be read .unexpected end of data")


@pytest.mark.parametrize(("line", "said"), [
    ("esa,2,T,r,yes,market1501,,rank1,5.0", "has is_own 'yes'; write one of 0, 1, or"),
    ("esa,2,T,r,1,market,,rank1,5.0", "has dataset 'market'; write one of market1501, dukemtmc-reid, "),
    ("esa,2,T,r,1,market1501,,rank-1,5.0", "has metric 'rank-1'; write one of rank1, rank3, "),
    ("esa,2,T,r,1,market1501,,rank1,5O.0", "has value '5O.0'; write the number that the paper prints, 0 to 100"),
    ("esa,2,T,r,1,market1501,,rank1,500", "has value '500'; write the number that the paper prints, 0 to 100"),
    ("esa,2,T,r,1,market1501,,rank1,nan", "has value 'nan'"), ("esa,2,T,r,1,market1501,,rank1,", "has value ''"),
    ("esa,2,T,r,1,market1501,,pr_auc,78", "has value '78'; write the number that the paper prints, 0 to 1,"),
    ("esa,2,T,q,1,market1501,,rank1,6.0", "says again what a line above says; take one out, or `git checkout ")])
def test_a_cell_that_no_table_prints_is_named(tmp_path, line, said):
    """They were a KeyError or a ValueError, a cited row in the place of an own one, or the last of two."""
    path, good = tmp_path / "tables.csv", "esa,2,T,q,1,market1501,,rank1,5.0"
    path.write_text(f"{HEADS['tables']}\n{good}\nsorn,I,T,r,x,x,,x,x\n")
    assert [printed.value for printed in read_printed(path, "esa", "2")] == ["5.0"], "another table's are not looked at"
    path.write_text(f"{HEADS['tables']}\n{good}\n{line}\n")
    with pytest.raises(InputError, match=f"tables.csv': line 3 {said}"):
        read_printed(path, "esa", "2")


def test_unknown_tables_and_damaged_results_are_named(folders):
    with pytest.raises(InputError, match="has no table 'VII' of paper 'sorn'"):
        read_printed(PRINTED, "sorn", "VII")
    with pytest.raises(InputError, match="sorn-synth-holistic.: has no metrics; make them with"):
        table(folders, "sorn", "V", sorn_v())
    write_result(folders, "sorn-synth-holistic", {"synth-holistic": (1.0, 1.0)})
    with pytest.raises(InputError, match="has no rank1 on 'synth-partial'"):
        table(folders, "sorn", "V", sorn_v())
    curve = folders["curves"] / "sorn-synth-holistic.csv"
    curve.write_text("run,dataset,rank,cmc\nsorn-synth-holistic,synth-holistic,1,0.5\n")
    with pytest.raises(InputError, match="dvc repro evaluate@sorn-synth-holistic"):
        table(folders, "sorn", "V", sorn_v())
    curve.unlink()
    with pytest.raises(InputError, match="sorn-synth-holistic.csv': cannot be read as CSV"):
        table(folders, "sorn", "V", sorn_v())
