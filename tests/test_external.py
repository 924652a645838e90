"""stages/external.py: each outside parser through the engine into a parts.h5 that inspection finds sound."""

import json

import fake_detectron2 as fake
import numpy as np
import pytest
import torch
from tiny_set import HEIGHT, WIDTH, write_set

from pipeline.caches import Cache
from pipeline.errors import InputError
from pipeline.index import read_index
from pipeline.inspection import inspect_cache
from pipeline.parsing import Job, parse_images
from stages.external import External, external_parser

COUNT = 6


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, COUNT, nobody=2)
    return tmp_path


def make(root, name: str, source, **more) -> External:
    index = read_index(root / "index.csv")
    return external_parser(name, source=str(source), raw=root / "raw", paths=index["path"].tolist(), height=HEIGHT,
                           width=WIDTH, device="cpu", **{"labels": "", **more})


def parse(root, external: External) -> Cache:
    """Through the engine, as stage parse would."""
    index = read_index(root / "index.csv")
    maker = {"parser": "external", "source_sha256": external.source_sha256, "taxonomy": external.taxonomy,
             "exact": external.exact, "height": HEIGHT, "width": WIDTH, **external.made}
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=root / "raw",
              maker=json.dumps(maker, sort_keys=True), taxonomy=external.taxonomy, uv=external.uv, height=HEIGHT,
              width=WIDTH, batch=4, device="cpu")
    assert parse_images(job, external.forward, root / "parts.h5", scratch=root / "scratch") == []
    inspection = inspect_cache(root / "parts.h5", job.keys)
    assert inspection.sound, [check for check in inspection.checks if check.wrong]
    return Cache(root / "parts.h5")


def write_maps(root, count: int):
    from PIL import Image
    index = read_index(root / "index.csv")
    random = np.random.default_rng(0)
    maps = random.integers(0, count, (COUNT, HEIGHT // 4, WIDTH // 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    (root / "maps/query").mkdir(parents=True)
    for path, labels in zip(index["path"], maps, strict=True):
        Image.fromarray(labels).save((root / "maps" / path).with_suffix(".png"))
    return maps


@pytest.mark.parametrize(("labels", "count"), [("lip20", 20), ("ccp59", 59), ("pascal7", 7)])
def test_label_pngs_become_a_sound_cache(root, labels, count):
    maps = write_maps(root, count)
    external = make(root, "precomputed", root / "maps", labels=labels)
    assert (external.uv, external.exact) == (False, False)
    cache = parse(root, external)
    if labels == "lip20":
        np.testing.assert_array_equal(np.stack([cache.read("native", row) for row in range(COUNT)]), maps)
    if labels == "pascal7":  # whose labels are the first 7 of the 8 parts
        np.testing.assert_array_equal(np.stack([cache.read("labels", row) for row in range(COUNT)]), maps)
    assert cache.maker["labels"] == labels and len(cache.maker["labels_sha256"]) == 64


def test_densepose_becomes_a_sound_cache(root, monkeypatch):
    fake.install(monkeypatch)
    (root / "model.yaml").write_text("INPUT:\n  MIN_SIZE_TEST: 16\n")
    torch.manual_seed(3)
    torch.save(fake.TinyRCNN().state_dict(), root / "weights.pth")
    external = make(root, "densepose", root / "weights.pth", config=str(root / "model.yaml"))
    assert (external.taxonomy, external.uv, external.exact) == ("densepose24", True, True)
    cache = parse(root, external)
    assert cache.maker["boxes"] == "whole" and cache.maker["input"] == [32, 16] and cache.read("uv", 0).any()
    other = make(root, "densepose", root / "weights.pth", config=str(root / "model.yaml"), input_height=64,
                 input_width=32)
    assert other.made["input"] == [64, 32]
    (root / "model.yaml").write_text("INPUT:\n  MIN_SIZE_TEST: 16\n  FORMAT: RGB\n")
    again = make(root, "densepose", root / "weights.pth", config=str(root / "model.yaml"))
    assert again.made["config_sha256"] != external.made["config_sha256"]


def test_a_checkpoint_becomes_a_sound_cache(root):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4,
                                          decoder_hidden_size=16, num_labels=18)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(root / "checkpoint")
    external = make(root, "huggingface", root / "checkpoint", labels="atr18", input_height=64, input_width=32)
    assert (external.taxonomy, external.uv, external.exact) == ("lip20", False, False)
    assert parse(root, external).maker["transformers"] == transformers.__version__
    with pytest.raises(InputError, match="has 18 labels where the label map 'lip20' has 20"):
        make(root, "huggingface", root / "checkpoint", labels="lip20")


def test_mistakes_are_one_sentence(root):
    write_maps(root, 20)
    for name, more, words in (("schp", {}, "unknown parser 'schp'.*densepose, huggingface, precomputed"),
                              ("precomputed", {"labels": "lip"}, "unknown label map 'lip'"),
                              ("densepose", {}, "not installed|cannot be read|no configuration"),
                              ("huggingface", {"labels": "lip20"}, "not installed|no semantic segmentation")):
        with pytest.raises(InputError, match=words) as caught:
            make(root, name, root / "maps", **more)
        assert "\n" not in str(caught.value)
