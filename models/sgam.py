"""SGAM: semantic-guided alignment model (Sensors 2020, 20, 4431). docs/papers/sgam.md has the table of equations.

What distinguishes it: a frozen parser's probability maps of head, upper body, lower body and shoes say where to crop
the picture (pipeline/cropping.py), pool one feature a region, and weigh how much each region counts, in the training
loss by its visibility S, between two pictures by both their S. The maps are read in training and at test time.

B images, C backbone channels, h x w the last map (1/16 of the image), R = 4 regions, J identities.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.classifiers import linear_classifier
from models.losses import accuracy

MATCHES = ("all", "unmasked", "global", "local")
SCORES = ("normalised", "paper")
REGIONS = 4


def pixel_sums(p: Tensor, *, pixels: int) -> Tensor:
    """Region maps P (B, R, h', w') of a frame of so many pixels -> S (B, R) as printed: the sum over its pixels."""
    return p.mean((2, 3)) * pixels  # Eq. (2)


def visibility_scores(p: Tensor, medians: Tensor) -> Tensor:
    """Region maps P (B, R, h', w'), medians (R,) of their means over a training set -> S (B, R) in [0, 1].

    A region whose median is 0, because no training image shows it, has S = 0.
    """
    s = p.mean((2, 3)) / medians.where(medians > 0, 1.0)  # Eq. (2), in units of an ordinary picture's
    return s.where(medians > 0, 0.0).clamp(max=1)


def region_features(t: Tensor, p: Tensor) -> Tensor:
    """T (B, C, h, w), P (B, R, h', w') -> f (B, R, C): the mean of T weighted by each region's pooled map.

    The divisor is the sum of the same pooled map that the numerator weighs with. A region without any probability has
    the zero vector.
    """
    pooled = F.adaptive_avg_pool2d(p, (t.shape[2], t.shape[3]))  # AP(P), (B, R, h, w)
    weights = pooled / pooled.sum((2, 3), keepdim=True).clamp(min=1e-6)
    return torch.einsum("brhw,bchw->brc", weights, t)  # Eq. (3)


def part_loss(logits: Tensor, pid: Tensor, weights: Tensor) -> Tensor:
    """logits (B, R, J), pid (B,), weights (B, R) -> weighted cross-entropies, summed over regions, mean over images."""
    losses = F.cross_entropy(logits.flatten(0, 1), pid.repeat_interleave(logits.shape[1]), reduction="none")
    return (weights * losses.view_as(weights)).sum(1).mean()  # Eq. (5)


class Sgam(nn.Module):
    """The network. ids: J; width: of each feature after its 1x1 convolution and BN.

    medians: of the four regions' mean probabilities over the training set, in the frame that the network sees (cropped
    or whole); kept with the weights, so that a network whose weights are loaded needs none. thresholds: t_i of Eq. (5).
    scores: normalised (S by the medians, in [0, 1]) or paper (S the sum over the image's pixels, as printed).
    use_parts false is the baseline: the global feature alone (Table 5: ResNet50, ResNet50+crop), no maps read.
    training_rule false is SGAM-1 (Table 4): Eq. (5) without thresholds and weights.

    Matching, changed at any time without retraining by assigning `model.match`: all (Eq. 4) | unmasked (SGAM-2: all
    features, all weights 1) | global | local (one kind of features alone, for the ends of Fig. 6).
    """

    distance = "euclidean"
    reduction = "mean"

    def __init__(self, *, backbone: Backbone, ids: int, width: int = 256, use_parts: bool = True,
                 training_rule: bool = True, thresholds: Sequence[float] = (0.2, 0.2, 0.2, 0.2),
                 lambda_global: float = 0.2, scores: str = "normalised", medians: Sequence[float] | None = None,
                 match: str = "all"):
        super().__init__()
        _check(thresholds, lambda_global, scores, medians)
        self.backbone, self.width, self.use_parts = backbone, width, use_parts
        self.training_rule, self.lambda_global, self.scores = training_rule, lambda_global, scores
        self.match = match
        features = 1 + REGIONS if use_parts else 1  # global, head, upper body, lower body, shoes
        self.heads = nn.ModuleList([_head(backbone.width, width) for _ in range(features)])
        self.classifiers = nn.ModuleList([linear_classifier(width, ids) for _ in range(features)])
        if use_parts:
            self.thresholds: Tensor
            self.medians: Tensor
            self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32), persistent=False)
            known = (torch.nan,) * REGIONS if medians is None else medians
            self.register_buffer("medians", torch.tensor(known, dtype=torch.float32))

    @property
    def match(self) -> str:
        return self._match

    @match.setter
    def match(self, match: str) -> None:
        if match not in MATCHES:
            raise ValueError(f"unknown features {match!r} for SGAM; they are one of {', '.join(MATCHES)}")
        if match == "local" and not self.use_parts:
            raise ValueError("features local: this SGAM was built without its parts; take all or global")
        self._match = match

    @property
    def sizes(self) -> tuple[int, ...]:
        """D_p of [global, head, upper body, lower body, shoes], of those that exist and are matched."""
        parts = REGIONS if self.use_parts and self.match != "global" else 0
        return (self.width,) * ((self.match != "local") + parts)

    def features(self, t: Tensor, p: Tensor | None) -> Tensor:
        """T (B, C, h, w), region maps P (B, R, h', w') or None -> (B, 1 + R or 1, width), the global one first."""
        pooled = [t.mean((2, 3))]
        if p is not None:
            pooled += region_features(t, p).unbind(1)
        return torch.stack([head(f) for head, f in zip(self.heads, pooled, strict=True)], 1)

    def visibility(self, batch: dict[str, Tensor]) -> Tensor:
        """image, probs4 (B, 5, H/4, W/4) in [0, 1], background first -> S (B, R)."""
        p = batch["probs4"][:, 1:]
        if self.scores == "paper":
            return pixel_sums(p, pixels=_pixels(batch))
        return visibility_scores(p, self.medians)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, and with parts probs4, which moved with the image -> total loss, named terms."""
        self._check_medians()
        t, pid = self.backbone(batch["image"])[-1], batch["pid"]
        f = self.features(t, batch["probs4"][:, 1:] if self.use_parts else None)
        logits = torch.stack([classify(f[:, i]) for i, classify in enumerate(self.classifiers)], 1)
        terms = {"global": F.cross_entropy(logits[:, 0], pid)}  # Eq. (6)
        loss = terms["global"]
        if self.use_parts:
            terms["part"] = part_loss(logits[:, 1:], pid, self._loss_weights(batch))
            loss = self.lambda_global * terms["global"] + (1 - self.lambda_global) * terms["part"]  # Eq. (7)
        return loss, {name: term.detach() for name, term in terms.items()} | {"accuracy": accuracy(logits[:, 0], pid)}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image, and with parts probs4 -> features (B, sum D_p) after BN, not at length 1, and visibility (B, P).

        Visibility [1, S_1 .. S_4]: with euclidean and mean the pair distance is Eq. (4). With scores paper all of it
        is divided by the image's pixels: the same factor in every weight of a pair, so Eq. (4) stays as printed.
        """
        if not self.use_parts or self.match == "global":
            f = self.heads[0](self.backbone(batch["image"])[-1].mean((2, 3))).float()
            return f, f.new_ones(len(f), 1)
        self._check_medians()
        f = self.features(self.backbone(batch["image"])[-1], batch["probs4"][:, 1:])
        v = self._visibility_of_features(batch)
        if self.match == "local":
            f, v = f[:, 1:], v[:, 1:]
        return f.flatten(1).float(), v.float()

    def _visibility_of_features(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 1 + R) in [0, 1]: v of the global feature and of the regions."""
        s = self.visibility(batch)
        if self.match == "unmasked":
            s = torch.ones_like(s)
        v = torch.cat([s.new_ones(len(s), 1), s], 1)
        return v / _pixels(batch) if self.scores == "paper" and self.match != "unmasked" else v

    def _loss_weights(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, R): max(S_i - t_i, 0), or 1 without the training rule."""
        s = self.visibility(batch)
        return (s - self.thresholds).clamp(min=0) if self.training_rule else torch.ones_like(s)

    def _check_medians(self) -> None:
        # Asked for before the first kernel of a step, so that a GPU has nothing to wait for.
        if self.use_parts and self.scores == "normalised" and bool(self.medians.isnan().any()):
            raise ValueError("this SGAM has no medians of its regions' probabilities; give those of its training set "
                             "as `medians`, or load weights that hold them")


def _head(inputs: int, width: int) -> nn.Sequential:
    """(B, C) -> (B, width). A 1x1 convolution of a pooled vector is a linear layer; its bias would vanish in BN."""
    return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width))


def _pixels(batch: dict[str, Tensor]) -> int:
    return batch["image"].shape[2] * batch["image"].shape[3]


def _check(thresholds: Sequence[float], lambda_global: float, scores: str, medians: Sequence[float] | None) -> None:
    if len(thresholds) != REGIONS:
        raise ValueError(f"{len(thresholds)} thresholds for {REGIONS} regions; give one a region")
    if not 0 <= lambda_global <= 1:
        raise ValueError(f"lambda_global is {lambda_global}; it is a share of the loss, from 0 to 1")
    if scores not in SCORES:
        raise ValueError(f"unknown scores {scores!r} for SGAM; they are one of {', '.join(SCORES)}")
    if medians is not None and (len(medians) != REGIONS or not all(0 <= median <= 1 for median in medians)):
        raise ValueError(f"medians are {tuple(medians)}; give one a region, each a mean probability from 0 to 1")
