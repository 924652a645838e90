"""Parsers taught by several sources at once: what is composed of them, and what goes with what is left out."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose

TAUGHT = """
include: [small]
on: [default]
datasets: {clothes: {layout: folder, raw: data/raw/clothes}, here: {layout: market, raw: data/raw/here}}
parsers:
  taught: {architecture: lraspp-reduced, data: parsing, layout: ccp, teacher: clothes-teacher, share: 0.5, init: none,
           height: 128, width: 64, image_steps: 8, batch: 8, lr: 0.01, augment: flip, seed: 0, workers: 1}
caches:
  clothes-teacher: {like: parse, dataset: clothes}
  here: {like: parse, parser: lraspp-reduced, weights: taught, dataset: here}
"""


def test_a_taught_parser_reads_its_teacher_s_photographs_and_goes_with_them(project):
    Path("profiles/mine.yaml").write_text(TAUGHT)
    composed = compose("mine")
    plan = composed.plan["plan"]
    assert plan["train_taught"] == {"taught": {"rendered": "data/raw/parsing", "raw": "data/raw/clothes",
                                               "teacher": "data/cache/clothes-teacher/parts.h5",
                                               "start": "data/raw/parsing"}}
    assert composed.params["taught"]["taught"]["share"] == 0.5 and "teacher" not in composed.params["taught"]["taught"]
    assert plan["parse"]["here"]["source"] == "data/parsers/taught/weights.safetensors"
    without = compose("mine", ("here",)).plan["plan"]
    assert not without["train_taught"] and not without["parse"] and list(without["prepare"]) == ["here"]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("teacher: clothes-teacher", "teacher: clothes-taecher", "parsers.taught.teacher: .*'clothes-taecher'.*clothes-t"),
    ("data: parsing", "data: parsong", "parsers.taught.data: .*'parsong'.*parsing"),
    ("share: 0.5", "share: 1.5", "taught.taught.share: is 1.5; it is 0 to 1"),
    ("layout: ccp, ", "", "taught.taught.layout: is missing"),
])
def test_what_is_wrong_with_a_taught_parser_is_named(project, old, new, message):
    assert old in TAUGHT
    Path("profiles/mine.yaml").write_text(TAUGHT.replace(old, new))
    with pytest.raises(InputError, match=message):
        compose("mine")
