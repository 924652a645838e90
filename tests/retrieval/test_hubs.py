"""Hubs: occurrences are those of a loop, and an image that is near to all is one."""

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.retrieval.hubs import FIRST, LEAST, occurrences
from pipeline.retrieval.matching import Matching, Side
from tests.helpers.loop_ranking import loop_distances, loop_list

MATCHING = Matching((8,), "cosine", "mean")


def sides(seed: int, people: int = 6) -> tuple[Side, Side]:
    draw = np.random.default_rng(seed)
    return tuple(Side(draw.normal(size=(count, 8)), np.ones((count, 1)), draw.integers(-1, people, count),
                      draw.integers(0, 3, count)) for count in (30, 50))


@pytest.mark.parametrize("seed", range(4))
def test_occurrences_are_those_of_a_loop(seed):
    query, gallery = sides(seed)
    distances = loop_distances(query, gallery, MATCHING)
    among, wrong = np.zeros(50, int), np.zeros(50, int)
    for i in range(30):
        if query.pid[i] == -1:
            continue
        ranked = loop_list(query, gallery, i, distances)
        among[ranked[:FIRST]] += 1
        if any(gallery.pid[j] == query.pid[i] for j in ranked):
            wrong[ranked[0]] += gallery.pid[ranked[0]] != query.pid[i]
    found = occurrences(query, gallery, MATCHING)
    assert found.among.tolist() == among.tolist() and found.wrong.tolist() == wrong.tolist()
    assert found.answers == wrong.sum() > 0
    assert found.hubs().tolist() == sorted(np.flatnonzero(wrong >= LEAST), key=lambda row: (-wrong[row], row))
    middle, spread = among.mean(), among.std()
    assert found.skewness() == pytest.approx(np.mean(((among - middle) / spread) ** 3))


def test_an_image_near_to_all_is_a_hub():
    """People apart in noise that one picture of somebody else has none of."""
    draw = np.random.default_rng(0)
    common = np.ones(8) * 3
    pid = np.arange(20)
    query, match = (Side(common + 2 * draw.normal(size=(20, 8)), np.ones((20, 1)), pid, pid * 0 + camera)
                    for camera in (1, 2))
    gallery = Side(np.concatenate([match.features, common[None]]), np.ones((21, 1)), np.append(pid, 99),
                   np.append(match.camid, 2))
    found = occurrences(query, gallery, MATCHING)
    assert found.hubs()[0] == 20 and found.wrong[20] == found.wrong.max() > 5


def test_everybody_found_alike():
    query, gallery = sides(0)
    found = occurrences(query, gallery.take(slice(0, 5)), MATCHING)
    assert found.among.max() <= 30 and np.isfinite(found.skewness())


@pytest.mark.parametrize("name", ["query", "gallery"])
def test_a_side_of_nobody_is_one_sentence(name):
    query, gallery = sides(0)
    side = {"query": query, "gallery": gallery}[name]
    for rows in (np.flatnonzero(side.pid == -1), []):
        few = side.take(np.array(rows, int))
        with pytest.raises(InputError, match=f"there is no {name} image of anybody to rank, .*; give some") as caught:
            occurrences(*((few, gallery) if name == "query" else (query, few)), MATCHING)
        assert "\n" not in str(caught.value)
