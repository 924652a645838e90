"""Metrics of all queries against loops: bootstrap intervals, levels of occlusion, pooled precision, trials."""

import numpy as np
import pytest

from pipeline.base.seeds import rng
from pipeline.retrieval.metrics import average_precision, pooled_precision, resampled_means, trapezoid_precision
from pipeline.retrieval.scores import LEVELS, RESAMPLES, SHOWN, Scores, data_set_metrics, intervals, levels


def scores(count: int, seed: int = 0, **more) -> Scores:
    """Some queries, every ninth of them skipped."""
    draw = np.random.default_rng(seed)
    first = draw.integers(1, 4, count)
    first[::9] = 0
    return Scores(first, np.where(first > 0, draw.random(count), np.nan), np.where(first > 0, 0.5, np.nan), 30, **more)


def judged(given: Scores) -> list[tuple[float, float]]:
    return [(float(place == 1), float(precision)) for place, precision
            in zip(given.first, given.precision, strict=True) if place]


@pytest.mark.parametrize("count", [7, 700])
def test_resampled_means_are_those_of_a_loop(count):
    """Also where the draws are made in several blocks (700 rows)."""
    values = np.random.default_rng(1).random((count, 2))
    again = np.random.default_rng(5)
    expected = []
    for _ in range(1000):
        rows = again.integers(count, size=count).tolist()
        expected.append([sum(values[row, column] for row in rows) / count for column in range(2)])
    np.testing.assert_allclose(resampled_means(values, np.random.default_rng(5), 1000), expected, rtol=0, atol=1e-12)


def test_intervals_are_quantiles_over_resampled_queries():
    given = scores(60)
    pairs = np.array(judged(given))
    rows = rng(0, "bootstrap", "queries", 0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    means = np.sort(np.array([pairs[each].mean(axis=0) for each in rows]), axis=0)
    found = intervals([given])
    for column, name in enumerate(("rank1", "mAP")):
        for end, place in (("low", 0.025 * (RESAMPLES - 1)), ("high", 0.975 * (RESAMPLES - 1))):
            below = int(place)
            value = means[below, column] + (place - below) * (means[below + 1, column] - means[below, column])
            assert found[f"{name}_{end}"] == pytest.approx(100 * value, abs=0.0051)
    assert intervals([given]) == found


def test_an_interval_is_as_wide_as_the_normal_law_says():
    first = np.where(np.arange(2000) % 10 < 3, 1, 2)
    found = intervals([Scores(first, np.full(2000, 0.5), np.full(2000, 0.5), 9)])
    half = 1.96 * 100 * (0.3 * 0.7 / 2000) ** 0.5
    assert found["rank1_low"] == pytest.approx(30 - half, abs=0.25)
    assert found["rank1_high"] == pytest.approx(30 + half, abs=0.25)
    assert found["mAP_low"] == found["mAP_high"] == 50


def test_levels_of_occlusion():
    hidden = np.array([0, 0.0999, 0.1, 0.3, 0.45, 0.5, 1.0, np.nan, 0.2], np.float32)
    first = np.array([1, 3, 1, 0, 2, 1, 4, 1, 1])
    precision = np.array([1, 0.2, 0.8, np.nan, 0.4, 0.9, 0.1, 1, 0.6])
    found = levels([Scores(first, precision, precision, 9, hidden)])
    assert found == {"rank1_hidden_0_10": 50, "mAP_hidden_0_10": 60, "queries_hidden_0_10": 2,
                     "rank1_hidden_10_30": 100, "mAP_hidden_10_30": 70, "queries_hidden_10_30": 2,
                     "rank1_hidden_30_50": 0, "mAP_hidden_30_50": 40, "queries_hidden_30_50": 1,
                     "rank1_hidden_50_100": 50, "mAP_hidden_50_100": 50, "queries_hidden_50_100": 2}
    assert levels([Scores(first, precision, precision, 9)]) == {}
    whole = np.random.default_rng(0).random(4000).astype(np.float32)
    whole[:5] = 0, 0.1, 0.3, 0.5, 1
    count = levels([Scores(np.ones(4000, int), np.ones(4000), np.ones(4000), 9, whole)])
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
    trials = [scores(40 + seed, seed=seed, area=0.2 + 0.1 * seed ** 2) for seed in range(4)]
    found = flat(trials)
    for column, name in enumerate(("rank1", "mAP")):
        means = [sum(pair[column] for pair in judged(each)) / len(judged(each)) for each in trials]
        middle = sum(means) / 4
        deviation = (sum((mean - middle) ** 2 for mean in means) / 3) ** 0.5
        assert found[f"{name}_sd"] == pytest.approx(100 * deviation, abs=0.0051) and deviation > 0.001
    assert found["PR_AUC_sd"] == pytest.approx(100 * np.std([0.2, 0.3, 0.6, 1.1]) * (4 / 3) ** 0.5, abs=0.0051)
    assert {"rank5_sd", "rank10_sd", "mINP_sd"} <= found.keys()
    assert not any(name.endswith("_sd") for name in flat(trials[:1]))


def test_pooled_precision_of_pairs_without_ties_is_average_precision():
    draw = np.random.default_rng(2)
    for _ in range(20):
        places = np.sort(draw.choice(40, draw.integers(1, 9), replace=False)) + 1
        ahead = places - np.arange(1, len(places) + 1)
        assert pooled_precision(np.ones(len(places), int), ahead) == pytest.approx(average_precision(places), abs=1e-12)
        assert trapezoid_precision(places) <= average_precision(places)
