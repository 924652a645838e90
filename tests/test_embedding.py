"""The stages train and embed on a made-up set: features that depend on their picture alone, and refusals."""

import dataclasses
import itertools
import json

import h5py
import numpy as np
import pytest
import torch
from bare_params import SECTIONS

from models.histogram import Histogram
from pipeline.embedding import embed_images
from pipeline.errors import InputError
from pipeline.features import read_features
from pipeline.images import file_sha256
from pipeline.index import read_index
from pipeline.loading import Pictures, embedding_rows, ordered_batches, training_rows
from pipeline.params import CacheParams, Params
from pipeline.params_file import parse
from pipeline.taxonomy import PARTS8_TO_PARTS4
from pipeline.weights import load_weights, read_weights, save_weights
from stages import embed, train
from tests.fake_set import HEIGHT, WIDTH, fake_probabilities, write_fake_caches, write_fake_set

DATA = "default-fake"
CPU = torch.device("cpu")
MODELS = {
    "baseline": {"name": "baseline", "label_smoothing": 0.1, "id_weight": 0.5, "triplet_weight": 1.5, "margin": 0.3,
                 "normalise": False},
    "histogram": {"name": "histogram", "stripes": 2, "bins": 4},
    "sorn": {"name": "sorn", "patches": 2, "channel_sets": 2, "channels": 16, "use_global": True, "use_local": True,
             "use_semantic": True, "labels": 8, "label_smoothing": 0.1, "lambda_global": 0.75, "lambda_spc": 0.5,
             "lambda_seg": 1.5, "reduction": "mean"},
    "dsa": {"name": "dsa", "dsag_width": 0.0625, "use_global": True, "use_local": True, "use_dsag": True,
            "fusion": "add", "label_smoothing": 0.1, "id_weight": 0.5, "fused_id_weight": 1.0, "triplet_weight": 1.5,
            "margin": 0.3},
    "esa": {"name": "esa", "channels": 16, "unconfident": "mask", "semantics": "cache", "tau": 0.5,
            "lambda_parsing": 0.1, "margin": 0.3, "weights": "detached", "e_max": "log", "pooling": "mean",
            "reduction": "mean"},
    "sgsfa": {"name": "sgsfa", "size": 16, "gamma": 8, "local_gamma": 2, "whole_attention": True,
              "label_smoothing": 0.1, "margin": 0.3, "trade_off": 0.8, "visible_share": 0.2, "stripe_threshold": 0.15,
              "distance": "cosine", "reduction": "mean", "head_top": "first"},
    "sgam": {"name": "sgam", "width": 16, "use_parts": True, "crop": True, "training_rule": True,
             "thresholds": [0.2, 0.2, 0.2, 0.2], "lambda_global": 0.2, "scores": "normalised"},
    "pcb": {"name": "pcb", "stripes": 2, "width": 16}}
PARTS, WARPS = f"data/cache/{DATA}/parts.h5", f"data/cache/{DATA}/dsap.h5"
CACHES = {"sorn": PARTS, "dsa": WARPS, "esa": PARTS, "sgsfa": PARTS, "sgam": PARTS}
TEST_CACHES = {"dsa": WARPS, "esa": PARTS, "sgam": PARTS}
MATCH = {"dsa": "z", "sgsfa": "parts"}


def tree(**run) -> dict:
    """What params.yaml would hold; `run` in every run."""
    runs, pairs = {}, {}
    for name, model in MODELS.items():
        reads = CACHES.get(name, "data/raw")
        runs[f"default-{name}"] = {
            "model": model, "train_on": DATA, "cache": DATA if name in CACHES else "none", "reads": reads,
            "backbone": "resnet18", "init": "none", "seed": 0, "height": HEIGHT, "width": WIDTH,
            "image_steps": 0 if name == "histogram" else 24, "batch": 8, "ids_per_batch": 4, "max_ids": 0, "workers": 0,
            "optimizer": {"name": "adam", "lr": 0.001, "pretrained_lr_factor": 1.0, "weight_decay": 0.0005,
                          "warmup": 0.1, "warmup_start": 0.1, "milestones": [0.5], "gamma": 0.1},
            "augment": {"flip": 0.5, "pad": 2, "erase": 0.5, "fill": "image"}} | run
        pairs[f"default-{name}-on-fake"] = {
            "run": f"default-{name}", "result": f"default-{name}", "model": name, "dataset": DATA,
            "dtype": "float32", "batch": 8,
            "reads": TEST_CACHES.get(name, "data/raw"), "visible_by": TEST_CACHES.get(name, "data/raw"),
            "match": {"tau": 0.15, "features": MATCH.get(name, "all")}}
    return {
        **{name: {} for name in SECTIONS}, "scale": "default", "device": "cpu", "precision": "float32", "threads": 1,
        "datasets": {DATA: {"layout": "market", "raw": "data/raw"}}, "runs": runs, "embed": pairs}


