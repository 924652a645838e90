"""The stage report: what its tables and pictures show is what the experiment's results and the caches hold."""

import base64
import csv
import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import write_image
from pipeline.config import paths
from pipeline.config.loader import Experiment
from pipeline.datasets.index import write_index
from pipeline.reporting import html_page
from pipeline.reporting.neighbours import Listed, Neighbours, write_neighbours
from pipeline.reporting.results import read_parser_scores
from stages import report as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.results import write_result
from tests.reporting.test_results import CHANGES, PARSER, PROVENANCE, read_page

NAME, KEY, DATA = "toy", "rendered", "people"
RUNS = {name: CHANGES[name] for name in ("histogram", "untrained", "baseline", "amethod")}
SHOWN = {"baseline": (0, 1), "amethod": (0, 2, 3)}  # run -> the people whose queries it has right
RANK1 = {"histogram": 0.0, "untrained": 10.0, "baseline": 50.0, "amethod": 75.0}
FOLDER = paths.report(NAME, KEY)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder as the stages before leave it: 5 people with 3 images each, caches, four results."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    names = [(f"{person:04d}_c{number + 1}s1_{number:06d}_00.jpg", person, number)
             for person in range(5) for number in range(3)]
    rows = [(f"{split}/{name}", f"{split}/{name}", person, number + 1, split) for name, person, number in names
            for split in [("query", "gallery", "train")[number]]]
    for split in ("query", "gallery", "train"):
        Path("raw", split).mkdir(parents=True)
    for _, path, *_ in rows:
        write_image(Path("raw", path), draw.integers(0, 256, (32, 16, 3)).astype(np.uint8))
    write_index(pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"]), paths.index(DATA))

    keys = sorted(row[0] for row in rows)
    for name, arrays in (("parts.h5", {"native": (32, 16), "labels": (32, 16), "entropy": (8, 4)}),
                         ("dsap.h5", {"dsap": (24, 8, 8, 3), "valid": (24, 8, 8)})):
        paths.cache(DATA, name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(paths.cache(DATA, name), "w") as file:
            file.attrs["maker"] = json.dumps({"parser": "toy", "taxonomy": "densepose24", "exact": True})
            file.attrs["format"] = 2
            file.create_dataset("key", data=keys, dtype=h5py.string_dtype("utf-8", 64))
            file.create_dataset("status", data=["parsed"] * 15, dtype=h5py.string_dtype("utf-8", 64))
            file.create_dataset("image_sha256", data=[file_sha256(Path("raw", key)).encode() for key in keys])
            for array, shape in arrays.items():
                file[array] = draw.integers(0, 2 if array == "valid" else 8, (15, *shape)).astype(np.uint8)

    for number, (name, changes) in enumerate(RUNS.items()):
        entry = {"rank1": RANK1[name], "mAP": 40.0 - number, "mINP": 1.25, "details": [
            {"rank5": 50.5, "rank10": 60.0, "queries": 4, "skipped": 1, "gallery": 5}]}
        write_result(paths.metrics(NAME, name), {DATA: entry}, PROVENANCE | changes)
        write(paths.curve(NAME, name), "run,dataset,rank,cmc\n" + "".join(
            f"{name},{DATA},{rank},{min(1, 0.1 * number + 0.05 * rank):.4f}\n" for rank in range(1, 51)))
    for name in SHOWN:
        write_lists(name)
    write(paths.parser_scores("lraspp"), json.dumps({"mIoU": PARSER["miou8"], "details": [PARSER]}))
    return tmp_path


def write_lists(name: str, *, people: tuple[int, ...] = (0, 1, 2, 3, 4), **changes) -> None:
    """A run's neighbours: of two gallery images, its queries' people of SHOWN first, the last person not scored."""
    lists = []
    for person in people:
        others = [person, (person + 1) % 5] if person in SHOWN[name] else [(person + 1) % 5, person]
        lists.append(Listed(
            query=f"query/{person:04d}_c1s1_000000_00.jpg", hidden=None, first=0 if person == 4 else
            1 + others.index(person), visibility=[1.0, 0.5], place=[1, 2], distance=[0.25, 0.5],
            gallery=[f"gallery/{other:04d}_c2s1_000001_00.jpg" for other in others],
            match=[other == person for other in others], visible=[[1.0, 1.0], [1.0, 0.0]],
            parts=[[0.25, 0.25], [0.5, 1.0]]))
    fields = {"result": name, "dataset": DATA, "model": name, "distance": "cosine", "reduction": "mean",
              "sizes": [8, 8], "lists": lists}
    write_neighbours(paths.neighbours(NAME, KEY, name), Neighbours(**{**fields, **changes}))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def toy(*more: str, datasets: tuple[str, ...] = (DATA,)) -> Experiment:
    """The experiment of the four results and `more` of them; the first data set's people are rendered."""
    evaluate = {name: {"features": f"data/features/{name}", "datasets": datasets, "rendered": [DATA]}
                for name in (*RUNS, *more)}
    report = {"title": "A <toy> & more", "shows": [*SHOWN], "scores": paths.parser_scores("lraspp").as_posix(),
              "parsed_on": "parsing", "cache": DATA, "dataset": DATA, "index": paths.index(DATA).as_posix(),
              "raw": "raw"}
    return bare_experiment(NAME, plan={"evaluate": evaluate, "report": {KEY: report}})


def test_a_released_parser_carries_its_scores(tmp_path):
    path = tmp_path / "people.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"semalign": json.dumps({"scores": PARSER})})
    assert read_parser_scores(path) == PARSER

    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"semalign": json.dumps({"kind": "parser"})})
    with pytest.raises(InputError, match=r"people.safetensors': is no released parser with its scores \(KeyError\)"):
        read_parser_scores(path)
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match="people.safetensors': is no released parser"):
        read_parser_scores(path)


