"""The stage train_parser: SGAM's optimiser and rate, the files it writes, what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from models.parsers.torchvision_parsers import build_parser, load_parser
from pipeline.base.errors import InputError
from pipeline.training.loop import fit
from stages.shared.parser_training import sgam_optimizer
from tests.helpers.bare_params import bare_experiment
from tests.helpers.figures import HEIGHT, WIDTH

STAGE = {"architecture": "lraspp", "labels": "densepose24", "uv": True, "init": "none",
         "height": HEIGHT, "width": WIDTH, "image_steps": 8, "batch": 4, "lr": 1e-3, "augment": "all",
         "seed": 0, "workers": 0}


def run_stage(raw="raw", **changes):
    from stages.train_parser import run
    run(bare_experiment(params={"parsers": {"small": STAGE | changes}, "threads": torch.get_num_threads()},
                        plan={"train_parser": {"small": {"raw": str(raw)}}}), "small")


def test_sgam_s_optimiser_steps_as_written_out():
    """SGD, momentum 0.9 with Nesterov, weight decay 5e-4; the backbone at a tenth of the rate if it is pretrained."""
    parser = build_parser(architecture="lraspp", taxonomy="lip20", uv=False, height=HEIGHT, width=WIDTH, init="none",
                          to_parts8=None, to_parts4=torch.ones(5, 20))
    weights = list(parser.parameters())
    for pretrained in (True, False):
        optimizer = sgam_optimizer(parser, pretrained=pretrained)
        factors = {id(weight): group["factor"] for group in optimizer.param_groups for weight in group["params"]}
        assert factors == {id(weight): 0.1 if pretrained and part is parser.backbone else 1.0
                           for part in (parser.backbone, parser.head) for weight in part.parameters()}
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["factor"]

        before, velocity = [weight.detach().clone() for weight in weights], [torch.zeros_like(w) for w in weights]
        for step in range(2):
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.5 + step)
            optimizer.step()
            for place, weight in enumerate(before):
                slope = 0.5 + step + 5e-4 * weight
                velocity[place] = slope if step == 0 else 0.9 * velocity[place] + slope
                weight -= 0.01 * factors[id(weights[place])] * (slope + 0.9 * velocity[place])
        for weight, expected in zip(weights, before, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_stage_trains_as_sgam_s_parser_is(folder, tmp_path, monkeypatch):
    """0.1, and a tenth of it from half-way on."""
    monkeypatch.chdir(tmp_path)
    Path("raw").symlink_to(folder)
    rates = []

    def watched(*given, rate, **named):
        rates.extend(rate(share) for share in (0.0, 0.49, 0.5, 0.99))
        return fit(*given, rate=rate, **named)

    monkeypatch.setattr("stages.shared.parser_training.fit", watched)
    run_stage(optimizer="sgd", lr=0.1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_the_stage_writes_weights_and_scores(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").symlink_to(folder)
    weights = Path("data/parsers/small/weights.safetensors")
    made = []
    for _ in range(2):
        run_stage()
        made.append(weights.read_bytes())
    assert made[0] == made[1]
    scores = json.loads(Path("data/results/parsers/small.json").read_text())["details"][0]
    assert scores.keys() == {"miou8", "miou8_clear", "miou8_hidden", "pixel_accuracy", "uv_error", "iou", "images",
                             "image_steps", "architecture"}
    assert scores["image_steps"] == 8 and scores["images"] == 5
    assert not list(Path("scratch").rglob("*.pt"))
    assert load_parser(weights).parse(torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8))["uv"].shape[-1] == 2
    for changes, words in (({"architecture": "unet"}, "small.*lraspp.*deeplabv3"),
                           ({"image_steps": 3}, "image_steps is 3 and batch 4"),
                           ({"raw": "other"}, "other"), ({"lr": 1e15}, "stopped at step"),
                           ({"augment": "some"}, "flip.*all.*erase")):
        with pytest.raises(InputError, match=words):
            run_stage(**changes)
    assert weights.read_bytes() == made[0]
