"""The report: what its tables and pictures show is what the result files and caches hold."""

import base64
import csv
import doctest
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from bare_params import bare_params

import pipeline.report
from pipeline import figures, page
from pipeline.errors import InputError
from pipeline.images import write_image
from pipeline.index import write_index
from pipeline.params import CacheParams, Params, ParserParams, RenderParams, ReportParams
from pipeline.report import Result, Table, as_csv, as_markdown, best_cells, dataset_table, parser_table, read_results
from stages import report as stage

ABOUT = {"model": "baseline", "seed": 0, "image_steps": 640, "init": "none", "train_on": "toy-people", "caches": {},
         "distance": "euclidean", "reduction": "mean", "protocol": "market", "versions": {"torch": "2.13"}}
RUNS = {"histogram": {"model": "histogram", "image_steps": 0}, "untrained": {"image_steps": 0}, "baseline": {},
        "amethod": {"model": "sorn", "init": "imagenet", "versions": {"torch": "2.14"},
                    "caches": {"data/cache/toy-people/parts.h5": {"sha256": "0123456789abcdef" * 4, "maker": {}}}}}
PARSER = {"miou8": 0.75, "pixel_accuracy": 0.9, "uv_error": 0.05,
          "iou": {"background": 0.95, "head": 0.55, "foot": None}, "images": 30, "image_steps": 320,
          "architecture": "lraspp"}
