"""Paired differences: their interval over identities against a loop, and what decides."""

import doctest

import numpy as np
import pytest

from benchmarks import paired
from pipeline.base.seeds import rng
from pipeline.retrieval.scores import RESAMPLES, Scores, data_set_metrics
from tests.retrieval.test_metrics import percentiles


def seeds(better: float) -> list[Scores]:
    """One network under three seeds on the same 30 people with 1 to 4 queries each; hard and easy people."""
    pid = np.repeat(np.arange(30), np.arange(30) % 4 + 1)
    ease = np.random.default_rng(0).random(30)[pid]
    found = []
    for seed in range(3):
        precision = np.clip(ease + better + 0.05 * np.random.default_rng(seed).normal(size=len(pid)), 0.01, 1)
        found.append(Scores(np.where(precision > 0.5, 1, 2), precision, precision, pid, 99))
    return found


def test_both_methods_are_on_the_same_draws():
    base, method = seeds(0.0), seeds(0.03)
    sections = [[data_set_metrics([scores]) for scores in each] for each in (base, method)]
    draws = rng(0, "bootstrap", "identities").integers(30, size=(RESAMPLES, 30)).tolist()
    people = [np.flatnonzero(base[0].pid == person).tolist() for person in range(30)]
    differences = []
    for drawn in draws:
        rows = [row for person in drawn for row in people[person]]
        means = [sum(float(scores.precision[row]) for scores in each for row in rows) / len(rows) / 3
                 for each in (base, method)]
        differences.append(100 * (means[1] - means[0]))

    found = paired.over_people(*sections, "mAP")
    assert found == pytest.approx(percentiles(differences), abs=0.011)
    assert found[1] - found[0] < 2, "people differ more than methods do: unpaired intervals would decide nothing"
    width = [section["details"][0]["mAP_high"] - section["details"][0]["mAP_low"] for section in sections[0]]
    assert min(width) > 10


def test_results_without_identities_have_none_and_other_people_are_refused():
    one, two = ([data_set_metrics([scores]) for scores in seeds(better)] for better in (0, 0.1))
    assert paired.over_people([section | {} for section in one], [{"rank1": 1.0, "mAP": 1.0}], "mAP") is None
    two[1] = data_set_metrics([Scores(np.ones(2, int), np.ones(2), np.ones(2), np.array([1, 2]), 9)])
    with pytest.raises(SystemExit, match="not asked for the same people"):
        paired.over_people(one, two, "rank1")


def test_doctests():
    assert doctest.testmod(paired).failed == 0