def _params(**run) -> Params:
    return parse(Params, tree(**run), "")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder where each network was trained and has embedded the made-up set."""
    folder = tmp_path_factory.mktemp("project")
    frame = write_fake_set(folder / "data/raw", folder / f"data/index/{DATA}.csv")
    write_fake_caches(folder / f"data/cache/{DATA}", folder / "data/raw", frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in MODELS:
            train.run(_params(), f"default-{name}")
            embed.run(_params(), f"default-{name}-on-fake")
        yield folder
    torch.use_deterministic_algorithms(False)


def _features(name: str) -> h5py.File:
    return h5py.File(f"features/default-{name}/{DATA}.h5")


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_evaluation_reads(project, name):
    found = read_features(f"features/default-{name}/{DATA}.h5")
    index = read_index(f"data/index/{DATA}.csv")
    assert found.query_key.tolist() == index.loc[index["split"] == "query", "image"].tolist()
    assert found.gallery.pid.tolist() == index.loc[index["split"] == "gallery", "pid"].tolist()
    assert found.maker["weights_sha256"] == file_sha256(f"runs/default-{name}/weights.safetensors")
    assert found.maker["model"] == name and found.maker["train_on"] == DATA
    assert list(found.maker["caches"]) == ([CACHES[name]] if name in CACHES else [])


@pytest.mark.parametrize("name", ["baseline", "sorn", "sgam"])
def test_training_again_gives_the_same_bytes(project, name):
    paths = [f"runs/default-{name}/weights.safetensors", f"runs/default-{name}/train.json",
             f"features/default-{name}/{DATA}.h5"]
    before = [file_sha256(path) for path in paths]
    train.run(_params(workers=1), f"default-{name}")
    embed.run(_params(workers=1), f"default-{name}-on-fake")
    assert [file_sha256(path) for path in paths] == before


def test_training_leaves_its_record_and_nothing_unfinished(project):
    record = json.loads((project / "runs/default-sorn/train.json").read_text())
    assert record["ids"] == 6 and record["images"] == 24
    assert record["index_sha256"] == file_sha256(f"data/index/{DATA}.csv")
    assert record["caches"][CACHES["sorn"]]["sha256"] == file_sha256(CACHES["sorn"])
    logged = (project / "runs/default-sorn/live/plots/metrics/loss.tsv").read_text().splitlines()
    assert len(logged) == 1 + 3 and record["final"]["loss"] == float(logged[-1].split("\t")[1])
    assert not list((project / "scratch").glob("train/*"))


def test_stripes_can_be_told_from_outside(project):
    """SORN Table III: joints (+P), and the mask of a network that only segments (+S)."""
    params = _params()
    name, pair = "default-segments", "default-sorn-on-fake"
    model = dataclasses.replace(params.runs["default-sorn"].model, use_global=False, use_local=False)
    runs = {**params.runs, name: dataclasses.replace(params.runs["default-sorn"], model=model)}
    params = dataclasses.replace(params, runs=runs)
    train.run(params, name)
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    joints = np.zeros((len(frame), 18, 3), np.float32)
    joints[:, 0] = 3, 2, 1                                # one in the upper stripe
    joints[::3, 1] = 3, HEIGHT - 2, 1                     # and of every third picture one in the lower
    with h5py.File("data/raw/labels.h5", "w") as file:
        file["path"], file["joints"] = frame["path"].tolist(), joints
        file["size"] = np.full((len(frame), 2), (HEIGHT, WIDTH))

    def visibility(**changes):
        entry = dataclasses.replace(params.embed[pair], result="default-told", **changes)
        embed.run(dataclasses.replace(params, embed={pair: entry}), pair)
        with h5py.File(f"features/default-told/{DATA}.h5") as file:
            return file["visibility"][:]

    np.testing.assert_array_equal(visibility(visible_by="data/raw/labels.h5")[:, 1:],
                                  np.stack([np.ones(len(frame)), np.arange(len(frame)) % 3 == 0], 1))
    told = visibility(visible_by=f"runs/{name}/weights.safetensors")
    tensors, about = read_weights(f"runs/{name}/weights.safetensors")
    network = embed.build(params.runs[name], key=name, ids=about["ids"])
    load_weights(network, tensors, "weights")
    pictures = Pictures(frame, raw="data/raw", cache=None, height=HEIGHT, width=WIDTH)
    with torch.no_grad():
        for batch in itertools.islice(ordered_batches(pictures, batch=1, workers=0, device=CPU), 0, None, 7):
            image, row = batch["image"], int(batch["row"])
            mask = network.eval().maps({"image": image})[1][0]
            shares = [float(half.mean()) for half in mask.split(len(mask) // 2)]
            assert told[row].tolist() == [1.0, *(float(share >= 0.15) for share in shares)]
    with pytest.raises(ValueError, match="segment only"):
        network.embed({"image": image})
    with pytest.raises(InputError, match="no SORN"):
        entry = dataclasses.replace(params.embed["default-baseline-on-fake"], visible_by="data/raw/labels.h5")
        embed.run(dataclasses.replace(params, embed={pair: entry}), pair)


def test_what_training_measured_stays_with_the_weights(project):
    """SGAM's crop and medians, SGSFA's medians: from the cache's own numbers."""
    frame = training_rows(read_index(f"data/index/{DATA}.csv"))
    areas = np.stack([fake_probabilities(key, PARTS8_TO_PARTS4)[1:].mean((1, 2)) / 255 for key in frame["image"]])
    medians = [np.median(column[column > 0]) for column in areas.T]
    tensors, about = read_weights("runs/default-sgam/weights.safetensors")
    np.testing.assert_allclose(about["crop"]["medians"], medians)
    assert about["crop"]["thresholds"] == [0.2] * 4 and (tensors["medians"] > 0).all()
    tensors, about = read_weights("runs/default-sgsfa/weights.safetensors")
    np.testing.assert_allclose(tensors["medians"], medians, rtol=1e-5)
    assert "crop" not in about


