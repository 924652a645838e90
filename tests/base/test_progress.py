"""Progress without a terminal: whole lines, one per 30 s of a clock that the test turns; on a terminal a bar."""

import io
import re
import sys

import pytest
import tqdm.std

from pipeline.base.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tqdm.std, "time", clock)
    return clock


def work(clock: Clock, *, items: int, seconds: float, **settings) -> list[int]:
    seen = []
    for item in progress(range(items), "parse", unit="images", **settings):
        clock.now += seconds
        seen.append(item)
    return seen


def test_a_line_every_30_seconds_and_no_carriage_return(clock, capsys):
    assert work(clock, items=1000, seconds=0.1) == list(range(1000))
    written = capsys.readouterr().err
    lines = written.splitlines()
    assert "\r" not in written and written.endswith("\n") and len(lines) == 3  # of 100 s
    shown = [re.fullmatch(r"\d\d:\d\d:\d\d parse: (\d+)/1000 images, +10\.00 images/s, (\d\d:\d\d) left", line)
             for line in lines]
    assert [(int(match[1]), match[2]) for match in shown if match] == [(301, "01:09"), (602, "00:39"), (903, "00:09")]


def test_what_is_done_sooner_says_nothing(clock, capsys):
    work(clock, items=100, seconds=0.29)
    assert capsys.readouterr().err == ""


def test_one_item_may_take_longer(clock, capsys):
    work(clock, items=3, seconds=40)
    assert [line.split(" ", 1)[1].split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "parse: 1/3 images", "parse: 2/3 images", "parse: 3/3 images"]


def test_told_of_what_is_done_with_a_start_and_values_beside(clock, capsys):
    with progress(what="train", total=640, done=320, unit="images") as bar:
        for _ in range(10):
            clock.now += 10
            bar.set_postfix(loss="1.500", refresh=False)
            bar.update(32)
    assert capsys.readouterr().err.splitlines()[0].split(" ", 1)[1] == (
        "train: 416/640 images,  3.20 images/s, 01:10 left, loss=1.500")


def test_one_within_another(clock, capsys):
    for _ in progress(range(2), "evaluate", unit="data sets"):
        work(clock, items=4, seconds=10)
    assert [line.split(" ", 1)[1].split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "parse: 3/4 images", "evaluate: 1/2 data sets", "parse: 3/4 images", "evaluate: 2/2 data sets"]


def test_another_process_s_share_is_not_shown(clock, capsys):
    assert work(clock, items=3, seconds=100, shown=False) == [0, 1, 2] and capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    work(clock, items=100, seconds=0.1)
    assert stream.getvalue().count("\r") > 10 and "100%|" in stream.getvalue()
