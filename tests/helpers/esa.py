"""ESA-ReID's tests: a small network, images cut in bands, its regions and distance in plain loops."""

import math

import torch
import torch.nn.functional as F

from models.esa import CHOICES, Esa, entropy
from tests.helpers.networks import network

ROWS = CHOICES["unconfident"]
LOG_8 = math.log(8)


def build(seed: int = 0, **options) -> Esa:
    return network("esa", seed=seed, **{"channels": 16} | options)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picture(images: int = 3, channels: int = 5, height: int = 4, width: int = 2, seed: int = 0):
    """F >= 0, p and E / log N of a few random images; p spreads from certain to doubtful."""
    log_p = (4 * draw(images, 8, height, width, seed=seed)).log_softmax(1)
    return draw(images, channels, height, width, seed=seed + 1).relu(), log_p.exp(), entropy(log_p) / LOG_8


def bands(batch: dict, *, seed: int = 0) -> dict:
    """The batch with bodies that a map of 1/16 still shows: full-width bands of head, torso, upper leg and foot, one
    row of the map each; as labels, and as probabilities of a good parser with their entropy."""
    images, _, height, width = batch["image"].shape
    rows = torch.tensor([1, 2, 5, 7])
    labels = rows.repeat_interleave(height // 16)[None, :, None].expand(images, -1, width // 4)
    cells = rows.repeat_interleave(height // 64)[None, :, None].expand(images, -1, width // 16)
    logits = 6 * F.one_hot(labels, 8).permute(0, 3, 1, 2) + draw(images, 8, height // 4, width // 4, seed=seed)
    log_p = logits.log_softmax(1)
    return batch | {"labels16": cells.contiguous(), "probs8": log_p.exp().float(),
                    "entropy": (entropy(log_p) / LOG_8).float()}


def in_double(model: Esa, batch: dict) -> tuple[Esa, dict]:
    return model.double(), {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}


def naive_entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p)


def naive_regions(f, p, ratio, *, unconfident="mask", attention="soft", tau=0.5, e_max="log", pooling="mean", **_):
    """One image: F (c, h, w), p (8, h, w), E / log N (h, w) -> lists over the regions: the classifiers' features, the
    matched ones before normalisation, the scores."""
    (channels, height, width), n = f.shape, 8
    pixels = [(y, x) for y in range(height) for x in range(width)]
    entropies = {g: float(ratio[g]) * math.log(n) for g in pixels}
    largest = math.log(n) if e_max == "log" else math.log(n) / n
    share = {g: e / largest for g, e in entropies.items()}
    if unconfident == "median":
        ordered = sorted(share.values())
        tau = (ordered[len(pixels) // 2] + ordered[(len(pixels) - 1) // 2]) / 2

    def weigh(weight):
        return [sum(weight[g] * float(f[c][g]) for g in pixels) for c in range(channels)]

    seen, matched, scores = [], [], []
    for i in range(1, n):
        part = {g: float(p[i][g]) for g in pixels}
        total = sum(part.values())
        seen.append(weigh(part) if pooling == "paper" else [x / total for x in weigh(part)])
        trust = {"soft": {g: 1 - share[g] for g in pixels}, "none": dict.fromkeys(pixels, 1.0),
                 "gated": {g: 1 - share[g] if share[g] < tau else 0.0 for g in pixels}}[attention]
        matched.append(weigh({g: trust[g] * part[g] for g in pixels}))
        scores.append(total if pooling == "paper" else total / len(pixels))

    if unconfident in ("mask", "median"):
        mask = {g: share[g] if share[g] >= tau else 0.0 for g in pixels}
        total = sum(mask.values())
        gap = [x / len(pixels) for x in weigh(mask)]
        seen.append(gap if pooling == "paper" else [x * len(pixels) / max(total, 1e-6) for x in gap])
        matched.append(gap)
        scores.append(total if pooling == "paper" else total / len(pixels))
    elif unconfident != "none":
        gap = [x / len(pixels) for x in weigh(dict.fromkeys(pixels, 1.0))]
        seen.append(gap)
        matched.append(gap)
        scores.append(1.0 if unconfident == "global" else sum(scores) / 7)

    return seen, matched, scores


def naive_distance(f_p, f_q, s_p, s_q, *, reduction="mean", **_) -> float:
    """Eq. 7 as printed, or with reduction sum its numerator, from one image's regions and another's."""
    over, under = 0.0, 0.0
    for a, b, v, w in zip(f_p, f_q, s_p, s_q, strict=True):
        long_a, long_b = (math.sqrt(sum(x * x for x in f)) or 1.0 for f in (a, b))
        over += v * w * math.sqrt(sum((x / long_a - y / long_b) ** 2 for x, y in zip(a, b, strict=True)))
        under += v * w
    return over / under if reduction == "mean" else over
