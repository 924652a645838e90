"""Results and their tables: what is read is what the files hold; tables, plots and pages say it unchanged."""

import csv
import doctest
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import pipeline.reporting.results
from pipeline.base.errors import InputError
from pipeline.reporting import html_page, plots
from pipeline.reporting.results import (
    METRICS,
    Table,
    as_csv,
    as_markdown,
    best_cells,
    dataset_table,
    differing,
    leading,
    parser_table,
    read_results,
)
from tests.helpers.results import write_result

PROVENANCE = {"model": "baseline", "seed": 0, "image_steps": 640, "init": "none", "train_on": "people", "caches": {},
              "distance": "euclidean", "reduction": "mean", "protocol": "market", "versions": {"torch": "2.13"}}
CHANGES = {"amethod": {"model": "sorn", "init": "imagenet", "versions": {"torch": "2.14"},
                       "caches": {"data/cache/people/parts.h5": {"sha256": "0123456789abcdef" * 4, "maker": {}}}},
           "amethod-seed1": {"model": "sorn", "seed": 1}, "baseline": {}, "histogram": {"model": "histogram",
                                                                                        "image_steps": 0},
           "untrained": {"image_steps": 0}}
PARSER = {"miou8": 0.75, "pixel_accuracy": 0.9, "uv_error": 0.05,
          "iou": {"background": 0.95, "head": 0.55, "foot": None}, "images": 30, "image_steps": 320,
          "architecture": "lraspp"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five results on one data set, as `evaluate` writes them, and one that is none."""
    for number, (name, changes) in enumerate(CHANGES.items()):
        write_result(tmp_path / name, {"people": metrics(number)}, PROVENANCE | changes)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/people.json").write_text(json.dumps({"loss": 0.5}))
    return tmp_path


def metrics(number: int, **counts: int) -> dict:
    return {"rank1": 10.0 * number, "mAP": 40.0 - number, "mINP": 1.25, "details": [
        {"rank5": 50.5, "rank10": 60.0} | {"queries": 4, "skipped": 1, "gallery": 5} | counts]}


class Reader(HTMLParser):
    """Collects what a page loads, its tables and its text; fails on tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.loads += [given[name] for name in ("src", "href") if name in given]
        assert tag not in ("link", "iframe", "object")
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            return  # tests/reporting/test_viewer.py runs it
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_the_named_results_are_read_controls_first(folder):
    results = read_results(folder, [*CHANGES])
    assert [result.name for result in results] == ["histogram", "untrained", "baseline", "amethod", "amethod-seed1"]
    assert [result.name for result in leading(results)] == ["histogram", "untrained", "baseline", "amethod"]
    for result in results:
        content = json.loads((folder / result.name / "people.json").read_text())
        shown = content | content["details"][0]
        assert {name: result.metrics[name] for name in METRICS} == {name: shown[name] for name in METRICS}
        assert result.provenance == content["provenance"][0]
    assert [result.name for result in read_results(folder, ["amethod"])] == ["amethod"], "nothing else is looked at"


def test_the_table_is_the_same_on_the_page_in_markdown_and_in_csv(folder):
    results = read_results(folder, [*CHANGES])
    table = dataset_table("people", results, rendered={"people"}, trained={"people": (5, 5)})
    cells = list(csv.reader(io.StringIO(as_csv(table))))
    for row, result in zip(cells[1:], results, strict=True):
        assert row[0] == result.name
        assert [float(cell) for cell in row[1:6]] == [result.metrics[name] for name in
                                                      ("rank1", "rank5", "rank10", "mAP", "mINP")]
    assert cells[1][6:] == ["-", "-", "-", "-"] and cells[2][6:] == ["-", "-", "random", "0"]
    assert cells[4][6:] == ["people", "640", "imagenet", "0"]
    marked = [line.strip("| ").split(" | ") for line in as_markdown(table).splitlines()
              if line.startswith("|") and "---" not in line]
    assert marked == cells == read_page(html_page.table_html(table)).tables[0]
    for sentence in ("4 queries scored, 1 skipped, against 5 gallery images", "has 5 images of 5 people",
                     "Data set people (rendered people)", "Protocol market: Market-1501's camera rule",
                     "start: random weights or ImageNet weights; pictures seen: 640; seeds 0, 1; last epoch"):
        assert sentence in table.note, sentence


def test_who_is_rendered_is_said_and_not_guessed(folder):
    """A rendered set may bear any name, and so may a real one."""
    write_result(folder / "a", {"synth-real": metrics(1)}, PROVENANCE)
    write_result(folder / "a", {"market": metrics(2)}, PROVENANCE | {"protocol": "occluded-duke"})
    notes = {result.dataset: dataset_table(result.dataset, [result], rendered=("market",), trained={}).note
             for result in read_results(folder, ["a"])}
    assert "synth-real (a data set of real people)" in notes["synth-real"]
    assert "Protocol market: " in notes["synth-real"]
    assert "market (rendered people)" in notes["market"] and "Protocol occluded-duke: " in notes["market"]


def test_results_made_differently_stand_apart(folder):
    results = read_results(folder, ["baseline", "amethod", "amethod-seed1"])
    assert differing(results, "versions") == ["baseline, amethod-seed1: torch 2.13", "amethod: torch 2.14"]
    assert differing(results, "caches")[1] == "amethod: data/cache/people/parts.h5 0123456789ab..."


def test_the_parser_s_table():
    table = parser_table(PARSER, parser="lraspp", data="parsing")
    assert table.columns == ["parser", "mean IoU", "background", "head", "foot", "pixel accuracy", "u,v error"]
    assert table.rows == [["lraspp", "0.750", "0.950", "0.550", "-", "0.900", "0.050"]]
    with pytest.raises(InputError, match="the scores of parser 'lraspp' lack 'pixel_accuracy'"):
        parser_table({"miou8": 0.5}, parser="lraspp", data="parsing")


def test_wrong_results_are_named(folder):
    def stops(message: str, *names: str) -> None:
        with pytest.raises(InputError, match=message):
            read_results(folder, names)

    stops("no result is named")
    stops("absent': has no metrics; make them with `dvc repro evaluate@absent`", "baseline", "absent")
    stops("other/people.json': is no result of `evaluate`; run `dvc repro evaluate@other`", "other")
    (folder / "other/people.json").write_text("{")
    stops("other/people.json': cannot be read as JSON", "other")
    write_result(folder / "old", {"people": {"rank1": 1.0, "mAP": 1.0, "mINP": 1.0, "details": [{}]}}, PROVENANCE)
    stops("old/people.json': is no result of `evaluate`; run `dvc repro evaluate@old`", "old")


def test_tables_of_odd_cells():
    table = Table("t", "T", ["run", "rank-1", "mAP"], [["a|b", "9.50", "1.00"], ['c,"d', "10.00", "1.00"]], "Note.")
    assert best_cells(table) == {(1, 1), (0, 2), (1, 2)}, "9.50 is less than 10.00; equal figures are both best"
    assert "| a\\|b | 9.50 | 1.00 |" in as_markdown(table)
    assert list(csv.reader(io.StringIO(as_csv(table)))) == [table.columns, *table.rows]
    assert read_page(html_page.table_html(table)).tables[0] == [table.columns, *table.rows]


def test_rows_counted_differently_are_said_so(folder):
    write_result(folder / "few", {"people": metrics(1, queries=3, skipped=0)}, PROVENANCE)
    note = dataset_table("people", read_results(folder, ["few", "baseline"]), rendered=(), trained={}).note
    assert "3 queries scored, 0 skipped, against 5 gallery images or, where runs differ, 4 queries scored" in note


def test_doctests():
    assert doctest.testmod(pipeline.reporting.results).failed == 0


def decode(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def count(picture: np.ndarray, colour: str | tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    wanted = tuple(bytes.fromhex(colour[1:])) if isinstance(colour, str) else colour
    return int((picture == np.array(wanted, np.uint8)).all(axis=2).sum())


def test_frames_say_who_is_right():
    def frames(*right: bool) -> tuple[int, int]:
        person = np.full((8, 4, 3), 128, np.uint8)
        found = [plots.ListedImage(person, f"{number}.jpg", number, value) for number, value in enumerate(right)]
        picture = decode(plots.rank_figure([(plots.ListedImage(person, "$q_$.jpg", 7), found)]))
        return count(picture, plots.RIGHT), count(picture, plots.WRONG)
    one = frames(True, False)
    around = (128 + 2 * plots.FRAME) * (256 + 2 * plots.FRAME) - 128 * 256
    assert one == (around, around)
    assert frames(True, True) == (2 * one[0], 0) and frames(False, False) == (0, 2 * one[0])


def test_parts_and_warps_are_drawn_in_place():
    labels = np.zeros((32, 16), np.uint8)
    labels[8:24, 4:12] = 2
    image = np.full((32, 16, 3), (10, 20, 30), np.uint8)
    picture = decode(plots.parse_figure([(image, labels, np.zeros((8, 4), np.uint8))]))
    whole = 128 * 256
    assert count(picture, (10, 20, 30)) == whole
    torso = tuple(plots.PART_COLOURS[2].tolist())
    assert count(picture, torso) == whole // 4 + 20 * 20, "the body's middle and the legend"
    parts = np.full((24, 8, 8, 3), (10, 200, 30), np.uint8)
    valid = np.zeros((24, 8, 8), np.uint8)
    valid[5, :4] = 1
    assert count(decode(plots.dsap_figure(image, parts, valid)), (10, 200, 30)) == 96 * 96 // 2


def test_heat_rises_with_entropy():
    colours = plots.heat(np.arange(256, dtype=np.uint8)[None])[0].astype(int)
    assert (np.diff(colours.sum(axis=1)) >= 0).all() and colours[0].sum() < 20 and colours[-1].sum() > 600
