"""PCB: part-based convolutional baseline (Sun et al., ECCV 2018), what occluded re-ID papers measure against.

What distinguishes it: the last map is cut into P horizontal stripes, each is pooled, reduced and classified on its
own, and the stripes' vectors side by side are matched, whatever they show.

B images, C backbone channels, h x w the last map (1/16 of the image), P stripes, D numbers of a stripe's vector, J
identities.

Read from the paper (3.1, Fig. 3) and the authors' code (syfafterzy/PCB_RPP_for_reID): stride 1 in the last stage,
average pooling, one 1x1 convolution without bias, one BN and ReLU that all stripes share, one classifier per
stripe, the sum of their cross-entropies. Matched is H, the P reduced vectors that the classifiers read (P x 256;
the printed alternative is G, before the reduction). Otherwise than there: H is brought to length 1 as a whole, the
classifiers have no bias as all of this project's, there is no dropout (the paper names none), and stripes follow
the floor rule, so that P need not divide the map's rows. Refined part pooling is not part of it.

The paper's recipe: 384 x 128, batch 64 shuffled, flip only, SGD 0.1 (0.01 for pretrained layers), a tenth after 40
of 60 epochs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.classifiers import linear_classifier
from models.losses import accuracy

CHOICES = {"features": ("all",)}


class Pcb(nn.Module):
    """Image -> P reduced stripe vectors. ids: J; stripes: P; width: D.

    Matching: one part of P x D numbers at length 1. Euclidean, which ranks unit vectors as the cosine does.
    """

    distance = "euclidean"
    reduction = "mean"
    classified_by = ("classifiers.",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, stripes: int, width: int):
        super().__init__()
        check_choices("PCB", CHOICES, features=match)
        if stripes < 1 or width < 1:
            raise ValueError(f"PCB of {stripes} stripes of {width} numbers; both must be at least 1")

        self.backbone, self.stripes, self.width = backbone, stripes, width
        self.reduce = nn.Linear(backbone.width, width, bias=False)  # a 1x1 convolution of pooled vectors
        self.norm = nn.BatchNorm1d(width)
        self.classifiers = nn.ModuleList([linear_classifier(width, ids) for _ in range(stripes)])

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.stripes * self.width,)

    def pooled(self, t: Tensor) -> Tensor:
        """T (B, C, h, w) -> g (B, P, C), the mean of rows floor(p h / P) .. floor((p + 1) h / P) of stripe p."""
        height = t.shape[2]
        if self.stripes > height:
            raise ValueError(f"{self.stripes} stripes do not fit a map of {height} rows; take fewer, or a taller "
                             "image")

        cuts = [stripe * height // self.stripes for stripe in range(self.stripes + 1)]
        rows = zip(cuts, cuts[1:], strict=False)
        return torch.stack([t[:, :, top:bottom].mean((2, 3)) for top, bottom in rows], 1)

    def features(self, image: Tensor, camera: Tensor | None = None) -> Tensor:
        """image (B, 3, H, W), camera (B,) -> h (B, P, D). The shared BN sees all stripes of all images at once."""
        g = self.pooled(self.backbone(image, camera)[-1])  # (B, 3, H, W) -> (B, C, h, w) -> (B, P, C)
        reduced = self.reduce(g).flatten(0, 1)  # (B, P, C) -> (B P, D)
        return F.relu(self.norm(reduced)).unflatten(0, g.shape[:2])  # (B P, D) -> (B, P, D)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid -> the sum of the stripes' identity losses, named terms; accuracy is the stripes' mean."""
        h, pid = self.features(batch["image"], batch.get("camid")), batch["pid"]  # (B, 3, H, W) -> (B, P, D)
        logits = [classify(h[:, p]) for p, classify in enumerate(self.classifiers)]  # P of (B, J)

        loss = torch.stack([F.cross_entropy(y, pid) for y in logits]).sum()
        return loss, {"id": loss.detach(), "accuracy": torch.stack([accuracy(y, pid) for y in logits]).mean()}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) -> the stripes' vectors (B, P D) at length 1, visibility (B, 1), always 1."""
        h = self.features(batch["image"], batch.get("camid"))  # (B, 3, H, W) -> (B, P, D)
        h = F.normalize(h.flatten(1), dim=1).float()  # (B, P, D) -> (B, P D)
        return h, h.new_ones(len(h), 1)