def test_the_page_holds_everything_and_loads_nothing(project):
    stage.run(toy(), KEY)
    text = (FOLDER / "index.html").read_text()
    seen = read_page(text)
    anchors = [load for load in seen.loads if load.startswith("#")]
    assert {f'id="{anchor[1:]}"' in text for anchor in anchors} == {True}
    inside = {base64.b64decode(load.split(",")[1]) for load in seen.loads if load.startswith("data:image/")}
    assert len(inside) == len(seen.loads) - len(anchors)
    assert inside == {path.read_bytes() for path in (FOLDER / "pictures").iterdir()}
    assert {path.name for path in (FOLDER / "pictures").iterdir()} == {
        "parse.png", "dsap-2.png", "dsap-4.png", "cmc-people.svg"}
    assert "A <toy> & more" in seen.text
    for said in ("4 queries scored, 1 skipped, against 5 gallery images", "5 images of 5 people", "rendered people",
                 "Market-1501's camera rule", "no flip at test time; parser: none;",
                 "NOT all made by the same versions", "amethod: torch 2.14",
                 "parts.h5 0123456789ab..."):
        assert said in seen.text, said
    assert "withdrawn" not in seen.text


def test_the_table_is_the_same_on_the_page_in_markdown_and_in_csv(project):
    stage.run(toy(), KEY)
    table = list(csv.reader((FOLDER / "tables/people.csv").read_text().splitlines()))
    assert [row[0] for row in table[1:]] == ["histogram", "untrained", "baseline", "amethod"], "controls stand first"
    for row in table[1:]:
        entry = json.loads((paths.metrics(NAME, row[0]) / f"{DATA}.json").read_text())
        entry |= entry["details"][0]
        assert [float(cell) for cell in row[1:6]] == [entry[name] for name in
                                                      ("rank1", "rank5", "rank10", "mAP", "mINP")]
    assert table[1][6:] == ["-", "-", "-", "-"] and table[2][6:] == ["-", "-", "random", "0"]
    assert table[4][6:] == ["people", "640", "imagenet", "0"]
    lines = (FOLDER / "tables/people.md").read_text().splitlines()
    marked = [line.strip("| ").split(" | ") for line in lines if line.startswith("|") and "---" not in line]
    shown = read_page((FOLDER / "index.html").read_text())
    assert marked == table == shown.tables[0]
    assert shown.tables[1] == [["parser", "mean IoU", "background", "head", "foot", "pixel accuracy", "u,v error"],
                               ["lraspp", "0.750", "0.950", "0.550", "-", "0.900", "0.050"]]


