"""params.yaml and plan.yaml of an experiment are read as stages read them, and what does not go together is named."""

from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml

from pipeline.base.errors import InputError
from pipeline.config.loader import load_experiment, load_params, load_plan, pick
from tests.helpers.bare_params import bare_experiment, bare_params, embed_entry, train_entry, write_experiment

RUN = {"train_on": "set", "cache": "none", "backbone": "resnet18", "init": "none", "seed": 0, "height": 32, "width": 16,
       "image_steps": 8, "batch": 4, "ids_per_batch": 2, "workers": 0,
       "model": {"name": "baseline", "label_smoothing": 0.0, "id_weight": 1.0, "triplet_weight": 1.0, "margin": 0.3,
                 "normalise": False},
       "optimizer": {"name": "adam", "lr": 0.001, "pretrained_lr_factor": 1.0, "weight_decay": 0.0005, "warmup": 0.1,
                     "warmup_start": 0.1, "milestones": [0.5], "gamma": 0.1},
       "augment": {"flip": 0.5, "pad": 0, "erase": 0.0, "fill": "image"}}
PLAN = {"train": {"mine": train_entry("baseline", train_on="set", raw="raw")},
        "embed": {"mine": embed_entry("mine", model="baseline", dataset="set", raw="raw")}}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path, params={"runs": {"mine": RUN}}, plan=PLAN)
    return tmp_path


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def test_what_was_written_is_read(root):
    found = load_experiment()
    assert found == bare_experiment(params={"runs": {"mine": RUN}}, plan=PLAN)
    assert found.name == "default" and found.run("mine").model.margin == 0.3 and found.run("mine").max_ids == 0
    assert load_params("params.yaml") == found.params and load_plan("plan.yaml") == found.plan


def test_another_s_run_is_read_from_its_own_params(root):
    write_experiment(root, "other", params={"threads": 2}, plan={"on": ["default"], "owners": {"mine": "default"}})
    other = load_experiment("other")
    assert other.run("mine") == load_experiment().run("mine") and other.params.threads == 2
    with pytest.raises(InputError, match="runs: has no entry 'theirs'; there are: none"):
        other.run("theirs")


@pytest.mark.parametrize(("number", "read"), [
    (1e-5, 1e-5), (5e-5, 5e-5), (1.0e-5, 1e-5), (0.00001, 1e-5), (3, 3.0), (1e-300, 1e-300)])
def test_numbers_that_dvc_wrote_into_params_are_read(root, number, read):
    """`dvc exp run -S` writes with ruamel.yaml: 1e-05, which PyYAML takes for a string."""
    with modify_yaml("params.yaml") as tree:
        tree["runs"]["mine"]["optimizer"]["lr"] = number
    assert load_experiment().run("mine").optimizer.lr == read


@pytest.mark.parametrize("text", ["1e-5", "5e-5", "1.0e-5", "0.00001", "1e-05", "1E-5", "+1e-5"])
def test_numbers_that_a_person_wrote_into_params_are_read(root, text):
    edit("params.yaml", "lr: 0.001", f"lr: {text}")
    assert load_experiment().run("mine").optimizer.lr == float(text)


@pytest.mark.parametrize("text", ["1e5", "100000", "1.0e5", "1.0e+5", "100_000"])
def test_a_whole_number_may_be_written_long(root, text):
    edit("params.yaml", "image_steps: 8", f"image_steps: {text}")
    steps = load_experiment().run("mine").image_steps
    assert steps == 100_000 and isinstance(steps, int)


@pytest.mark.parametrize(("file", "old", "new", "said"), [
    ("params.yaml", "train_on: set", "train_on: other", "runs.mine.train_on: is 'other', and plan.yaml has 'set'; ch"),
    ("params.yaml", "cache: none", "cache: set", "runs.mine.cache: is 'set', and plan.yaml has 'none'; change it in"),
    ("plan.yaml", "model: baseline", "model: sorn", "runs.mine.model.name: is 'baseline', and plan.yaml has 'sorn'"),
    ("plan.yaml", "name: default", "name: other", "is the plan of experiment 'other'; compose default again"),
    ("plan.yaml", "reads: raw", "raeds: raw", "train.mine.raeds: unknown parameter (did you mean 'reads'?)"),
    ("plan.yaml", "train:", "trian:", "trian: unknown parameter"), ("plan.yaml", "plan:", "plans:", "expected entries"),
    ("params.yaml", "device: cpu", "", "device: is missing; write it in the profile and compose again"),
    ("params.yaml", "seed: 0", "", "runs.mine.seed: is missing"),
    ("params.yaml", "  mine:", "  mine2:", "runs: has no entry 'mine' (did you mean 'mine2'?); there are: mine2"),
    ("params.yaml", "lr: 0.001", "lr: fast", "runs.mine.optimizer.lr: expected a number, got 'fast' (a string)"),
])
def test_what_does_not_go_together_is_named(root, file, old, new, said):
    edit(file, old, new)
    with pytest.raises(InputError, match="^'(params|plan).yaml': ") as caught:
        load_experiment()
    assert said in str(caught.value)


def test_experiments_and_files_that_are_not_there(root):
    with pytest.raises(InputError, match=r"^'experiments/defualt': no such experiment \(did you mean 'default'\?\)"):
        load_experiment("defualt")
    write_experiment(root, "market")
    Path("experiments/market/plan.yaml").unlink()
    with pytest.raises(InputError, match=r"^'experiments/market/plan.yaml': no such file; compose it with "
                                         r"`python -m stages.compose market`$"):
        load_experiment("market")
    Path("params.yaml").unlink()
    with pytest.raises(InputError, match="^'params.yaml': no such file; compose it with `python -m stages.compose def"):
        load_experiment()


def test_pick_lists_what_there_is():
    assert pick({"a": 1}, "a", "runs") == 1
    with pytest.raises(InputError, match=r"^runs: has no entry 'sron' \(did you mean 'sorn'\?\); there are: sorn"):
        pick({"sorn": 1, "dsa": 2}, "sron", "runs")


def test_the_helper_of_other_tests_refuses_what_a_stage_would():
    with pytest.raises(InputError, match="unknown parameter"):
        bare_params(rnus={})
    with pytest.raises(InputError, match="runs.mine.batch: is 1; it is at least 2"):
        bare_params(runs={"mine": RUN | {"batch": 1}})
