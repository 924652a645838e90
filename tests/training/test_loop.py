"""The loop: learning rates at the papers' epochs, the same weights after any interruption, a stop at NaN."""

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.seeds import torch_seed
from pipeline.training.loop import fingerprint, fit, learning_rate, make_optimizer

STEPS, BATCH = 23, 8
KEYS = [f"train/{row}.jpg" for row in range(100)]


class Small(nn.Module):
    """Convolution, batch norm and dropout: weights, buffers and randomness that a checkpoint must carry."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                                    nn.Flatten(), nn.Dropout(0.5))
        self.classify = nn.Linear(24, 4)

    def forward(self, batch):
        logits = self.classify(self.layers(batch["image"]))
        loss = nn.functional.cross_entropy(logits, batch["pid"])
        return loss, {"id": loss.detach(), "accuracy": (logits.argmax(1) == batch["pid"]).float().mean()}


def made_up_batches(start, *, kill_at=-1, nan_at=-1):
    """Step's batch from its number alone; at `kill_at` the process is killed."""
    for step in range(start, STEPS):
        if step == kill_at:
            signal.raise_signal(signal.SIGKILL)
        generator = torch.Generator().manual_seed(torch_seed(0, "batch", step))
        pid = torch.randint(0, 4, (BATCH,), generator=generator)
        image = torch.randn(BATCH, 3, 12, 8, generator=generator) + pid[:, None, None, None]
        if step == nan_at:
            image[2, 0, 0, 0] = torch.nan
        yield {"image": image, "pid": pid, "row": torch.arange(BATCH) + step}


