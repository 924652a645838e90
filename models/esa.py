"""ESA-ReID: entropy-based semantic alignment (Tu et al., arXiv 2020). Table of equations: docs/papers/esa.md.

What distinguishes it: a pixel's part probabilities say which body part it feeds, and their entropy how far they
can be trusted. Parts are compared by what is confident in them, each pair by the parts that both images show; what
is not confident is a region of its own, compared beside them.

B images, C backbone channels, c reduced channels, h x w the last map (1/16 of the image), N = 8 classes of which 0
is background, P regions: 7 body parts and, where there is one, the unconfident region, J identities.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.distributed_batch import whole_batch
from models.losses import NO_SHARED_PART, batch_hard_triplet, part_distance

CLASSES = 8  # N: background, head, torso, upper and lower arm, upper and lower leg, foot
BODY = CLASSES - 1
LOG_N = math.log(CLASSES)  # the maximum of Eq. (1)
SMALLEST = 1e-6  # of a weighted mean's denominator, and of a length that is divided by

CHOICES = {"features": ("all",), "unconfident": ("mask", "global", "global_balanced", "none", "median"),
           "attention": ("soft", "gated", "none"), "semantics": ("branch", "cache"), "weights": ("detached", "paper"),
           "e_max": ("log", "paper"), "pooling": ("mean", "paper"), "reduction": ("mean", "sum")}


def entropy(log_p: Tensor) -> Tensor:
    """Log-probabilities (B, N, h, w), finite, -> E (B, h, w) in [0, log N].

    Of logarithms, because the gradient of p log p at a probability that rounded to 0 is infinite.
    """
    return -(log_p.exp() * log_p).sum(1)  # Eq. (1)


def entropy_mask(ratio: Tensor, tau: float | Tensor) -> Tensor:
    """E / E_max (B, h, w), threshold (a number, or one an image: (B, 1, 1)) -> M (B, h, w)."""
    return ratio.where(ratio >= tau, 0.0)  # Eq. (2)


def median(ratio: Tensor) -> Tensor:
    """(B, h, w) -> (B, 1, 1), each image's median: half of its pixels reach it (Table 4, row d)."""
    return ratio.flatten(1).quantile(0.5, dim=1)[:, None, None]


def attention(ratio: Tensor, kind: str, tau: float | Tensor) -> Tensor:
    """E / E_max (B, h, w), soft | gated | none, the threshold of `entropy_mask` -> M~ (B, h, w).

    gated: nothing of what the entropy mask has, so that each pixel is in one of the two. none: Eq. (5) is Eq. (4).
    """
    if kind == "none":
        return torch.ones_like(ratio)
    soft = 1 - ratio  # Eq. (3)
    return soft.where(ratio < tau, 0.0) if kind == "gated" else soft


def weighted_sums(maps: Tensor, f: Tensor) -> Tensor:
    """K weight maps (B, K, h, w), F (B, c, h, w) -> (B, K, c): each map's sum over all pixels of weight times F."""
    return maps.flatten(2) @ f.flatten(2).mT  # Eq. (4) of p, Eq. (5) of attention x p; (B, K, h w) x (B, h w, c)


def identity_loss(logits: Tensor, pid: Tensor, s: Tensor) -> Tensor:
    """logits (B, P, J), pid (B,), scores S (B, P) -> sum_i S_i CE(y, y_i), averaged over images."""
    pids = pid.repeat_interleave(logits.shape[1])  # (B,) -> (B P,)
    ce = F.cross_entropy(logits.flatten(0, 1), pids, reduction="none")  # (B P, J) -> (B P,)
    return (s * ce.view_as(s)).sum(1).mean()  # Eq. (8), with the unconfident region Eq. (9)


