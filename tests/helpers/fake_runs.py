"""A run of every network on the made-up set of fake_set, as small as they can be, and how each is matched."""

from typing import Any

from pipeline.config.loader import Experiment
from tests.helpers.bare_params import bare_experiment, embed_entry, train_entry
from tests.helpers.fake_set import HEIGHT, WIDTH

DATA, RAW = "fake", "data/raw"
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
              "distance": "cosine", "reduction": "mean", "head_top": "first", "classified": "spatial",
              "triplet": "semantic", "regions": "sampled"},
    "sgam": {"name": "sgam", "width": 16, "use_parts": True, "crop": True, "training_rule": True,
             "thresholds": [0.2, 0.2, 0.2, 0.2], "lambda_global": 0.2, "scores": "normalised"},
    "pcb": {"name": "pcb", "stripes": 2, "width": 16}}
READS = {"sorn": "parts.h5", "dsa": "dsap.h5", "esa": "parts.h5", "sgsfa": "parts.h5", "sgam": "parts.h5"}
READS_AT_TEST = {"dsa": "dsap.h5", "esa": "parts.h5", "sgam": "parts.h5"}
FEATURES = {"dsa": "z", "sgsfa": "parts"}  # what is matched; all elsewhere


def fake_sections(**run: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sections of params.yaml and plan.yaml; `run` in every run."""
    runs, results, train, embed = {}, {}, {}, {}
    for name, model in MODELS.items():
        runs[name] = {
            "model": model, "train_on": DATA, "cache": DATA if name in READS else "none", "backbone": "resnet18",
            "init": "none", "seed": 0, "height": HEIGHT, "width": WIDTH,
            "image_steps": 0 if name == "histogram" else 24, "batch": 8, "ids_per_batch": 4, "max_ids": 0, "workers": 0,
            "optimizer": {"name": "adam", "lr": 0.001, "pretrained_lr_factor": 1.0, "weight_decay": 0.0005,
                          "warmup": 0.1, "warmup_start": 0.1, "milestones": [0.5], "gamma": 0.1},
            "augment": {"flip": 0.5, "pad": 2, "erase": 0.5, "fill": "image"}} | run
        results[name] = {"match": {"tau": 0.15, "features": FEATURES.get(name, "all")}, "dtype": "float32"}
        train[name] = train_entry(name, train_on=DATA, raw=RAW, file=READS.get(name))
        embed[name] = embed_entry(name, model=name, dataset=DATA, raw=RAW, file=READS_AT_TEST.get(name))
    return {"runs": runs, "results": results}, {"train": train, "embed": embed}


def fake_experiment(**run: Any) -> Experiment:
    """What a stage's `run` takes; `run` in every run."""
    params, plan = fake_sections(**run)
    return bare_experiment(params=params, plan=plan)
