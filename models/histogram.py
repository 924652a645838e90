"""Histogram of colours, which learns nothing: what colour alone gives on a data set.

B images of H x W, P stripes, K bins of each of the six channels R, G, B, H, S, V.
"""

import torch
from torch import Tensor, nn

from models.choices import check_choices
from models.pretrained import IMAGENET_MEAN, IMAGENET_STD

CHOICES = {"features": ("all",)}


class Histogram(nn.Module):
    """Colour histogram of horizontal stripes: `bins` bins of each of R, G, B, H, S, V in each stripe.

    A stripe is a part; its feature is the square root of its shares, so that the cosine is the Bhattacharyya
    coefficient of two stripes. It has no parameters and cannot be trained.
    """

    distance = "cosine"
    reduction = "mean"
    classified_by = ()

    def __init__(self, *, match: str, stripes: int, bins: int):
        super().__init__()
        check_choices("the histogram", CHOICES, features=match)
        self.stripes, self.bins = stripes, bins

    @property
    def sizes(self) -> tuple[int, ...]:
        return (6 * self.bins,) * self.stripes

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        raise ValueError("a colour histogram has nothing to train; give its run image_steps 0")

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) -> square roots of shares (B, P 6 K), visibility (B, P), always 1."""
        rgb = denormalise(batch["image"])
        colours = torch.cat([rgb, hsv(rgb)], 1)  # (B, 3, H, W) -> (B, 6, H, W)

        height = colours.shape[2]
        cuts = [stripe * height // self.stripes for stripe in range(self.stripes + 1)]
        shares = torch.stack([self._shares(colours[:, :, top:bottom])
                              for top, bottom in zip(cuts, cuts[1:], strict=False)], 1)  # -> (B, P, 6 K)

        features = shares.sqrt().flatten(1)  # (B, P, 6 K) -> (B, P 6 K)
        return features, features.new_ones(len(features), self.stripes)

    def _shares(self, stripe: Tensor) -> Tensor:
        """(B, 6, h, W) in [0, 1] -> (B, 6 K) shares that sum to 1."""
        index = (stripe * self.bins).long().clamp(max=self.bins - 1).flatten(2)  # (B, 6, h, W) -> (B, 6, h W)
        counts = stripe.new_zeros(*index.shape[:2], self.bins)
        counts.scatter_add_(2, index, torch.ones_like(index, dtype=stripe.dtype))  # (B, 6, K)
        return counts.flatten(1) / index[0].numel()


def denormalise(image: Tensor) -> Tensor:
    """Undo ImageNet normalisation: (B, 3, H, W) -> RGB in [0, 1], rounded to the 8-bit levels it came from."""
    mean, std = image.new_tensor(IMAGENET_MEAN).view(3, 1, 1), image.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return ((image * std + mean) * 255).round().clamp(0, 255) / 255


def hsv(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> hue (a turn is 1; 0 for greys), saturation, value in [0, 1]."""
    value, _ = rgb.max(1)  # (B, 3, H, W) -> (B, H, W)
    chroma = value - rgb.min(1).values
    red, green, blue = rgb.unbind(1)

    safe = chroma.where(chroma > 0, 1.0)
    sector = torch.where(value == red, ((green - blue) / safe) % 6,
                         torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    hue = torch.where(chroma > 0, sector / 6, 0.0)

    saturation = chroma / value.where(value > 0, 1.0)
    return torch.stack([hue, saturation, value], 1)  # -> (B, 3, H, W)