class Esa(nn.Module):
    """The network. ids: J; channels: c. The switches are the paper's ablations (Table 4) and its printed forms.

    unconfident: what stands beside the parts in Eq. 7 and 9 (Table 4). mask: Eq. 2 with tau (our) | median: Eq. 2
    with the image's median entropy (d) | global: the globally pooled feature with score 1 (g) | global_balanced: the
    same, its score the mean of the body's | none (w).
    attention: of the matched features, Eq. 5. soft: Eq. 3 as printed | gated: Eq. 3 below the threshold of Eq. 2 and 0
    from it on, tau where there is no such mask | none: Eq. 4's features are matched (g).
    semantics: branch (a head on the last map, trained by the batch's labels; nothing is read at test time) | cache
    (the batch's probs8 and entropy, in training and test; no head and no parsing loss).
    weights: detached: no gradient through the scores S of Eq. 7 - 10 | paper.
    e_max: log: log N | paper: (1 / N) log N, by which Eq. 2 reaches N and Eq. 3 falls to 1 - N.
    pooling: mean: scores are means over pixels, classifiers see weighted means | paper: sums, as Eq. 4 prints.
    reduction: mean: Eq. 7 | sum: without its divisor; with unconfident none that is Eq. 6 as printed.
    match: all regions; there is no other way.
    """

    distance = "euclidean"
    classified_by = ("classifiers",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, channels: int, unconfident: str, attention: str,
                 semantics: str, tau: float, lambda_parsing: float, margin: float, weights: str, e_max: str,
                 pooling: str, reduction: str):
        super().__init__()
        check_choices("ESA-ReID", CHOICES, features=match, unconfident=unconfident, attention=attention,
                      semantics=semantics, weights=weights, e_max=e_max, pooling=pooling, reduction=reduction)
        self.channels, self.unconfident, self.attention, self.tau = channels, unconfident, attention, tau
        self.lambda_parsing, self.margin = lambda_parsing, margin
        self.weights, self.e_max, self.pooling, self.reduction = weights, e_max, pooling, reduction

        self.backbone = backbone
        self.reduce = nn.Sequential(nn.Conv2d(backbone.width, channels, 1, bias=False), nn.BatchNorm2d(channels),
                                    nn.ReLU(inplace=True))
        self.parse = nn.Conv2d(backbone.width, CLASSES, 1) if semantics == "branch" else None

        # One classifier per region, without bias, from N(0, 0.001^2), as models/classifiers.py has them; here in one
        # tensor (P, J, c), so that all regions are one product.
        self.classifiers = nn.Parameter(torch.empty(len(self.sizes), ids, channels))
        nn.init.normal_(self.classifiers, std=0.001)

    @property
    def sizes(self) -> tuple[int, ...]:
        """D_p of [head .. foot, unconfident or global region]."""
        return (self.channels,) * (BODY + (self.unconfident != "none"))

    def maps(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """F (B, c, h, w), p(R_i|g) (B, N, h, w), E / log N (B, h, w) in [0, 1], and log p where there is a branch.

        In float32 at least: with bfloat16's three digits, distances of unit vectors would lose their order.
        """
        t = self.backbone(batch["image"], batch.get("camid"))[-1]  # (B, 3, H, W) -> (B, C, h, w)
        f = self.reduce(t)  # (B, C, h, w) -> (B, c, h, w)
        f = f.to(torch.promote_types(f.dtype, torch.float32))

        if self.parse is None:
            size = f.shape[2:]
            p = F.adaptive_avg_pool2d(batch["probs8"].to(f.dtype), size)  # (B, N, H/4, W/4) -> (B, N, h, w)
            ratio = F.adaptive_avg_pool2d(batch["entropy"].to(f.dtype)[:, None], size)[:, 0]  # -> (B, h, w)
            return f, p, ratio, None

        log_p = self.parse(t).to(f.dtype).log_softmax(1)  # (B, C, h, w) -> (B, N, h, w)
        # Rounding may lift a uniform pixel above the maximum by the last digit.
        return f, log_p.exp(), (entropy(log_p) / LOG_N).clamp(max=1), log_p

    def regions(self, f: Tensor, p: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F (B, c, h, w), p (B, N, h, w), E / log N (B, h, w) -> of the P regions

        features for the classifiers (B, P, c); features to match (B, P c), each at length 1; scores S (B, P).
        """
        if self.e_max == "paper":
            ratio = CLASSES * ratio
        tau = median(ratio) if self.unconfident == "median" else self.tau
        body, last = p[:, 1:], self._last_region(ratio, tau)  # (B, 7, h, w), (B, 1 or 0, h, w)
        weights = torch.cat([body, attention(ratio, self.attention, tau)[:, None] * body, last], 1)
        sums = weighted_sums(weights, f)  # (B, 7 + 7 + 1 or 0, h, w), (B, c, h, w) -> (B, 7 + 7 + 1 or 0, c)
        plain, confident, rest = sums.split((BODY, BODY, last.shape[1]), 1)

        total, pixels = torch.cat([body, last], 1).sum((2, 3)), ratio[0].numel()  # (B, P, h, w) -> (B, P)
        if self.pooling == "mean":
            features = torch.cat([plain, rest], 1) / total.clamp(min=SMALLEST)[:, :, None]
        else:
            features = torch.cat([plain, rest / pixels], 1)  # f_un is a GAP (3.3)

        # A region of no confidence stays near zero: its direction would be noise, its gradient huge.
        matched = F.normalize(torch.cat([confident, rest], 1), dim=2, eps=SMALLEST)  # (B, P, c)
        return features, matched.flatten(1), self._scores(total if self.pooling == "paper" else total / pixels)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, and labels16 (B, h, w) of 8 parts, or with semantics cache probs8 (B, 8, H/4, W/4) and
        entropy (B, H/4, W/4), both in [0, 1] -> total loss, named terms.

        `share`: of the last region in the weights of Eq. 7; `accuracy`: of the classifiers, weighted by S.
        """
        f, p, ratio, log_p = self.maps(batch)  # (B, 3, H, W) -> (B, c, h, w), (B, N, h, w), (B, h, w), (B, N, h, w)
        pid, terms = batch["pid"], {}
        with torch.autocast(f.device.type, enabled=False):
            features, matched, s, pid = whole_batch(*self.regions(f, p, ratio), pid)  # (B, P, c), (B, P c), (B, P)
            fixed = s.detach()
            s = fixed if self.weights == "detached" else s

            logits = torch.einsum("bpc,pjc->bpj", features, self.classifiers)  # (B, P, c) -> (B, P, J)
            terms["id"] = identity_loss(logits, pid, s)

            d, shared = part_distance(matched, matched, s, s, sizes=self.sizes, distance=self.distance,
                                      reduction=self.reduction)  # Eq. (7), (B, P c) -> (B, B)
            terms["triplet"] = batch_hard_triplet(d, pid, margin=self.margin, valid=shared)  # Eq. (10)

            loss = terms["id"] + terms["triplet"]
            if log_p is not None:
                terms["parsing"] = F.nll_loss(log_p, batch["labels16"])
                loss = loss + self.lambda_parsing * terms["parsing"]  # Eq. (11)

        right = (logits.argmax(2) == pid[:, None]).float()
        scalars = {name: term.detach() for name, term in terms.items()}
        if self.unconfident != "none":
            scalars["share"] = share_of_last(fixed)
        scalars["accuracy"] = (right * fixed).sum() / fixed.sum().clamp(min=NO_SHARED_PART)
        return loss, scalars

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image, and with semantics cache probs8 and entropy. Each region's feature at length 1; its S as visibility.

        Printed forms whose S exceeds 1 are divided by its bound, the same for all: it cancels in Eq. 7.
        """
        f, p, ratio, _ = self.maps(batch)  # (B, 3, H, W) -> (B, c, h, w), (B, N, h, w), (B, h, w)
        with torch.autocast(f.device.type, enabled=False):
            _, matched, s = self.regions(f, p, ratio)  # -> (B, P c), (B, P)

        bound = (CLASSES if self.e_max == "paper" else 1) * (ratio[0].numel() if self.pooling == "paper" else 1)
        return matched.float(), (s / bound).float()

    def _last_region(self, ratio: Tensor, tau: float | Tensor) -> Tensor:
        """E / E_max (B, h, w), threshold -> weights of what stands beside the body parts: (B, 1, h, w) or (B, 0, h, w).
        """
        if self.unconfident == "none":
            return ratio[:, None][:, :0]
        if self.unconfident.startswith("global"):
            return torch.ones_like(ratio)[:, None]
        return entropy_mask(ratio, tau)[:, None]

    def _scores(self, s: Tensor) -> Tensor:
        """S of the body parts and of the last map -> S of the P regions: a global feature has a score of its own."""
        body = s[:, :BODY]
        if self.unconfident == "global":
            return torch.cat([body, torch.ones_like(body[:, :1])], 1)
        if self.unconfident == "global_balanced":
            return torch.cat([body, body.mean(1, keepdim=True)], 1)
        return s


def share_of_last(s: Tensor) -> Tensor:
    """Scores S (B, P) -> the last region's share of a pair's weights in Eq. 7, averaged over pairs that share any."""
    total = s @ s.T  # (B, P) -> (B, B)
    shared = total > NO_SHARED_PART
    share = s[:, -1:] @ s[:, -1:].T / total.where(shared, 1.0)
    return share.where(shared, 0.0).sum() / shared.sum().clamp(min=1)
