"""lint: each line's effect is what scoring without its pictures gives; other pictures and odd lists are refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from pipeline.datasets.index import write_index
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.ranking import evaluate
from stages.tools import lint
from tests.helpers.features_file import write_features
from tests.stages.test_compare import as_npz, columns


@pytest.fixture
def made(tmp_path):
    """Features of 20 people, and their index: two people in train too, one of a single camera, a hub."""
    changes = columns(2, 2.5)
    changes["camid"] = np.where(changes["pid"] == 5, 1, changes["camid"])
    changes["features"][[1, 70]] = 0
    changes["features"][[74, 75, 76, 77]] = changes["features"][25] + 0.1 * changes["features"][[74, 75, 76, 77]]
    embedded = read_features(write_features(tmp_path / "toy.h5", **changes))
    rows = [(str(key), f"raw/{key}", pid, camid, split) for split in ("query", "gallery")
            for key, pid, camid in zip(getattr(embedded, f"{split}_key"), getattr(embedded, split).pid,
                                       getattr(embedded, split).camid, strict=True)]
    rows += [(f"train/{number}.jpg", f"raw/train/{number}.jpg", pid, 1 + number % 2, "train")
             for number, pid in enumerate((7, 7, 8, 8, 30, 30))]
    write_index(pd.DataFrame(rows, columns=["image", "path", "pid", "camid", "split"]), tmp_path / "toy.csv")
    return tmp_path, embedded


def call(capsys, *words) -> tuple[str, dict]:
    """What is printed, and what the JSON holds."""
    lint.main([str(word) for word in words])
    return capsys.readouterr().out, json.loads(words[-1].read_text()) if "--json" in words else {}


def metrics(embedded: Embedded, leave=()) -> tuple[float, float]:
    rows = [np.flatnonzero(~np.isin(keys, list(leave))) for keys in (embedded.query_key, embedded.gallery_key)]
    kept = embedded.take(*rows)
    scores = evaluate(kept.query, kept.gallery, kept.matching)
    scored = scores.first > 0
    return 100 * np.mean(scores.first[scored] == 1), 100 * np.mean(scores.precision[scored])


def test_each_line_is_measured_by_scoring_without_it(made, capsys):
    folder, embedded = made
    text, content = call(capsys, folder / "toy.csv", "--features", folder / "toy.h5", "--json", folder / "out.json")
    found = {each["name"]: each for each in content["findings"]}
    whole = metrics(embedded)
    assert (content["metrics"]["rank1"], content["metrics"]["mAP"]) == pytest.approx(whole, abs=1e-4)
    assert content["metrics"]["queries"] == 19

    of = {int(pid): {str(key) for side, keys in ((embedded.query, embedded.query_key),
                                                 (embedded.gallery, embedded.gallery_key))
                     for key in keys[side.pid == pid]} for pid in range(1, 21)}
    assert set(found["train and test"]["images"]) == of[7] | of[8]
    assert set(found["one camera"]["images"]) == of[5]
    assert set(found["lengths"]["images"]) == {str(embedded.gallery_key[1]), str(embedded.query_key[10])}
    assert found["camera rule"]["count"] == 1 and str(embedded.gallery_key[25]) in found["hubs"]["images"]
    for name in ("train and test", "one camera", "lengths", "hubs"):
        changed = found[name]["changed"]
        assert (changed["rank1"], changed["mAP"]) == pytest.approx(metrics(embedded, found[name]["images"]), abs=1e-4)
        assert f"without them: rank-1 {changed['rank1']:.2f} ({changed['rank1'] - whole[0]:+.2f}), mAP" in text
    assert found["camera rule"]["changed"]["rank1"] == pytest.approx(whole[0] * 19 / 20, abs=1e-4)

    apart = embedded.gallery.take(slice(None))
    apart = type(apart)(apart.features, apart.visibility, apart.pid, apart.camid * 0, None, apart.mark)
    scores = evaluate(embedded.query, apart, embedded.matching)
    assert found["cameras"]["changed"]["rank1"] == pytest.approx(100 * np.mean(scores.first == 1), abs=1e-4)
    assert "identical pictures: not looked for" in text and "Protocol market:" in text
    assert "train 6 pictures of 3 people" in text


def test_others_features_alone_and_by_the_order_of_an_index(made, capsys):
    folder, embedded = made
    theirs = as_npz(folder / "theirs.npz", folder / "toy.h5")
    for words in ((theirs,), (folder / "toy.csv", "--features", theirs)):
        text, content = call(capsys, *words, "--json", folder / "out.json")
        assert content["metrics"]["mAP"] == pytest.approx(metrics(embedded)[1], abs=1e-4)
        assert "not said by the file" in text
    names = {each["name"]: each["images"] for each in content["findings"]}
    assert names["lengths"] == sorted([str(embedded.gallery_key[1]), str(embedded.query_key[10])])


def test_names_that_query_and_gallery_share_are_told_apart(made, capsys):
    """Occluded-Duke's file names: a hub of the gallery goes without the query of its name."""
    folder, embedded = made
    names = {f"{part}_name": np.array([f"{row:03d}.jpg" for row in range(count)])
             for part, count in (("query", 20), ("gallery", 60))}
    for number, changes in enumerate((names, {f"{part}_name": np.char.add(f"{part}-", names[f"{part}_name"])
                                              for part in ("query", "gallery")})):
        as_npz(folder / f"{number}.npz", folder / "toy.h5", **changes)
    found = [{each["name"]: each for each in call(capsys, folder / f"{number}.npz", "--json", folder / "out.json"
                                                  )[1]["findings"]} for number in range(2)]
    assert found[0]["hubs"]["images"] and found[0]["hubs"]["changed"]["queries"] == 19
    for name in ("hubs", "lengths", "one camera"):
        assert found[0][name]["changed"] == found[1][name]["changed"]
        assert found[0][name]["images"] == sorted(image.replace("-", "/") for image in found[1][name]["images"])


