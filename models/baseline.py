"""What the methods are measured against: a plain ResNet, pooled.

It is DSA's baseline (4.2, Table 3: Baseline, RE, RE+LS): ResNet with stride 1 in its last stage, pooled
feature f, identity loss through two fully connected layers, batch-hard triplet on f; matched on f.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.classifiers import hidden_classifier
from models.losses import accuracy, batch_hard_triplet, euclidean, smoothed_cross_entropy


class Baseline(nn.Module):
    """Image -> one pooled feature f of the backbone's width, L2-normalised for matching.

    ids: J, identities of the training set. Loss: id_weight ID(f) + triplet_weight T(f), T on raw Euclidean distances.
    """

    distance = "euclidean"
    reduction = "mean"

    def __init__(self, *, backbone: Backbone, ids: int, label_smoothing: float = 0.1, id_weight: float = 0.5,
                 triplet_weight: float = 1.5, margin: float = 0.3):
        super().__init__()
        self.backbone = backbone
        self.classifier = hidden_classifier(backbone.width, ids)
        self.label_smoothing, self.margin = label_smoothing, margin
        self.id_weight, self.triplet_weight = id_weight, triplet_weight

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.backbone.width,)

    def feature(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) -> f (B, D), the mean of the last map."""
        return self.backbone(image)[-1].mean((2, 3))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        f, pid = self.feature(batch["image"]), batch["pid"]
        logits = self.classifier(f)
        identity = smoothed_cross_entropy(logits, pid, smoothing=self.label_smoothing)
        triplet = batch_hard_triplet(euclidean(f, f), pid, margin=self.margin)
        loss = self.id_weight * identity + self.triplet_weight * triplet
        return loss, {"id": identity.detach(), "triplet": triplet.detach(), "accuracy": accuracy(logits, pid)}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        f = F.normalize(self.feature(batch["image"]), dim=1)
        return f, f.new_ones(len(f), 1)
