"""Training by several processes that torchrun starts is training by one, and ends when one of them does.

In double precision (tests/helpers/distributed_training.py): the processes add the same numbers in another order,
which is 1e-16 of each number, and 8 steps make 1e-12 of it (measured: losses 3e-13, weights 4e-12). A loss or a
statistic over a process's own rows, a triplet mined among them or a gradient that is not averaged moves the first
digits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from models.distributed_batch import batch_norm
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.loading.samplers import Batches, Draws
from pipeline.training import distributed
from stages import train
from tests.helpers.bare_params import write_experiment
from tests.helpers.distributed_training import BATCH, CHECKPOINT_STEPS, STEPS, train_all
from tests.helpers.fake_runs import DATA, fake_experiment, fake_sections
from tests.helpers.fake_set import write_fake_caches, write_fake_set
from tests.training.test_loop import train_small

ROOT = Path(__file__).resolve().parents[2]
LOSSES, WEIGHTS = 1e-10, 1e-9
NETWORKS = ["sorn", "dsa", "esa", "sgsfa", "sgam", "pcb"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the made-up set and its caches."""
    folder = tmp_path_factory.mktemp("data")
    frame = write_fake_set(folder / "raw", folder / f"index/{DATA}.csv")
    write_fake_caches(folder / f"cache/{DATA}", folder / "raw", frame)
    return folder


def _link(folder: Path, data: Path) -> None:
    """The made-up set in a folder of its own `data`, where its runs can lie beside it."""
    (folder / "data").mkdir(exist_ok=True)
    for part in data.iterdir():
        if not (folder / "data" / part.name).exists():
            (folder / "data" / part.name).symlink_to(part)


def _torchrun(folder: Path, data: Path, *command: str, count: int = 2) -> subprocess.CompletedProcess:
    """Run `python -m command` in `folder` as so many processes."""
    folder.mkdir(exist_ok=True)
    _link(folder, data)
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    return subprocess.run([*program, *command], cwd=folder, capture_output=True, text=True, timeout=600,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def _together(folder: Path, data: Path, **asked) -> subprocess.CompletedProcess:
    return _torchrun(folder, data, "tests.helpers.distributed_training", json.dumps(asked))


def _alone(folder: Path, data: Path, patch: pytest.MonkeyPatch, runs: list[str]) -> None:
    folder.mkdir()
    _link(folder, data)
    patch.chdir(folder)
    train_all(runs=runs)
    torch.use_deterministic_algorithms(False)


def _assert_same_training(one: Path, two: Path, run: str) -> None:
    """Loss, every named scalar and every weight and statistic."""
    curves = [json.loads((folder / f"data/runs/{run}/losses.json").read_text()) for folder in (one, two)]
    assert len(curves[0]) == STEPS
    for step, (expected, found) in enumerate(zip(*curves, strict=True)):
        assert found == pytest.approx(expected, abs=LOSSES), (run, step)
    expected, found = (load_file(folder / f"data/runs/{run}/weights.safetensors") for folder in (one, two))
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):  # nothing reads it; DSA's loop on one CPU does not count
            assert torch.allclose(found[name], tensor, rtol=0, atol=WEIGHTS), (run, name)


@pytest.fixture(scope="module")
def together(data, tmp_path_factory):
    """The baseline, identity loss and triplet, trained by two processes."""
    folder = tmp_path_factory.mktemp("together")
    done = _together(folder, data, runs=["baseline"])
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_train_the_baseline_as_one_does(data, together, tmp_path, monkeypatch):
    _alone(tmp_path / "one", data, monkeypatch, ["baseline"])
    _assert_same_training(tmp_path / "one", together, "baseline")
    records = [json.loads((folder / "data/runs/baseline/train.json").read_text())
               for folder in (tmp_path / "one", together)]
    assert "processes" not in records[0] and records[1]["processes"] == 2
    shown = (together / "data/runs/baseline/live/plots/metrics/loss.tsv").read_text().splitlines()
    assert len(shown) == 1 + STEPS
    assert all(left.name.startswith("lock-") for left in (together / "scratch/train").iterdir())


@pytest.mark.slow
def test_two_processes_train_every_network_as_one_does(data, tmp_path, monkeypatch):
    done = _together(tmp_path / "two", data, runs=NETWORKS)
    assert done.returncode == 0, done.stderr
    _alone(tmp_path / "one", data, monkeypatch, NETWORKS)
    for run in NETWORKS:
        _assert_same_training(tmp_path / "one", tmp_path / "two", run)


