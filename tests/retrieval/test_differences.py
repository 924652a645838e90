"""Paired differences: means, permutation test, chance and changed sides against naive loops and known cases."""

import doctest
import itertools

import numpy as np
import pytest

from pipeline.retrieval import exclusions, paired
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.paired import (
    chance,
    changed,
    collapsed,
    difference_intervals,
    differences,
    flipped,
    identity_sums,
    means,
)
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import Scores, by_identity, data_set_metrics, sums_of


def made_scores(seed: int, *, people: int = 9, trials: int = 1, better: float = 0.0) -> list[Scores]:
    """1 to 3 queries a person, some of them skipped; the same people and queries under every seed."""
    draw, found = np.random.default_rng(seed), []
    for trial in range(trials):
        pid = np.repeat(np.arange(people) + trial, np.arange(people) % 3 + 1)
        precision = np.clip(draw.random(len(pid)) + better, 0.01, 1)
        first = np.where(precision > 0.6, 1, 2)
        first[3] = 0
        found.append(Scores(first, np.where(first > 0, precision, np.nan), precision, pid, 99))
    return found


@pytest.mark.parametrize("trials", [1, 3])
def test_means_are_the_metrics_and_sums_are_those_of_a_result(trials):
    scores = made_scores(0, trials=trials)
    asked, sums = identity_sums(scores)
    metrics = data_set_metrics(scores)
    assert (100 * means(sums)).round(2).tolist() == [metrics["rank1"], metrics["mAP"]]
    written, read = sums_of(by_identity(scores))
    assert written == asked
    np.testing.assert_allclose(read, sums, atol=5.1e-5)


def loop_difference(one: list[list[Scores]], other: list[list[Scores]], exchanged: set[int]) -> tuple[float, float]:
    """one - other of rank-1 and mAP, query by query, where these people's queries are exchanged."""
    per_trial = []
    for trial in range(len(one[0])):
        rows = []
        for row, person in enumerate(one[0][trial].pid.tolist()):
            if one[0][trial].first[row]:
                hits, precisions = ([np.mean([float(value(seed[trial])) for seed in side]) for side in (one, other)]
                                    for value in (lambda s, r=row: s.first[r] == 1, lambda s, r=row: s.precision[r]))
                sign = -1 if person in exchanged else 1
                rows.append((sign * (hits[0] - hits[1]), sign * (precisions[0] - precisions[1])))
        per_trial.append(np.mean(rows, axis=0))
    return tuple(np.mean(per_trial, axis=0))


@pytest.mark.parametrize(("people", "trials"), [(5, 1), (8, 1), (4, 2)])
def test_differences_and_p_are_those_of_a_loop_over_all_exchanges(people, trials):
    one = [made_scores(seed, people=people, trials=trials, better=0.25) for seed in (0, 1)]
    other = [made_scores(seed, people=people, trials=trials) for seed in (2, 3, 4)]
    found = differences(*([identity_sums(seed)[1] for seed in side] for side in (one, other)))

    seen = loop_difference(one, other, set())
    everybody = range(people + trials - 1)
    every = [loop_difference(one, other, set(some)) for count in range(len(everybody) + 1)
             for some in itertools.combinations(everybody, count)]
    for place, name in enumerate(("rank1", "mAP")):
        assert found[name].difference == pytest.approx(100 * seen[place], abs=1e-10)
        assert found[name].one - found[name].other == pytest.approx(found[name].difference, abs=1e-10)
        as_far = [abs(value[place]) >= abs(seen[place]) - 1e-12 for value in every]
        assert found[name].p == sum(as_far) / len(as_far)


def test_drawn_exchanges_come_near_to_all_of_them(monkeypatch):
    one, other = (identity_sums(made_scores(seed, people=13, better=better))[1] for seed, better in ((0, .1), (5, 0)))
    exact = flipped(one, other)
    monkeypatch.setattr(paired, "EXACT", 0)
    drawn = flipped(one, other)
    assert (drawn > 0).all() and (drawn != exact).any()
    np.testing.assert_allclose(drawn, exact, atol=0.02)
    np.testing.assert_array_equal(drawn, flipped(one, other))


