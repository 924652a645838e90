"""Unshared pairs, which have no part in common and so no distance: behind all others, in an order that knows nobody.

Each such pair gets a number beyond every distance: by the whole body's distance where the model has one, else drawn by
a hash of the two images' marks. In the gallery's order, which is that of file names and so of identities, a person
would be found early or late by number.
"""

from typing import Any

import numpy as np

# The numbers lie in the two highest powers of 2 of their type: first of them, and the bits of a hash that they take.
FIRST: dict[Any, tuple[Any, int]] = {
    np.dtype(np.float32): (np.uint32(0x7E800000), 24), np.dtype(np.float64): (np.uint64(0x7FD0000000000000), 53)}


def beyond(kind: np.dtype | type) -> float:
    """What no distance of this type reaches and every unshared pair does: 2**126 in float32, 2**1022 in float64."""
    return float(FIRST[np.dtype(kind)][0].view(kind))


def unshared_places(query: np.ndarray, gallery: np.ndarray, kind: np.dtype | type) -> np.ndarray:
    """Numbers of the pairs (query[i], gallery[i]) of marks (N,) uint64, from `beyond` to the largest finite one."""
    first, bits = FIRST[np.dtype(kind)]
    mixed = _mix(_mix(query) + gallery)
    return (first + (mixed >> np.uint64(64 - bits)).astype(first.dtype)).view(kind)


def ordered_places(distance: np.ndarray, kind: np.dtype | type) -> np.ndarray:
    """Numbers of pairs with these distances of the whole body (N,) float64, in their order: d / (1 + d) to 24 bits in
    float32, to 53 in float64.

    >>> ordered_places(np.array([0.0, 0.5, 1e9]), np.float32) >= beyond(np.float32)
    array([ True,  True,  True])
    """
    first, bits = FIRST[np.dtype(kind)]
    share = np.minimum(distance / (1 + distance) * 2.0**bits, 2.0**bits - 1)
    return (first + share.astype(first.dtype)).view(kind)


def _mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's step (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
