"""SGAM: semantic-guided alignment model (Sensors 2020, 20, 4431). Table of equations: docs/papers/sgam.md.

What distinguishes it: a frozen parser's probability maps of head, upper body, lower body and shoes say where to
crop the image (pipeline/loading/sgam_crop.py), pool one feature per region, and weigh how much each region counts,
in the training loss by its visibility S, between two images by both their S. The maps are read in training and at
test time.

B images, C backbone channels, h x w the last map (1/16 of the image), R = 4 regions, D numbers of a feature, J
identities.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.classifiers import linear_classifier
from models.losses import accuracy

CHOICES = {"features": ("all", "unmasked", "global", "local"), "scores": ("normalised", "paper"),
           "recrop": ("maps", "parse")}
REGIONS = 4


def region_scores(mean: Tensor, *, medians: Tensor | None, pixels: int) -> Tensor:
    """Means (..., R) of the region maps over a frame of so many pixels -> S (..., R): shares of the medians, in [0, 1].

    medians (R,): of the means over a training set; a region whose median is 0, because no training image shows it, has
    S = 0. None: as printed, the sums over the frame's pixels.
    """
    if medians is None:
        return mean * pixels  # Eq. (2)
    s = mean / medians.where(medians > 0, 1.0)  # Eq. (2), in units of an ordinary image's
    return s.where(medians > 0, 0.0).clamp(max=1)


def visible_regions(mean: Any, pixels: int, *, medians: Sequence[float] | None, thresholds: Sequence[float]) -> Any:
    """Means (R,) of one frame's region maps, an array of float64 -> (R,) of bool: S_i > t_i, what the crop keeps."""
    exact = None if medians is None else torch.tensor(medians, dtype=torch.float64)
    s = region_scores(torch.from_numpy(mean), medians=exact, pixels=pixels)
    return (s > torch.tensor(thresholds, dtype=torch.float64)).numpy()


def crop_rule(medians: Any, *, scores: str, thresholds: Sequence[float]) -> dict[str, Any]:
    """How images are cropped by a training set's medians (R,) in the whole frame: the keywords of `visible_regions`."""
    return {"medians": medians.tolist() if scores == "normalised" else None, "thresholds": list(thresholds)}


def region_features(t: Tensor, p: Tensor) -> Tensor:
    """T (B, C, h, w), P (B, R, h', w') -> f (B, R, C): the mean of T weighted by each region's pooled map.

    The divisor is the sum of the same pooled map that the numerator weighs with. A region without any probability has
    the zero vector.
    """
    pooled = F.adaptive_avg_pool2d(p, (t.shape[2], t.shape[3]))  # AP(P), (B, R, h, w)
    weights = pooled / pooled.sum((2, 3), keepdim=True).clamp(min=1e-6)
    return torch.einsum("brhw,bchw->brc", weights, t)  # Eq. (3), (B, R, h, w), (B, C, h, w) -> (B, R, C)


def part_loss(logits: Tensor, pid: Tensor, weights: Tensor) -> Tensor:
    """logits (B, R, J), pid (B,), weights (B, R) -> weighted cross-entropies, summed over regions, mean over images."""
    pids = pid.repeat_interleave(logits.shape[1])  # (B,) -> (B R,)
    losses = F.cross_entropy(logits.flatten(0, 1), pids, reduction="none")  # (B R, J) -> (B R,)
    return (weights * losses.view_as(weights)).sum(1).mean()  # Eq. (5)


