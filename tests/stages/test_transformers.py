"""The stages train and embed with a transformer: its start's file, its cameras, and both sides of an image."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.torchvision_import import import_torchvision
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.config import paths
from pipeline.datasets.index import read_index, write_index
from pipeline.retrieval.features import both_sides, read_features
from stages import embed, train
from stages.shared.embedder import open_embedder
from tests.helpers.fake_runs import DATA, fake_experiment
from tests.helpers.fake_set import write_fake_set
from tests.helpers.networks import network

import_torchvision()
timm = pytest.importorskip("timm")

VIT = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2}
OPTIMIZER = {"name": "adamw", "lr": 0.001, "pretrained_lr_factor": 1.0, "weight_decay": 0.0005, "warmup": 0.1,
             "warmup_start": 0.1, "milestones": [], "gamma": 0.1, "layer_decay": 0.75}


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The made-up set, a small ViT under a name of timm's, and a file to start from."""
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: real(name, **settings, **SMALL))
    monkeypatch.chdir(tmp_path)
    write_fake_set(tmp_path / "data/raw", tmp_path / f"data/index/{DATA}.csv")
    torch.manual_seed(3)
    torch.save({"teacher": {f"backbone.{name}": value for name, value in real(VIT, num_classes=0, **SMALL
                                                                             ).state_dict().items()}}, "start.pth")
    return fake_experiment(backbone=VIT, init="start.pth", camera="embed", optimizer=OPTIMIZER)


def flipped(experiment):
    results = experiment.params.results
    both = replace(results["baseline"], match=replace(results["baseline"].match, flip="mean"))
    return replace(experiment, params=replace(experiment.params, results={**results, "baseline": both}))


def test_the_file_and_the_cameras_are_recorded_and_unknown_cameras_refused(started):
    train.run(started, "baseline")
    made = json.loads(paths.train_record("baseline").read_text())
    checkpoint = made["checkpoint"]
    assert made["cameras"] == [1, 2, 3] and checkpoint["sha256"] == file_sha256("start.pth")
    assert checkpoint["file"] == "start.pth" and checkpoint["taken"] == checkpoint["of"] and not checkpoint["missing"]

    embed.run(started, "baseline")
    path = paths.features("baseline", DATA)
    assert read_features(path).provenance["checkpoint"] == checkpoint
    with pytest.raises(InputError, match="nobody says which camera an image is from"):
        open_embedder("baseline", experiment=started)

    index = f"data/index/{DATA}.csv"
    frame = read_index(index)
    frame.loc[(frame["split"] == "gallery") & (frame["camid"] == 2), "camid"] = 7
    write_index(frame, index)
    with pytest.raises(InputError, match="cameras that it was trained on, 1, 2, 3, and 'fake' has camera 7 too") as bad:
        embed.run(started, "baseline")
    assert "\n" not in str(bad.value)


def test_the_camera_reaches_the_network_at_test_time(started):
    train.run(started, "baseline")
    embed.run(started, "baseline")
    before = read_features(paths.features("baseline", DATA)).gallery
    index = f"data/index/{DATA}.csv"
    frame = read_index(index)
    moved = (frame["split"] == "gallery") & (frame["camid"] == 2)
    frame.loc[moved, "camid"] = 3
    write_index(frame, index)
    embed.run(started, "baseline")
    after = read_features(paths.features("baseline", DATA)).gallery
    differ = np.abs(before.features - after.features).max(1) > 1e-6
    assert differ.tolist() == moved[frame["split"] == "gallery"].tolist()


def test_flip_is_the_mean_of_both_sides_at_their_length(started):
    train.run(started, "baseline")
    embed.run(flipped(started), "baseline")
    found = read_features(paths.features("baseline", DATA))
    assert found.provenance["flip"] == "mean"
    assert np.allclose(np.linalg.norm(found.gallery.features, axis=1), 1, atol=1e-5)
    embed.run(started, "baseline")
    one_sided = read_features(paths.features("baseline", DATA))
    assert "flip" not in one_sided.provenance
    assert (np.abs(one_sided.gallery.features - found.gallery.features).max(1) > 1e-4).all()


def test_warps_are_not_mirrored_with_their_image():
    with pytest.raises(InputError, match="flip: is mean, and warps lie on the body's surface"):
        both_sides(None, {"image": torch.zeros(1, 3, 32, 16), "dsap": torch.zeros(1, 24, 3, 8, 8)})


def test_an_image_and_its_mirror_image_have_one_feature_of_both_sides():
    made = network("sgam", width=8, crop=False).eval()
    made.medians.fill_(0.3)
    g = torch.Generator().manual_seed(0)
    batch = {"image": torch.randn(2, 3, 64, 32, generator=g), "probs4": torch.rand(2, 5, 16, 8, generator=g),
             "pid": torch.tensor([1, 2])}
    mirrored = {name: value.flip(-1) if name in ("image", "probs4") else value for name, value in batch.items()}
    with torch.no_grad():
        one, other = both_sides(made, batch), both_sides(made, mirrored)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))
        f, g_ = made.embed(batch)[0], made.embed(mirrored)[0]
        size = made.sizes[0]
        mean = (f + g_)[:, :size] / 2
        length = (f[:, :size].norm(dim=1) + g_[:, :size].norm(dim=1)) / 2
        assert torch.allclose(one[0][:, :size], mean / mean.norm(dim=1, keepdim=True) * length[:, None], atol=1e-5)