def train_small(folder, *, optimizer="adam", checkpoint_steps=5, lr=0.01, **batches):
    torch.set_num_threads(1)  # more only wait for each other on a network this small
    network = Small()
    rate = functools.partial(learning_rate, lr=lr, warmup=0.2, warmup_start=0.1, milestones=[0.6], gamma=0.1)
    history = fit(network, make_optimizer(list(network.layers.parameters()), list(network.classify.parameters()),
                                          name=optimizer, weight_decay=5e-4, pretrained_lr_factor=0.1),
                  batches=functools.partial(made_up_batches, **batches), steps=STEPS, batch_size=BATCH, rate=rate,
                  seed=0, device=torch.device("cpu"), precision="float32", scratch=Path(folder) / "scratch",
                  live=Path(folder) / "live", keys=KEYS, checkpoint_steps=checkpoint_steps, checkpoint_seconds=0)
    return network, history


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    for (name, one), other in zip(left.state_dict().items(), right.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_killed_training_goes_on_to_the_same_weights(tmp_path, optimizer):
    whole, history = train_small(tmp_path / "whole", optimizer=optimizer)
    code = f"from tests.training.test_loop import train_small; train_small({str(tmp_path / 'cut')!r}, " \
           f"optimizer={optimizer!r}, kill_at=13)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "cut/scratch/checkpoint.pt", weights_only=True)["step"] == 10
    resumed, again = train_small(tmp_path / "cut", optimizer=optimizer)
    _assert_same_weights(resumed, whole)
    assert again == history
    for name in ("loss", "lr", "accuracy"):
        table = "live/plots/metrics/" + name + ".tsv"
        assert (tmp_path / "cut" / table).read_text() == (tmp_path / "whole" / table).read_text()


def test_resuming_at_any_step(tmp_path):
    whole, history = train_small(tmp_path / "whole")
    for step in (1, 11, STEPS - 1):
        def stop(start, step=step):
            yield from (batch for number, batch in enumerate(made_up_batches(start), start) if number < step)
            raise KeyboardInterrupt
        network = Small()
        arguments = {"steps": STEPS, "batch_size": BATCH, "seed": 0, "device": torch.device("cpu"),
                     "precision": "float32", "keys": KEYS,
                     "rate": functools.partial(learning_rate, lr=0.01, warmup=0.2, warmup_start=0.1, milestones=[0.6],
                                               gamma=0.1),
                     "scratch": tmp_path / f"{step}/scratch", "live": tmp_path / f"{step}/live"}
        optimizer = make_optimizer(list(network.layers.parameters()), list(network.classify.parameters()), name="adam",
                                   weight_decay=5e-4, pretrained_lr_factor=0.1)
        with pytest.raises(KeyboardInterrupt):
            fit(network, optimizer, batches=stop, checkpoint_steps=1, checkpoint_seconds=0, **arguments)
        resumed, again = train_small(tmp_path / str(step))
        _assert_same_weights(resumed, whole)
        assert again == history


def test_what_is_logged_is_what_a_plain_loop_does(tmp_path):
    network, history = train_small(tmp_path)
    plain = Small().train()
    groups = [{"params": plain.layers.parameters()}, {"params": plain.classify.parameters()}]
    optimizer = torch.optim.Adam(groups, weight_decay=5e-4)
    losses = []
    for step, batch in enumerate(made_up_batches(0)):
        rate = 0.01 * (0.1 + 0.9 * step / STEPS / 0.2 if step / STEPS < 0.2 else 0.1 if step / STEPS >= 0.6 else 1)
        for group, factor in zip(optimizer.param_groups, (0.1, 1), strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(torch_seed(0, "step", step))
        loss, _ = plain(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [row["step"] for row in history] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 23]
    for row, first in zip(history, range(0, STEPS, 2), strict=True):
        assert row["loss"] == pytest.approx(sum(losses[first:first + 2]) / len(losses[first:first + 2]), abs=1e-4)
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_nan_stops_and_keeps_step_and_batch(tmp_path):
    with pytest.raises(InputError, match=r"stopped at step 7, where loss became nan.*train/7\.jpg.*lr"):
        train_small(tmp_path, nan_at=7)
    kept = tmp_path / "scratch/stopped"
    record = json.loads((kept / "step.json").read_text())
    assert record["step"] == 7 and record["keys"] == KEYS[7:7 + BATCH]
    assert load_file(kept / "batch.safetensors")["image"][2].isnan().any()
    assert torch.load(tmp_path / "scratch/checkpoint.pt", weights_only=True)["step"] == 5


def test_weights_that_became_infinite_are_never_kept(tmp_path):
    with pytest.raises(InputError, match="lower optimizer.lr"):
        train_small(tmp_path, lr=1e38, checkpoint_steps=1, optimizer="sgd")
    path = tmp_path / "scratch/checkpoint.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)["network"]
        assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, content):
    path = tmp_path / "scratch/checkpoint.pt"
    path.parent.mkdir()
    if content is None:
        torch.save({"step": 3, "network": nn.Linear(2, 2).state_dict(), "optimizer": {}, "history": []}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="checkpoint.pt.*remove it"):
        train_small(tmp_path)


def test_unfinished_work_is_keyed_by_all_it_depends_on():
    about = {"parameters": {"lr": 0.1, "batch": 2}, "index_sha256": "a"}
    same = {"index_sha256": "a", "parameters": {"batch": 2, "lr": 0.1}}
    assert fingerprint(about) == fingerprint(same)
    assert len({fingerprint(about), fingerprint({**about, "index_sha256": "b"}),
                fingerprint({**about, "parameters": {"lr": 0.2, "batch": 2}})}) == 3


def test_sorn_s_learning_rates():
    """SORN IV-B: 80 epochs; in the first 10 linearly from 3e-5 to 3e-4; 3e-5 and 3e-6 from epochs 30 and 60 on."""
    rate = functools.partial(learning_rate, lr=3e-4, warmup=10 / 80, warmup_start=0.1, milestones=[30 / 80, 60 / 80],
                             gamma=0.1)
    for epoch, expected in ((0, 3e-5), (5, 1.65e-4), (10, 3e-4), (29.99, 3e-4), (30, 3e-5), (59.99, 3e-5), (60, 3e-6),
                            (79.99, 3e-6)):
        assert rate(epoch / 80) == pytest.approx(expected), epoch


def test_dsa_s_learning_rates():
    """DSA 4.2: 320 epochs; in the first 20 linearly from 8e-6 to 8e-4; then halved every 40 epochs."""
    rate = functools.partial(learning_rate, lr=8e-4, warmup=20 / 320, warmup_start=0.01,
                             milestones=[(20 + 40 * k) / 320 for k in range(1, 8)], gamma=0.5)
    for epoch, expected in ((0, 8e-6), (10, 4.04e-4), (20, 8e-4), (59.9, 8e-4), (60, 4e-4), (99.9, 4e-4), (100, 2e-4),
                            (140, 1e-4), (299.9, 8e-4 / 64), (300, 8e-4 / 128)):
        assert rate(epoch / 320) == pytest.approx(expected), epoch


def test_a_rounded_share_counts_as_reached():
    assert learning_rate(4 / 7, lr=1, warmup=0, warmup_start=1, milestones=[0.5714285714], gamma=0.1) == 0.1
    with pytest.raises(InputError, match="unknown optimiser 'lion'"):
        make_optimizer([], [], name="lion", weight_decay=0, pretrained_lr_factor=1)


def test_a_cosine_falls_from_the_warm_up_s_end_to_the_end():
    rate = functools.partial(learning_rate, lr=2.0, warmup=0.2, warmup_start=0.1, milestones=[], gamma=0.1, cosine=True)
    assert [rate(share) for share in (0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.2, 1.1, 2.0, 1.0, 0.0])


def test_layer_decay_lowers_the_rate_layer_by_layer_towards_the_image():
    first, second, loose, new = (torch.nn.Parameter(torch.zeros(1)) for _ in range(4))
    optimizer = make_optimizer([first, second, loose], [new], name="adamw", weight_decay=0.1, pretrained_lr_factor=0.5,
                               layers=[[first], [second]], layer_decay=0.8)
    factors = {id(group["params"][0]): group["factor"] for group in optimizer.param_groups}
    assert factors == {id(first): pytest.approx(0.5 * 0.64), id(second): pytest.approx(0.5 * 0.8), id(loose): 0.5,
                       id(new): 1.0}
    plain = make_optimizer([first, second], [new], name="adam", weight_decay=0, pretrained_lr_factor=0.5)
    assert [group["factor"] for group in plain.param_groups] == [0.5, 1.0]


def test_adamw_decays_weights_apart_from_the_gradient():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    reference = torch.nn.Parameter(torch.tensor([2.0]))
    ours = make_optimizer([], [weight], name="adamw", weight_decay=0.1, pretrained_lr_factor=1)
    ours.param_groups[0]["lr"] = 0.01
    theirs = torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1)
    for step in range(3):
        for parameter, optimizer in ((weight, ours), (reference, theirs)):
            parameter.grad = torch.tensor([0.3 - step])
            optimizer.step()
    assert torch.allclose(weight, reference, atol=1e-7) and not torch.equal(weight, torch.tensor([2.0]))
