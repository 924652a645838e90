"""Baseline: a plain ResNet, pooled, what the methods are measured against.

It is DSA's baseline (4.2, Table 3: Baseline, RE, RE+LS) and ESA's (4.2): ResNet with stride 1 in its last
stage, pooled feature f, identity loss through two fully connected layers, batch-hard triplet on f; matched on f.

B images, D channels of the last map, J identities.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.classifiers import hidden_classifier
from models.distributed_batch import whole_batch
from models.losses import accuracy, batch_hard_triplet, euclidean, smoothed_cross_entropy

CHOICES = {"features": ("all",)}


class Baseline(nn.Module):
    """Image -> one pooled feature f of the backbone's width, L2-normalised for matching.

    ids: J, identities of the training set. Loss: id_weight ID(f) + triplet_weight T(f), T on Euclidean distances
    of raw features, or with `normalise` of features at length 1 (ESA's baseline: T alone). An ID loss without
    weight is not computed.
    """

    distance = "euclidean"
    reduction = "mean"
    classified_by = ("classifier.",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, label_smoothing: float, id_weight: float,
                 triplet_weight: float, margin: float, normalise: bool):
        super().__init__()
        check_choices("the baseline", CHOICES, features=match)
        self.label_smoothing, self.margin = label_smoothing, margin
        self.id_weight, self.triplet_weight, self.normalise = id_weight, triplet_weight, normalise

        self.backbone = backbone
        self.classifier = hidden_classifier(backbone.width, ids)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.backbone.width,)

    def feature(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) -> f (B, D), the mean of the last map."""
        return self.backbone(image)[-1].mean((2, 3))  # (B, 3, H, W) -> (B, D, h, w) -> (B, D)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image (B, 3, H, W), pid (B,) -> total loss, named terms."""
        f, pid = self.feature(batch["image"]), batch["pid"]  # (B, 3, H, W) -> (B, D)
        matched, pids = whole_batch(F.normalize(f, dim=1) if self.normalise else f, pid)
        triplet = batch_hard_triplet(euclidean(matched, matched), pids, margin=self.margin)
        loss = self.triplet_weight * triplet
        if not self.id_weight:
            return loss, {"triplet": triplet.detach()}

        logits = self.classifier(f)  # (B, D) -> (B, J)
        identity = smoothed_cross_entropy(logits, pid, smoothing=self.label_smoothing)
        scalars = {"id": identity.detach(), "triplet": triplet.detach(), "accuracy": accuracy(logits, pid)}
        return loss + self.id_weight * identity, scalars

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) -> f (B, D) at length 1, visibility (B, 1), always 1."""
        f = F.normalize(self.feature(batch["image"]), dim=1)  # (B, 3, H, W) -> (B, D)
        return f, f.new_ones(len(f), 1)