def test_variants_and_other_seeds_stand_below_the_methods(project):
    shutil.copytree(paths.metrics(NAME, "amethod"), paths.metrics(NAME, "amethod-seed1"))
    text = paths.curve(NAME, "amethod").read_text()
    paths.curve(NAME, "amethod-seed1").write_text(text.replace("amethod", "amethod-seed1"))
    stage.run(toy("amethod-seed1"), KEY)
    methods, further = (list(csv.reader((FOLDER / f"tables/people{name}.csv").read_text().splitlines()))
                        for name in ("", "-further"))
    assert [row[0] for row in methods[1:]] == ["histogram", "untrained", "baseline", "amethod"]
    assert [row[0] for row in further[1:]] == ["amethod-seed1"] and further[1][1:] == methods[4][1:]
    assert "amethod-seed1" not in (FOLDER / "pictures/cmc-people.svg").read_text()
    assert read_page((FOLDER / "index.html").read_text()).tables[:2] == [methods, further]


def test_the_tables_and_curves_show_the_results_that_the_lists_show(project):
    """It was a method's first by name, which may be an ablation; methods without lists are there by the plan's order.
    """
    for name, of, changes in (("ablation", "amethod", {}), ("z", "amethod", {"model": "esa"}),
                              ("esa", "amethod", {"model": "esa"}), ("abaseline", "baseline", {})):
        shutil.copytree(paths.metrics(NAME, of), paths.metrics(NAME, name))
        path = paths.metrics(NAME, name) / f"{DATA}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"provenance": [content["provenance"][0] | changes]}))
        paths.curve(NAME, name).write_text(paths.curve(NAME, of).read_text().replace(f"{of},", f"{name},"))

    stage.run(toy("ablation", "z", "esa", "abaseline"), KEY)
    methods, further = ([line.split(",")[0] for line in (FOLDER / f"tables/people{name}.csv").read_text().splitlines()]
                        for name in ("", "-further"))
    assert methods == ["run", "histogram", "untrained", "baseline", "amethod", "z"]
    assert further == ["run", "abaseline", "ablation", "esa"]
    drawn = (FOLDER / "pictures/cmc-people.svg").read_text()
    assert [name in drawn for name in (*methods[1:5], *further[1:])] == [True] * 4 + [False] * 3
    shown = content_of((FOLDER / "index.html").read_text())["runs"]
    assert [run["name"] for run in shown] == ["baseline", "amethod"]


def test_the_same_results_give_the_same_bytes(project):
    def files() -> dict[str, bytes]:
        return {path.as_posix(): path.read_bytes() for path in sorted(paths.REPORTS.rglob("*")) if path.is_file()}
    stage.run(toy(), KEY)
    before = files()
    stage.run(toy(), KEY)
    assert files() == before and len(before) == 9


def test_results_of_other_experiments_are_not_shown(project):
    """Of the folder of results those are read that the experiment's plan names, and of no other folder."""
    for name in (NAME, "other"):
        write_result(paths.metrics(name, "stray"), {DATA: {"rank1": 99.0, "details": [{}]}}, PROVENANCE)
    stage.run(toy(), KEY)
    page = (FOLDER / "index.html").read_text()
    assert "stray" not in page and "the results of experiment toy" in page


