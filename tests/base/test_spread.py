"""Places spread evenly are the middles of equal stretches, by exact fractions."""

import doctest
from fractions import Fraction

from pipeline.base import spread
from pipeline.base.spread import evenly


def test_places_are_the_middles_of_equal_stretches():
    for length in range(1, 30):
        for count in range(1, length + 1):
            places = evenly(length, count)
            assert places == sorted(set(places)) and len(places) == count
            for number, place in enumerate(places):
                assert place <= (Fraction(number * length, count) + Fraction((number + 1) * length, count)) / 2
                assert place + 1 > Fraction((2 * number + 1) * length, 2 * count)


def test_doctests():
    assert doctest.testmod(spread).failed == 0
