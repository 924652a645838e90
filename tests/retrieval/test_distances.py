"""Distances at every scale and far from the origin against loops in float64; pairs that share nothing."""

from math import inf

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.retrieval.distances import paired_distances, save_distances
from pipeline.retrieval.matching import Frame, Matching, Side, settle
from pipeline.retrieval.ranking import evaluate, evaluate_matrix, nearest
from pipeline.retrieval.reranking import Reranking, evaluate_reranked
from pipeline.retrieval.scores import Scores
from tests.helpers.loop_ranking import loop_distances
from tests.helpers.pair_distances import pair_distances


def people(kind: str = "f4", factor: float = 1, offset: float = 0.0, seed: int = 0) -> tuple[Side, Side]:
    """Fifteen people around a centre each, ten of them asked for."""
    draw = np.random.default_rng(seed)
    centres, sides = draw.normal(size=(15, 16)), []
    for pid in (np.arange(20) % 10, np.arange(60) % 15):
        features = centres[pid] + 0.8 * draw.normal(size=(len(pid), 16))
        sides.append(Side((features * factor + offset).astype(kind), np.ones((len(pid), 2), np.float32), pid,
                          np.full(len(pid), len(sides))))
    return sides[0], sides[1]


def figures(scores: Scores) -> dict[str, float]:
    return scores.summary() | {"area": round(100 * float(scores.area), 2)}


def by_loop(query: Side, gallery: Side, matching: Matching) -> dict[str, float]:
    return figures(evaluate_matrix(np.array(loop_distances(query, gallery, matching)), query_pid=query.pid,
                                   query_camid=query.camid, gallery_pid=gallery.pid, gallery_camid=gallery.camid,
                                   pairs=True))


# The last of each is where only the largest or the smallest numbers of the type are left, some of them denormal.
@pytest.mark.parametrize(("kind", "factor"), [
    ("f4", 1e-6), ("f4", 1e-20), ("f4", 1e-30), ("f4", 1e20), ("f4", 1e30), ("f4", 6e37), ("f4", 1e-36),
    ("f2", 1e-2), ("f2", 1e4), ("f8", 1e-200), ("f8", 1e200), ("f8", 3e307), ("f8", 1e-304)])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_factor_changes_no_metric(kind, factor, distance, reduction):
    """Also where re-ranked. Rounding to float16 or to denormal numbers is the type's own: the loop has it too."""
    matching = Matching((4, 12), distance, reduction)
    query, gallery = people(kind, factor)
    scaled = [Side(side.features.astype(np.longdouble) / factor, side.visibility, side.pid, side.camid)
              for side in (query, gallery)]
    assert np.isfinite(scaled[0].features.astype(float)).all()
    expected = by_loop(*scaled, matching)
    assert figures(evaluate(query, gallery, matching, pairs=True)) == expected
    if kind != "f2" and factor not in (1e-36, 1e-304):
        assert expected == by_loop(*people("f8"), matching)

    given, plain = Reranking(k1=6, k2=3), [Side(side.features.astype("f8"), *(getattr(side, name) for name in (
        "visibility", "pid", "camid"))) for side in scaled]
    double = Matching((4, 12), distance, reduction, double=True)
    assert figures(evaluate_reranked(query, gallery, matching, given, pairs=True)) == figures(
        evaluate_reranked(*plain, double, given, pairs=True))


@pytest.mark.parametrize(("kind", "offset"), [("f4", 1e3), ("f4", 1e4), ("f4", 1e5), ("f4", -1e6), ("f8", 1e9),
                                              ("f8", 1e12)])
