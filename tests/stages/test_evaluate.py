"""The stage evaluate against loops: metrics, curves and rank lists of trials, levels of occlusion, single sets."""

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.config.loader import Experiment
from pipeline.retrieval.features import read_features
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import data_set_metrics, sums_of
from stages import evaluate as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.features_file import MAKER, write_features
from tests.helpers.loop_ranking import loop_area, loop_distances, loop_list, loop_scores


def toy(*datasets: str) -> Experiment:
    """An experiment whose result `toy-net` is scored on some data sets."""
    return bare_experiment("toy", plan={"evaluate": {"toy-net": {
        "features": "data/features/toy-net", "datasets": list(datasets or ("toy",)), "rendered": []}}})


def test_stage_writes_what_the_loop_finds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_features(Path("data/features/toy-net/toy.h5"))
    stage.run(toy(), "toy-net")
    outputs = [Path("data/results/toy/toy-net/toy.json"), Path("data/curves/toy/toy-net.csv"),
               Path("data/ranks/toy/toy-net.csv")]
    before = [output.read_bytes() for output in outputs]
    found = read_features(path)
    distances = loop_distances(found.query, found.gallery, found.matching)
    _, precision, _ = loop_scores(found.query, found.gallery, distances)
    metrics = json.loads(before[0])
    assert metrics["mAP"] == pytest.approx(100 * np.mean(precision), abs=0.006)
    assert metrics["provenance"][0]["image_steps"] == 640 and metrics["provenance"][0]["protocol"] == "market"
    assert metrics["provenance"][0]["intervals"] == "95 % bootstrap over identities, 1000 draws"
    people, sums = sums_of(metrics["by_identity"])
    assert people == [(0, person, 1) for person in range(1, 7)]
    np.testing.assert_allclose(sums[0, :, 2], precision, atol=6e-5)
    curve = before[1].decode().splitlines()
    assert curve[1].startswith("toy-net,toy,1,") and float(curve[1].split(",")[3]) * 100 == metrics["rank1"]
    lists = [line.split(",") for line in before[2].decode().splitlines()[1:]]
    order = loop_list(found.query, found.gallery, 0, distances)[:10]
    assert [line[3] for line in lists[:10]] == found.gallery_key[order].tolist()
    assert [int(line[5]) for line in lists[:10]] == [int(found.gallery.pid[row] == 1) for row in order]
    stage.run(toy(), "toy-net")
    assert [output.read_bytes() for output in outputs] == before


