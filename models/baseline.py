"""What the methods are measured against: a plain ResNet, and a colour histogram that learns nothing.

The plain ResNet is DSA's baseline (4.2, Table 3: Baseline, RE, RE+LS): ResNet with stride 1 in its last stage, pooled
feature f, identity loss through two fully connected layers, batch-hard triplet on f; matched on f.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
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


class Histogram(nn.Module):
    """Colour histogram of horizontal stripes: `bins` bins of each of R, G, B, H, S, V in each stripe.

    A stripe is a part; its feature is the square root of its shares, so that the cosine is the Bhattacharyya
    coefficient of two stripes. It has no parameters and cannot be trained.
    """

    distance = "cosine"
    reduction = "mean"

    def __init__(self, *, stripes: int = 6, bins: int = 16):
        super().__init__()
        self.stripes, self.bins = stripes, bins

    @property
    def sizes(self) -> tuple[int, ...]:
        return (6 * self.bins,) * self.stripes

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        raise ValueError("a colour histogram has nothing to train; give its run image_steps 0")

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rgb = denormalise(batch["image"])
        colours = torch.cat([rgb, hsv(rgb)], 1)  # (B, 6, H, W)
        height = colours.shape[2]
        cuts = [stripe * height // self.stripes for stripe in range(self.stripes + 1)]
        shares = torch.stack([self._shares(colours[:, :, top:bottom])
                              for top, bottom in zip(cuts, cuts[1:], strict=False)], 1)
        features = shares.sqrt().flatten(1)  # (B, stripes * 6 * bins)
        return features, features.new_ones(len(features), self.stripes)

    def _shares(self, stripe: Tensor) -> Tensor:
        """(B, 6, h, W) in [0, 1] -> (B, 6 * bins) shares that sum to 1."""
        index = (stripe * self.bins).long().clamp(max=self.bins - 1).flatten(2)  # (B, 6, h W)
        counts = stripe.new_zeros(*index.shape[:2], self.bins)
        counts.scatter_add_(2, index, torch.ones_like(index, dtype=stripe.dtype))
        return counts.flatten(1) / index[0].numel()


def denormalise(image: Tensor) -> Tensor:
    """Undo ImageNet normalisation: (B, 3, H, W) -> RGB in [0, 1], rounded to the 8-bit levels it came from."""
    mean, std = image.new_tensor(IMAGENET_MEAN).view(3, 1, 1), image.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return ((image * std + mean) * 255).round().clamp(0, 255) / 255


def hsv(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> hue (a turn is 1; 0 for greys), saturation, value in [0, 1]."""
    value, _ = rgb.max(1)
    chroma = value - rgb.min(1).values
    red, green, blue = rgb.unbind(1)
    safe = chroma.where(chroma > 0, 1.0)
    sector = torch.where(value == red, ((green - blue) / safe) % 6,
                         torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    hue = torch.where(chroma > 0, sector / 6, 0.0)
    saturation = chroma / value.where(value > 0, 1.0)
    return torch.stack([hue, saturation, value], 1)
