"""compare: figures are those of the features, whatever file they come in; seeds, lists and odd files are told."""

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.datasets.index import write_index
from pipeline.reporting.plots import CROP
from pipeline.retrieval.features import read_features
from pipeline.retrieval.ranking import evaluate, nearest
from pipeline.retrieval.scores import data_set_metrics
from stages.tools import compare
from tests.helpers.features_file import MAKER, write_features

PEOPLE = 20


def columns(seed: int, noise: float) -> dict[str, np.ndarray]:
    """A query and three gallery images of each person; rows sorted by key, as `embed` writes them."""
    pid, split = np.tile(np.arange(1, PEOPLE + 1), 4), np.repeat(["gallery", "query"], [3 * PEOPLE, PEOPLE])
    camid, centres = np.repeat([1, 2, 2, 1], PEOPLE), np.random.default_rng(0).standard_normal((PEOPLE, 16))
    spread = np.random.default_rng(seed).standard_normal((4 * PEOPLE, 16))
    return {"pid": pid, "camid": camid, "split": [name.encode() for name in split],
            "key": [f"{name}/{number:03d}.jpg".encode() for number, name in enumerate(split)],
            "visibility": np.ones((4 * PEOPLE, 2), np.float32),
            "features": (centres[pid - 1] + noise * spread).astype(np.float32)}


@pytest.fixture
def files(tmp_path):
    """Of a good and a bad network two seeds each, under the names of results."""
    return {name: write_features(tmp_path / f"data/features/{name}/toy.h5", **columns(seed, noise),
                                 maker=MAKER | {"result": name, "seed": seed})
            for name, seed, noise in (("good", 0, 0.5), ("good-1", 1, 0.6), ("bad", 2, 1.3), ("bad-1", 3, 1.2))}


def result(files, name: str):
    """The JSON of a result, as `evaluate` writes it."""
    embedded = read_features(files[name])
    folder = files[name].parents[2] / "results/default" / name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = data_set_metrics([evaluate(embedded.query, embedded.gallery, embedded.matching)])
    (folder / "toy.json").write_text(json.dumps(metrics | {"provenance": [embedded.provenance]}))
    return folder / "toy.json"


def as_npz(path, h5, **changes):
    """The same features, as someone else would save them."""
    embedded = read_features(h5)
    arrays = {f"{part}_{column}": getattr(getattr(embedded, part), column) for part in ("query", "gallery")
              for column in ("features", "pid", "camid")}
    np.savez(path, **{name: values for name, values in (arrays | {"sizes": np.array([8, 8])} | changes).items()
                      if values is not None})
    return path


def call(capsys, *words) -> str:
    compare.main([str(word) for word in words])
    return capsys.readouterr().out


def row(text: str, name: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith(f"{name}  "))
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", line)]


def test_results_features_and_others_features_give_the_same_page(files, tmp_path, capsys):
    metrics = [json.loads(result(files, name).read_text()) for name in ("good", "bad")]
    text = call(capsys, files["good"], files["bad"])
    for label, name in (("rank-1", "rank1"), ("mAP", "mAP")):
        one, other, difference, *_ = row(text, label)
        assert (one, other) == (metrics[0][name], metrics[1][name])
        assert difference == pytest.approx(one - other, abs=0.011)
    with_result = call(capsys, result(files, "good"), files["bad"])
    with_others = call(capsys, files["good"], as_npz(tmp_path / "bad.npz", files["bad"]))
    for other in (with_result, with_others):
        assert [row(other, name) for name in ("rank-1", "mAP")] == [row(text, name) for name in ("rank-1", "mAP")]
    assert "seed 2; last epoch, nothing picked on the test set" in text
    assert "not said by the file" in with_others and "not said by the file" not in text
    assert f"bad.npz: names no pictures; rows are taken for those of {files['good']}, sorted by name" in with_others
    assert "names no pictures" not in text
    assert "One training on a side" in text and "9,999 random exchanges" in text