def test_pictures_of_a_features_file_alone_are_looked_at_where_it_names_them(made, capsys):
    folder, _ = made
    names = {f"{part}_name": [f"{part}/{row:03d}.jpg" for row in range(count)]
             for part, count in (("query", 20), ("gallery", 60))}
    for name in (*names["query_name"], *names["gallery_name"]):
        (folder / "shown" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "shown" / name).write_text("one" if name in ("query/003.jpg", "gallery/005.jpg") else name)
    theirs = as_npz(folder / "named.npz", folder / "toy.h5", **{key: np.array(each) for key, each in names.items()})
    text, content = call(capsys, theirs, "--images", folder / "shown", "--json", folder / "out.json")
    found = {each["name"]: each["images"] for each in content["findings"]}
    assert found["identical, query and gallery"] == ["gallery/005.jpg"] and "not looked for" not in text


@pytest.mark.parametrize("part", ["query", "gallery"])
@pytest.mark.parametrize("words", [["toy.csv"], ["toy.csv", "--features", "toy.h5"], ["toy.h5"]])
def test_a_list_of_all_is_one_sentence(made, capsys, monkeypatch, words, part):
    folder, embedded = made
    monkeypatch.chdir(folder)
    (folder / "all.csv").write_text("path,reason\n" + "".join(
        f"{key},wrong\n" for key in getattr(embedded, f"{part}_key")))
    with pytest.raises(SystemExit) as stopped:
        lint.main([*words, "--ignore", "all.csv"])
    assert stopped.value.code == 2
    assert f"error: 'all.csv': leaves no {part} image to score; list fewer pictures\n" == capsys.readouterr().err


def test_an_index_alone(made, capsys):
    text, content = call(capsys, made[0] / "toy.csv", "--json", made[0] / "out.json")
    assert content["metrics"] is None and {each["changed"] for each in content["findings"]} == {None}
    assert "not measured; give --features" in text and "2 people are in train and in test" in text


def test_what_is_listed_is_left_out_and_counted(made, capsys):
    folder, embedded = made
    listed = [str(embedded.query_key[3]), f"raw/{embedded.gallery_key[1]}", "train/0.jpg"]
    (folder / "ignore.csv").write_text("path,reason\n" + "".join(f"{path},wrong label\n" for path in listed))
    text, content = call(capsys, folder / "toy.csv", "--features", folder / "toy.h5", "--ignore", folder / "ignore.csv",
                         "--json", folder / "out.json")
    left = {str(embedded.query_key[3]), str(embedded.gallery_key[1])}
    assert (content["metrics"]["rank1"], content["metrics"]["mAP"]) == pytest.approx(metrics(embedded, left), abs=1e-4)
    assert "1 query and 1 gallery image (3 wrong label); 1 more of its 3 is elsewhere" in text
    assert content["ignored"]["elsewhere"] == 1


@pytest.mark.parametrize(("words", "said"), [
    (["toy.csv", "--features", "other.npz"], r"other.npz': query 3 is of person 9, camera 1, and in .*toy.csv' it is"),
    (["toy.csv", "--features", "few.npz"], r"few.npz': has 19 query images, and .*toy.csv' has 20"),
    (["toy.csv", "--features", "trials.h5"], r"trials.h5': has 2 trials"),
    (["toy.csv", "--features", "renamed.h5"], r"has the query image 'query/x060.jpg', and .*toy.csv' has not"),
    (["other.npz", "--images", "."], r"other.npz': names no pictures, so that those in '.' cannot be looked at; give"),
    (["toy.h5", "--features", "toy.h5"], "is a features file, and --features names another"),
    (["toy.csv", "--ignore", "ignore.csv"], "ignore.csv': 'nowhere.jpg' is no picture of the data set"),
    (["junk.npz"], r"junk.npz': leaves no query image to score \(those of pid -1 are nobody's\); give the identities"),
    (["absent.csv"], "absent.csv': no such index")])
def test_bad_input_is_one_sentence(made, capsys, monkeypatch, words, said):
    folder, _ = made
    as_npz(folder / "other.npz", folder / "toy.h5", query_pid=np.where(np.arange(20) == 3, 9, np.arange(1, 21)))
    as_npz(folder / "few.npz", folder / "toy.h5", query_pid=np.arange(1, 20), query_camid=np.ones(19, int),
           query_features=np.ones((19, 16)))
    write_features(folder / "trials.h5", **columns(2, 2.5), trial=np.arange(80) % 2)
    as_npz(folder / "junk.npz", folder / "toy.h5", query_pid=np.full(20, -1))
    keys = [key.replace(b"/", b"/x") for key in columns(0, 1)["key"]]
    write_features(folder / "renamed.h5", **columns(2, 2.5) | {"key": keys})
    (folder / "ignore.csv").write_text("path,reason\nnowhere.jpg,wrong\n")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        lint.main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and re.search(said, error), error
