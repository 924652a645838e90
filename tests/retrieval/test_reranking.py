"""k-reciprocal re-ranking against the paper's steps in dense matrices and sets."""

import dataclasses
from math import exp, inf

import numpy as np
import pytest

import pipeline.retrieval.reranking
from pipeline.base.errors import InputError
from pipeline.retrieval.distances import paired_distances, strips
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate, evaluate_matrix
from pipeline.retrieval.reranking import Reranking, evaluate_reranked, reranked_strips
from tests.helpers.pair_distances import pair_distances


def joined(query: Side, gallery: Side) -> Side:
    return Side(*(np.concatenate([getattr(query, name), getattr(gallery, name)])
                  for name in ("features", "visibility", "pid", "camid")))


def dense(query: Side, gallery: Side, matching: Matching, given: Reranking) -> np.ndarray:
    """d* of all pairs, (Q, G), from a full (Q + G)^2 matrix; infinite where a pair shares no part."""
    everyone = joined(query, gallery)
    far = pair_distances(everyone, everyone, matching)
    count = len(far)
    squared = far ** 2 if matching.distance == "euclidean" else far
    old = np.array([row / max(value for value in row if value < inf) if (row < inf).any() else row for row in squared])

    ranked = [[j for j in sorted(range(count), key=lambda j: (far[i, j], j)) if far[i, j] < inf] for i in range(count)]

    def first(i: int, k: int) -> list[int]:
        return ranked[i][:k]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in first(i, k + 1) if i in first(j, k + 1)}

    encoded = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, given.k1)
        star = set(members)
        for j in members:
            more = reciprocal(j, int(np.around(given.k1 / 2)))
            if len(more & members) > 2 / 3 * len(more):
                star |= more
        weights = {j: exp(-old[i, j]) for j in star}
        for j, weight in weights.items():
            encoded[i, j] = weight / sum(weights.values())
    if given.k2 > 1:
        encoded = np.array([np.mean([encoded[j] for j in first(i, given.k2)], axis=0) if first(i, given.k2)
                            else np.zeros(count) for i in range(count)])
    found = np.full((len(query), len(gallery)), inf)
    for q in range(len(query)):
        for g in range(len(gallery)):
            if far[q, len(query) + g] < inf:
                one, two = encoded[q], encoded[len(query) + g]
                jaccard = 1 - np.minimum(one, two).sum() / np.maximum(one, two).sum()
                found[q, g] = (1 - given.weight) * jaccard + given.weight * old[q, len(query) + g]
    return found