class Sgam(nn.Module):
    """The network. ids: J; width: D, of each feature after its 1x1 convolution and BN.

    crop: images come cropped to their visible regions. thresholds: t_i of Eq. (5) and of the crop.
    scores: normalised (S by the medians, in [0, 1]) or paper (S the sum over the image's pixels, as printed); of the
    crop and of Eq. (4) and (5). shared_reduction: one 1x1 convolution for all five features, each with its own BN.
    recrop: a crop's maps are those of the whole image, cropped too (maps), or of a parse of the crop (parse).
    use_parts false is the baseline: the global feature alone (Table 5: ResNet50, ResNet50+crop), no maps read.
    training_rule false is SGAM-1 (Table 4): Eq. (5) without thresholds and weights.

    Matching, which training does not depend on. match: all (Eq. 4) | unmasked (SGAM-2: all features, all weights 1)
    | global | local (one kind of features alone, for the ends of Fig. 6).

    Before training, `measure` needs the training set's maps. The medians of the four regions' mean probabilities,
    in the frame that the network sees (cropped or whole), stay with the weights.
    """

    distance = "euclidean"
    reduction = "mean"
    classified_by = ("classifiers.",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, width: int, use_parts: bool, crop: bool,
                 training_rule: bool, thresholds: Sequence[float], lambda_global: float, scores: str,
                 shared_reduction: bool, recrop: str):
        super().__init__()
        check_choices("SGAM", CHOICES, features=match, scores=scores, recrop=recrop)
        _check(match, use_parts, thresholds, lambda_global)
        if recrop == "parse" and not (crop and use_parts):
            raise ValueError("recrop parse: this SGAM crops nothing or reads no maps of crops; take maps, or crop and "
                             "use_parts")
        self.match, self.width, self.use_parts, self.crop = match, width, use_parts, crop
        self.training_rule, self.lambda_global, self.scores = training_rule, lambda_global, scores
        self.recrop = recrop
        self.crop_thresholds = tuple(thresholds)

        self.backbone = backbone
        features = 1 + REGIONS if use_parts else 1  # global, head, upper body, lower body, shoes
        self.shared = _reduction(backbone.width, width) if shared_reduction else None
        self.heads = nn.ModuleList([nn.Sequential(*([] if shared_reduction else [_reduction(backbone.width, width)]),
                                                  nn.BatchNorm1d(width)) for _ in range(features)])
        self.classifiers = nn.ModuleList([linear_classifier(width, ids) for _ in range(features)])

        if use_parts:
            self.thresholds: Tensor
            self.medians: Tensor
            self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32), persistent=False)
            self.register_buffer("medians", torch.full((REGIONS,), torch.nan))

    @property
    def sizes(self) -> tuple[int, ...]:
        """D_p of [global, head, upper body, lower body, shoes], of those that exist and are matched."""
        parts = REGIONS if self.use_parts and self.match != "global" else 0
        return (self.width,) * ((self.match != "local") + parts)

    def measure(self, maps: Any) -> dict[str, Any]:
        """Take the medians from the training set's maps; what is to be recorded with the weights: how to crop.

        maps.region_medians(visible_by): the medians (4,) in the whole frame and in the frame cropped by
        visible_by(the first ones); maps.parsed_medians(): the same where the maps are those of parsed crops. The
        record's entries are the keywords of `visible`.
        """
        if self.recrop == "parse":
            whole, cropped = maps.parsed_medians()
        else:
            whole, cropped = maps.region_medians(lambda medians: functools.partial(self.visible, **self._rule(medians)))
        if self.use_parts:
            self.medians.copy_(torch.tensor(cropped if self.crop else whole))
        return {"crop": self._rule(whole)} if self.crop else {}

    visible = staticmethod(visible_regions)

    def _rule(self, medians: Any) -> dict[str, Any]:
        return crop_rule(medians, scores=self.scores, thresholds=self.crop_thresholds)

    def features(self, t: Tensor, p: Tensor | None) -> Tensor:
        """T (B, C, h, w), region maps P (B, R, h', w') or None -> (B, 1 + R or 1, D), the global one first."""
        pooled = [t.mean((2, 3))]  # (B, C, h, w) -> (B, C)
        if p is not None:
            pooled += region_features(t, p).unbind(1)  # (B, R, C) -> R of (B, C)
        if self.shared is not None:
            pooled = [self.shared(f) for f in pooled]  # (B, C) -> (B, D)
        return torch.stack([head(f) for head, f in zip(self.heads[:len(pooled)], pooled, strict=True)], 1)

    def visibility(self, batch: dict[str, Tensor]) -> Tensor:
        """image, probs4 (B, 5, H/4, W/4) in [0, 1], background first -> S (B, R)."""
        mean = batch["probs4"][:, 1:].mean((2, 3))  # (B, 5, H/4, W/4) -> (B, R)
        return region_scores(mean, medians=None if self.scores == "paper" else self.medians, pixels=_pixels(batch))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, and with parts probs4, which moved with the image -> total loss, named terms."""
        self._check_medians()
        t = self.backbone(batch["image"], batch.get("camid"))[-1]  # (B, 3, H, W) -> (B, C, h, w)
        pid = batch["pid"]
        f = self.features(t, batch["probs4"][:, 1:] if self.use_parts else None)  # -> (B, 1 + R, D)
        logits = torch.stack([classify(f[:, i]) for i, classify in enumerate(self.classifiers)], 1)  # (B, 1 + R, J)

        terms = {"global": F.cross_entropy(logits[:, 0], pid)}  # Eq. (6)
        loss = terms["global"]
        if self.use_parts:
            terms["part"] = part_loss(logits[:, 1:], pid, self._loss_weights(batch))
            loss = self.lambda_global * terms["global"] + (1 - self.lambda_global) * terms["part"]  # Eq. (7)

        scalars = {name: term.detach() for name, term in terms.items()}
        return loss, scalars | {"accuracy": accuracy(logits[:, 0], pid)}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image, and with parts probs4 -> features (B, sum D_p) after BN, not at length 1, and visibility (B, P).

        Visibility [1, S_1 .. S_4]: with euclidean and mean the pair distance is Eq. (4). With scores paper all of it
        is divided by the image's pixels: the same factor in every weight of a pair, so Eq. (4) stays as printed.
        """
        if not self.use_parts or self.match == "global":
            t = self.backbone(batch["image"], batch.get("camid"))[-1]  # (B, 3, H, W) -> (B, C, h, w)
            f = self.features(t, None)[:, 0].float()  # (B, C, h, w) -> (B, D)
            return f, f.new_ones(len(f), 1)

        self._check_medians()
        t = self.backbone(batch["image"], batch.get("camid"))[-1]  # (B, 3, H, W) -> (B, C, h, w)
        f = self.features(t, batch["probs4"][:, 1:])  # -> (B, 1 + R, D)
        v = self._visibility_of_features(batch)  # (B, 1 + R)
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
            raise ValueError("this SGAM has no medians of its regions' probabilities; call measure with the maps of "
                             "its training set, or load weights that hold them")


def _reduction(inputs: int, width: int) -> nn.Linear:
    """(B, C) -> (B, width). A 1x1 convolution of a pooled vector is a linear layer; its bias would vanish in BN."""
    return nn.Linear(inputs, width, bias=False)


def _pixels(batch: dict[str, Tensor]) -> int:
    return batch["image"].shape[2] * batch["image"].shape[3]


def _check(match: str, use_parts: bool, thresholds: Sequence[float], lambda_global: float) -> None:
    if match == "local" and not use_parts:
        raise ValueError("features local: this SGAM was built without its parts; take all or global")
    if len(thresholds) != REGIONS:
        raise ValueError(f"{len(thresholds)} thresholds for {REGIONS} regions; give one per region")
    if not 0 <= lambda_global <= 1:
        raise ValueError(f"lambda_global is {lambda_global}; it is a share of the loss, from 0 to 1")
