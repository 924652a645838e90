"""Baseline: a plain network, pooled, what the methods are measured against.

It is DSA's baseline (4.2, Table 3: Baseline, RE, RE+LS) and ESA's (4.2): ResNet with stride 1 in its last
stage, pooled feature f, identity loss through two fully connected layers, batch-hard triplet on f; matched on f.
With `neck: bn` it is the strong baseline of Luo et al. (2019, "Bag of tricks", 3.5, BNNeck): the identity loss and the
matching see BN(f), whose shift stays 0, through one linear layer, and the triplet sees f.

B images, D channels of the last map, J identities.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.classifiers import hidden_classifier, linear_classifier
from models.distributed_batch import whole_batch
from models.losses import accuracy, batch_hard_triplet, euclidean, smoothed_cross_entropy

CHOICES = {"features": ("all",), "neck": ("none", "bn"), "pool": ("mean", "token")}


class Baseline(nn.Module):
    """Image -> one feature of the backbone's width, L2-normalised for matching.

    ids: J, identities of the training set. Loss: id_weight ID(f) + triplet_weight T(f), T on Euclidean distances
    of raw features, or with `normalise` of features at length 1 (ESA's baseline: T alone). An ID loss without
    weight is not computed. pool: f is the mean of the last map, or a ViT's class token. neck: BN between f and what
    classifies and matches.
    """

    distance = "euclidean"
    reduction = "mean"
    classified_by = ("classifier.",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, label_smoothing: float, id_weight: float,
                 triplet_weight: float, margin: float, normalise: bool, neck: str, pool: str):
        super().__init__()
        check_choices("the baseline", CHOICES, features=match, neck=neck, pool=pool)
        if pool == "token" and not backbone.has_token:
            raise ValueError(f"pool token: backbone {backbone.architecture!r} has no class token; take mean, or a ViT")
        self.label_smoothing, self.margin, self.pool = label_smoothing, margin, pool
        self.id_weight, self.triplet_weight, self.normalise = id_weight, triplet_weight, normalise

        self.backbone = backbone
        self.neck = nn.BatchNorm1d(backbone.width) if neck == "bn" else None
        if self.neck is not None:
            self.neck.bias.requires_grad_(False)
        classify = hidden_classifier if self.neck is None else linear_classifier
        self.classifier = classify(backbone.width, ids)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.backbone.width,)

    def feature(self, batch: dict[str, Tensor]) -> Tensor:
        """image (B, 3, H, W) -> f (B, D), the mean of the last map or the class token."""
        image, camera = batch["image"], batch.get("camid")
        if self.pool == "token":
            return self.backbone.token(image, camera)  # (B, 3, H, W) -> (B, D)
        return self.backbone(image, camera)[-1].mean((2, 3))  # (B, 3, H, W) -> (B, D, h, w) -> (B, D)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image (B, 3, H, W), pid (B,) -> total loss, named terms."""
        f, pid = self.feature(batch), batch["pid"]  # (B, 3, H, W) -> (B, D)
        matched, pids = whole_batch(F.normalize(f, dim=1) if self.normalise else f, pid)
        triplet = batch_hard_triplet(euclidean(matched, matched), pids, margin=self.margin)
        loss = self.triplet_weight * triplet
        if not self.id_weight:
            return loss, {"triplet": triplet.detach()}

        logits = self.classifier(self._necked(f))  # (B, D) -> (B, J)
        identity = smoothed_cross_entropy(logits, pid, smoothing=self.label_smoothing)
        scalars = {"id": identity.detach(), "triplet": triplet.detach(), "accuracy": accuracy(logits, pid)}
        return loss + self.id_weight * identity, scalars

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) -> f (B, D), after the neck, at length 1, visibility (B, 1), always 1."""
        f = F.normalize(self._necked(self.feature(batch)), dim=1)  # (B, 3, H, W) -> (B, D)
        return f, f.new_ones(len(f), 1)

    def _necked(self, f: Tensor) -> Tensor:
        return f if self.neck is None else self.neck(f)  # (B, D) -> (B, D)
