"""models/parsers/huggingface.py with small random checkpoints on disk; its reading of files without the library too."""

import json
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.parsers.huggingface import load_huggingface, read_normalisation, resolve_checkpoint
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD
from pipeline.parsing.label_map import read_label_map

HEIGHT, WIDTH = 64, 32


def pictures(count=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, HEIGHT, WIDTH), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    names = dict(enumerate(read_label_map("atr18").names))
    config = transformers.SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4,
                                          decoder_hidden_size=16, id2label=names,
                                          label2id={name: label for label, name in names.items()})
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=1.0)  # so that labels vary
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3]}))
    return folder


@pytest.mark.parametrize("size", [(0, 0), (96, 64)])
def test_probabilities_are_the_networks(folder, size):
    from transformers import AutoModelForSemanticSegmentation
    parser = load_huggingface(folder, height=HEIGHT, width=WIDTH, input_height=size[0], input_width=size[1])
    result = parser.parse(pictures())["probabilities"]
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    pixels = pictures().double() / 255
    pixels = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    if size[0]:
        pixels = F.interpolate(pixels, size, mode="bilinear")
    with torch.no_grad():
        logits = model(pixel_values=pixels.float()).logits
    expected = F.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear").softmax(1)
    torch.testing.assert_close(result, expected, atol=2e-3 if size[0] else 1e-4, rtol=0)
    assert result.shape == (3, 18, HEIGHT, WIDTH) and len(result.argmax(1).unique()) > 3
    assert parser.names[11] == "face" and not model.training


def test_other_folders_are_refused(folder, tmp_path):
    import shutil
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    from transformers import SegformerConfig, SegformerModel
    SegformerModel(SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4,
                                   decoder_hidden_size=16)).save_pretrained(tmp_path / "headless")
    none = "no semantic segmentation checkpoint"
    for name, words in (("empty", none), ("cut", none), ("none", none),
                        ("headless", r"lacks \d+ of its network's weights, the first decode_head")):
        with pytest.raises(ValueError, match=rf"{name}: .*{words}") as caught:
            load_huggingface(tmp_path / name, height=HEIGHT, width=WIDTH)
        assert "\n" not in str(caught.value)

    with pytest.raises(ValueError, match="8x8.*64x32"):
        load_huggingface(folder, height=HEIGHT, width=WIDTH).parse(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_checkpoint_brings_no_code(folder, tmp_path):
    import shutil
    shutil.copytree(folder, tmp_path / "code")
    config = json.loads((tmp_path / "code/config.json").read_text())
    config |= {"model_type": "own",
               "auto_map": {"AutoConfig": "evil.Config", "AutoModelForSemanticSegmentation": "evil.M"}}
    (tmp_path / "code/config.json").write_text(json.dumps(config))
    (tmp_path / "code/evil.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\nclass Config: pass\nclass M: pass")
    with pytest.raises(ValueError, match="code: holds no semantic segmentation checkpoint"):
        load_huggingface(tmp_path / "code", height=HEIGHT, width=WIDTH)
    assert not (tmp_path / "trap").exists()


def test_a_folder_is_itself_and_an_absent_id_is_one_sentence(tmp_path, monkeypatch):
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nobody/nothing: is no folder, and the Hub gives none.*while you are online"):
        resolve_checkpoint("nobody/nothing")


def test_without_transformers_one_sentence_says_how(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers is not installed .*pip install -r requirements-parsers\.txt"):
        load_huggingface(tmp_path, height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize(("told", "expected"), [
    (None, (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)), ({}, (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)),
    ({"do_normalize": False}, ((0.0,) * 3, (1.0,) * 3, 1 / 255)),
    ({"do_rescale": False, "image_mean": [1, 2, 3], "image_std": [4, 5, 6]}, ((1, 2, 3), (4, 5, 6), 1.0)),
    ({"rescale_factor": 0.5}, (IMAGENET_MEAN, IMAGENET_STD, 0.5))])
def test_normalisation_is_the_checkpoints(tmp_path, told, expected):
    path = tmp_path / "preprocessor_config.json"
    if told is not None:
        path.write_text(json.dumps(told))
    assert read_normalisation(path) == expected


@pytest.mark.parametrize("content", ["[", "[]", '{"image_mean": 3}', '{"image_std": [0, 1, 1]}',
                                     '{"image_mean": [1, 2]}', '{"rescale_factor": "x"}'])
def test_a_normalisation_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: does not say how images are normalised"):
        read_normalisation(path)