def test_stage_writes_occlusion_levels_intervals_and_area(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hidden = np.where(np.arange(24) < 12, 0.05, 0.4)
    path = write_features(Path("data/features/toy-net/toy.h5"), occlusion=hidden)
    stage.run(toy(), "toy-net")
    metrics = json.loads(Path("data/results/toy/toy-net/toy.json").read_text())
    assert set(metrics["details"][0]) >= {"mAP_low", "rank1_high"}
    metrics |= metrics.pop("details")[0]
    found = read_features(path)
    distances = loop_distances(found.query, found.gallery, found.matching)
    first, precision, _ = loop_scores(found.query, found.gallery, distances)
    # The queries are rows 0, 4, .. 20.
    assert [name for name in metrics if name.startswith("queries_")] == ["queries_hidden_0_10", "queries_hidden_30_50"]
    for name, rows in (("hidden_0_10", slice(0, 3)), ("hidden_30_50", slice(3, 6))):
        assert metrics[f"queries_{name}"] == 3
        assert metrics[f"mAP_{name}"] == pytest.approx(100 * np.mean(precision[rows]), abs=0.006)
        assert metrics[f"rank1_{name}"] == pytest.approx(100 * np.mean(np.array(first[rows]) == 1), abs=0.006)
    assert metrics["PR_AUC"] == pytest.approx(100 * loop_area(found.query, found.gallery, distances), abs=0.006)
    assert metrics["mAP_low"] < metrics["mAP"] < metrics["mAP_high"]
    summary = evaluate(found.query, found.gallery, found.matching).summary()
    assert summary.items() <= metrics.items()


def test_stage_averages_over_trials(tmp_path, monkeypatch):
    """Each trial is an evaluation of its own: three people in one, three in the other, and a gallery for each."""
    monkeypatch.chdir(tmp_path)
    trial = np.where(np.arange(24) < 12, 3, 1)
    path = write_features(Path("data/features/toy-net/toy.h5"), trial=trial)
    stage.run(toy(), "toy-net")
    metrics = json.loads(Path("data/results/toy/toy-net/toy.json").read_text())
    found = read_features(path)
    means = []
    for number in (1, 3):
        query, gallery = (side.take(np.isin(side.pid, [1, 2, 3] if number == 3 else [4, 5, 6]))
                          for side in (found.query, found.gallery))
        means.append(np.mean(loop_scores(query, gallery, loop_distances(query, gallery, found.matching))[1]))
    assert metrics["mAP"] == pytest.approx(100 * np.mean(means), abs=0.006) and means[0] != means[1]
    details = metrics["details"][0]
    assert (details["trials"], details["queries"], details["gallery"]) == (2, 6, 9)
    lists = Path("data/ranks/toy/toy-net.csv").read_text().splitlines()[1:]
    assert len(lists) == 3 * 9 - 3 and not any("/0001_" in line for line in lists)  # the first trial's; own camera out
    same = write_features(tmp_path / "one.h5", trial=np.full(24, 7))
    assert len(read_features(same).trials()) == 1 and "trials" not in data_set_metrics(
        [evaluate(found.query, found.gallery, found.matching)])["details"][0]


def test_stage_averages_over_data_sets_that_are_trials(tmp_path, monkeypatch):
    """CUHK01's way: each trial a data set and a network of its own, one entry of means. Others are left alone."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(4)
    sets = (("set-0", 0), ("set-1", 1), ("set-7", 7), ("else-1", 2), ("other-1", None))
    for name, trial in sets:
        columns = {"features": draw.standard_normal((24, 16)).astype(np.float32)}
        if trial is not None:
            columns["trial"] = np.full(24, trial)
        write_features(Path(f"data/features/toy-net/{name}.h5"), **columns, maker=MAKER | {
            "run": f"toy-{name}", "dataset": name, "protocol": name})
    stage.run(toy(*(name for name, _ in sets)), "toy-net")
    folder = Path("data/results/toy/toy-net")
    assert {path.name for path in folder.iterdir()} == {"set.json", "else-1.json", "other-1.json"}
    entry = json.loads((folder / "set.json").read_text())
    assert entry["provenance"][0]["run"] == "toy-set-0"
    precision, hits = [], []
    for name in ("set-0", "set-1", "set-7"):
        found = read_features(f"data/features/toy-net/{name}.h5")
        first, precisions, _ = loop_scores(found.query, found.gallery,
                                           loop_distances(found.query, found.gallery, found.matching))
        precision.append(100 * sum(precisions) / len(precisions))
        hits.append(100 * sum(place == 1 for place in first) / len(first))
    details = entry["details"][0]
    assert (details["trials"], details["queries"], details["gallery"]) == (3, 18, 18)
    for name, values in (("mAP", precision), ("rank1", hits)):
        mean = sum(values) / 3
        deviation = sqrt(sum((value - mean) ** 2 for value in values) / 2)
        assert entry[name] == pytest.approx(mean, abs=0.006) and deviation > 0.1
        assert details[f"{name}_sd"] == pytest.approx(deviation, abs=0.006)
    other = json.loads((folder / "else-1.json").read_text())
    assert (entry["provenance"][0]["protocol"], other["provenance"][0]["protocol"]) == ("set-0", "else-1")
    assert not {"trials", "mAP_sd"} & other["details"][0].keys()
    curves, ranks = (pd.read_csv(f"data/{kind}/toy/toy-net.csv") for kind in ("curves", "ranks"))
    assert curves["dataset"].unique().tolist() == ["set", "else-1", "other-1"] and len(curves) == 3 * 50
    assert 100 * curves.loc[0, "cmc"] == pytest.approx(entry["rank1"], abs=0.006)
    assert ranks["dataset"].unique().tolist() == ["set-0", "else-1", "other-1"]  # lists are the first trial's


def test_stage_refuses_another_runs_features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_features(Path("data/features/toy-net/toy.h5"), maker=MAKER | {"result": "toy-old"})
    with pytest.raises(InputError, match="made for result 'toy-old', not 'toy-net'"):
        stage.run(toy(), "toy-net")
    with pytest.raises(InputError, match="evaluate.* has no entry 'toy-sorn'"):
        stage.run(toy(), "toy-sorn")
