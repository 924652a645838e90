"""`init: run:KEY` in profiles: whose weights a run starts from, in which order, and which it cannot start from."""

import re
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from pipeline.config.loader import load_experiment
from tests.config.conftest import ROOT

TUNED = """
include: [small]
on: [default]
runs:
  later: {like: small-sorn, init: run:tuned, seed: 2}
  tuned: {like: small-sorn, init: run:sorn, optimizer: {lr: 1.0e-4}}
"""
TRIALS = """
include: [small]
on: [default]
datasets: {few: {layout: cuhk01, raw: data/raw/few, trials: 2}, else: {layout: market, raw: data/raw/else}}
recipes: {own: {like: small-baseline, train_on: few, eval_on: [few]}}
runs:
  from-trials: {like: own, init: run:first}
  first: {like: own}
  from-one: {like: own, init: run:baseline}
  from-else: {like: own, init: run:alone}
  alone: {like: small-baseline, train_on: else, eval_on: [else]}
"""


def test_a_run_depends_on_the_weights_it_starts_from_wherever_they_stand(command):
    """Of an experiment below, whose parameters are read there; of its own, though it stands further down."""
    Path("profiles/mine.yaml").write_text(TUNED)
    ended = command("mine")
    assert ended.status == 0, ended.error
    experiment = load_experiment("mine")
    plan = experiment.plan
    assert plan.train == {} and list(plan.train_from) == list(plan.trainings) == ["tuned", "later"]
    for key, start in (("tuned", "sorn"), ("later", "tuned")):
        entry = plan.train_from[key]
        assert (entry.start, entry.weights) == (start, f"data/runs/{start}/weights.safetensors")
        assert experiment.params.runs[key].init == f"run:{start}"
    assert plan.owners == {"sorn": "default"}
    assert experiment.run("sorn") == load_experiment("default").run("sorn")
    assert command("--check").status == 0


def test_other_runs_are_as_they_were(project):
    """Neither parameters nor wiring of a run say anything of it where it starts from no run."""
    for name in ("default", "tables", "market", "paper"):
        plan = compose(name).plan["plan"]
        assert plan["train_from"] == {}
        assert all(set(entry) == {"model", "train_on", "cache", "index", "raw", "reads"}
                   for entry in plan["train"].values())


def test_trials_start_from_their_own(project):
    Path("profiles/mine.yaml").write_text(TRIALS)
    plan = compose("mine").plan["plan"]
    assert {key: entry["start"] for key, entry in plan["train_from"].items()} == {
        "from-trials-0": "first-0", "from-trials-1": "first-1", "from-one-0": "baseline", "from-one-1": "baseline",
        "from-else-0": "alone", "from-else-1": "alone"}
    assert set(plan["train"]) == {"first-0", "first-1", "alone"}


def test_what_starts_from_a_run_that_is_left_out_is_left_out_too(project):
    Path("profiles/mine.yaml").write_text(TRIALS)
    plan = compose("mine", ("few",)).plan["plan"]
    assert set(plan["train"]) == {"first-0", "first-1"}
    assert {entry["start"] for entry in plan["train_from"].values()} == {"first-0", "first-1", "baseline"}
    assert list(plan["evaluate"]) == ["first", "from-trials", "from-one"]


@pytest.mark.parametrize(("run", "said"), [
    ("{like: small-sorn, init: run:sorn, model: {channels: 384}}",
     "runs.mine.init: weights of run 'sorn' do not fit, expand.weight is (768, 512, 1, 1), expected (384, 512, 1, 1): "
     "model.channels is 768 there and 384 here"),
    ("{like: small-dsa, init: run:dsa, model: {fusion: concat, label_smoothing: 0.0}}",
     "runs.mine.init: weights of run 'dsa' do not fit, fuse.global.bias is absent, expected (512,): "
     "model.fusion is 'add' there and 'concat' here, model.label_smoothing is 0.1 there and 0.0 here"),
    ("{like: small-sgsfa, init: run:sgsfa, model: {whole_attention: false}}",
     "expected absent: model.whole_attention is True there and False here")])
def test_other_shapes_are_refused_before_anything_is_trained(command, run, said):
    Path("profiles/mine.yaml").write_text(f"include: [small]\non: [default]\nruns: {{mine: {run}}}\n")
    ended = command("mine")
    assert ended.status == 2 and not Path("experiments/mine").exists()
    assert "'profiles/mine.yaml': " in ended.error and said in ended.error and ended.error.count("\n") == 1


