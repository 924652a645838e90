"""The recipes are those that the papers print, in their own sentences."""

from pathlib import Path

import pytest
import yaml

from pipeline.config.profiles import like
from pipeline.training.loop import learning_rate

RECIPES = yaml.safe_load((Path(__file__).resolve().parents[2] / "profiles" / "recipes.yaml").read_text())["recipes"]

# recipe: epochs of training, and the learning rate during named epochs (counted from 0, as training passes through it)
RATES = {
    # "the initial learning rate being 0.1 and decaying to 0.01 after 30 epochs ... trained with 70 epochs"
    "esa": (70, {0: 0.1, 29: 0.1, 30: 0.01, 69: 0.01}),
    # "0.0003, decreases by 0.1 at 50, 80, 100,120 epochs ... totally trained on 120 epochs"
    "sgsfa": (120, {0: 3e-4, 49: 3e-4, 50: 3e-5, 79: 3e-5, 80: 3e-6, 100: 3e-7, 119: 3e-7}),
    # "initialized to 0.1. After 40 epochs, the learning rate decays to 0.01 ... trained for 80 epochs"
    "sgam": (80, {0: 0.1, 39: 0.1, 40: 0.01, 79: 0.01}),
    # "warm up ... for 20 epochs with a linear growth learning rate from 8e-6 to 8e-4. Then ... decayed by a factor
    # of 0.5 for every 40 epochs ... 320 epochs"
    "dsa": (320, {0: 8e-6, 10: (8e-6 + 8e-4) / 2, 20: 8e-4, 59: 8e-4, 60: 4e-4, 100: 2e-4, 140: 1e-4, 319: 8e-4 / 128}),
    # "In the first 10 epochs, the learning rate is linearly increased from 3e-5 to 3e-4 and then decayed to 3e-5 and
    # 3e-6 at the 30th epoch and the 60th epoch ... 80 epochs"
    "sorn": (80, {0: 3e-5, 5: (3e-5 + 3e-4) / 2, 10: 3e-4, 29: 3e-4, 30: 3e-5, 59: 3e-5, 60: 3e-6, 79: 3e-6}),
}
# recipe: (optimiser, rate of pretrained layers over that of new ones, height, width, batch, people a batch, flip, pad,
# erase); None where the paper prints nothing
PRINTED = {
    "esa": ("sgd", None, 384, 128, 64, 8, 0.5, 0, 0.5),     # "random flipping and random erasing", 8 identities
    "sgsfa": (None, None, 256, 128, 64, 16, 0.5, 0, 0.5),   # "16 identities ... 4 images for each"; no optimiser
    "sgam": ("sgd", 0.1, 384, 128, 64, 0, 0.5, 10, 0.5),    # "random flipping, random cropping and random erasing"
    "dsa": ("adam", 1.0, 256, 128, 64, 16, 0.5, 10, 0.5),   # "P = 16 identities and K = 4 images"
    "sorn": ("adam", 1.0, 384, 128, 32, 0, 0.5, 0, 0.0),    # "only random horizontal flip", "batch size is set to 32"
}
# The first two of these, where the paper prints none: SGAM's tenth for ESA's pretrained layers.
RULED = {"esa": (None, 0.1), "sgsfa": ("adam", 1.0)}


@pytest.mark.parametrize("name", RATES)
def test_the_learning_rate_at_named_epochs(name):
    recipe = like(RECIPES[name], RECIPES, name)["optimizer"]
    epochs, rates = RATES[name]
    for epoch, rate in rates.items():
        found = learning_rate(epoch / epochs, **{key: recipe[key] for key in (
            "lr", "warmup", "warmup_start", "milestones", "gamma")})
        assert found == pytest.approx(rate, rel=1e-6), (name, epoch)


@pytest.mark.parametrize("name", PRINTED)
def test_optimiser_sizes_batches_and_augmentation(name):
    recipe = like(RECIPES[name], RECIPES, name)
    optimizer, augment = recipe["optimizer"], recipe["augment"]
    ways = list(zip(PRINTED[name][:2], RULED.get(name, (None, None)), strict=True))
    assert all((printed is None) != (ruled is None) for printed, ruled in ways)
    assert (optimizer["name"], optimizer["pretrained_lr_factor"]) == tuple(
        ruled if printed is None else printed for printed, ruled in ways)
    assert PRINTED[name][2:] == (recipe["height"], recipe["width"], recipe["batch"], recipe["ids_per_batch"],
                                 augment["flip"], augment["pad"], augment["erase"])
    assert optimizer["weight_decay"] == 5e-4  # ruled: no paper prints one
    assert recipe["backbone"] == "resnet50" and recipe["init"] == "imagenet"


def test_loss_weights_are_the_printed_ones():
    sorn, dsa, esa, sgam, sgsfa = (like(RECIPES[name], RECIPES, name)["model"] for name in (
        "sorn", "dsa", "esa", "sgam", "sgsfa"))
    assert (sorn["lambda_global"], sorn["lambda_spc"], sorn["lambda_seg"]) == (0.75, 0.5, 1.5)
    assert (sorn["patches"], sorn["channel_sets"], sorn["label_smoothing"]) == (3, 3, 0.1)
    assert (dsa["id_weight"], dsa["triplet_weight"], dsa["fused_id_weight"], dsa["margin"]) == (0.5, 1.5, 1.0, 0.3)
    baseline = like(RECIPES["baseline"], RECIPES, "baseline")["model"]  # DSA's: on f, 0.5 + 1.0, as its z is f
    assert (baseline["id_weight"], baseline["triplet_weight"], baseline["margin"]) == (1.5, 1.5, 0.3)
    assert esa["lambda_parsing"] == 0.1 and sgam["lambda_global"] == 0.2
    assert (sgsfa["trade_off"], sgsfa["margin"], sgsfa["gamma"], sgsfa["local_gamma"]) == (0.8, 0.3, 8, 2)
    # the abstract, 3.2.2 and 5.2: spatial features classified, blocks drawn, a semantic and a spatial end of lambda
    assert (sgsfa["classified"], sgsfa["triplet"], sgsfa["regions"]) == ("spatial", "semantic", "sampled")
    assert sgsfa["size"] == sgam["width"] == esa["channels"] == 256
