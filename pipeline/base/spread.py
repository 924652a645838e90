"""Spreading a choice evenly over a list, so that nobody picks."""


def evenly(length: int, count: int) -> list[int]:
    """`count` places in the middles of as many equal stretches of 0..length-1, or all where there are fewer.

    >>> evenly(20, 2), evenly(3, 7), evenly(0, 3)
    ([5, 15], [0, 1, 2], [])
    """
    count = min(count, length)
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]