def test_identical_sides(files, capsys):
    text = call(capsys, files["good"], files["good"])
    assert row(text, "mAP")[2:] == [0, 0, 0, 1] and "0 queries changed sides" in text and "undecided" in text


def test_a_result_whose_features_are_gone_gives_the_same_difference(files, capsys):
    both = [result(files, name) for name in ("good", "bad")]
    before = call(capsys, *both)
    files["good"].unlink()
    after = call(capsys, *both)
    assert [row(after, name) for name in ("rank-1", "mAP")] == [row(before, name) for name in ("rank-1", "mAP")]
    assert "cannot be said: a result's features are gone" in after
    with pytest.raises(SystemExit):
        call(capsys, *both, "--ignore", "some.csv")
    assert "are gone, and --ignore needs them" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "said"), [
    ("data set", "results/default/bad/toy-dark.json': is of the data set 'toy-dark', and .*good/toy.json' is of 'toy'"),
    ("features", "bad/toy-dark.h5': is of the data set 'toy-dark', and .*good/toy.json' is of 'toy'; compare"),
    ("list", "bad/toy.json': was scored with the exclusion list abcabcabcabc.., and .*good/toy.json' with none; make"),
    ("gallery", "bad/toy.json': has 57 gallery images, and .*good/toy.json' has 60; compare results on one gallery"),
    ("seed", "bad.*toy.h5': gallery 59 is .*camera 3.*, and in .*good-1/toy.h5' it is .*camera 2"),
])
def test_without_features_another_data_set_gallery_or_list_is_refused(files, capsys, change, said):
    """Of the same people and queries, which a result whose features are gone holds alone."""
    good, bad = result(files, "good"), result(files, "bad")
    files["good"].unlink()
    sides = [good, bad]
    if change == "data set":
        files["bad"].unlink()
        sides[1] = bad.rename(bad.with_name("toy-dark.json"))
    elif change == "features":
        sides[1] = write_features(files["bad"].with_name("toy-dark.h5"), **columns(2, 1.3),
                                  maker=MAKER | {"dataset": "toy-dark"})
    elif change == "list":
        files["bad"].unlink()
        content = json.loads(bad.read_text())
        content["provenance"][0]["ignored"] = {"file": "mine.csv", "sha256": "abc" * 20}
        bad.write_text(json.dumps(content))
    elif change == "gallery":
        kept = {name: np.array(values)[3:] for name, values in columns(2, 1.3).items()}
        write_features(files["bad"], **kept, maker=MAKER)
        result(files, "bad")
        files["bad"].unlink()
    else:
        moved = columns(2, 1.3)
        moved["camid"][59] = 3
        sides = ["--a", good, files["good-1"], "--b", write_features(files["bad"], **moved, maker=MAKER)]
    with pytest.raises(SystemExit):
        call(capsys, *sides)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error), error


def test_a_result_that_was_moved_is_not_named_by_its_data_set(files, tmp_path, capsys):
    both = [shutil.copy(result(files, name), tmp_path / f"{name}.json") for name in ("good", "bad")]
    assert "queries of 20 people" in call(capsys, *both)


def test_seeds_are_averaged_spread_and_never_dropped(files, tmp_path, capsys):
    collapsed = write_features(tmp_path / "good-2.h5", maker=MAKER | {"result": "good-2", "seed": 5},
                               **columns(4, 0) | {"features": np.ones((4 * PEOPLE, 16), np.float32)})
    text = call(capsys, "--a", files["good"], files["good-1"], collapsed, "--b", files["bad"], files["bad-1"])
    each = {name: json.loads(result(files | {"good-2": collapsed}, name).read_text())
            for name in ("good", "good-1", "bad", "bad-1")}
    odd = read_features(collapsed)
    third = data_set_metrics([evaluate(odd.query, odd.gallery, odd.matching)])
    assert row(text, "mAP")[0] == pytest.approx(np.mean([each["good"]["mAP"], each["good-1"]["mAP"], third["mAP"]]),
                                                abs=0.011), "the collapsed one counts"
    assert row(text, "mAP")[1] == pytest.approx(np.mean([each["bad"]["mAP"], each["bad-1"]["mAP"]]), abs=0.011)
    said = [line for line in text.splitlines() if "looks collapsed" in line]
    assert len(said) == 1 and "good-2.h5" in said[0] and f"{third['rank1']:.2f}" in said[0]
    assert "A, 3 seeds: rank-1" in text and f"{each['good']['rank1']:.2f}, {each['good-1']['rank1']:.2f}" in text
    assert "seeds 0, 1, 5" in text and "One training" not in text


