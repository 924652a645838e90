"""Metrics of all queries against loops: bootstrap intervals, levels of occlusion, pooled precision, trials."""

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.base.seeds import rng
from pipeline.retrieval.metrics import average_precision, pooled_precision, resampled_counts, trapezoid_precision
from pipeline.retrieval.scores import (
    LEVELS,
    RESAMPLES,
    SHOWN,
    Scores,
    by_identity,
    data_set_metrics,
    intervals,
    levels,
    resampled,
    sums_of,
)


def scores(count: int, seed: int = 0, **more) -> Scores:
    """Some queries of eleven people, every ninth query skipped."""
    draw = np.random.default_rng(seed)
    first = draw.integers(1, 4, count)
    first[::9] = 0
    return Scores(first, np.where(first > 0, draw.random(count), np.nan), np.where(first > 0, 0.5, np.nan),
                  draw.integers(50, 61, count), 30, **more)


def judged(given: Scores) -> list[tuple[float, float]]:
    return [(float(place == 1), float(precision)) for place, precision
            in zip(given.first, given.precision, strict=True) if place]


def percentiles(values: list[float]) -> list[float]:
    """2.5 and 97.5 %, between the two nearest."""
    ordered, found = sorted(values), []
    for share in (0.025, 0.975):
        place = share * (len(ordered) - 1)
        below = int(place)
        found.append(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))
    return found


def test_a_rank_is_the_share_matched_at_it_or_before():
    first, known = np.array([1, 5, 6, 10, 11]), np.full(5, 0.5)
    found = Scores(first, known, known, np.arange(5), 30).summary()
    assert (found["rank1"], found["rank5"], found["rank10"]) == (20, 40, 80)


def test_resampled_counts_are_those_of_a_loop():
    found, again = resampled_counts(7, np.random.default_rng(5), 1000), np.random.default_rng(5)
    for counts in found.tolist():
        drawn = again.integers(7, size=7).tolist()
        assert counts == [drawn.count(identity) for identity in range(7)]


@pytest.mark.parametrize("number", [1, 3])
def test_intervals_are_quantiles_over_resampled_identities(number):
    """All queries of a person go together, in every trial in which it is asked for."""
    trials = [scores(60 + seed, seed=seed) for seed in range(number)]
    trials[-1].pid[trials[-1].pid == 52] = 99  # not everybody is in every trial
    people = sorted({int(who) for each in trials for who, place in zip(each.pid, each.first, strict=True) if place})
    draws = rng(0, "bootstrap", "identities").integers(len(people), size=(RESAMPLES, len(people))).tolist()
    hits, precisions = [], []
    for drawn in draws:
        means = []
        for each in trials:
            rows = [row for person in drawn for row in range(len(each.pid))
                    if each.pid[row] == people[person] and each.first[row]]
            means.append([sum(values) / len(rows) for values in ([each.first[row] == 1 for row in rows],
                                                                 [each.precision[row] for row in rows])])
        hits.append(sum(mean[0] for mean in means) / number)
        precisions.append(sum(mean[1] for mean in means) / number)

    found = intervals(trials)
    assert found["identities"] == len(people)
    for name, values in (("rank1", hits), ("mAP", precisions)):
        low, high = percentiles(values)
        assert found[f"{name}_low"] == pytest.approx(100 * low, abs=0.0051)
        assert found[f"{name}_high"] == pytest.approx(100 * high, abs=0.0051)
    assert intervals(trials) == found


@pytest.mark.parametrize("each", [1, 10])
def test_an_interval_is_as_wide_as_the_normal_law_says(each):
    """Ten queries of a person that fare alike are worth one."""
    first = np.repeat(np.where(np.arange(2000) % 10 < 3, 1, 2), each)
    given = Scores(first, np.full(2000 * each, 0.5), np.full(2000 * each, 0.5), np.repeat(np.arange(2000), each), 9)
    found = intervals([given])
    half = 1.96 * 100 * (0.3 * 0.7 / 2000) ** 0.5
    assert found["rank1_low"] == pytest.approx(30 - half, abs=0.25)
    assert found["rank1_high"] == pytest.approx(30 + half, abs=0.25)
    assert found["mAP_low"] == found["mAP_high"] == 50


def test_a_draw_without_the_people_of_a_trial_counts_for_the_others_alone():
    """Two trials of one person each: half of the draws have one of them twice."""
    found = resampled(np.array([[[2.0, 1.0], [0, 0]], [[0, 0], [4, 4]]]))
    assert set(found[:, 0].tolist()) == {0.5, 0.75, 1.0}