def test_euclidean_far_from_the_origin(kind, offset):
    """What the type itself rounds away is gone for the loop too; nothing else is lost."""
    matching = Matching((4, 12), "euclidean", "mean")
    for seed in range(4):
        query, gallery = people(kind, offset=offset, seed=seed)
        assert figures(evaluate(query, gallery, matching, pairs=True)) == by_loop(query, gallery, matching)
        np.testing.assert_allclose(pair_distances(query, gallery, matching), loop_distances(query, gallery, matching),
                                   rtol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_people_far_from_each_other_and_near_themselves(distance):
    """Groups far apart: no centre is near all, and in each the subtraction of squares leaves nothing."""
    matching = Matching((4, 12), distance, "mean")
    for seed in range(4):
        query, gallery = people("f4", seed=seed)
        for side in (query, gallery):
            side.features[:] += 3e3 * np.random.default_rng(7).normal(size=(3, 16))[side.pid % 3]
        assert figures(evaluate(query, gallery, matching, pairs=True)) == by_loop(query, gallery, matching)


def test_a_narrow_cone_of_directions():
    """1 - cos of 1e-8, below float32's last bit."""
    matching = Matching((16,), "cosine", "mean")
    for offset in (1e3, 1e4):
        query, gallery = people("f4", offset=offset)
        query, gallery = (Side(side.features, side.visibility[:, :1], side.pid, side.camid)
                          for side in (query, gallery))
        assert figures(evaluate(query, gallery, matching, pairs=True)) == by_loop(query, gallery, matching)


def test_ordinary_features_stay_as_they_are():
    """So do those of networks: of length 1, after a ReLU, whatever a batch normalisation gave."""
    draw = np.random.default_rng(0)
    for features in (draw.normal(size=(300, 64)), draw.random((300, 64)), 30 * draw.normal(size=(300, 64)) + 20,
                     np.full((300, 64), 0.5), np.zeros((300, 64))):
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
        for given in (features, unit):
            side = Side(given.astype("f4"), np.ones((300, 1)), np.arange(300), np.zeros(300))
            for distance in ("cosine", "euclidean"):
                settled = settle(side, side, Matching((64,), distance, "mean"))
                assert settled.frame == Frame() and not settled.double


def test_one_image_of_another_scale():
    """Cosines have each image's own scale; Euclidean distances one for all, or the image is named."""
    query, gallery = people("f8")
    gallery.features[7] *= 1e200
    expected = by_loop(*people("f8"), Matching((4, 12), "cosine", "mean"))
    assert figures(evaluate(query, gallery, Matching((4, 12), "cosine", "mean"), pairs=True)) == expected
    euclidean = Matching((4, 12), "euclidean", "mean")
    for action in (evaluate, lambda *given: evaluate_reranked(*given, Reranking())):
        with pytest.raises(InputError, match=r"row 7 of the gallery features reaches .*e\+200, and most of the others"):
            action(query, gallery, euclidean)

    query, gallery = people("f4")
    query.features[3] *= np.float32(1e9)
    assert figures(evaluate(query, gallery, euclidean, pairs=True)) == by_loop(query, gallery, euclidean)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("bad", [np.nan, inf])
def test_an_image_that_is_not_finite_is_named(distance, bad):
    query, gallery = people("f4")
    query.features[11, 5] = bad
    matching = Matching((4, 12), distance, "mean")
    for action in (lambda: evaluate(query, gallery, matching), lambda: nearest(query, gallery, matching, 3),
                   lambda: evaluate_reranked(query, gallery, matching, Reranking())):
        with pytest.raises(InputError, match="row 11 of the query features is not finite"):
            action()


def test_a_feature_of_zeros_has_no_direction():
    query, gallery = people("f4", 1e20)
    query.features[2] = gallery.features[5] = 0
    matching = Matching((4, 12), "cosine", "mean")
    found = pair_distances(query, gallery, matching)
    assert (found[2] == 1).all() and (found[:, 5] == 1).all()
    np.testing.assert_array_equal(paired_distances(query, gallery.take(slice(0, 20)), matching)[[2, 5]], 1)


def test_distances_are_those_of_the_features_not_of_the_frame(tmp_path):
    matching = Matching((4, 12), "euclidean", "mean")
    plain = np.array(loop_distances(*people("f8"), matching))
    for kind, factor in (("f4", 1e20), ("f8", 1e200), ("f8", 1e-200), ("f4", 1e-20)):
        query, gallery = people(kind, factor)
        np.testing.assert_allclose(pair_distances(query, gallery, matching), factor * plain, rtol=1e-5)
        rows, distances = nearest(query, gallery, matching, 3)
        np.testing.assert_allclose(distances, np.take_along_axis(factor * plain, rows, axis=1), rtol=1e-5)

    save_distances(tmp_path / "d.npy", *people("f4", 1e20), matching)
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), 1e20 * plain, rtol=1e-5)
    for factor, said in ((1e200, r"8e\+200"), (1e-200, "8e-200")):
        with pytest.raises(InputError, match=f"e.npy': the distances of queries 0 to 19 lie in .*{said}, which"):
            save_distances(tmp_path / "e.npy", *people("f8", factor), matching)
    assert [path.name for path in tmp_path.iterdir()] == ["d.npy"]


@pytest.mark.parametrize("reranked", [False, True])
def test_the_order_of_unshared_pairs_knows_nobody(reranked):
    """A gallery in the order of its people, and nobody shares a part with anybody: low numbers gain nothing."""
    gallery_pid = np.repeat(np.arange(40), 5)
    draw = np.random.default_rng(0)
    query, gallery = (Side(draw.normal(size=(len(pid), 4)).astype("f4"), np.eye(2, dtype="f4")[[part] * len(pid)], pid,
                           np.full(len(pid), part))
                      for part, pid in ((0, np.repeat(np.arange(40), 10)), (1, gallery_pid)))
    matching = Matching((2, 2), "cosine", "mean")
    scores = evaluate_reranked(query, gallery, matching, Reranking(k1=3, k2=2)) if reranked else evaluate(
        query, gallery, matching)
    low, high = (scores.precision[(query.pid >= start) & (query.pid < start + 20)].mean() for start in (0, 20))
    chance = np.mean([(np.arange(1, 6) / (np.sort(draw.choice(200, 5, replace=False)) + 1)).mean()
                      for _ in range(4000)])
    assert low == pytest.approx(chance, abs=0.015) and high == pytest.approx(chance, abs=0.015)

    shuffled = np.random.default_rng(1).permutation(len(gallery))  # an image keeps its mark wherever it stands
    again = evaluate(query, gallery.take(shuffled), matching)
    np.testing.assert_array_equal(again.precision, evaluate(query, gallery, matching).precision)