def test_the_queries_that_changed_sides_as_csv_and_picture(files, tmp_path, capsys):
    embedded = read_features(files["good"])
    rows, draw = [], np.random.default_rng(0)
    for split in ("query", "gallery"):
        side = getattr(embedded, split)
        for key, pid, camid in zip(getattr(embedded, f"{split}_key"), side.pid, side.camid, strict=True):
            path = f"{split}/picture{len(rows)}.png"
            (tmp_path / "raw" / split).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / "raw" / path, draw.integers(0, 256, (32, 16, 3)).astype(np.uint8))
            rows.append((str(key), path, pid, camid, split))
    frame = pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"])
    write_index(frame, tmp_path / "toy.csv")
    text = call(capsys, files["good"], files["bad"], "--index", tmp_path / "toy.csv", "--images", tmp_path / "raw",
                "--out", tmp_path / "out")

    scores = [evaluate(each.query, each.gallery, each.matching) for each in map(read_features,
                                                                                (files["good"], files["bad"]))]
    expected = [(str(key), "A" if right else "B") for key, right, other in zip(
        embedded.query_key, scores[0].first == 1, scores[1].first == 1, strict=True) if right != other]
    table = list(csv.DictReader((tmp_path / "out/changed.csv").read_text().splitlines()))
    assert [(line["query"], line["found by"]) for line in table] == expected and expected
    assert f"{len(expected)} queries changed sides" in text
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert sum(content["changed"].values()) == len(expected)
    assert row(text, "mAP")[-1] == content["differences"]["mAP"]["p"]

    plot = cv2.cvtColor(cv2.imread(str(tmp_path / "out/changed.png")), cv2.COLOR_BGR2RGB)
    paths = dict(zip(frame["image"], frame["path"], strict=True))
    most = max(table, key=lambda line: (line["found by"] == "A", abs(float(line["A AP"]) - float(line["B AP"]))))
    place = int(np.flatnonzero(embedded.query_key == most["query"])[0])
    best, _ = nearest(embedded.query.take(slice(place, place + 1)), embedded.gallery, embedded.matching, 5)
    shown = [most["query"], *(str(embedded.gallery_key[number]) for number in best[0] if number >= 0)]
    for column, key in enumerate(shown):
        left = 150 + 12 + column * (CROP[0] + 20) + 20 * bool(column)
        crop = cv2.resize(cv2.cvtColor(cv2.imread(str(tmp_path / "raw" / paths[key])), cv2.COLOR_BGR2RGB), CROP,
                          interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(plot[36:36 + CROP[1], left:left + CROP[0]], crop)


def test_an_earlier_comparison_s_picture_does_not_stay_beside_new_figures(files, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    for name in ("changed.png", "changed.csv", "notes.txt"):
        (tmp_path / "out" / name).write_text("earlier")
    both = [result(files, name) for name in ("good", "bad")]
    files["good"].unlink()
    call(capsys, *both, "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.json", "notes.txt"]


def test_names_of_others_are_sorted_and_translated(files, tmp_path, capsys):
    """Others' features in another order, under the paths of the index: the same page."""
    embedded, order = read_features(files["bad"]), np.random.default_rng(1).permutation
    rows = [(str(key), f"{split}s/{number}.jpg", pid, camid, split) for split in ("query", "gallery")
            for number, (key, pid, camid) in enumerate(zip(getattr(embedded, f"{split}_key"),
                                                           getattr(embedded, split).pid,
                                                           getattr(embedded, split).camid, strict=True))]
    frame = pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"])
    write_index(frame, tmp_path / "toy.csv")
    mixed, changes = {part: order(len(getattr(embedded, part))) for part in ("query", "gallery")}, {}
    for part, places in mixed.items():
        side = getattr(embedded, part).take(places)
        changes |= {f"{part}_{column}": getattr(side, column) for column in ("features", "pid", "camid")}
        changes[f"{part}_name"] = np.array([row[1] for row in rows if row[-1] == part])[places]
    theirs = as_npz(tmp_path / "theirs.npz", files["bad"], **changes)
    assert [row(call(capsys, files["good"], theirs, "--index", tmp_path / "toy.csv"), name)
            for name in ("rank-1", "mAP")] == [row(call(capsys, files["good"], files["bad"]), name)
                                               for name in ("rank-1", "mAP")]
    with pytest.raises(SystemExit):
        call(capsys, files["good"], theirs)
    assert re.search(r"query 0 is 'querys/0.jpg' \(person 1, camera 1\), and in .* it is 'query/060.jpg'",
                     capsys.readouterr().err)


@pytest.mark.parametrize(("change", "said"), [
    ({"query_pid": np.where(np.arange(20) == 3, 9, np.arange(1, 21))}, "query 3 is 'query row 3' (person 9, c"),
    ({"gallery_camid": np.full(60, 2)}, "gallery 0 is 'gallery row 0' (person 1, camera 2), and in"),
    ({"query_pid": np.arange(1, 20), "query_camid": np.ones(19, int), "query_features": np.ones((19, 16))},
     "query 19 is none, and in"),
    ({"query_features": np.full((20, 16), np.nan)}, "row 0 of query_features is not finite"),
    ({"query_name": np.array(list("abcdefghijklmnopqrst"))}, "has query_name and no gallery_name"),
    ({"query_name": np.array(list("abcdefghijklmnopqrsa")), "gallery_name": np.arange(60).astype(str)}, "'a' 2 times")])
def test_features_of_other_queries_are_one_sentence(files, tmp_path, capsys, change, said):
    with pytest.raises(SystemExit) as stopped:
        call(capsys, files["good"], as_npz(tmp_path / "other.npz", files["bad"], **change))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "other.npz" in error and said in error, error


def test_lengths_of_zero_are_said_and_scored(files, tmp_path, capsys):
    lost = read_features(files["bad"]).query.features.copy()
    lost[[2, 4]] = 0
    compare.main([str(files["good"]), str(as_npz(tmp_path / "lost.npz", files["bad"], query_features=lost))])
    said = capsys.readouterr()
    assert "2 query features, of 'query row 2' first, are of length 0" in said.err and "mAP" in said.out


def test_a_result_of_other_features_is_refused(files, capsys):
    good = result(files, "good")
    shutil.copy(files["bad"], files["good"])
    with pytest.raises(InputError, match=r"has a rank-1 of [\d.]+, and its features give [\d.]+.*; run"):
        compare.run(compare.parse_arguments([str(good), str(files["bad"])]))


def test_exclusions_are_left_out_on_both_sides_and_counted(files, tmp_path, capsys):
    keys = read_features(files["good"]).query_key
    (tmp_path / "ignore.csv").write_text(f'path,reason\n{keys[0]},"two people, one box"\n{keys[3]},wrong person\n')
    text = call(capsys, files["good"], files["bad"], "--ignore", tmp_path / "ignore.csv", "--out", tmp_path / "out")
    assert "percent; 18 queries of 18 people" in text
    assert "2 queries and 0 gallery images (1 two people, one box; 1 wrong person)" in text
    ignored = json.loads((tmp_path / "out/compare.json").read_text())["B"][0]["ignored"]
    assert (ignored["query"], ignored["listed"], ignored["elsewhere"]) == (2, 2, 0)


@pytest.mark.parametrize("words", [["a.h5"], ["a.h5", "b.h5", "c.h5"], ["--a", "a.h5"], ["a.h5", "b.h5", "--a", "c.h5"],
                                   ["a.h5", "b.h5", "--images", "raw"], []])
def test_words_that_name_no_two_sides_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        compare.parse_arguments(words)