def test_a_transformer_of_another_size_is_looked_at_too(command):
    """Its positions are weights: a run that differs in its size alone is no other that was looked at."""
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
recipes: {vit: {like: small-baseline, backbone: vit_tiny_patch16_224}}
runs: {a: {like: vit}, b: {like: vit, init: run:a, seed: 2}, c: {like: vit, init: run:a, height: 256}}
""")
    ended = command("mine")
    assert ended.status == 2 and "runs.c.init: weights of run 'a' do not fit" in ended.error, ended.error


@pytest.mark.parametrize("run", [
    "{like: small-sorn, init: run:sorn, model: {lambda_spc: 0.0, label_smoothing: 0.0}, height: 256, width: 128}",
    "{like: small-sgam, init: run:sgam, train_on: synth-holistic}",
    "{like: small-esa, init: run:esa, model: {tau: 0.3, unconfident: median}}"])
def test_what_changes_no_shape_may_change(command, run):
    Path("profiles/mine.yaml").write_text(f"include: [small]\non: [default]\nruns: {{mine: {run}}}\n")
    ended = command("mine")
    assert ended.status == 0, ended.error


@pytest.mark.parametrize(("key", "old", "new", "said"), [
    ("tuned", 'init: "run:sorn"', "init: none", "runs.tuned.init: is 'none', and plan.yaml has 'run:sorn'; change it"),
    ("tuned", 'init: "run:sorn"', 'init: "run:later"', "runs.tuned.init: is 'run:later', and plan.yaml has 'run:sorn'"),
    ("plain", "init: none", 'init: "run:sorn"', "runs.plain.init: is 'run:sorn', and plan.yaml has 'no run to start")])
def test_where_it_starts_is_changed_in_the_profile(command, key, old, new, said):
    """`dvc exp run -S runs.tuned.init=...` would train from weights that DVC knows nothing of."""
    Path("profiles/mine.yaml").write_text(f"{TUNED}  plain: {{like: small-sorn, seed: 9}}\n")
    assert command("mine").status == 0
    path = Path("experiments/mine/params.yaml")
    before, start, after = re.split(rf"(?m)(^  {key}:)", path.read_text(), maxsplit=1)  # `runs` stand before `results`
    assert old in after
    path.write_text(before + start + after.replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(said)):
        load_experiment("mine")


HELD = """
include: [small]
datasets:
  whole: {layout: market, raw: data/raw/here}
  some: {layout: market, raw: data/raw/here, hold_out: 9}
  more: {layout: market, raw: data/raw/here, hold_out: 12}
recipes: {own: {like: small-baseline, eval_on: [some]}}
runs:
"""


@pytest.mark.parametrize(("runs", "said"), [
    ("  one: {like: own, train_on: whole}",
     "runs.one.eval_on: run 'one' trains on 'whole', and 'some' asks for 9 of the same training people of "
     "'data/raw/here' (hold_out); train on 'some', or evaluate on another data set"),
    ("  one: {like: own, train_on: more}", "runs.one.eval_on: run 'one' trains on 'more', and 'some' asks for 9 of"),
    ("  first: {like: own, train_on: whole, eval_on: [whole]}\n  one: {like: own, train_on: some, init: run:first}",
     "runs.one.eval_on: run 'one' comes from 'first', which trains on 'whole', and 'some' asks for 9 of the same")])
def test_people_who_are_held_out_and_trained_on_are_refused_before_anything_is_trained(project, runs, said):
    Path("profiles/mine.yaml").write_text(HELD + runs)
    with pytest.raises(InputError, match=re.escape(said)):
        compose("mine")


def test_held_out_people_are_scored_where_nobody_trains_on_them(project):
    """Nor is a run refused that trains on those who are left and is scored on the folder's own test part."""
    Path("profiles/mine.yaml").write_text(f"{HELD}  one: {{like: own, train_on: some, eval_on: [some, whole]}}")
    assert list(compose("mine").plan["plan"]["embed_two"]) == ["one"]


def test_the_page_on_training_has_a_profile_that_composes(command):
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(# profiles/mine\.yaml.*?)```", page, flags=re.DOTALL)
    Path("profiles/mine.yaml").write_text(text)
    Path("data/raw/mine").mkdir(parents=True)
    ended = command("mine")
    assert ended.status == 0, ended.error
    experiment = load_experiment("mine")
    assert {key: entry.start for key, entry in experiment.plan.train_from.items()} == {"mine-sorn": "sorn"}
    (key,) = re.findall(r"experiments/mine/dvc.yaml:train_from@(\S+)", page)
    assert key in experiment.plan.train_from
    rate, started = (experiment.run(run).optimizer.lr for run in ("mine-sorn", "sorn"))
    assert rate == pytest.approx(started / 10)
