"""Parsers from outside through the stage parse: each into a parts.h5 that inspection finds sound."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.caches.cache import Cache
from pipeline.config.loader import Experiment
from pipeline.datasets.index import read_index, write_index
from pipeline.inspection.soundness import inspect_cache
from stages import parse as stage
from stages.shared.external_parsers import External, external_parser
from tests.helpers import fake_detectron2 as fake
from tests.helpers.bare_params import Entry, bare_experiment
from tests.helpers.tiny_bodypix import tiny_bodypix
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

COUNT = 6
COMMON: Entry = {"height": HEIGHT, "width": WIDTH, "batch": 4, "threads": 1}


@pytest.fixture
def root(tmp_path, monkeypatch):
    write_index(write_set(tmp_path, COUNT, nobody=2), tmp_path / "data/index/tiny.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(root, name: str, source, **more) -> External:
    index = read_index(root / "index.csv")
    return external_parser(name, source=str(source), raw=root / "raw", paths=index["path"].tolist(), height=HEIGHT,
                           width=WIDTH, device="cpu", **{"labels": "", **more})


def experiment(source: str, *, description: str = "", **cache: Any) -> Experiment:
    """One cache of the set; description: the file beside the source that says what it is."""
    plan = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw", "source": source}
    section, more = ("parse_described", {"description": description}) if description else ("parse_external", {})
    return bare_experiment(params={"external": {"tiny": COMMON | cache}}, plan={section: {"tiny": plan | more}})


def parse(wanted: Experiment) -> Cache:
    """The stage's parts.h5, which is the same when it is made anew and when it is left as it is."""
    path = Path("data/cache/tiny/parts.h5")
    made = []
    for _ in range(2):
        stage.run(wanted, "tiny")
        made.append(path.read_bytes())
    path.unlink()
    stage.run(wanted, "tiny")
    assert path.read_bytes() == made[0] == made[1]

    inspection = inspect_cache(path, read_index("data/index/tiny.csv")["image"].tolist())
    assert inspection.sound, [check for check in inspection.checks if check.wrong]
    return Cache(path)


def precomputed(labels: str, **more: Any) -> Experiment:
    return experiment("maps", parser="precomputed", labels=labels, min_score=0.5, **more)


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
    cache = parse(precomputed(labels))
    assert "uv" not in cache and cache.maker["exact"] is False
    if labels == "lip20":
        np.testing.assert_array_equal(np.stack([cache.read("native", row) for row in range(COUNT)]), maps)
    if labels == "pascal7":  # whose labels are the first 7 of the 8 parts
        np.testing.assert_array_equal(np.stack([cache.read("labels", row) for row in range(COUNT)]), maps)
    assert cache.maker["labels"] == labels and len(cache.maker["labels_sha256"]) == 64
    assert len(cache.maker["source_sha256"]) == 64 and "min_score" not in cache.maker


