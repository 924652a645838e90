"""A limit on how long something may compute, for tests of readers that must not hang on a damaged file."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(BaseException):
    """No Exception: a reader that turns every exception into a sentence must not swallow it."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Hang after so many seconds of this process's own time, which a busy machine does not stretch.

    It reaches Python code only; a loop in C needs a process of its own.
    """
    def ring(*_: object) -> None:
        raise Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
