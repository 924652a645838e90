"""Exclusion list of a data set: checked with its index, left out of scoring, counted in the result and its protocol."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.loader import Experiment
from pipeline.reporting.protocol import protocol_line
from pipeline.reporting.results import read_metrics
from pipeline.retrieval.features import read_features
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import data_set_metrics
from stages import evaluate as stage
from stages import ignore
from stages.tools import compare
from tests.helpers.bare_params import bare_experiment
from tests.helpers.features_file import MAKER, write_features

INDEX = """image,path,pid,camid,split
train/9.jpg,raw/9.jpg,9,1,train
"""


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Experiment:
    """A result scored on a data set with a list, and one without that is the same."""
    monkeypatch.chdir(tmp_path)
    for dataset in ("toy", "plain"):
        whole = read_features(write_features(Path(f"data/features/toy-net/{dataset}.h5"),
                                             maker=MAKER | {"dataset": dataset}))
    keys = {split: keys for split, keys in (("query", whole.query_key), ("gallery", whole.gallery_key))}
    Path("data/index").mkdir()
    Path("data/index/toy.csv").write_text(INDEX + "".join(
        f"{key},raw/{key},{int(key.split('/')[1][:4])},1,{split}\n" for split in keys for key in keys[split]))
    return bare_experiment("mine", plan={
        "ignore": {"toy": {"index": "data/index/toy.csv", "list": "ignore.csv"}},
        "evaluate_listed": {"toy-net": {"features": "data/features/toy-net", "datasets": ["toy", "plain"],
                                        "rendered": [], "listed": ["toy"]}}})


def test_listed_pictures_are_left_out_and_counted(toy, capsys):
    whole = read_features("data/features/toy-net/toy.h5")
    query, gallery = whole.query_key[2], whole.gallery_key[[0, 5]].tolist()
    Path("ignore.csv").write_text(f'path,reason\nraw/{query},"two people, one box"\n{gallery[0]},wrong person\n'
                                  f"raw/{gallery[1]},wrong person\ntrain/9.jpg,wrong person\n")
    ignore.run(toy, "toy")
    assert "2 of gallery, 1 of query, 1 of train listed in ignore.csv" in capsys.readouterr().out
    stage.run(toy, "toy-net")

    kept = whole.take(np.delete(np.arange(len(whole.query)), 2), np.delete(np.arange(len(whole.gallery)), [0, 5]))
    expected = data_set_metrics([evaluate(kept.query, kept.gallery, kept.matching, pairs=True)])
    folder = paths.metrics("mine", "toy-net")
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("toy", "plain")}
    assert expected.items() <= found["toy"].items() and found["plain"]["mAP"] != found["toy"]["mAP"]
    ignored = found["toy"]["provenance"][0]["ignored"]
    assert (ignored["query"], ignored["gallery"], ignored["elsewhere"]) == (1, 2, 1)
    assert ignored["reasons"] == {"two people, one box": 1, "wrong person": 2} and len(ignored["sha256"]) == 64
    assert "ignored" not in found["plain"]["provenance"][0]
    lines = {name: protocol_line([made]) for name, (_, made) in read_metrics(folder).items()}
    assert ("re-ranking: none; 1 query and 2 gallery images left out by data/ignored/toy.csv (1 two people, one box; "
            "2 wrong person); no flip") in lines["toy"] and "left out" not in lines["plain"]


def test_a_result_without_its_listed_pictures_is_compared_without_them(toy, capsys):
    whole = read_features("data/features/toy-net/toy.h5")
    Path("ignore.csv").write_text(f"path,reason\n{whole.query_key[2]},wrong person\n")
    ignore.run(toy, "toy")
    stage.run(toy, "toy-net")
    result = str(paths.metrics("mine", "toy-net") / "toy.json")
    with pytest.raises(InputError, match="toy.json': was scored without the pictures of 'data/ignored/toy.csv'; add "
                                         "--ignore data/ignored/toy.csv"):
        compare.run(compare.parse_arguments([result, "data/features/toy-net/toy.h5"]))
    compare.run(compare.parse_arguments([result, "data/features/toy-net/toy.h5", "--ignore", "data/ignored/toy.csv"]))
    assert "percent; 5 queries of 5 people" in capsys.readouterr().out


@pytest.mark.parametrize(("split", "what"), [("query", "queries"), ("gallery", "gallery images")])
def test_a_list_of_all_queries_or_all_of_the_gallery_is_refused(toy, split, what):
    whole = read_features("data/features/toy-net/toy.h5")
    keys = {"query": whole.query_key, "gallery": whole.gallery_key}[split].tolist()
    Path("ignore.csv").write_text("path,reason\n" + "".join(f"raw/{key},wrong person\n" for key in keys))
    with pytest.raises(InputError, match=f"datasets.toy.ignore: 'ignore.csv' has all {len(keys)} {what} of toy, so "
                                         "that nothing could be scored; take some out of the list"):
        ignore.run(toy, "toy")
    assert not paths.ignored("toy").exists()
    Path("ignore.csv").write_text("path,reason\n" + "".join(f"raw/{key},wrong person\n" for key in keys[1:]))
    ignore.run(toy, "toy")
    assert len(paths.ignored("toy").read_text().splitlines()) == len(keys)


@pytest.mark.parametrize(("text", "said"), [
    ("path,reason\nraw/8.jpg,wrong person\n", "datasets.toy.ignore: 'ignore.csv' has 'raw/8.jpg', which is no picture "
                                              "of toy; take it out or mend the path"),
    ("path,reason\nraw/9.jpg,wrong person\n", "none of the 1 pictures in 'ignore.csv' is a query or in the gallery"),
    ("path,reason\nraw/9.jpg\n", "'ignore.csv': line 2 is 'raw/9.jpg'; it must have a path and a reason"),
    (None, "'ignore.csv': no such file")])
def test_a_bad_list_is_one_sentence_before_anything_is_trained(toy, text, said):
    if text is not None:
        Path("ignore.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        ignore.run(toy, "toy")
    assert said in str(caught.value) and not paths.ignored("toy").exists()
