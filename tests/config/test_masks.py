"""Masks of one kind, `masks: [lip]`: the cache that a run learns from and is matched with, and what is none."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from tests.helpers.bare_params import by_data_set

MASKS = """
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here}, there: {layout: market, raw: data/raw/there}}
parsers:
  lip: {architecture: deeplabv3, layout: lip, raw: data/raw/lip, init: none, height: 320, width: 320, image_steps: 8,
        batch: 8, lr: 0.1, optimizer: sgd, augment: flip, seed: 0, workers: 1}
caches:
  lip: {datasets: [here, there], parser: deeplabv3, weights: lip, height: 320, width: 320, batch: 8, threads: 1}
  here: {like: parse, dataset: here}
  there: {like: parse, dataset: there}
runs:
  a: {like: small-sgam, train_on: here, eval_on: [here, there], masks: [lip]}
  b: {like: small-sorn, train_on: there, eval_on: [here], masks: [lip]}
  c: {of: a, eval_on: [there]}
"""


def test_masks_are_of_one_kind_in_training_and_in_matching(project):
    """SGAM reads masks in both; with the parser's photographs left out both are the data sets' own caches."""
    Path("profiles/mine.yaml").write_text(MASKS)
    for kept, kind in ((("here", "there", "lip"), "-lip"), (("here", "there"), "")):
        plan = compose("mine", kept).plan["plan"]
        assert ("here-lip" in plan["parse"]) == ("lip" in plan["train_photographs"]) == bool(kind)
        assert plan["train"]["a"]["cache"] == f"here{kind}" and plan["train"]["b"]["cache"] == f"there{kind}"
        for name, dataset in (("a-on-here", "here"), ("a-on-there", "there"), ("c-on-there", "there")):
            assert by_data_set(plan)[name]["reads"] == f"data/cache/{dataset}{kind}/parts.h5"
        assert by_data_set(plan)["b-on-here"]["reads"] == "data/raw/here"


@pytest.mark.parametrize(("old", "new", "message"), [
    ("masks: [lip]}\n  b", "masks: [lap]}\n  b", "runs.a.masks: lap: 'here-lap' is no cache"),
    ("masks: [lip]}\n  b", "cache: here-lip}\n  b",
     "runs.a.cache: is 'here-lip', and sgam reads masks in matching too"),
    ("masks: [lip]}\n  b", "masks: [lip], cache: here}\n  b", "runs.a.cache: is 'here', and `masks` names one too"),
    ("c: {of: a, eval_on: [there]}", "c: {like: small-baseline, train_on: here, eval_on: [there], cache: here}",
     "runs.c.cache: is 'here', and baseline with these parameters reads none; take it out"),
    ("c: {of: a, eval_on: [there]}", "c: {like: small-baseline, train_on: here, eval_on: [there], masks: [lap]}",
     "runs.c.masks: lap: 'here-lap' is no cache"),
    ("{datasets: [here, there],", "{datasets: [here, there], dataset: here,", "caches.lip: with `datasets`"),
    ("  here: {like: parse", "  here-lip: {like: parse", "caches.lip: with `datasets` it makes 'here-lip'"),
    ("datasets: [here, there], p", "datasets: [here, their], p", "'their' is no data set.*there"),
])
def test_wrong_masks_are_named(project, old, new, message):
    Path("profiles/mine.yaml").write_text(MASKS.replace(old, new))
    with pytest.raises(InputError, match=message):
        compose("mine")
