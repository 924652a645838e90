"""The stage neighbours: lists and part distances against loops over the features."""

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.reporting.neighbours import read_neighbours
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import nearest
from stages import neighbours as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.features_file import MAKER, write_features

FILE = "data/features/toy-net/toy.h5"


def toy(**changes: str):
    entry = {"report": "page", "result": "toy-net", "dataset": "toy", "features": FILE, **changes}
    return bare_experiment("toy", plan={"neighbours": {"page-toy-net": entry}})


def part_distance(one: np.ndarray, two: np.ndarray, distance: str) -> float:
    if distance == "euclidean":
        return float(np.sqrt(((one - two) ** 2).sum()))
    return 1 - float(one @ two) / (float(np.sqrt(one @ one)) * float(np.sqrt(two @ two)))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_lists_are_those_of_a_loop_over_the_features(tmp_path, monkeypatch, distance, reduction):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "TOP", 3)
    draw = np.random.default_rng(1)
    seen = draw.choice([0.0, 0.25, 1.0], (24, 2))
    seen[:, 0] = 1
    path = write_features(tmp_path / FILE, maker={**MAKER, "distance": distance, "reduction": reduction},
                          visibility=seen.astype(np.float32), occlusion=np.linspace(0, 1, 24, dtype=np.float32),
                          features=draw.standard_normal((24, 16)).astype(np.float32))
    held = read_features(path)
    stage.run(toy(), "page-toy-net")
    found = read_neighbours(paths.neighbours("toy", "page", "toy-net"), result="toy-net", dataset="toy", remedy="")
    assert [listed.query for listed in found.lists] == sorted(held.query_key.tolist())

    far = 0
    for listed in found.lists:
        query = held.query_key.tolist().index(listed.query)
        rows = []
        for row in range(len(held.gallery)):
            if held.gallery.pid[row] == held.query.pid[query] and held.gallery.camid[row] == held.query.camid[query]:
                continue
            cuts = [(0, 8), (8, 16)]
            parts = [part_distance(held.query.features[query, a:b].astype(float),
                                   held.gallery.features[row, a:b].astype(float), distance) for a, b in cuts]
            w = [float(held.query.visibility[query, p] * held.gallery.visibility[row, p]) for p in range(2)]
            total = sum(x * y for x, y in zip(w, parts, strict=True)) / (sum(w) if reduction == "mean" else 1)
            rows.append((total, row, parts))
        rows.sort(key=lambda one: one[0])
        right = [held.gallery.pid[row] == held.query.pid[query] for _, row, _ in rows]
        first = right.index(True) + 1
        shown = rows[:3] if first <= 3 else [*rows[:3], rows[first - 1]]
        far += first > 3

        assert listed.first == first and listed.hidden == pytest.approx(float(held.query.occlusion[query]), rel=1e-3)
        assert listed.gallery == [held.gallery_key[row] for _, row, _ in shown]
        assert listed.place == ([1, 2, 3] if first <= 3 else [1, 2, 3, first])
        assert listed.match == [held.gallery.pid[row] == held.query.pid[query] for _, row, _ in shown]
        assert listed.distance == pytest.approx([total for total, *_ in shown], rel=1e-3)
        assert np.allclose(listed.parts, [parts for *_, parts in shown], rtol=1e-3, atol=1e-6)
        assert np.allclose(listed.visibility, held.query.visibility[query])
        assert np.allclose(listed.visible, [held.gallery.visibility[row] for _, row, _ in shown])
    assert far, "the draw holds queries whose first match stands beyond the first three"


@pytest.mark.parametrize("whole_body", [None, 0])
def test_where_no_match_shares_a_part_the_one_at_the_place_is_shown(whole_body):
    """It was the first of them in the gallery, beside the place of another."""
    draw = np.random.default_rng(2)
    pid = np.arange(60) // 3
    gallery = Side(draw.standard_normal((60, 8)).astype(np.float32), np.tile(np.float32([0, 1]), (60, 1)), pid,
                   np.ones(60, int))
    query = Side(draw.standard_normal((20, 8)).astype(np.float32), np.tile(np.float32([1, 0]), (20, 1)),
                 np.arange(20), np.zeros(20, int))
    matching = Matching((4, 4), "euclidean", "mean", whole_body=whole_body)
    keys = [np.array([f"{side}{row:02d}" for row in range(count)]) for side, count in (("q", 20), ("g", 60))]
    places, _ = nearest(query, gallery, matching, 60)

    found = stage.query_lists(Embedded(query, gallery, *keys, matching, {"dataset": "toy"}))
    last = [(row, listed) for row, listed in enumerate(found) if listed.first > stage.TOP]
    assert len(last) > 5
    for row, listed in last:
        assert listed.place[-1] == listed.first and listed.match[-1] and listed.distance[-1] is None
        assert listed.gallery[-1] == f"g{places[row, listed.first - 1]:02d}"
        if whole_body == 0:  # the nearest by the whole body, which the gallery hides
            far = [np.linalg.norm(query.features[row, :4] - gallery.features[other, :4]) for other in range(60)]
            assert listed.gallery[-1] == f"g{min(np.flatnonzero(pid == row), key=lambda other: far[other]):02d}"


def test_features_that_are_gone_or_another_s_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="toy.h5': no such features file; make it with `dvc repro`"):
        stage.run(toy(), "page-toy-net")
    write_features(tmp_path / FILE)
    with pytest.raises(InputError, match="was made for dataset 'toy', not 'other'; delete it and run `dvc repro`"):
        stage.run(toy(dataset="other"), "page-toy-net")
    assert not paths.NEIGHBOURS.exists() or not list(paths.NEIGHBOURS.rglob("*.json"))


def test_the_same_features_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / FILE)
    written = []
    for _ in range(2):
        stage.run(toy(), "page-toy-net")
        written.append(paths.neighbours("toy", "page", "toy-net").read_bytes())
    assert written[0] == written[1]


def test_listed_pictures_are_left_out_as_evaluate_leaves_them_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = read_features(write_features(tmp_path / FILE))
    gone = [str(held.query_key[0]), str(held.gallery_key[3])]
    paths.ignored("toy").parent.mkdir(parents=True)
    paths.ignored("toy").write_text("path,reason\n" + "".join(f"{key},two people\n" for key in gone))
    entry = {"report": "page", "result": "toy-net", "dataset": "toy", "features": FILE}
    for section, left in (("neighbours", gone), ("neighbours_listed", [])):
        stage.run(bare_experiment("toy", plan={section: {"page-toy-net": entry}}), "page-toy-net")
        found = read_neighbours(paths.neighbours("toy", "page", "toy-net"), result="toy-net", dataset="toy", remedy="")
        shown = {key for listed in found.lists for key in (listed.query, *listed.gallery)}
        assert [key for key in gone if key in shown] == left and len(found.lists) == (6 if left else 5)