def test_the_lines_by_identity_hold_what_intervals_are_made_from():
    trials = [scores(60), scores(40, seed=3)]
    lines = by_identity(trials)
    keys, sums = sums_of(lines)
    for number, each in enumerate(trials):
        for person in range(50, 61):
            rows = [row for row in range(len(each.pid)) if each.pid[row] == person and each.first[row]]
            hits, precision = sum(each.first[row] == 1 for row in rows), sum(each.precision[row] for row in rows)
            assert (f"{number} {person} {len(rows)} {hits} {precision:.4f}" in lines) == bool(rows)
            assert ((number, person, len(rows)) in keys) == bool(rows)
            np.testing.assert_allclose(sums[number, person - 50], [len(rows), hits, precision], atol=6e-5)
    assert len(lines) < 22, "somebody is not asked for in every trial"
    means = resampled(sums)
    assert 100 * np.quantile(means[:, 1], 0.025) == pytest.approx(intervals(trials)["mAP_low"], abs=0.01)


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.1, np.inf])
def test_what_is_no_percentage_is_not_shown(wrong):
    given = scores(40)
    given.precision[1] = wrong * 1000
    with pytest.raises(InputError, match="a metric came out as .*, which is outside 0..100"):
        data_set_metrics([given])
    with pytest.raises(InputError, match="outside 0..100"):
        data_set_metrics([scores(40, area=wrong)])


def test_levels_of_occlusion():
    hidden = np.array([0, 0.0999, 0.1, 0.3, 0.45, 0.5, 1.0, np.nan, 0.2], np.float32)
    first = np.array([1, 3, 1, 0, 2, 1, 4, 1, 1])
    precision = np.array([1, 0.2, 0.8, np.nan, 0.4, 0.9, 0.1, 1, 0.6])
    found = levels([Scores(first, precision, precision, first, 9, hidden)])
    assert found == {"rank1_hidden_0_10": 50, "mAP_hidden_0_10": 60, "queries_hidden_0_10": 2,
                     "rank1_hidden_10_30": 100, "mAP_hidden_10_30": 70, "queries_hidden_10_30": 2,
                     "rank1_hidden_30_50": 0, "mAP_hidden_30_50": 40, "queries_hidden_30_50": 1,
                     "rank1_hidden_50_100": 50, "mAP_hidden_50_100": 50, "queries_hidden_50_100": 2}
    assert levels([Scores(first, precision, precision, first, 9)]) == {}
    whole = np.random.default_rng(0).random(4000).astype(np.float32)
    whole[:5] = 0, 0.1, 0.3, 0.5, 1
    count = levels([Scores(np.ones(4000, int), np.ones(4000), np.ones(4000), np.arange(4000), 9, whole)])
    assert sum(count[f"queries_hidden_{low}_{high}"] for low, high in LEVELS) == 4000


def flat(trials: list[Scores]) -> dict[str, float]:
    """All metrics, the shown ones and the details."""
    metrics = data_set_metrics(trials)
    return metrics | metrics.pop("details")[0]


def test_metrics_hold_the_summary_and_average_over_trials():
    one, two = scores(40, area=0.25), scores(50, seed=4, area=0.5)
    assert one.summary().items() <= flat([one]).items()
    assert flat([one])["PR_AUC"] == 25 and "PR_AUC" not in flat([scores(40)]) and "trials" not in flat([one])
    both = flat([one, two])
    for column, name in enumerate(("rank1", "mAP")):
        mean = sum(sum(pair[column] for pair in judged(each)) / len(judged(each)) for each in (one, two)) / 2
        assert both[name] == pytest.approx(100 * mean, abs=0.0051)
        assert both[f"{name}_low"] < both[name] < both[f"{name}_high"]
    assert both["PR_AUC"] == 37.5 and both["trials"] == 2 and both["gallery"] == 30
    assert both["queries"] == len(judged(one)) + len(judged(two)) and both["skipped"] == 5 + 6


def test_dvc_s_table_is_narrow():
    """`dvc metrics show` has a column for every number that it reaches through dicts; it shows no lists."""
    metrics = data_set_metrics([scores(40, area=0.25), scores(50, seed=4, area=0.5)])
    assert [name for name, value in metrics.items() if not isinstance(value, list)] == list(SHOWN)


def test_the_spread_of_trials_is_that_of_a_loop():
    trials = [scores(40 + seed, seed=seed, area=0.2 + 0.08 * seed ** 2) for seed in range(4)]
    found = flat(trials)
    for column, name in enumerate(("rank1", "mAP")):
        means = [sum(pair[column] for pair in judged(each)) / len(judged(each)) for each in trials]
        middle = sum(means) / 4
        deviation = (sum((mean - middle) ** 2 for mean in means) / 3) ** 0.5
        assert found[f"{name}_sd"] == pytest.approx(100 * deviation, abs=0.0051) and deviation > 0.001
    assert found["PR_AUC_sd"] == pytest.approx(100 * np.std([0.2, 0.28, 0.52, 0.92]) * (4 / 3) ** 0.5, abs=0.0051)
    assert {"rank5_sd", "rank10_sd", "mINP_sd"} <= found.keys()
    assert not any(name.endswith("_sd") for name in flat(trials[:1]))


def test_pooled_precision_of_pairs_without_ties_is_average_precision():
    draw = np.random.default_rng(2)
    for _ in range(20):
        places = np.sort(draw.choice(40, draw.integers(1, 9), replace=False)) + 1
        ahead = places - np.arange(1, len(places) + 1)
        assert pooled_precision(np.ones(len(places), int), ahead) == pytest.approx(average_precision(places), abs=1e-12)
        assert trapezoid_precision(places) <= average_precision(places)