DATA = "toy-people"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder as the stages before leave it: 5 people with 3 pictures each, caches, four runs' results."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    names = [(f"{person:04d}_c{picture + 1}s1_{picture:06d}_00.jpg", person, picture)
             for person in range(5) for picture in range(3)]
    rows = [(f"{split}/{name}", f"{split}/{name}", person, picture + 1, split) for name, person, picture in names
            for split in [("query", "gallery", "train")[picture]]]
    for split in ("query", "gallery", "train"):
        Path("raw", split).mkdir(parents=True)
    for _, path, *_ in rows:
        write_image(Path("raw", path), draw.integers(0, 256, (32, 16, 3)).astype(np.uint8))
    write_index(pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"]), f"data/index/{DATA}.csv")
    Path("data/cache", DATA).mkdir(parents=True)
    for name, arrays in (("parts.h5", {"labels": (32, 16), "entropy": (8, 4)}),
                         ("dsap.h5", {"dsap": (24, 8, 8, 3), "valid": (24, 8, 8)})):
        with h5py.File(f"data/cache/{DATA}/{name}", "w") as file:
            file.create_dataset("key", data=sorted(row[0] for row in rows), dtype=h5py.string_dtype("utf-8", 64))
            for array, shape in arrays.items():
                file[array] = draw.integers(0, 2 if array == "valid" else 8, (15, *shape)).astype(np.uint8)
    for number, (run, changes) in enumerate(RUNS.items()):
        figure = {"rank1": 10.0 * number, "rank5": 50.5, "rank10": 60.0, "mAP": 40.0 - number, "mINP": 1.25,
                  "queries": 4, "skipped": 1, "gallery": 5}
        write("metrics", f"toy-{run}.json", json.dumps({DATA: figure, "_made": [ABOUT | changes]}))
        write("curves", f"toy-{run}.csv", "run,dataset,rank,cmc\n" + "".join(
            f"toy-{run},{DATA},{rank},{min(1, 0.1 * number + 0.05 * rank):.4f}\n" for rank in range(1, 51)))
        write("ranks", f"toy-{run}.csv", "dataset,query,position,gallery,distance,match\n" + "".join(
            f"{DATA},query/{person:04d}_c1s1_000000_00.jpg,{place},gallery/{other:04d}_c2s1_000001_00.jpg,0.5,"
            f"{int(person == other)}\n" for person in range(5)
            for place, other in enumerate([(person + number) % 5, (person + number + 1) % 5], 1)))
    Path("metrics/parsers").mkdir()
    Path("metrics/parsers/toy-parser.json").write_text(json.dumps(PARSER))
    return tmp_path


def write(folder: str, name: str, text: str) -> None:
    Path(folder, "toy").mkdir(parents=True, exist_ok=True)
    Path(folder, "toy", name).write_text(text)


def params() -> Params:
    cache = CacheParams(dataset=DATA, parser="lraspp", source="", images="raw", height=32, width=16, batch=1, threads=1)
    parser = ParserParams(architecture="lraspp", data="toy-parsing", labels="densepose24", uv=True, init="none",
                          height=32, width=16, image_steps=320, batch=8, lr=1e-3, augment="flip", seed=0, workers=0)
    render = RenderParams(kind="occluded", seed=0, height=32, width=16, train_ids=5, train_images=1, test_ids=5,
                          query_images=1, gallery_images=1, processes=1)
    wanted = ReportParams(title="A <toy> & more", pictures=DATA, dataset=DATA, images="raw", parser="toy-parser")
    return bare_params(render={DATA: render}, parsers={"toy-parser": parser}, caches={DATA: cache},
                       report={"toy-report": wanted})


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
        assert tag not in ("script", "link", "iframe", "object")
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
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_the_page_holds_everything_and_loads_nothing(project):
    stage.run(params(), "toy-report")
    folder = Path("reports/toy-report")
    text = (folder / "index.html").read_text()
    seen = read_page(text)
    anchors = [load for load in seen.loads if load.startswith("#")]
    assert {f'id="{anchor[1:]}"' in text for anchor in anchors} == {True}
    inside = {base64.b64decode(load.split(",")[1]) for load in seen.loads if load.startswith("data:image/")}
    assert len(inside) == len(seen.loads) - len(anchors)
    assert inside == {path.read_bytes() for path in (folder / "pictures").iterdir()}
    assert {path.name for path in (folder / "pictures").iterdir()} == {
        "parse.png", "dsap-1.png", "dsap-5.png", "cmc-people.svg", "ranks-baseline.png", "ranks-amethod.png"}
    assert "A <toy> & more" in seen.text
    for said in ("4 queries scored, 1 skipped, against 5 gallery images", "5 images of 5 people", "rendered people",
                 "Market-1501's rule", "NOT all made by the same versions", "amethod: torch 2.14",
                 "parts.h5 0123456789ab..."):
        assert said in seen.text, said
    assert "withdrawn" not in seen.text


def test_the_table_is_the_same_on_the_page_in_markdown_and_in_csv(project):
    stage.run(params(), "toy-report")
    table = list(csv.reader(Path("reports/toy-report/tables/people.csv").read_text().splitlines()))
    assert [row[0] for row in table[1:]] == ["histogram", "untrained", "baseline", "amethod"], "controls stand first"
    for row in table[1:]:
        metrics = json.loads(Path(f"metrics/toy/toy-{row[0]}.json").read_text())
        assert [float(cell) for cell in row[1:6]] == [metrics[DATA][name] for name in
                                                      ("rank1", "rank5", "rank10", "mAP", "mINP")]
    assert table[1][6:] == ["-", "-", "-", "-"] and table[2][6:] == ["-", "-", "random", "0"]
    assert table[4][6:] == ["people", "640", "imagenet", "0"]
    lines = Path("reports/toy-report/tables/people.md").read_text().splitlines()
    marked = [line.strip("| ").split(" | ") for line in lines if line.startswith("|") and "---" not in line]
    shown = read_page(Path("reports/toy-report/index.html").read_text())
    assert marked == table == shown.tables[0]
    assert shown.tables[1] == [["parser", "mean IoU", "background", "head", "foot", "pixel accuracy", "u,v error"],
                               ["parser", "0.750", "0.950", "0.550", "-", "0.900", "0.050"]]


def test_variants_and_other_seeds_stand_below_the_methods(project):
    for folder, ending in (("metrics", "json"), ("curves", "csv"), ("ranks", "csv")):
        text = Path(folder, "toy", f"toy-amethod.{ending}").read_text()
        Path(folder, "toy", f"toy-amethod-seed1.{ending}").write_text(text.replace("toy-amethod", "toy-amethod-seed1"))
    stage.run(params(), "toy-report")
    folder = Path("reports/toy-report")
    methods, further = (list(csv.reader((folder / f"tables/people{name}.csv").read_text().splitlines()))
                        for name in ("", "-further"))
    assert [row[0] for row in methods[1:]] == ["histogram", "untrained", "baseline", "amethod"]
    assert [row[0] for row in further[1:]] == ["amethod-seed1"] and further[1][1:] == methods[4][1:]
    curves = (folder / "pictures/cmc-people.svg").read_text()
    assert "amethod-seed1" not in curves and not (folder / "pictures/ranks-amethod-seed1.png").exists()
    assert read_page((folder / "index.html").read_text()).tables[:2] == [methods, further]


def test_the_same_results_give_the_same_bytes(project):
    def files() -> dict[str, bytes]:
        return {path.as_posix(): path.read_bytes() for path in sorted(Path("reports").rglob("*")) if path.is_file()}
    stage.run(params(), "toy-report")
    before = files()
    stage.run(params(), "toy-report")
    assert files() == before and len(before) == 11


def test_wrong_results_are_named(project):
    def stops(message: str) -> None:
        with pytest.raises(InputError, match=message):
            stage.run(params(), "toy-report")
    stage.run(params(), "toy-report")
    before = Path("reports/toy-report/index.html").read_bytes()
    ranks = Path("ranks/toy/toy-baseline.csv")
    ranks.write_text(ranks.read_text().replace("gallery/0003", "gallery/0999"))
    stops("toy-baseline.csv': 'gallery/0999_c2s1_000001_00.jpg' is not in the index of 'toy-people'")
    ranks.write_text("dataset,query,position\n")
    stops("toy-baseline.csv': lacks the column 'gallery'")
    Path("curves/toy/toy-amethod.csv").unlink()
    stops("toy-amethod.csv': cannot be read as CSV")
    Path("metrics/parsers/toy-parser.json").write_text(json.dumps({"miou8": 0.5}))
    write("metrics", "other.json", json.dumps({"loss": 0.5}))
    stops("other.json': is no result of `evaluate`")
    write("metrics", "other.json", "{")
    stops("other.json': cannot be read as JSON")
    shutil.rmtree("metrics/toy")
    stops("metrics/toy': holds no results; make them with `dvc repro evaluate`")
    assert Path("reports/toy-report/index.html").read_bytes() == before, "the last good report stays"
    with pytest.raises(InputError, match="the scores of parser 'toy-parser' lack 'pixel_accuracy'"):
        parser_table({"miou8": 0.5}, parser="toy-parser", data="toy-parsing", scale="toy")


@pytest.mark.parametrize("name", ["dukemtmc", "hidden"])
def test_real_and_withdrawn_sets_are_named_so(project, name):
    """Known by the data set's name or by its own protocol."""
    protocols = {DATA: "market", f"toy-{name}": "occluded-duke" if name == "hidden" else "market"}
    for path in Path("metrics/toy").glob("*.json"):
        content = json.loads(path.read_text())
        content[f"toy-{name}"] = content[DATA]
        content["_made"][0]["protocols"] = protocols
        path.write_text(json.dumps(content))
    for path in Path("curves/toy").glob("*.csv"):
        text = path.read_text()
        path.write_text(text + text.partition("\n")[2].replace(DATA, f"toy-{name}"))
    stage.run(params(), "toy-report")
    seen = read_page(Path("reports/toy-report/index.html").read_text())
    assert len(seen.tables) == 3 and "withdrawn by its authors" in seen.text
    assert f"{name} (a data set of real people)" in seen.text
    assert ("Protocol occluded-duke." in seen.text) == (name == "hidden")


def test_tables_of_odd_cells():
    table = Table("t", "T", ["run", "rank-1", "mAP"], [["a|b", "9.50", "1.00"], ['c,"d', "10.00", "1.00"]], "Note.")
    assert best_cells(table) == {(1, 1), (0, 2), (1, 2)}, "9.50 is less than 10.00; equal figures are both best"
    assert "| a\\|b | 9.50 | 1.00 |" in as_markdown(table)
    assert list(csv.reader(io.StringIO(as_csv(table)))) == [table.columns, *table.rows]
    assert read_page(page.table_html(table)).tables[0] == [table.columns, *table.rows]


def test_rows_counted_differently_are_said_so():
    figure = {"rank1": 1.0, "rank5": 1.0, "rank10": 1.0, "mAP": 1.0, "mINP": 1.0, "skipped": 0, "gallery": 5}
    rows = [Result("s-a", "s-d", figure | {"queries": 4}, ABOUT), Result("s-b", "s-d", figure | {"queries": 3}, ABOUT)]
    note = dataset_table("s-d", rows, scale="s", rendered=False, trained={}).note
    assert "3 queries scored, 0 skipped, against 5 gallery images or, where runs differ, 4 queries scored" in note


def test_only_results_of_the_scale_are_read(project):
    assert {result.run for result in read_results("metrics/toy")} == {f"toy-{run}" for run in RUNS}


def test_doctests():
    assert doctest.testmod(pipeline.report).failed == 0


def decode(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def count(picture: np.ndarray, colour: str | tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    wanted = tuple(bytes.fromhex(colour[1:])) if isinstance(colour, str) else colour
    return int((picture == np.array(wanted, np.uint8)).all(axis=2).sum())


def test_frames_say_who_is_right():
    def frames(*right: bool) -> tuple[int, int]:
        person = np.full((8, 4, 3), 128, np.uint8)
        found = [figures.Shown(person, f"{number}.jpg", number, value) for number, value in enumerate(right)]
        picture = decode(figures.rank_figure([(figures.Shown(person, "$q_$.jpg", 7), found)]))
        return count(picture, figures.RIGHT), count(picture, figures.WRONG)
    one = frames(True, False)
    around = (128 + 2 * figures.FRAME) * (256 + 2 * figures.FRAME) - 128 * 256
    assert one == (around, around)
    assert frames(True, True) == (2 * one[0], 0) and frames(False, False) == (0, 2 * one[0])


def test_parts_and_warps_are_drawn_in_place():
    labels = np.zeros((32, 16), np.uint8)
    labels[8:24, 4:12] = 2
    image = np.full((32, 16, 3), (10, 20, 30), np.uint8)
    picture = decode(figures.parse_figure([(image, labels, np.zeros((8, 4), np.uint8))]))
    whole = 128 * 256
    assert count(picture, (10, 20, 30)) == whole
    torso = tuple(figures.PART_COLOURS[2].tolist())
    assert count(picture, torso) == whole // 4 + 20 * 20, "the body's middle and the legend"
    parts = np.full((24, 8, 8, 3), (10, 200, 30), np.uint8)
    valid = np.zeros((24, 8, 8), np.uint8)
    valid[5, :4] = 1
    assert count(decode(figures.dsap_figure(image, parts, valid)), (10, 200, 30)) == 96 * 96 // 2


def test_heat_rises_with_entropy():
    colours = figures.heat(np.arange(256, dtype=np.uint8)[None])[0].astype(int)
    assert (np.diff(colours.sum(axis=1)) >= 0).all() and colours[0].sum() < 20 and colours[-1].sum() > 600