@pytest.mark.parametrize("people", [6, 40])
def test_identical_sides(people):
    """Both ways of testing: no difference, no width, p = 1."""
    sums = [identity_sums(made_scores(seed, people=people))[1] for seed in (0, 1)]
    for each in differences(sums, sums).values():
        assert (each.difference, each.low, each.high, each.p) == (0, 0, 0, 1)


def test_a_method_that_is_better_for_everybody():
    worse = identity_sums(made_scores(0, people=10))[1]
    better = worse + worse[..., :1] * [0, 0, 0.1]
    found = differences([better], [worse])
    assert found["mAP"].p == 2 / 2**10, "the way it is and its opposite"
    assert found["mAP"].difference == pytest.approx(10) and found["mAP"].low == pytest.approx(10)
    assert found["rank1"].difference == 0 and found["rank1"].p == 1


def test_p_of_no_difference_is_spread_evenly():
    """Of 400 pairs that differ by chance alone about a tenth has p <= 0.1."""
    found = [flipped(*(identity_sums(made_scores(2 * pair + side, people=10))[1] for side in (0, 1)))[1]
             for pair in range(400)]
    assert 0.06 < np.mean(np.array(found) <= 0.1) < 0.14


def test_the_interval_is_paired():
    """Both sides of hard and easy people: each by itself swings, the difference does not."""
    base = identity_sums(made_scores(0, people=30))[1]
    low, high = difference_intervals([base + base[..., :1] * [0, 0, 0.03]], [base])["mAP"]
    assert low == pytest.approx(3) and high == pytest.approx(3)
    low, high = difference_intervals([base], [identity_sums(made_scores(1, people=30))[1]])["mAP"]
    assert high - low > 5


def test_queries_that_changed_sides():
    one = np.array([[1, 1, 2, 1, 0, 1], [1, 2, 2, 1, 0, 1], [1, 1, 1, 1, 0, 2]])  # three seeds, six queries
    other = np.array([[2, 1, 1, 2, 0, 2], [2, 1, 1, 1, 0, 2]])
    assert changed(one, other).tolist() == [1, 0, -1, 0, 0, 1], "half of the seeds is no majority"
    assert changed(other, one).tolist() == [-1, 0, 1, 0, 0, -1]


def sides(seed: int) -> tuple[Side, Side]:
    draw = np.random.default_rng(seed)
    return tuple(Side(draw.normal(size=(count, 4)), np.ones((count, 1)), draw.integers(-1, 5, count),
                      draw.integers(0, 3, count)) for count in (15, 40))


def test_chance_is_that_of_a_loop_and_of_dice():
    query, gallery = sides(0)
    shares = []
    for pid, camid in zip(query.pid, query.camid, strict=True):
        valid = [g for g, c in zip(gallery.pid, gallery.camid, strict=True) if g != -1 and (g, c) != (pid, camid)]
        if pid != -1 and pid in valid:
            shares.append(valid.count(pid) / len(valid))
    expected, deviation = chance(query, gallery)
    assert expected == pytest.approx(np.mean(shares))
    assert deviation == pytest.approx(np.sqrt(np.sum(np.array(shares) * (1 - np.array(shares)))) / len(shares))

    draw = np.random.default_rng(1)
    rolled = [means(identity_sums([evaluate(*(Side(draw.normal(size=each.features.shape), each.visibility, each.pid,
                                                   each.camid) for each in (query, gallery)),
                                            Matching((4,), "cosine", "mean"))])[1])[0] for _ in range(300)]
    assert np.mean(rolled) == pytest.approx(expected, abs=4 * deviation / 300**.5)
    assert np.std(rolled) == pytest.approx(deviation, rel=0.2)


def test_seeds_that_collapsed():
    assert collapsed([0.5, 0.45, 0.55], (0.02, 0.01)) == ["", "", ""]
    assert [bool(why) for why in collapsed([0.5, 0.24, 0.55], (0.02, 0.01))] == [False, True, False]
    assert [bool(why) for why in collapsed([0.04, 0.05], (0.02, 0.01))] == [True, True], "siblings do not excuse it"
    assert collapsed([0.04]) == [""], "of a result without features chance is not known"


def test_doctests():
    assert doctest.testmod(paired).failed == 0 and doctest.testmod(exclusions).failed == 0
