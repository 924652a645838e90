"""SGSFA: semantic-guided shared feature alignment (Ren et al., ACML 2020). Table of equations: docs/papers/sgsfa.md.

What distinguishes it: attention that a parser's masks teach in training finds the body (after stage 1) and its head,
upper body, lower body and shoes (after stage 4); the top of the learned head mask places three stripes at the body's
proportions. The learned masks alone say which of these seven parts an image shows; shared ones are compared.

B images, C channels of the last map, R x w that map (1/16 of the image), J identities, D numbers of a vector. Vectors
stand in the order of VECTORS; part i of the four regions is head, upper body, lower body, shoes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.losses import accuracy, batch_hard_triplet, part_distance
from models.whole_batch import whole_batch

MATCHES = ("parts", "parts_and_whole")
HEAD_TOPS = ("first", "paper")
REGIONS = ("head", "upper", "lower", "shoes")
VECTORS = ("whole", *REGIONS, "top", "middle", "bottom", "top_middle", "middle_bottom")
MATCHED = 8  # the unions of stripes are classified in training and never compared
# FR, Eq. (1), in the order of VECTORS: each from one cut to another of (top, + 15 %, + 38 %, end of the map).
FR = ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3))
HEAD_SHARE, TORSO_END = 0.15, 0.15 + 0.23
MASK_ON = 0.5  # the head's mask is binarised here


def pseudo_masks(probs4: Tensor, *, whole: tuple[int, int], local: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the attention is to learn: probs4 (B, 5, h', w'), background first, -> (B, 1, *whole), (B, 4, *local).

    The whole body is all but background. Each cell is the mean probability over its area, in [0, 1].
    """
    return F.adaptive_avg_pool2d(1 - probs4[:, :1], whole), F.adaptive_avg_pool2d(probs4[:, 1:], local)


def mask_areas(probs4: Tensor) -> tuple[Tensor, Tensor]:
    """probs4 (B, 5, h', w') -> share of the image that each region's pseudo-mask covers (B, 4), and whether the mask
    holds anything (B, 4): whether the region is the likeliest label somewhere."""
    likeliest = F.one_hot(probs4.argmax(1), 5)[..., 1:]  # (B, h', w', 4)
    return probs4[:, 1:].mean((2, 3)), likeliest.flatten(1, 2).any(1)


def median_areas(areas: Tensor, present: Tensor) -> Tensor:
    """(N, 4), (N, 4) bool -> (4,) median of each region's area over the images that show it; infinite for none."""
    medians = areas.masked_fill(~present, torch.nan).nanquantile(0.5, dim=0)
    return medians.nan_to_num(nan=torch.inf)


def region_visibility(m: Tensor, medians: Tensor, *, share: float) -> Tensor:
    """Learned masks m (B, 4, R, w) in [0, 1] -> v (B, 4) of 0 and 1, with tau_i = share x medians_i."""
    v = m.mean((2, 3))  # Eq. (4)
    return (v > share * medians).to(m.dtype)  # Eq. (5)