@pytest.mark.parametrize(("labels", "end"), [("pifpaf36", ".npy"), ("keypoints", ".jpg_keypoints.json")])
def test_fields_and_key_points_become_a_sound_cache(root, labels, end):
    random = np.random.default_rng(0)
    (root / "maps/query").mkdir(parents=True)
    for number, path in enumerate(read_index(root / "index.csv")["path"]):
        place = (root / "maps" / path).with_suffix(end)
        if labels == "keypoints":
            points = random.uniform(0, [WIDTH, HEIGHT, 1], (17, 3))
            place.write_text(json.dumps([{"keypoints": points.tolist(), "is_target": True}] * (number > 0)))
        else:
            np.save(place, random.uniform(0, number > 0, (36, HEIGHT // 4 + 1, WIDTH // 4 + 1)).astype(np.float32))
    cache = parse(precomputed(labels))
    assert (cache.maker["exact"], cache.maker["taxonomy"], cache.maker["labels"]) == (False, "densepose24", labels)
    assert len(cache.maker["labels_sha256"]) == 64 and ("min_score" in cache.maker) == (labels == "keypoints")
    assert "uv" not in cache and cache.column("status").tolist() == ["no person"] + ["parsed"] * (COUNT - 1)


def test_a_label_map_of_one_s_own_is_the_plan_s(root):
    """What DVC depends on and what is read are one file: another one in params.yaml is an error, not a stale cache."""
    maps = write_maps(root, 2)
    (root / "mine.yaml").write_text("taxonomy: lip20\nlabels:\n  - [nothing, background]\n  - [cap, hat]\n")
    cache = parse(precomputed("mine.yaml", description="mine.yaml"))
    np.testing.assert_array_equal(np.stack([cache.read("native", row) for row in range(COUNT)]), maps)  # hat is 1
    for labels, described, said in (("other.yaml", "mine.yaml", "is 'other.yaml', and plan.yaml has 'mine.yaml'"),
                                    ("mine.yaml", "", "is 'mine.yaml', and plan.yaml has ''")):
        with pytest.raises(InputError, match=f"external.tiny.labels: {said}"):
            stage.run(precomputed(labels, description=described), "tiny")


def test_densepose_pngs_become_a_sound_and_exact_cache(root):
    maps = write_maps(root, 25)
    uv = np.random.default_rng(1).integers(0, 256, (*maps.shape, 2), np.uint8) * (maps > 0)[..., None]
    for path, labels, pair in zip(read_index(root / "index.csv")["path"], maps, uv, strict=True):
        write_image((root / "maps" / path).with_suffix(".png"), np.dstack([labels, pair]))
    cache = parse(precomputed("iuv-rgb"))
    assert (cache.maker["exact"], cache.maker["taxonomy"]) == (True, "densepose24")
    for row in range(COUNT):
        np.testing.assert_array_equal(cache.read("native", row), maps[row])
        np.testing.assert_array_equal(cache.read("uv", row), uv[row])
    with pytest.raises(InputError, match="try iuv-rgb"):
        stage.run(precomputed("iuv"), "tiny")


def test_another_parse_of_one_image_makes_all_rows_anew(root):
    """The source's hash stands in the maker: nothing of the old file is kept."""
    from PIL import Image
    native = write_maps(root, 20)[0, ::-1]
    before = parse(precomputed("lip20"))
    sha = before.maker["source_sha256"]
    before.close()
    Image.fromarray(native).save((root / "maps" / read_index(root / "index.csv")["path"][0]).with_suffix(".png"))
    after = parse(precomputed("lip20"))
    assert after.maker["source_sha256"] != sha
    np.testing.assert_array_equal(after.read("native", 0), native)


def test_wrong_parses_are_counted_before_the_first_is_read_and_nothing_is_lost(root):
    """The last two of six have another size: the cache that was there stays, and no unit of a new one is begun."""
    from PIL import Image
    write_maps(root, 20)
    cache = parse(precomputed("lip20"))
    before = cache.path.read_bytes()
    assert (cache.maker["scale"], cache.maker["reading"]) == (1, 2)
    cache.close()
    for path in read_index(root / "index.csv")["path"][-2:]:
        Image.fromarray(np.zeros((HEIGHT, WIDTH // 2), np.uint8)).save((root / "maps" / path).with_suffix(".png"))
    with pytest.raises(InputError, match=rf"'maps': 2 of 6 parses are not their images.* {HEIGHT}x{WIDTH // 2} where"):
        stage.run(precomputed("lip20"), "tiny")
    assert cache.path.read_bytes() == before and not list(root.glob("scratch/parse-tiny/*/*"))


def test_a_scale_is_declared_in_the_profile_and_stands_in_the_maker(root):
    from PIL import Image
    maps = write_maps(root, 20)
    for path, labels in zip(read_index(root / "index.csv")["path"], maps, strict=True):
        Image.fromarray(labels.repeat(3, 0).repeat(3, 1)).save((root / "maps" / path).with_suffix(".png"))
    with pytest.raises(InputError, match="6 of 6 parses are not their images"):
        stage.run(precomputed("lip20"), "tiny")
    cache = parse(precomputed("lip20", scale=3.0))
    np.testing.assert_array_equal(np.stack([cache.read("native", row) for row in range(COUNT)]), maps)
    assert cache.maker["scale"] == 3


def test_what_a_json_leaves_out_is_said(root, capsys):
    from tests.parsing.test_densepose_json import detection, person
    paths = read_index(root / "index.csv")["path"].tolist()
    named = [*paths[1:], "x.jpg"]
    (root / "maps").write_text(json.dumps([detection(path, (1, row), person(3)) for row, path in enumerate(named)]))
    parse(precomputed("json"))
    assert ("'maps': 1 of 6 images have no detection of score 0.5 or more, and so no person; 1 of its names are of no "
            "image in the index, the first 'x.jpg'") in capsys.readouterr().err


def test_densepose_becomes_a_sound_cache(root, monkeypatch):
    fake.install(monkeypatch)
    (root / "model.yaml").write_text("INPUT:\n  MIN_SIZE_TEST: 16\n")
    torch.manual_seed(3)
    torch.save(fake.TinyRCNN().state_dict(), root / "weights.pth")
    external = make(root, "densepose", root / "weights.pth", config=str(root / "model.yaml"))
    assert (external.taxonomy, external.uv, external.exact) == ("densepose24", True, True)
    cache = parse(experiment("weights.pth", description="model.yaml", parser="densepose", boxes="whole",
                             input_height=0, input_width=0, min_score=0.5))
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
    cache = parse(experiment("checkpoint", parser="huggingface", labels="atr18", input_height=64, input_width=32))
    assert (cache.maker["transformers"], cache.maker["input"]) == (transformers.__version__, [64, 32])
    with pytest.raises(InputError, match="has 18 labels where the label map 'lip20' has 20"):
        make(root, "huggingface", root / "checkpoint", labels="lip20")


def test_bodypix_becomes_a_sound_cache_that_says_its_size_and_border(root):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import onnxruntime
    tiny_bodypix(root / "tiny.onnx")
    cache = parse(experiment("tiny.onnx", parser="bodypix"))
    maker = cache.maker
    assert (maker["taxonomy"], maker["exact"], "uv" in cache) == ("densepose24", True, False)
    assert (maker["side"], maker["border"], maker["input"]) == (257, 0.1, [257, 129])
    assert maker["onnxruntime"] == onnxruntime.__version__ and len(maker["source_sha256"]) == 64
    cache.close()
    assert "fit" not in maker
    again = parse(experiment("tiny.onnx", parser="bodypix", side=193, border=0.0, fit="keep"))
    assert (again.maker["input"], again.maker["fit"]) == ([193, 97], "keep")
    again.close()
    with pytest.raises(InputError, match=r"`side`.* is 256 .*choose 241 or 257"):
        stage.run(experiment("tiny.onnx", parser="bodypix", side=256), "tiny")


def test_mistakes_are_one_sentence(root):
    write_maps(root, 20)
    for name, more, words in (("schp", {}, "unknown parser 'schp'.*bodypix, densepose, huggingface, precomputed"),
                              ("precomputed", {"labels": "lip"}, "unknown label map 'lip'"),
                              ("bodypix", {}, "not installed|is damaged or no ONNX file"),
                              ("densepose", {}, "not installed|cannot be read|no configuration"),
                              ("huggingface", {"labels": "lip20"}, "not installed|no semantic segmentation")):
        with pytest.raises(InputError, match=words) as caught:
            make(root, name, root / "maps", **more)
        assert "\n" not in str(caught.value)
