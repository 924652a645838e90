"""Losses and distances that several papers share: part distance, batch-hard triplet, smoothed cross-entropy.

B images, Q queries, G gallery images, P parts, D numbers of a part's feature, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NO_SHARED_PART = 1e-12  # a pair whose summed weights are not above this shares nothing


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """(Q, D), (G, D) -> (Q, G) Euclidean distances sqrt(max(d^2, 1e-12)): never NaN, nor its gradient.

    In float32 at least, autocast or not: of long features near each other, bfloat16's three digits would leave none.
    They are taken from b's mean, which changes no distance: of features that hardly differ, squares keep few digits.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
        centre = b.detach().mean(0)
        a, b = a - centre, b - centre
        squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T  # (Q, D), (G, D) -> (Q, G)
        return squared.clamp(min=1e-12).sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(Q, D), (G, D) -> (Q, G) of 1 - cos, in [0, 2]. A zero vector is at distance 1 from everything."""
    return 1 - F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def part_distance(features_q: Tensor, features_g: Tensor, visibility_q: Tensor, visibility_g: Tensor, *,
                  sizes: tuple[int, ...], distance: str, reduction: str) -> tuple[Tensor, Tensor]:
    """The distance by which every model matches: d = sum_p w_p D(f_p^q, f_p^g) / sum_p w_p, w_p = v_p^q v_p^g.

    features_q (Q, sum D_p), features_g (G, sum D_p), visibility_q (Q, P), visibility_g (G, P) in [0, 1];
    sizes: D_p of the P parts; distance: cosine | euclidean; reduction: mean, or sum (without the divisor).
    Returns d (Q, G) and shared (Q, G) bool. Where a pair shares no part (sum w <= 1e-12), d is 0 and `shared` False:
    rank it behind every other pair, and keep it out of mining.
    """
    measure = {"cosine": cosine, "euclidean": euclidean}[distance]
    if reduction not in ("mean", "sum"):
        raise ValueError(f"unknown reduction {reduction!r}; it is mean or sum")

    total = visibility_q @ visibility_g.T  # (Q, P), (G, P) -> (Q, G), sum_p w_p
    shared = total > NO_SHARED_PART

    d = torch.zeros_like(total)
    features = zip(features_q.split(sizes, 1), features_g.split(sizes, 1), strict=True)
    for (f_q, f_g), v_q, v_g in zip(features, visibility_q.T, visibility_g.T, strict=True):
        d = d + v_q[:, None] * v_g[None, :] * measure(f_q, f_g)  # (Q, D), (G, D) -> (Q, G)

    if reduction == "mean":
        d = d / total.where(shared, 1.0)
    return d.where(shared, 0.0), shared


def batch_hard_triplet(distances: Tensor, pid: Tensor, *, margin: float, valid: Tensor | None = None) -> Tensor:
    """mean_a max(0, margin + max_p d(a, p) - min_n d(a, n)) over the B anchors of a batch.

    distances (B, B); pid (B,); valid (B, B) bool: the pairs that may be mined, all if None. An anchor without a
    valid positive (other than itself) or without a valid negative contributes 0.
    """
    same = pid[:, None] == pid[None, :]
    itself = torch.eye(len(pid), dtype=torch.bool, device=pid.device)
    allowed = torch.ones_like(same) if valid is None else valid
    positive, negative = same & ~itself & allowed, ~same & allowed

    hardest_positive = distances.masked_fill(~positive, -torch.inf).amax(1)  # (B, B) -> (B,)
    hardest_negative = distances.masked_fill(~negative, torch.inf).amin(1)
    usable = positive.any(1) & negative.any(1)

    # The infinities of unusable anchors must not reach the subtraction: inf * 0 in its gradient is NaN.
    gap = hardest_positive.where(usable, 0.0) - hardest_negative.where(usable, 0.0)
    return F.relu(margin + gap).where(usable, 0.0).mean()


def smoothed_cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float, reduction: str = "mean") -> Tensor:
    """-sum_k q_k log softmax(logits)_k with q = (1 - smoothing) one_hot(target) + smoothing / K.

    logits (B, K) or (B, K, h, w), target (B,) or (B, h, w) int64. reduction mean averages over images and pixels,
    sum adds an image's pixels and averages over images.
    """
    if reduction == "mean":
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    if reduction == "sum":
        return F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum") / len(logits)
    raise ValueError(f"unknown reduction {reduction!r}; it is mean or sum")


def accuracy(logits: Tensor, pid: Tensor) -> Tensor:
    """Share of the batch whose largest logit is the right identity, in [0, 1]."""
    return (logits.argmax(1) == pid).float().mean()
