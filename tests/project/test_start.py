"""What a stage has imported after its work: no compiler, no torchvision for a ResNet, no pandas or matplotlib for
nothing. A stage's start is what everybody waits for; benchmarks/stage_start.py has the seconds."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.project import ROOT

LOOKED_FOR = ("torch", "torch._dynamo", "torch._inductor", "torchvision", "pandas", "matplotlib", "scipy.io", "dvclive")

# A stage in a process of its own, on the made-up set of tests/helpers; what a test needs to make it is not counted.
RUN = """
import importlib, json, pathlib, sys
command, made = sys.argv[1], json.loads(sys.argv[2])
before = set(sys.modules)
stage = importlib.import_module(f"stages.{command}")
from pipeline.config.loader import load_experiment
for key in made:
    stage.run(load_experiment(), key)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
MAKE = """
from pathlib import Path
from tests.helpers.bare_params import write_experiment
from tests.helpers.fake_runs import DATA, MODELS, RAW, fake_sections
from tests.helpers.fake_set import write_fake_caches, write_fake_set
frame = write_fake_set(Path(RAW), Path(f"data/index/{DATA}.csv"))
write_fake_caches(Path(f"data/cache/{DATA}"), Path(RAW), frame)
params, plan = fake_sections()
params["render"] = {"few": {
    "kind": "holistic", "stream": "few", "seed": 0, "height": 64, "width": 32, "train_ids": 1, "train_images": 1,
    "test_ids": 1, "query_images": 1, "gallery_images": 1, "processes": 1}}
plan["render"] = ["few"]
plan["evaluate"] = {name: {"features": f"data/features/{name}", "datasets": [DATA], "rendered": []} for name in MODELS}
write_experiment(Path("."), params=params, plan=plan)
"""
NETWORKS = ("histogram", "baseline", "sorn", "dsa", "esa", "sgsfa", "sgam", "pcb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    _python(folder, MAKE)
    return folder


def _python(folder, code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def imported(folder, command, keys):
    names = json.loads(_python(folder, RUN, command, json.dumps(keys)).splitlines()[-1])
    return {name for name in LOOKED_FOR if name in names}


def test_stages_with_networks_import_neither_the_compiler_nor_torchvision(folder):
    """In the order in which they need each other; all networks in one process."""
    assert imported(folder, "train", NETWORKS) == {"torch", "pandas", "dvclive"}
    assert imported(folder, "embed", NETWORKS) == {"torch", "pandas"}
    assert imported(folder, "evaluate", NETWORKS) == {"torch"}


def test_a_stage_without_tables_needs_no_pandas(folder):
    assert imported(folder, "render", ["few"]) == set()
    assert imported(folder, "compose", []) == set()
