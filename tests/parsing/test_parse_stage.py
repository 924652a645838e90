"""The stage parse with networks that know DensePose and LIP, and what its file says."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models.parsers.torchvision_parsers import Parser, build_parser, save_parser
from pipeline.base.body_parts import PARTS8_TO_PARTS4, TAXONOMIES, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.images import fit, read_image
from pipeline.caches.cache import Cache, compress
from pipeline.datasets.index import read_index, write_index
from pipeline.parsing.engine import quantise
from stages import parse as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.tiny_set import HEIGHT, WIDTH


def network(taxonomy: str, path: str) -> Parser:
    """A random LR-ASPP at 64x32, saved."""
    torch.manual_seed(0)
    every_label = np.arange(len(TAXONOMIES[taxonomy]), dtype=np.uint8)[:, None, None]
    table = torch.tensor(parts8_from_native(every_label, taxonomy).ravel()).long()
    exact = taxonomy == "densepose24"
    parser = build_parser(architecture="lraspp", taxonomy=taxonomy, uv=exact, height=64, width=32,
                          to_parts8=torch.eye(8)[:, table] if exact else None,
                          to_parts4=torch.eye(5)[:, torch.tensor(PARTS8_TO_PARTS4)[table].long()])
    save_parser(parser, path, made={})
    return parser.eval()


def run_stage(index: pd.DataFrame, **changes) -> Cache:
    """The stage parse over an index; changes: of the cache's parameters, and its `source`."""
    write_index(index, "data/index/tiny.csv")
    cache = {"parser": "lraspp", "height": 64, "width": 32, "batch": 4, "threads": 1} | changes
    plan = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw",
            "source": cache.pop("source", "weights.safetensors")}
    stage.run(bare_experiment(params={"caches": {"tiny": cache}}, plan={"parse": {"tiny": plan}}), "tiny")
    return Cache("data/cache/tiny/parts.h5")


def test_the_stage_with_a_network_that_knows_densepose(root, monkeypatch):
    """Batch-mates and places in a batch change no byte: appending at either end gives the same file."""
    monkeypatch.chdir(root)
    parser = network("densepose24", "weights.safetensors")
    index = read_index("index.csv").iloc[:10]
    run_stage(index.iloc[:7])
    appended = run_stage(index).path.read_bytes()
    Path("data/cache/tiny/parts.h5").unlink()
    run_stage(index.iloc[1:])
    written = run_stage(index)
    assert written.path.read_bytes() == appended
    assert written.maker["exact"] is True and written.maker["batch"] == 4
    maps = quantise(parser.parse(stack(root, index["path"][:4])))
    for name in ("native", "uv", "probs/parts8", "probs/parts4", "entropy", "visibility"):
        np.testing.assert_array_equal(written.read(name, 2), maps[name][2])
    (root / "raw" / index["path"][3]).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 10 images have no parse, the first 'query/0003.*restore"):
        run_stage(index)


def test_the_stage_with_a_network_that_knows_lip(root, monkeypatch):
    monkeypatch.chdir(root)
    parser = network("lip20", "weights.safetensors")
    index = read_index("index.csv").iloc[:4]
    written = run_stage(index)
    assert written.maker["exact"] is False and "uv" not in written
    output = parser.parse(stack(root, index["path"]))
    for row in range(4):
        native = written.read("native", row)
        np.testing.assert_array_equal(native, output["native"][row])
        np.testing.assert_array_equal(written.read("labels", row), parts8_from_native(native, "lip20"))
        head = output["parts4"][row, 1].reshape(16, 4, 8, 4).mean((1, 3)) * 255
        for name in ("probs/parts4", "probs/parts8"):  # less than a step of rounding
            np.testing.assert_array_less(abs(written.read(name, row)[1] - head.numpy()), 5)
    with pytest.raises(InputError, match="holds lraspp at 64x32 where the cache asks for lraspp at 128x64"):
        run_stage(index, height=128, width=64)


def test_another_instruction_set_gives_nearly_the_same_labels(root, monkeypatch):
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this processor has no AVX to restrict")
    monkeypatch.chdir(root)
    network("densepose24", "weights.safetensors")
    index = read_index("index.csv").iloc[:8]
    here = run_stage(index)
    kept = [here.read("labels", row) for row in range(8)]
    maker = here.maker
    code = "import tests.parsing.test_parse_stage as t; t.run_stage(t.read_index('index.csv').iloc[:8])"
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | limits)
    there = Cache("data/cache/tiny/parts.h5")
    same = np.mean([there.read("labels", row) == kept[row] for row in range(8)])
    assert same >= 0.999
    assert there.maker["machine"] == "AVX2" and there.maker | {"machine": maker["machine"]} == maker


def stack(root: Path, paths: Iterable[str]) -> torch.Tensor:
    """Images as the engine hands them to a network, (B,3,64,32) uint8."""
    return torch.stack([torch.from_numpy(fit(read_image(root / "raw" / path), 64, 32)) for path in paths]
                       ).permute(0, 3, 1, 2)


def test_stage_errors_name_the_remedy(root, monkeypatch):
    monkeypatch.chdir(root)
    shutil.copy("index.csv", "some.csv")
    index = read_index("index.csv")
    for message, changes in {
            r"none\.h5.*stage render": {"source": "raw/none.h5"},
            r"some\.csv.*damaged or holds no labels.*stage render": {"source": "some.csv"},
            r"30x16 is no multiple of 4": {"source": "raw/labels.h5", "height": 30, "width": 16},
            r"none\.h5.*train_parser": {"parser": "lraspp", "source": "raw/none.h5"}}.items():
        with pytest.raises(InputError, match=message):
            run_stage(index, **{"parser": "oracle", **changes})
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        stage.choose_device("gpu", threads=1)


def test_the_file_says_what_made_it(root, monkeypatch):
    monkeypatch.chdir(root)
    cache = run_stage(read_index("index.csv"), parser="oracle", source="raw/labels.h5", height=HEIGHT, width=WIDTH)
    assert {"parser": "oracle", "taxonomy": "densepose24", "exact": True, "height": HEIGHT, "width": WIDTH,
            "batch": 4, "threads": 1, "torch": torch.__version__, "format": 2,
            "source_sha256": hashlib.sha256(Path("raw/labels.h5").read_bytes()).hexdigest()}.items() \
        <= cache.maker.items()
    assert cache.chunk("labels", 2) == compress(np.zeros((HEIGHT, WIDTH), np.uint8))  # nobody is there
