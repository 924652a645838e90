"""benchmarks/peers.py: our side against a plain torch loop, and what it refuses to compare; torchreid is not here."""

import argparse
import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import peers

SMALL = {"size": 4, "height": 64, "width": 32}


def plain() -> torch.nn.Module:
    """torchvision's ResNet-50, its last stage's two strides of 2 undone, with the weights both engines begin with."""
    import torchvision  # after benchmarks.peers, which makes it importable beside a CPU-only torch

    network = torchvision.models.resnet50(weights=None, num_classes=peers.IDS)
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    network.load_state_dict({name.replace("classifier.", "fc."): tensor for name, tensor in peers.start().items()})
    return network


def test_our_side_trains_by_softmax_and_adam_and_its_loader_sees_every_step():
    batches, network = peers.batches(3, **SMALL), plain().train().to(memory_format=torch.channels_last)  # as ours
    optimizer = torch.optim.Adam(network.parameters(), lr=peers.RATE, weight_decay=peers.DECAY)
    expected = []
    for batch in batches:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(image), batch["pid"], label_smoothing=0.1)
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    loader = peers.Watched(copy.deepcopy(batches))
    losses, features = peers.ours("training", loader, "float32")
    # The second is of weights after a step of Adam; from there on float32 drifts (tests/training/test_distributed.py).
    assert features is None and len(losses) == 3 and losses[:2] == pytest.approx(expected[:2], rel=1e-3)
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert len(loader.asked) == 3 and loader.fastest() == loader.asked[2] - loader.asked[1] > 0


def test_our_side_embeds_what_the_plain_network_does():
    batches, network = peers.batches(2, **SMALL), plain().eval()
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = F.normalize(torch.cat([network(batch["image"]) for batch in batches]), dim=1).numpy()
    losses, features = peers.ours("embedding", peers.Watched(batches), "float32")
    assert losses == [] and features == pytest.approx(expected, abs=1e-5)


def test_engines_that_do_not_compute_the_same_are_not_compared(capsys):
    def measured(given, side, task):
        return {"seconds": 0.5 if side == "ours" else 1.0, "memory": 100.0, "losses": [6.0 + (side == wrong), 5.0],
                "features": [[0.0, 1.0 - (side == wrong and task == "embedding")]]}

    given, wrong = argparse.Namespace(height=256, width=128, batch=8, threads=1, repeats=2), "none"
    peers.compare(given, measured)
    said = capsys.readouterr().out
    assert "| training | ours | 500 | 0.50 | 100 | 1.00 |" in said and "| embedding | torchreid | 1000 | 1.00 |" in said

    wrong = "ours"
    with pytest.raises(SystemExit, match=r"begin with other losses, 6.0 and 7.0"):
        peers.compare(given, measured)
    with pytest.raises(SystemExit, match="other features"):
        peers.same("embedding", measured(given, "torchreid", "embedding"), measured(given, "ours", "embedding"))
    with pytest.raises(SystemExit, match="other losses"):
        peers.same("training", {"losses": [np.nan]}, {"losses": [6.0]})


def test_a_folder_without_torchreid_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", "--torchreid", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        peers.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (f"error: {str(tmp_path)!r}: holds no torchreid/engine; give a clone of "
                                       "KaiyangZhou/deep-person-reid as --torchreid\n")
