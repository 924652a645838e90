"""The profile paper-field: composed and planned with small trees of its five data sets in place."""

from pathlib import Path

import pytest

from models.torchvision_import import import_torchvision
from pipeline.config.compose import compose, outputs
from pipeline.config.loader import load_params, load_plan
from tests.helpers.trees import tree, write_tree

import_torchvision()
pytest.importorskip("timm")

SETS = {"market1501": "market1501", "occluded-dukemtmc": "occluded-duke", "occluded-reid": "occluded-reid",
        "partial-reid": "partial-reid-partial", "msmt17": "msmt17"}
KEPT = (*SETS, "partial-reid-occluded")  # which lies where partial-reid does
TRAINED = {"market1501": ["market1501", "occluded-reid", "partial-reid-occluded", "partial-reid"],
           "occluded-dukemtmc": ["occluded-dukemtmc"], "msmt17": ["msmt17"]}
IMAGES = {"market1501": 12936, "occluded-dukemtmc": 15618, "msmt17": 32621}
METHODS = {"strong": ("baseline", 120), "sorn": ("sorn", 80), "sgam": ("sgam", 80)}
BACKBONES = {"resnet50": "resnet50", "swin-t": "swin_tiny", "swin-s": "swin_small", "swin-b": "swin_base",
             "vit-clip": "vit_base_patch16_clip_quickgelu", "vit-personvit": "vit_base_patch16"}


def test_every_method_on_every_backbone_and_training_set_is_planned(command):
    for name, layout in SETS.items():
        write_tree(Path("data/raw") / name, tree(layout))
    ended = command("paper-field", "--with", *KEPT)
    assert ended.status == 0 and ended.error.startswith(
        "not here yet, and `dvc repro` will ask for them: 'data/raw/weights/solider_swin_tiny.pth', "), ended.error

    folder = Path("experiments/paper-field")
    runs, plan = load_params(folder / "params.yaml").runs, load_plan(folder / "plan.yaml", "paper-field")
    wanted = {f"field-{method}-{backbone}-{trained}"
              for method in METHODS for backbone in BACKBONES for trained in TRAINED}
    with_cameras = {f"field-strong-vit-personvit-sie-{trained}" for trained in TRAINED}
    convolutional = {"field-strong-convnext-t-market1501"}
    assert runs.keys() == wanted | with_cameras | convolutional == plan.evaluate.keys()
    assert runs.keys() - plan.train_file.keys() == convolutional | {key for key in wanted if "resnet50" in key}

    for key in wanted:
        _, method, rest = key.split("-", 2)
        backbone = next(name for name in BACKBONES if rest.startswith(f"{name}-"))
        run, trained = runs[key], rest.removeprefix(f"{backbone}-")
        assert run.model.name == METHODS[method][0] and run.backbone.startswith(BACKBONES[backbone])
        assert run.image_steps == METHODS[method][1] * IMAGES[trained] and run.train_on == trained
        assert list(plan.evaluate[key].datasets) == TRAINED[trained]
        assert run.init == "imagenet" if backbone == "resnet50" else run.init.startswith("data/raw/weights/")
    assert {(runs[key].camera, runs[key].stride) for key in with_cameras} == {("embed", 12)}
    assert all(run.optimizer.warmup > 0 for key, run in runs.items() if not key.startswith("field-sgam-resnet50"))
    assert {run.model.neck for key, run in runs.items() if key.startswith("field-strong")} == {"bn"}

    assert {key: entry.file for key, entry in plan.train_file.items()} == {
        key: run.init for key, run in runs.items() if run.init != "imagenet"}
    made = {name for _, name in outputs(plan)}
    assert runs.keys() <= made


def test_what_is_not_there_is_left_out(project):
    plan = compose("paper-field", ("market1501",)).plan["plan"]["evaluate"]
    assert {key.rpartition("-")[2] for key in plan} == {"market1501"} and len(plan) == 20
    assert {dataset for entry in plan.values() for dataset in entry["datasets"]} == {"market1501"}