@pytest.mark.slow
def test_one_that_dies_ends_the_job_and_the_job_goes_on_to_the_same_bytes(data, together, tmp_path):
    died = _together(tmp_path, data, runs=["baseline"], kill=[1, CHECKPOINT_STEPS + 2])
    assert died.returncode != 0 and not (tmp_path / "data/runs/baseline/weights.safetensors").exists()
    done = _together(tmp_path, data, runs=["baseline"])
    assert done.returncode == 0, done.stderr
    losses = json.loads((tmp_path / "data/runs/baseline/losses.json").read_text())
    assert len(losses) == STEPS - CHECKPOINT_STEPS
    for name in ("weights.safetensors", "train.json"):
        assert file_sha256(tmp_path / f"data/runs/baseline/{name}") == file_sha256(
            together / f"data/runs/baseline/{name}")


@pytest.mark.slow
def test_a_nan_in_one_process_stops_all_and_keeps_the_whole_batch(data, tmp_path):
    done = _together(tmp_path, data, runs=["baseline"], nan=[1, 4])
    assert done.returncode != 0 and "training stopped at step 4, where loss became nan" in done.stderr
    [kept] = (tmp_path / "scratch/train").glob("*/stopped")
    record, batch = json.loads((kept / "step.json").read_text()), load_file(kept / "batch.safetensors")
    assert record["step"] == 4 and len(record["keys"]) == BATCH
    # The first row of the second process.
    assert batch["image"].isnan().flatten(1).any(1).tolist() == [row == BATCH // 2 for row in range(BATCH)]


@pytest.mark.slow
def test_the_command_itself_in_single_precision(data, tmp_path, monkeypatch):
    """Adam divides by the gradient's size: where that is rounding, so is the step. The first two losses, of about 3,
    agree to 1e-4; later one process is up to 0.06 from its own double precision, whatever the memory's layout."""
    params, plan = fake_sections(image_steps=6 * BATCH)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_experiment(tmp_path / folder, params=params, plan=plan)
    refused = _torchrun(tmp_path / "two", data, "stages.train", "baseline", count=3)
    assert refused.returncode != 0 and "a batch of 8 images does not divide among 3 processes" in refused.stderr
    done = _torchrun(tmp_path / "two", data, "stages.train", "baseline")
    assert done.returncode == 0, done.stderr
    _link(tmp_path / "one", data)
    monkeypatch.chdir(tmp_path / "one")
    train.run(fake_experiment(image_steps=6 * BATCH), "baseline")
    torch.use_deterministic_algorithms(False)
    curves = [[float(row.split("\t")[1]) for row in (tmp_path / folder / "data/runs/baseline/live/plots/metrics"
                                                     / "loss.tsv").read_text().splitlines()[1:]]
              for folder in ("one", "two")]
    assert len(curves[0]) == len(curves[1]) == 6
    assert curves[1][:2] == pytest.approx(curves[0][:2], abs=1e-4)


def test_shares_make_up_the_batch(monkeypatch):
    plan = Batches([0, 0, 1, 1, 2, 2], batch=4, ids_per_batch=2, seed=0)
    whole = list(Draws(plan, start=0, stop=5))
    shares = [list(Draws(plan, start=0, stop=5, share=slice(rank * 2, rank * 2 + 2))) for rank in range(2)]
    assert [left + right for left, right in zip(*shares, strict=True)] == whole
    assert distributed.share_of(9) == slice(0, 9)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="batch of 10 images does not divide among 4 processes.*divides 10"):
        distributed.share_of(10)


def test_a_stage_that_trains_as_one_refuses_torchrun(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="started 2 processes, and this stage trains as one"):
        train_small(tmp_path)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5, 2)])
def test_batch_norm_is_torch_s(shape):
    """Value, gradients and running statistics, twice, in a group of one process; more are above."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        build = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
        ours, theirs = build(3).double(), build(3).double()
        nn.init.normal_(ours.weight)
        nn.init.normal_(ours.bias)
        theirs.load_state_dict(ours.state_dict())
        for _ in range(2):
            x = (100 + torch.randn(shape, dtype=torch.float64)).requires_grad_()
            outcomes = []
            for y, norm in ((batch_norm(ours, x), ours), (theirs(x), theirs)):
                gradients = torch.autograd.grad((y * torch.arange(y.numel()).view(shape)).square().sum(),
                                                [x, norm.weight, norm.bias])
                outcomes.append([y, *gradients, *norm.state_dict().values()])
            for left, right in zip(*outcomes, strict=True):
                assert torch.allclose(left, right, rtol=1e-9, atol=1e-9)
    finally:
        dist.destroy_process_group()