def head_row(head: Tensor, *, rule: str) -> Tensor:
    """Learned head mask (B, R, w) in [0, 1] -> the body's first row (B,) int64.

    first: the first row with a cell above 0.5, row 0 where there is none (3.2.1). paper: one below the row of the
    largest cell, as 3.3 prints it for matching, clamped to the map.
    """
    if rule == "paper":
        return (head.flatten(1).argmax(1) // head.shape[2] + 1).clamp(max=head.shape[1] - 1)
    if rule != "first":
        raise ValueError(f"unknown head_top {rule!r} for SGSFA; it is one of {', '.join(HEAD_TOPS)}")
    return (head.amax(2) > MASK_ON).to(torch.uint8).argmax(1)  # argmax: the first of equals, 0 if all are 0


def region_rows(top: Tensor, rows: int) -> Tensor:
    """Body's first row (B,) on a map of `rows` -> which rows each of FR takes, (B, 5, R) bool, none where empty."""
    cuts = (0, round(HEAD_SHARE * rows), round(TORSO_END * rows), rows)
    below = torch.arange(rows, device=top.device) - top[:, None]  # (B, R), rows below the top
    return torch.stack([(below >= cuts[start]) & (below < cuts[end]) for start, end in FR], 1)  # Eq. (1)


def row_weights(inside: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 5, R) bool -> (B, 5, R), a region's rows at 1 / their number, so that a sum over rows is their mean."""
    return inside.to(dtype) / inside.sum(2, keepdim=True).clamp(min=1)


def stripe_visibility(m: Tensor, inside: Tensor, *, threshold: float) -> Tensor:
    """Learned masks m (B, 4, R, w), rows of FR (B, 5, R) -> t, m, b (B, 3) of 0 and 1.

    1 where the mean over the stripe of the largest of the four masks is above the threshold; an empty stripe is 0.
    """
    body = m.amax(1).mean(2)  # (B, R)
    share = (row_weights(inside[:, :3], m.dtype) * body[:, None]).sum(2)
    return (share > threshold).to(m.dtype)  # Eq. (2)


def chosen_regions(visible: Tensor) -> Tensor:
    """t, m, b (B, 3) of 0 and 1 -> f_choose (B, 5) of 0 and 1, which of FR are trained."""
    t, m, b = visible.unbind(1)
    return torch.stack([t, t * m, t * m * b, t * m, t * m * b], 1)  # Eq. (3)


def attention_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Masks before their sigmoid and pseudo-masks, both (B, N, h, w): mean over pixels and images, sum over the N."""
    pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # Eq. (8)
    return pixels.mean((0, 2, 3)).sum()


def dynamic_identity_loss(logits: Tensor, pid: Tensor, taking_part: Tensor, *, smoothing: float) -> Tensor:
    """L_d_cls. logits (B, P, J), pid (B,), taking_part (B, P) of 0 and 1: summed over vectors, mean over images."""
    parts = logits.shape[1]
    each = F.cross_entropy(logits.flatten(0, 1), pid.repeat_interleave(parts), label_smoothing=smoothing,
                           reduction="none")  # Eq. (10)
    return (each.unflatten(0, (-1, parts)) * taking_part).sum(1).mean()


def shared_triplet(f: Tensor, v: Tensor, pid: Tensor, *, distance: str, margin: float) -> Tensor:
    """Batch-hard triplet on the mean over shared parts of their distance: f (B, P, D), v (B, P), pid (B,).

    Pairs that share nothing are not mined. Always at full precision: distances are small differences.
    """
    with torch.autocast(f.device.type, enabled=False):
        flat, v, pid = whole_batch(full(f).flatten(1), full(v), pid)
        d, shared = part_distance(flat, flat, v, v, sizes=(f.shape[2],) * f.shape[1], distance=distance,
                                  reduction="mean")
        return batch_hard_triplet(d, pid, margin=margin, valid=shared)


def full(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class StackedLinear(nn.Module):
    """G linear layers that share nothing, as one product: (B, G, inputs) -> (B, G, outputs).

    It starts as nn.Linear does, or at N(0, std^2).
    """

    def __init__(self, count: int, inputs: int, outputs: int, *, bias: bool, std: float | None = None):
        super().__init__()
        bound = inputs ** -0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, outputs).uniform_(-bound, bound)) if bias else None
        if std is not None:
            nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bgi,gio->bgo", x, self.weight)
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    """Fig. 3 (one region) and Fig. 4 (four): x (B, C, h, w) -> logits of the masks (B, N, h, w), channels (B, N, C).

    The attended map of region i is x times sigmoid(logits_i) times channels_i. The first convolution is shared by the
    regions; the second is theirs, as are both layers of the channel attention.
    """

    def __init__(self, *, channels: int, gamma: int, regions: int):
        super().__init__()
        hidden = channels // gamma
        self.spatial = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden),
                                     nn.ReLU(inplace=True), nn.Conv2d(hidden, regions, 3, padding=1))
        self.squeeze = nn.Linear(channels, regions * hidden)
        self.excite = StackedLinear(regions, hidden, channels, bias=True)
        self.regions = regions

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.squeeze(x.mean((2, 3)))).unflatten(1, (self.regions, -1))
        return self.spatial(x), self.excite(hidden).sigmoid()


class Heads(nn.Module):
    """A vector each: 1x1 convolution to `size` after pooling, BN, classifier; nothing is shared between vectors."""

    def __init__(self, *, vectors: int, inputs: int, size: int, ids: int):
        super().__init__()
        self.reduce = StackedLinear(vectors, inputs, size, bias=False)  # a bias would vanish in BN
        self.norm = nn.BatchNorm1d(vectors * size)  # per channel, so the vectors share nothing
        self.classify = StackedLinear(vectors, size, ids, bias=False, std=0.001)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, V, C) of maps -> vectors f (B, V, D) for the triplet, and after BN for matching and classifier."""
        f = self.reduce(pooled)
        return f, self.norm(f.flatten(1)).view_as(f)


class Seen(NamedTuple):
    """What an image shows. Visibilities are 0 or 1, without gradient."""
    whole_logits: Tensor | None  # (B, 1, H/4, W/4); None without whole attention
    local_logits: Tensor  # (B, 4, R, w)
    f: Tensor  # (B, 10, D), before BN
    normed: Tensor  # (B, 10, D), after it
    visible: Tensor  # (B, 8): whole body (always 1), four regions, three stripes
    chosen: Tensor  # (B, 5), f_choose
    inside: Tensor  # (B, 5, R) bool, rows of FR


class Sgsfa(nn.Module):
    """The network. ids: J; size: D; gamma, local_gamma: how much narrower the attention is than its map.

    trade_off: lambda of Eq. 11. visible_share: a region is visible from this share of its median area on;
    stripe_threshold: a stripe from this mean of the body's mask on. whole_attention: Table 5's row.
    distance: D of Eq. 6, cosine | euclidean, in matching and in the triplet.

    Matching, changed at any time without retraining by assigning `model.match`, `model.reduction` and
    `model.head_top`. match: parts (Eq. 6's seven) | parts_and_whole (the whole body's vector too, always visible).
    reduction: mean over the shared parts, or sum, Eq. 7 as printed. head_top: first | paper, see `head_row`; training
    takes first.

    Before training, `set_medians` needs the pseudo-masks' areas over the training images; they stay with the weights.
    """

    def __init__(self, *, backbone: Backbone, ids: int, size: int = 256, gamma: int = 8, local_gamma: int = 2,
                 whole_attention: bool = True, label_smoothing: float = 0.1, margin: float = 0.3,
                 trade_off: float = 0.8, visible_share: float = 0.2, stripe_threshold: float = 0.15,
                 distance: str = "cosine", reduction: str = "mean", head_top: str = "first", match: str = "parts"):
        super().__init__()
        _check(trade_off, distance, reduction, head_top)
        self.backbone, self.size = backbone, size
        self.label_smoothing, self.margin, self.trade_off = label_smoothing, margin, trade_off
        self.visible_share, self.stripe_threshold = visible_share, stripe_threshold
        self.distance, self.reduction, self.head_top, self.match = distance, reduction, head_top, match
        self.whole = None
        if whole_attention:
            self.whole = Attention(channels=backbone.channels[0], gamma=gamma, regions=1)
        self.local = Attention(channels=backbone.width, gamma=local_gamma, regions=len(REGIONS))
        self.heads = Heads(vectors=len(VECTORS), inputs=backbone.width, size=size, ids=ids)
        self.medians: Tensor
        self.register_buffer("medians", torch.full((len(REGIONS),), torch.nan))
        self._ready = False

    @property
    def match(self) -> str:
        return self._match

    @match.setter
    def match(self, match: str) -> None:
        if match not in MATCHES:
            raise ValueError(f"unknown features {match!r} for SGSFA; they are one of {', '.join(MATCHES)}")
        self._match = match

    @property
    def matched(self) -> slice:
        """Which of VECTORS are matched."""
        return slice(1 if self.match == "parts" else 0, MATCHED)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.size,) * len(VECTORS[self.matched])

    def set_medians(self, areas: Tensor, present: Tensor) -> None:
        """Areas (N, 4) and presence (N, 4) of the N training images' pseudo-masks, from `mask_areas`."""
        self.medians.copy_(median_areas(areas, present))

    def body(self, image: Tensor) -> tuple[Tensor | None, Tensor]:
        """image (B, 3, H, W) -> logits of the whole body's mask (B, 1, H/4, W/4), and the last map (B, C, R, w)."""
        b, logits = self.backbone, None
        first, *later = b.stages()
        x = first(b.maxpool(b.relu(b.bn1(b.conv1(image)))))
        if self.whole is not None:
            logits, channels = self.whole(x)
            x = x * logits.sigmoid() * channels[:, 0, :, None, None]  # 3.1, f' = f M'
        for stage in later:
            x = stage(x)
        return logits, x

    def see(self, image: Tensor, *, head_top: str) -> Seen:
        """image (B, 3, H, W) -> vectors and visibilities.

        Attended maps are never made: their mean is a product of x with the mask, times the channels; and a 1x1
        convolution before the mean is the same as after it.
        """
        whole_logits, x = self.body(image)
        logits, channels = self.local(x)
        masks = full(logits).sigmoid()
        m = masks.detach()
        inside = region_rows(head_row(m[:, 0], rule=head_top), x.shape[2])
        stripes = stripe_visibility(m, inside, threshold=self.stripe_threshold)
        regions = region_visibility(m, self.medians.nan_to_num(nan=0.0, posinf=torch.inf), share=self.visible_share)
        f, normed = self.heads(self.pooled(x, masks, channels, inside))
        visible = torch.cat([m.new_ones(len(m), 1), regions, stripes], 1)
        return Seen(whole_logits, logits, f, normed, visible, chosen_regions(stripes), inside)

    @staticmethod
    def pooled(x: Tensor, masks: Tensor, channels: Tensor, inside: Tensor) -> Tensor:
        """Last map x (B, C, R, w), masks (B, 4, R, w), channels (B, 4, C), rows of FR (B, 5, R) -> (B, 10, C), the
        mean of x, of the four attended maps, and of x over each of FR."""
        rows, columns = x.shape[2:]
        pixels = rows * columns
        strips = row_weights(inside, masks.dtype).repeat_interleave(columns, 2) / columns  # (B, 5, R w)
        everywhere = masks.new_full((len(x), 1, pixels), 1 / pixels)
        weights = torch.cat([everywhere, masks.flatten(2) / pixels, strips], 1)  # (B, 10, R w)
        whole, local, stripes = (weights @ x.flatten(2).mT).split((1, len(REGIONS), len(FR)), 1)
        return torch.cat([whole, local * channels, stripes], 1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, probs4 (B, 5, H/4, W/4) in [0, 1] with background first -> total loss, named terms."""
        self._check_medians()
        pid, seen = batch["pid"], self.see(batch["image"], head_top="first")
        logits = full(self.heads.classify(seen.normed))
        taking_part = torch.cat([seen.visible[:, :5], seen.chosen], 1)
        terms = {"triplet": shared_triplet(seen.f[:, :MATCHED], seen.visible, pid, distance=self.distance,
                                           margin=self.margin),
                 "attention": self._attention_loss(seen, batch["probs4"]),
                 "id": dynamic_identity_loss(logits, pid, taking_part, smoothing=self.label_smoothing)}
        loss = (self.trade_off * (terms["triplet"] + terms["attention"])
                + (1 - self.trade_off) * terms["id"])  # Eq. (11)
        return loss, {name: term.detach() for name, term in terms.items()} | {"accuracy": accuracy(logits[:, 0], pid)}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image alone. Each part's vector after BN, at length 1 where D is cosine; an empty stripe's is 0.

        Weights without medians (a network never trained) count every region as visible.
        """
        seen = self.see(batch["image"], head_top=self.head_top)
        filled = seen.inside[:, :3].any(2, keepdim=True)
        parts = torch.cat([seen.normed[:, :5], seen.normed[:, 5:MATCHED] * filled], 1)[:, self.matched].float()
        if self.distance == "cosine":
            parts = F.normalize(parts, dim=2)
        return parts.flatten(1), seen.visible[:, self.matched].float()

    def _attention_loss(self, seen: Seen, probs4: Tensor) -> Tensor:
        """L_se, Eq. (9)."""
        whole, local = seen.whole_logits, seen.local_logits
        rows, columns = local.shape[2:]
        whole_target, local_target = pseudo_masks(probs4, whole=(4 * rows, 4 * columns), local=(rows, columns))
        loss = attention_loss(local.to(probs4.dtype), local_target)
        return loss if whole is None else loss + attention_loss(whole.to(probs4.dtype), whole_target)

    def _check_medians(self) -> None:
        """ValueError where nobody set or loaded the medians. Looked up once: on a GPU it waits for the device."""
        self._ready = self._ready or not bool(self.medians.isnan().any())
        if not self._ready:
            raise ValueError("SGSFA has no median areas of the pseudo-masks; call set_medians with those of the "
                             "training images before training, or load weights that hold them")


def _check(trade_off: float, distance: str, reduction: str, head_top: str) -> None:
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off is {trade_off}; lambda of Eq. 11 lies between 0 and 1")
    for name, value, known in (("distance", distance, ("cosine", "euclidean")),
                               ("reduction", reduction, ("mean", "sum")), ("head_top", head_top, HEAD_TOPS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r} for SGSFA; it is one of {', '.join(known)}")