def problem(seed: int, sizes: tuple[int, ...], *, hidden: float, near: float = 1.0) -> tuple[Side, Side]:
    """Six people around a centre each; parts are hidden with probability `hidden`."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((6, sum(sizes)))
    sides = []
    for count in (9, 35):
        pid = draw.integers(0, 6, count)
        features = centres[pid] + near * draw.standard_normal((count, sum(sizes)))
        visibility = draw.random((count, len(sizes))) * (draw.random((count, len(sizes))) >= hidden)
        sides.append(Side(features, visibility, pid, draw.integers(0, 3, count)))
    return sides[0], sides[1]


def strips_as_one(query: Side, gallery: Side, matching: Matching, given: Reranking, **more) -> np.ndarray:
    found = np.concatenate([strip.copy() for _, strip in reranked_strips(query, gallery, matching, given, **more)])
    return np.where(found < (2.0**126 if found.dtype == np.float32 else 2.0**1022), found, inf)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(("sizes", "hidden"), [((5,), 0.0), ((3, 4), 0.0), ((3, 4), 0.45)])
@pytest.mark.parametrize("given", [Reranking(), Reranking(k1=5, k2=3, weight=0.5), Reranking(k1=7, k2=1, weight=0),
                                   Reranking(k1=100, k2=2)])
def test_equals_the_dense_way(distance, sizes, hidden, given, monkeypatch):
    monkeypatch.setattr(pipeline.retrieval.reranking, "ROWS", 7)
    monkeypatch.setattr(pipeline.retrieval.reranking, "PAIRS", 40)
    matching = Matching(sizes, distance, "mean", double=True)
    apart = 0
    for seed in range(2):
        query, gallery = problem(seed, sizes, hidden=hidden)
        expected = dense(query, gallery, matching, given)
        found = strips_as_one(query, gallery, matching, given, megabytes=0.003)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
        apart += int(np.isinf(expected).sum())
    assert bool(apart) == bool(hidden), "some pairs must share no part"


def test_single_precision_is_near_double():
    query, gallery = problem(0, (6, 6), hidden=0.2)
    single, double = (strips_as_one(query, gallery, Matching((6, 6), "euclidean", "mean", double), Reranking(k1=6))
                      for double in (False, True))
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_paired_distances_are_those_of_all_pairs(distance, reduction):
    query, gallery = problem(3, (3, 4), hidden=0.45)
    gallery.features[0, :3] = 0
    matching = Matching((3, 4), distance, reduction, double=True)
    rows, columns = (part.ravel() for part in np.mgrid[:len(query), :len(gallery)])
    found = paired_distances(query.take(rows), gallery.take(columns), matching)
    np.testing.assert_allclose(found, pair_distances(query, gallery, matching).ravel(), rtol=0, atol=1e-12)
    assert np.isinf(found).any()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_whole_body_orders_what_shares_no_part_and_describes_nobody(distance):
    """Re-ranked distances are those without it; only the pairs behind them are told apart, as before re-ranking."""
    query, gallery = problem(2, (3, 4), hidden=0.45)
    given, order = Reranking(k1=5, k2=3), []
    matching = Matching((3, 4), distance, "mean", double=True)
    known = dataclasses.replace(matching, whole_body=1)
    np.testing.assert_array_equal(strips_as_one(query, gallery, known, given),
                                  strips_as_one(query, gallery, matching, given))
    for found in (strips(query, gallery, known), reranked_strips(query, gallery, known, given)):
        order.append(np.concatenate([strip.copy() for _, strip in found]))
    apart = order[0] > 1e9
    assert apart.any() and len(np.unique(order[0][apart])) > 10
    np.testing.assert_array_equal(order[0][apart], order[1][apart])


def test_the_scores_are_those_of_the_dense_distances():
    matching, given = Matching((3, 4), "cosine", "mean", double=True), Reranking(k1=6, k2=3)
    query, gallery = problem(5, (3, 4), hidden=0.3)
    gallery.pid[::7] = -1  # nobody's images describe no one
    kept = gallery.take(gallery.pid >= 0)
    labels = {"query_pid": query.pid, "query_camid": query.camid, "gallery_pid": gallery.pid,
              "gallery_camid": gallery.camid}
    distances = np.full((len(query), len(gallery)), inf)
    distances[:, gallery.pid >= 0] = dense(query, kept, matching, given)
    expected = evaluate_matrix(distances, **labels, pairs=True)
    found = evaluate_reranked(query, gallery, matching, given, pairs=True)
    assert found.first.tolist() == expected.first.tolist()
    np.testing.assert_allclose(found.precision, expected.precision, atol=1e-12)
    assert found.area == pytest.approx(expected.area, abs=1e-12)


def test_all_weight_on_the_old_distance_changes_no_ranking_and_the_paper_s_helps():
    matching, gains = Matching((12,), "euclidean", "mean", double=True), []
    for seed in range(10):
        query, gallery = problem(seed, (12,), hidden=0)
        plain, same, better = (evaluate(query, gallery, matching),
                               *(evaluate_reranked(query, gallery, matching, Reranking(k1=6, k2=3, weight=weight))
                                 for weight in (1, 0.3)))
        np.testing.assert_array_equal(same.precision, plain.precision)
        gains.append(better.summary()["mAP"] - plain.summary()["mAP"])
    assert np.mean(gains) > 2, gains


@pytest.mark.parametrize(("given", "said"), [({"k1": 0}, "k1 is 0"), ({"k2": 0}, "k2 is 0"),
                                             ({"weight": 1.1}, "lambda is 1.1")])
def test_numbers_that_make_no_sense(given, said):
    with pytest.raises(InputError, match=said):
        Reranking(**given)