def test_wrong_results_are_named(project):
    def stops(message: str, experiment: Experiment | None = None) -> None:
        with pytest.raises(InputError, match=message):
            stage.run(experiment or toy(), KEY)

    stage.run(toy(), KEY)
    before = (FOLDER / "index.html").read_bytes()
    paths.curve(NAME, "amethod").unlink()
    stops("amethod.csv': cannot be read as CSV")
    write(paths.metrics(NAME, "other") / "people.json", json.dumps({"loss": 0.5}))
    stops("other/people.json': is no result of `evaluate`", toy("other"))
    write(paths.metrics(NAME, "other") / "people.json", "{")
    stops("other/people.json': cannot be read as JSON", toy("other"))
    shutil.rmtree(paths.RESULTS / NAME)
    stops("histogram': has no metrics; make them with `dvc repro evaluate@histogram`")
    stops("holds? no|no result is named", bare_experiment(NAME, plan={"report": toy().plan.report}))
    assert (FOLDER / "index.html").read_bytes() == before, "the last good report stays"


def test_lists_of_other_features_queries_or_pictures_are_named(project):
    def stops(message: str) -> None:
        with pytest.raises(InputError, match=message):
            stage.run(toy(), KEY)

    stage.run(toy(), KEY)
    before = (FOLDER / "index.html").read_bytes()
    path = paths.neighbours(NAME, KEY, "amethod")
    write_lists("amethod", people=(0, 1, 2, 4))
    stops("rank-1 of 66.67, and the metrics of 'amethod' on 'people' one of 75.00: they are of other features; run "
          "`dvc repro evaluate@amethod neighbours@rendered-amethod`")
    write_lists("amethod", people=(0, 1, 2, 3))
    stops("'amethod' on 'people' are of 4 queries and those of 'baseline' of 5, 'query/0004_c1s1_000000_00.jpg' is not "
          "in both")
    write_lists("amethod", dataset="others")
    stops("amethod.json': is of 'amethod' on 'others', not of 'amethod' on 'people'; run "
          "`dvc repro neighbours@rendered-amethod`")
    write_lists("amethod", sizes=[8, 8, 8])
    stops("amethod.json': the list of 'query/0000_c1s1_000000_00.jpg' does not have 3 parts")
    write(path, "{}")
    stops("amethod.json': holds no neighbours of queries .'lists'.; run `dvc repro neighbours@rendered-amethod`")
    path.unlink()
    stops("amethod.json': is not there; run `dvc repro neighbours@rendered-amethod`")
    write_lists("amethod")
    text = path.read_text()
    path.write_text(text.replace("gallery/0003", "gallery/0999"))
    stops("people.csv': has no image 'gallery/0999_c2s1_000001_00.jpg', of which 1 of the 11")
    path.write_text(text)

    image = Path("raw/gallery/0003_c2s1_000001_00.jpg")
    moved = image.rename("elsewhere.jpg")
    stops("'raw': 1 of the 15 images of 'data/index/people.csv' are not there .'gallery/0003_c2s1_000001_00.jpg' "
          "first.; put them back")
    shutil.copy("raw/gallery/0002_c2s1_000001_00.jpg", image)
    stops("0003_c2s1_000001_00.jpg': is not the image that 'data/cache/people/parts.h5' was made from")
    moved.rename(image)
    assert (FOLDER / "index.html").read_bytes() == before, "the last good report stays"
    stage.run(toy(), KEY)
    assert (FOLDER / "index.html").read_bytes() == before


def test_a_cache_of_more_images_than_the_index_has_is_named(project):
    """The parser's worst crops are drawn from its rows: it ended in a KeyError."""
    stage.run(toy(), KEY)
    before = (FOLDER / "index.html").read_bytes()
    index = paths.index(DATA)
    index.write_text("".join(line for line in index.read_text().splitlines(True)
                             if not line.startswith(("train/0003", "train/0001"))))
    with pytest.raises(InputError, match="^'data/cache/people/parts.h5': holds 15 images, 2 of which .'train/0001_c3s1_"
                                         "000002_00.jpg' first. are not among the 13 of 'data/index/people.csv': .*; "
                                         "run `dvc repro`$"):
        stage.run(toy(), KEY)
    assert (FOLDER / "index.html").read_bytes() == before, "the last good report stays"


