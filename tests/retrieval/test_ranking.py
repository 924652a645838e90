"""Retrieval against a loop written from the definition, on problems full of ties, gaps and odd identities."""

import doctest
from math import inf, isnan

import numpy as np
import pytest

import pipeline.retrieval.distances
import pipeline.retrieval.features
import pipeline.retrieval.metrics
import pipeline.retrieval.ranking
import pipeline.retrieval.scores
from pipeline.base.errors import InputError
from pipeline.retrieval.distances import save_distances
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate, evaluate_matrix, match_places, nearest
from tests.helpers.loop_ranking import (
    loop_area,
    loop_distance,
    loop_distances,
    loop_list,
    loop_scores,
    loop_trapezoids,
    problem,
)
from tests.helpers.pair_distances import pair_distances


@pytest.mark.parametrize("kind", ["exact", "random"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("sizes", [(4,), (4, 5, 4, 6)], ids=["P=1", "P=4"])
def test_equals_the_loop(kind, distance, reduction, sizes, monkeypatch):
    monkeypatch.setattr(pipeline.retrieval.distances, "GALLERY_BLOCK", 17)
    monkeypatch.setattr(pipeline.retrieval.distances, "CPU_ROWS", 3)
    monkeypatch.setattr(pipeline.retrieval.ranking, "ROWS", 3)
    matching = Matching(sizes, distance, reduction, double=True)
    seen = {"tie": 0, "skipped": 0, "apart": 0}
    for seed in range(12):
        query, gallery = problem(np.random.default_rng(seed), sizes, kind)
        expected = loop_distances(query, gallery, matching)
        np.testing.assert_allclose(pair_distances(query, gallery, matching), expected, rtol=1e-12, atol=1e-12)
        scores = evaluate(query, gallery, matching, megabytes=0.002)
        first, precision, penalty = loop_scores(query, gallery, expected)
        assert scores.first.tolist() == first
        np.testing.assert_allclose(scores.precision, precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.penalty, penalty, rtol=0, atol=1e-12)
        given = pair_distances(query, gallery, matching)
        whole = evaluate(query, gallery, matching, pairs=True)
        assert whole.area == pytest.approx(loop_area(query, gallery, given.tolist()), abs=1e-12)
        if (distance, kind) != ("euclidean", "exact"):  # sums of roots tie or not by their last bit
            assert whole.area == pytest.approx(loop_area(query, gallery, expected), abs=1e-12)
        trapezoid = evaluate(query, gallery, matching, trapezoid=True)
        np.testing.assert_allclose(trapezoid.precision, loop_trapezoids(query, gallery, expected), rtol=0, atol=1e-12)
        before = given.copy()
        labels = {f"{name}_{field}": getattr(side, field) for name, side in (("query", query), ("gallery", gallery))
                  for field in ("pid", "camid")}
        matrix = evaluate_matrix(given, **labels, pairs=True)
        np.testing.assert_array_equal(given, before)
        assert matrix.first.tolist() == first and matrix.area == whole.area
        np.testing.assert_array_equal(matrix.precision, whole.precision)
        found, _ = nearest(query, gallery, matching, 8)
        assert found.tolist() == [loop_list(query, gallery, i, expected)[:8] for i in range(len(query))]
        seen["tie"] += sum(len(set(row)) < len(row) for row in expected)
        seen["apart"] += int(np.isinf(expected).sum())
        seen["skipped"] += sum(isnan(value) for value in precision)
    assert seen["apart"] and seen["skipped"] and (kind == "random" or seen["tie"]), "the problems must be hard ones"


def loop_ordered(q: Side, g: Side, matching: Matching) -> list[list[float]]:
    """`loop_distances`; pairs that share no part behind all others, by the distance of the whole body's part."""
    first = sum(matching.sizes[:matching.whole_body])
    whole = slice(first, first + matching.sizes[matching.whole_body])
    shown = Matching((matching.sizes[matching.whole_body],), matching.distance, "mean")
    bodies = [Side(side.features[:, whole], np.ones((len(side), 1)), side.pid, side.camid) for side in (q, g)]
    return [[1e6 + loop_distance(*bodies, i, j, shown) if distance == inf else distance
             for j, distance in enumerate(row)] for i, row in enumerate(loop_distances(q, g, matching))]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["exact", "random"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("whole", [0, 2])
def test_pairs_that_share_no_part_are_ordered_by_the_whole_body(kind, distance, whole, double, monkeypatch):
    """Its part takes no part in other distances (v = 0), or in some images' (v as drawn)."""
    monkeypatch.setattr(pipeline.retrieval.distances, "GALLERY_BLOCK", 17)
    monkeypatch.setattr(pipeline.retrieval.distances, "CPU_ROWS", 3)
    monkeypatch.setattr(pipeline.retrieval.ranking, "ROWS", 3)
    sizes = (4, 5, 4, 6)
    matching = Matching(sizes, distance, "mean", double=double, whole_body=whole)
    apart = moved = 0
    for seed in range(8):
        query, gallery = problem(np.random.default_rng(seed), sizes, kind)
        for side in (query, gallery):
            side.visibility[:] *= np.random.default_rng(seed + 1).random(side.visibility.shape) < 0.5
            if seed % 2:
                side.visibility[:, whole] = 0
        expected = loop_ordered(query, gallery, matching)
        plain = loop_distances(query, gallery, matching)
        found = pair_distances(query, gallery, matching)
        np.testing.assert_allclose(found, plain, rtol=1e-12 if double else 1e-4, atol=1e-12 if double else 1e-4)
        lists = [loop_list(query, gallery, i, expected) for i in range(len(query))]
        rows, distances = nearest(query, gallery, matching, 60)
        apart += int(np.isinf(plain).sum())
        moved += sum(lists[i] != loop_list(query, gallery, i, plain) for i in range(len(query)))
        if not double and kind == "exact":
            continue  # what ties in plain numbers may differ in the last bit of single precision
        for i, own in enumerate(lists):
            assert [row for row in rows[i].tolist() if row >= 0] == own, (seed, i)
            assert np.isinf(distances[i, :len(own)]).tolist() == [plain[i][j] == inf for j in own]
        scores = evaluate(query, gallery, matching, megabytes=0.002, pairs=True)
        first, precision, penalty = loop_scores(query, gallery, expected)
        assert scores.first.tolist() == first
        np.testing.assert_allclose(scores.precision, precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.penalty, penalty, rtol=0, atol=1e-12)
        if (distance, kind) != ("euclidean", "exact"):
            assert scores.area == pytest.approx(loop_area(query, gallery, plain), abs=1e-12), "they are one group there"
    assert apart > 500 and moved > 20


@pytest.mark.parametrize("few", [0, 5, 1000])
def test_places_of_matches_among_ties(few, monkeypatch):
    """Counted or sorted, they are those of a stable sort."""
    monkeypatch.setattr(pipeline.retrieval.ranking, "FEW", few)
    draw = np.random.default_rng(few)
    for levels in (1, 3, 40, 10**6):
        row = draw.integers(0, levels, 50).astype(np.float32)
        row[draw.integers(0, 50, 5)] = np.inf
        matches = np.sort(draw.choice(np.flatnonzero(row < np.inf), draw.integers(1, 12), replace=False))
        order = sorted(range(50), key=lambda j, row=row: (row[j], j))
        assert match_places(row, matches).tolist() == sorted(order.index(j) + 1 for j in matches)


def test_given_distances():
    labels = {"query_pid": np.array([1, 2]), "query_camid": np.zeros(2), "gallery_pid": np.array([-1, 2, 1, 3]),
              "gallery_camid": np.ones(4)}
    whole = np.array([[0, 5, 1, 0], [0, 3, 3, 3]])  # whole numbers; the first column is nobody's
    assert evaluate_matrix(whole, **labels).first.tolist() == [2, 1]
    apart = np.array([[0, 1, np.inf, 5], [0, np.inf, 7, 2]], np.float32)
    assert evaluate_matrix(apart, **labels).first.tolist() == [3, 3]
    with pytest.raises(InputError, match=r"are \(4, 2\), and there are 2 queries and 4 gallery images"):
        evaluate_matrix(whole.T, **labels)
    for bad in (np.nan, -np.nan, 1.7e308):
        with pytest.raises(InputError, match="query 0 hold a value that is no number, or beyond 4e.307"):
            evaluate_matrix(np.where(whole == 5, bad, whole), **labels)


def test_saved_distances_are_those_of_all_pairs(tmp_path):
    query, gallery = problem(np.random.default_rng(1), (4, 5), "exact")
    for double in (False, True):
        matching = Matching((4, 5), "euclidean", "mean", double)
        save_distances(tmp_path / "d.npy", query, gallery, matching, megabytes=0.001)
        saved = np.load(tmp_path / "d.npy")
        assert saved.dtype == (np.float64 if double else np.float32)
        np.testing.assert_array_equal(saved, pair_distances(query, gallery, matching))
        assert np.isinf(saved).any()
    assert [path.name for path in tmp_path.iterdir()] == ["d.npy"]


def test_summary_counts_and_rounds():
    #             two queries of person 1, one of person 2 (seen by its own camera only), one of nobody
    query = Side(np.array([[0.0], [4], [0], [0]]), np.ones((4, 1)), np.array([1, 1, 2, -1]), np.array([0, 0, 0, 0]))
    gallery = Side(np.array([[0.0], [1], [2], [3], [9]]), np.ones((5, 1)), np.array([1, 7, 1, 1, 2]),
                   np.array([0, 1, 1, 1, 0]))
    found = evaluate(query, gallery, Matching((1,), "euclidean", "mean")).summary()
    # query 0: 7 | 1 1 -> AP (1/2 + 2/3) / 2, INP 2/3; query 1: 1 1 7 2 -> AP 1, INP 1
    assert found == {"rank1": 50.0, "rank5": 100.0, "rank10": 100.0, "mAP": round(100 * (7 / 12 + 1) / 2, 2),
                     "mINP": round(100 * (2 / 3 + 1) / 2, 2), "queries": 2, "skipped": 1, "gallery": 5}


def test_single_precision_ranks_like_double():
    draw = np.random.default_rng(3)
    sides = []
    for count in (40, 700):
        features = draw.standard_normal((count, 96)).astype(np.float32)
        sides.append(Side(features, draw.random((count, 3)).astype(np.float32), draw.integers(0, 20, count),
                          draw.integers(0, 4, count)))
    for distance in ("cosine", "euclidean"):
        single, double = (evaluate(*sides, Matching((32,) * 3, distance, "mean", double)) for double in (False, True))
        assert abs(single.summary()["mAP"] - double.summary()["mAP"]) <= 0.01
        half = [Side(side.features.astype(np.float16), side.visibility, side.pid, side.camid) for side in sides]
        assert abs(evaluate(*half, Matching((32,) * 3, distance, "mean")).summary()["mAP"]
                   - double.summary()["mAP"]) < 0.1


@pytest.mark.parametrize("module", [pipeline.retrieval.metrics, pipeline.retrieval.ranking,
                                    pipeline.retrieval.scores])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_nothing_to_score():
    one = Side(np.ones((2, 3)), np.ones((2, 1)), np.array([5, 5]), np.array([1, 1]))
    junk = Side(np.ones((2, 3)), np.ones((2, 1)), np.array([-1, -1]), np.array([1, 1]))
    matching = Matching((3,), "cosine", "mean")
    with pytest.raises(InputError, match="none of the 2 queries has a match"):
        evaluate(one, one, matching)
    with pytest.raises(InputError, match="no gallery images"):
        evaluate(one, junk, matching)
    with pytest.raises(InputError, match="'manhattan'; it is one of cosine, euclidean"):
        Matching((3,), "manhattan", "mean")
