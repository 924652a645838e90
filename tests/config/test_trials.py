"""Trials of a protocol: one data set, cache and training for each, one result of all."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from pipeline.config.loader import parse
from pipeline.config.plan import Plan
from pipeline.config.schema import Params

TRIALS = """
include: [default]
datasets:
  cuhk01: {layout: cuhk01-100, raw: data/raw/cuhk01, trials: 3}
  cuhk01-more: {layout: market, raw: data/raw/m}
caches: {cuhk01: {like: parse, dataset: cuhk01}}
warps:
  cuhk01: {like: warp, dataset: cuhk01}
  cuhk01-csa: {like: warp, dataset: cuhk01, parts: cuhk01, alignment: csa}
runs:
  few: {like: small-dsa, train_on: cuhk01, eval_on: [cuhk01]}
  few-fused: {of: few, match: {features: z}}
  few-csa: {like: small-dsa, train_on: cuhk01, eval_on: [cuhk01], cache: cuhk01-csa}
  sorn: {eval_on: [cuhk01, synth-occluded]}
"""


def test_trials_of_a_protocol_are_so_many_runs_of_one_result(project):
    Path("profiles/few.yaml").write_text(TRIALS)
    composed = compose("few")
    params, plan = parse(Params, composed.params, ""), parse(Plan, composed.plan["plan"], "")
    for trial in range(3):
        data = f"cuhk01-{trial}"
        assert params.datasets[data].layout == f"cuhk01-100-{trial}" and plan.prepare[data].raw == "data/raw/cuhk01"
        assert plan.parse[data].dataset == plan.warp[data].dataset == data
        assert plan.warp[data].parts == plan.warp[f"cuhk01-csa-{trial}"].parts == f"data/cache/{data}/parts.h5"
        assert plan.train[f"few-csa-{trial}"].reads == f"data/cache/cuhk01-csa-{trial}/dsap.h5"
        run, embed = plan.train[f"few-{trial}"], plan.embed[f"few-{trial}"]
        assert run.train_on == data and run.reads == f"data/cache/{data}/dsap.h5"
        assert (embed.run, embed.result, embed.sets[0].dataset) == (f"few-{trial}", "few", data)
        fused = plan.embed[f"few-fused-{trial}"]
        test = fused.sets[0]
        assert (fused.run, fused.result, test.protocol) == (f"few-{trial}", "few-fused", f"cuhk01-100-{trial}")
        assert test.reads == f"data/cache/{data}/dsap.h5" and params.results["few-fused"].match.features == "z"
    every_trial = tuple(f"cuhk01-{trial}" for trial in range(3))
    for result in ("few", "few-fused", "few-csa"):
        assert plan.evaluate[result].datasets == every_trial
        assert plan.evaluate[result].features == f"data/features/{result}"
    assert plan.evaluate["sorn"].datasets == (*every_trial, "synth-occluded")
    plain = compose("default")
    assert set(params.runs) - set(plain.params["runs"]) == {f"{name}-{trial}" for name in ("few", "few-csa")
                                                            for trial in range(3)}
    assert set(plan.evaluate) - set(plain.plan["plan"]["evaluate"]) == {"few", "few-fused", "few-csa"}


def test_trials_are_kept_by_their_data_set_s_name(project):
    Path("profiles/few.yaml").write_text(TRIALS)
    assert compose("few").folders == {"cuhk01": "data/raw/cuhk01", "cuhk01-more": "data/raw/m"}
    without = compose("few", ("cuhk01-more",)).plan["plan"]
    assert [name for name in without["prepare"] if "cuhk" in name] == ["cuhk01-more"]
    assert not [name for name in without["train"] if "few" in name]
    assert without["evaluate"]["sorn"]["datasets"] == ["synth-occluded"]
    assert [name for name in compose("few", ("cuhk01",)).plan["plan"]["prepare"] if "cuhk" in name] == [
        "cuhk01-0", "cuhk01-1", "cuhk01-2"]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("eval_on: [cuhk01]}", "eval_on: [synth-partial]}", "runs.few.eval_on: few is trained once for each trial of .*"
     "'synth-partial' has no such trials"),
    ("runs:", "runs:\n  few-1: {like: small-sorn}", "runs.few-1: is one of the trials of 'few'; choose another name"),
    ("cuhk01-more:", "cuhk01-2:", "datasets.cuhk01-2: there is a data set of that name already"),
    ("trials: 3", "trials: 101", "datasets.cuhk01.trials: is 101; it is 1 to 100"),
    ("few-fused: {of: few", "few-fused: {of: fw", "runs.few-fused.of: 'fw' is no run"),
])
def test_trials_that_cannot_be(project, old, new, said):
    Path("profiles/few.yaml").write_text(TRIALS.replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        compose("few")