def test_features_are_the_network_s_own(project):
    """Against each picture alone, through the plain colour histogram."""
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    pictures = Pictures(frame, raw="data/raw", cache=None, height=HEIGHT, width=WIDTH)
    network = Histogram(stripes=2, bins=4)
    with _features("histogram") as file:
        for row, batch in enumerate(ordered_batches(pictures, batch=1, workers=0, device=CPU)):
            np.testing.assert_allclose(file["features"][row], network.embed(batch)[0][0], atol=1e-6)
            assert file["key"].asstr()[row] == frame["image"][row]


def test_a_picture_s_features_do_not_depend_on_its_neighbours(project):
    params = _params()
    tensors, about = read_weights("runs/default-baseline/weights.safetensors")
    network = embed.build(params.runs["default-baseline"], key="default-baseline", ids=about["ids"])
    load_weights(network, tensors, "weights")
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    few = frame[3::7].reset_index(drop=True)
    found = []
    for rows in (frame, few):
        pictures = Pictures(rows, raw="data/raw", cache=None, height=HEIGHT, width=WIDTH)
        batches = ordered_batches(pictures, batch=8, workers=0, device=CPU)
        found.append(embed_images(network, batches, count=len(rows), device=CPU)[0])
    np.testing.assert_array_equal(found[0][3::7], found[1])


def test_weights_of_another_run_are_refused(project):
    params = _params()
    swapped = {**params.embed, "x": dataclasses.replace(params.embed["default-sorn-on-fake"], run="default-other")}
    runs = {**params.runs, "default-other": params.runs["default-sorn"]}
    other = dataclasses.replace(params, embed=swapped, runs=runs)
    (project / "runs/default-other").mkdir()
    (project / "runs/default-other/weights.safetensors").write_bytes(
        (project / "runs/default-baseline/weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="run 'default-baseline' .model 'baseline'.*run 'default-other' .model 'sorn'"):
        embed.run(other, "x")
    with pytest.raises(InputError, match="trained with seed 0, and runs.default-baseline says 1"):
        embed.run(_params(seed=1), "default-baseline-on-fake")


def test_weight_files_that_do_not_fit_are_refused(project, tmp_path):
    tensors, about = read_weights("runs/default-baseline/weights.safetensors")
    with pytest.raises(InputError, match="other.*backbone.bn1.bias.*is absent"):
        load_weights(embed.build(_params().runs["default-baseline"], key="x", ids=6),
                     {key: value for key, value in tensors.items() if key != "backbone.bn1.bias"}, "other")
    whole = (project / "runs/default-baseline/weights.safetensors").read_bytes()
    for content in (b"", whole[:1000], whole[:-1000]):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="w.safetensors.*damaged"):
            read_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="no such weights"):
        read_weights(tmp_path / "nowhere.safetensors")
    save_weights(tmp_path / "w.safetensors", Histogram(), {"run": "a"})
    assert read_weights(tmp_path / "w.safetensors") == ({}, {"run": "a"})


@pytest.mark.parametrize(("change", "match"), [
    ({"ids_per_batch": 8}, "default-baseline: there are 6 identities and ids_per_batch is 8"),
    ({"height": 40}, "default-baseline: height is 40; make it a multiple of 16"),
    ({"backbone": "vgg"}, "default-baseline: unknown backbone 'vgg'"),
    ({"max_ids": 3, "batch": 4}, "default-baseline: there are 3 identities")])
def test_runs_that_cannot_be_trained_are_refused(project, change, match):
    with pytest.raises(InputError, match=match):
        train.run(_params(**change), "default-baseline")


def test_a_run_without_its_cache_is_refused(project):
    params = _params()
    foreign = parse(CacheParams, {"dataset": "default-other", "parser": "lraspp", "source": "x", "images": "x",
                                  "height": 32, "width": 16, "batch": 8, "threads": 1}, "")
    with pytest.raises(InputError, match="was made for the data set 'default-other', and the run trains on 'default-f"):
        train.run(dataclasses.replace(params, caches={DATA: foreign}), "default-sorn")
    with pytest.raises(InputError, match=r"runs.default-sorn.reads: is 'data/raw', and sorn .* reads a parts.h5"):
        train.run(_params(reads="data/raw"), "default-sorn")
    plain = dataclasses.replace(params.embed["default-dsa-on-fake"], reads="data/raw")
    with pytest.raises(InputError, match="embed.x.reads: .* reads a dsap.h5"):
        embed.run(dataclasses.replace(params, embed={"x": plain}), "x")