def test_what_does_not_fit_is_left_out_and_said(project, monkeypatch):
    stage.run(toy(), KEY)
    whole = content_of((FOLDER / "index.html").read_text())
    assert len(whole["queries"]) == 4, "the query that is not scored is left out"
    size = len((FOLDER / "index.html").read_bytes())

    room = 0.4 * len(json.dumps(whole))  # for pictures and lists
    monkeypatch.setattr(stage, "RESERVE", 0)
    monkeypatch.setattr(stage, "LIMIT", int(size - len(json.dumps(whole)) - viewer_code() + room))
    stage.run(toy(), KEY)
    text = (FOLDER / "index.html").read_text()
    part = content_of(text)
    assert len(json.dumps(part["images"])) <= room
    assert 0 < len(part["queries"]) < 4
    assert f"The other {4 - len(part['queries'])} are left out" in text and "left out so that" not in str(whole)
    shown = {whole["images"][query["image"]]["name"]: query for query in whole["queries"]}
    for query in part["queries"]:
        same = shown[part["images"][query["image"]]["name"]]
        assert [one["parts"] for one in query["lists"]] == [one["parts"] for one in same["lists"]]


def viewer_code() -> int:
    """Bytes of the script and the style."""
    return sum(Path(html_page.__file__).with_name(name).stat().st_size for name in ("page.js", "page.css"))


def content_of(page: str) -> dict:
    """What the viewer shows."""
    return json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_the_viewer_holds_what_the_lists_and_caches_hold(project):
    stage.run(toy(), KEY)
    content = content_of((FOLDER / "index.html").read_text())
    assert [run["name"] for run in content["runs"]] == ["baseline", "amethod"]
    with h5py.File(paths.cache(DATA, "parts.h5")) as file:
        keys, labels = [key.decode() for key in file["key"]], file["labels"][:]
    for query in content["queries"]:
        person = content["images"][query["image"]]["pid"]
        assert [one["first"] == 1 for one in query["lists"]] == [person in people for people in SHOWN.values()]
        for one in query["lists"]:
            assert [content["images"][place]["pid"] == person for place in one["gallery"]] == [*map(bool, one["match"])]
    for image in content["images"]:
        key = next(key for key in keys if key.endswith(image["name"]))
        mask = Image.open(io.BytesIO(base64.b64decode(image["mask"])))
        assert np.array_equal(np.asarray(mask), labels[keys.index(key)])
    assert all(len(kind["items"]) <= stage.MOST for kind in content["crops"]) and content["crops"]


@pytest.mark.parametrize("name", ["dukemtmc", "hidden"])
def test_real_and_withdrawn_sets_are_named_so(project, name):
    """Known by the data set's name or by its own protocol."""
    for path in list((paths.RESULTS / NAME).glob("*/*.json")):
        content = json.loads(path.read_text())
        content["provenance"][0]["protocol"] = "occluded-duke" if name == "hidden" else "market"
        path.with_stem(name).write_text(json.dumps(content))
    for path in (paths.CURVES / NAME).glob("*.csv"):
        text = path.read_text()
        path.write_text(text + text.partition("\n")[2].replace(DATA, name))

    stage.run(toy(datasets=(DATA, name)), KEY)
    seen = read_page((FOLDER / "index.html").read_text())
    assert len(seen.tables) == 3 and "withdrawn by its authors" in seen.text
    assert f"{name} (a data set of real people)" in seen.text
    assert ("Protocol occluded-duke: " in seen.text) == (name == "hidden")
