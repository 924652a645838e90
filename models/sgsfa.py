"""SGSFA: semantic-guided shared feature alignment (Ren et al., ACML 2020). Table of equations: docs/papers/sgsfa.md.

What distinguishes it: attention that a parser's masks teach in training finds the body (after stage 1) and its head,
upper body, lower body and shoes (after stage 4); the top of the learned head mask places three stripes at the body's
proportions. The learned masks alone say which of these seven parts an image shows; shared ones are compared. The
triplet and the masks train the semantic vectors, a classification of stripes drawn anew each step the spatial ones.

B images, C channels of the last map, R x w that map (1/16 of the image), V = 10 vectors, K of them (the last ones)
classified, D numbers of a vector, J identities. Vectors stand in the order of VECTORS; part i of the four regions is
head, upper body, lower body, shoes.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.distributed_batch import whole_batch
from models.losses import batch_hard_triplet, part_distance

CHOICES = {"features": ("parts", "parts_and_whole", "semantic", "spatial"), "distance": ("cosine", "euclidean"),
           "reduction": ("mean", "sum"), "head_top": ("first", "paper"), "classified": ("spatial", "all"),
           "triplet": ("semantic", "all"), "regions": ("sampled", "all")}
REGIONS = ("head", "upper", "lower", "shoes")
VECTORS = ("whole", *REGIONS, "top", "middle", "bottom", "top_middle", "middle_bottom")
SEMANTIC = 5  # the first of VECTORS: whole body and regions; the others are spatial
COMPARED = 8  # the unions of stripes are classified in training and never compared
NARROWEST = 16  # channels of an attention's hidden layer, at least: a ResNet-18's first stage over gamma would have 8
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
    holds anything (B, 4): whether the region is the likeliest label somewhere.
    """
    likeliest = F.one_hot(probs4.argmax(1), 5)[..., 1:]  # (B, h', w', 4)
    return probs4[:, 1:].mean((2, 3)), likeliest.flatten(1, 2).any(1)


def median_areas(areas: Tensor, present: Tensor) -> Tensor:
    """(N, 4), (N, 4) bool -> (4,) median of each region's area over the images that show it; infinite for none."""
    medians = areas.masked_fill(~present, torch.nan).nanquantile(0.5, dim=0)  # (N, 4) -> (4,)
    return medians.nan_to_num(nan=torch.inf)


def region_visibility(m: Tensor, medians: Tensor, *, share: float) -> Tensor:
    """Learned masks m (B, 4, R, w) in [0, 1] -> v (B, 4) of 0 and 1, with tau_i = share x medians_i."""
    v = m.mean((2, 3))  # Eq. (4), (B, 4, R, w) -> (B, 4)
    return (v > share * medians).to(m.dtype)  # Eq. (5)


def head_row(head: Tensor, *, rule: str) -> Tensor:
    """Learned head mask (B, R, w) in [0, 1] -> the body's first row (B,) int64.

    first: the first row with a cell above 0.5, row 0 where there is none (3.2.1). paper: one below the row of the
    largest cell, as 3.3 prints it for matching, clamped to the map.
    """
    if rule == "paper":
        return (head.flatten(1).argmax(1) // head.shape[2] + 1).clamp(max=head.shape[1] - 1)
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
    body = m.amax(1).mean(2)  # (B, 4, R, w) -> (B, R, w) -> (B, R)
    share = (row_weights(inside[:, :3], m.dtype) * body[:, None]).sum(2)  # (B, 3, R) -> (B, 3)
    return (share > threshold).to(m.dtype)  # Eq. (2)


def chosen_regions(visible: Tensor) -> Tensor:
    """t, m, b (B, 3) of 0 and 1 -> f_choose (B, 5) of 0 and 1, which of FR are trained."""
    t, m, b = visible.unbind(1)
    return torch.stack([t, t * m, t * m * b, t * m, t * m * b], 1)  # Eq. (3)


def drawn_regions(chosen: Tensor, uniform: Tensor) -> Tensor:
    """f_choose (B, 5) of 0 and 1, a number in [0, 1) per image (B,) -> which of its regions train now (B, 5).

    3.2.2, "randomly selected local blocks": each non-empty subset of an image's n regions is as likely as another.
    Number s of 1 .. 2^n - 1 is the subset; its digit k, in base 2, says whether the image's region k is in it.
    """
    there = chosen > 0
    subsets = 2 ** there.sum(1) - 1  # (B,), 0 where nothing is chosen
    number = 1 + (uniform.double() * subsets).long()  # (B,)
    digit = (there.cumsum(1) - 1).clamp(min=0)  # (B, 5), which of the image's regions it is
    return chosen * (number[:, None] >> digit & 1)


def attention_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Masks before their sigmoid and pseudo-masks, both (B, N, h, w): mean over pixels and images, sum over the N."""
    pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # Eq. (8), (B, N, h, w)
    return pixels.mean((0, 2, 3)).sum()


def dynamic_identity_loss(logits: Tensor, pid: Tensor, weights: Tensor, *, smoothing: float) -> Tensor:
    """L_d_cls. logits (B, K, J), pid (B,), weights (B, K) of the vectors: their weighted sum, mean over images."""
    parts = logits.shape[1]
    pids = pid.repeat_interleave(parts)  # (B,) -> (B P,)
    losses = F.cross_entropy(logits.flatten(0, 1), pids, label_smoothing=smoothing, reduction="none")  # Eq. (10)
    return (losses.unflatten(0, (-1, parts)) * weights).sum(1).mean()  # (B K,) -> (B, K) -> ()


def share_right(logits: Tensor, pid: Tensor, taking_part: Tensor) -> Tensor:
    """Of the vectors that take part, the share whose largest logit is the right identity: mean over images, () in
    [0, 1]. logits (B, K, J), pid (B,), taking_part (B, K) of 0 and 1; an image with none of them counts as wrong.
    """
    right = (logits.argmax(2) == pid[:, None]) * taking_part  # (B, K)
    return (right.sum(1) / taking_part.sum(1).clamp(min=1)).mean()


def shared_triplet(f: Tensor, v: Tensor, pid: Tensor, *, distance: str, margin: float) -> Tensor:
    """Batch-hard triplet on the mean over shared parts of their distance: f (B, P, D), v (B, P), pid (B,).

    Pairs that share nothing are not mined. Always at full precision: distances are small differences.
    """
    with torch.autocast(f.device.type, enabled=False):
        flat, v, pid = whole_batch(full(f).flatten(1), full(v), pid)  # (B, P, D) -> (B, P D)
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
        y = torch.einsum("bgi,gio->bgo", x, self.weight)  # (B, G, inputs) -> (B, G, outputs)
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    """Fig. 3 (one region) and Fig. 4 (four): x (B, C, h, w) -> logits of the masks (B, N, h, w), channels (B, N, C).

    The attended map of region i is x times sigmoid(logits_i) times channels_i. The first convolution is shared by the
    regions; the second is theirs, as are both layers of the channel attention.
    """

    def __init__(self, *, channels: int, gamma: int, regions: int):
        super().__init__()
        hidden = max(channels // gamma, NARROWEST)
        self.spatial = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden),
                                     nn.ReLU(inplace=True), nn.Conv2d(hidden, regions, 3, padding=1))
        self.squeeze = nn.Linear(channels, regions * hidden)
        self.excite = StackedLinear(regions, hidden, channels, bias=True)
        self.regions = regions

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.squeeze(x.mean((2, 3))))  # (B, C, h, w) -> (B, C) -> (B, N hidden)
        channels = self.excite(hidden.unflatten(1, (self.regions, -1))).sigmoid()  # (B, N, hidden) -> (B, N, C)
        return self.spatial(x), channels  # (B, C, h, w) -> (B, N, h, w)


class Heads(nn.Module):
    """A vector each: 1x1 convolution to `size` after pooling; of the last K BN and classifier. Nothing is shared."""

    def __init__(self, *, vectors: int, classified: int, inputs: int, size: int, ids: int):
        super().__init__()
        self.reduce = StackedLinear(vectors, inputs, size, bias=False)  # a bias would vanish in BN
        self.norm = nn.BatchNorm1d(classified * size)  # per channel, so the vectors share nothing
        self.classify = StackedLinear(classified, size, ids, bias=False, std=0.001)
        self.unclassified = vectors - classified

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, V, C) of maps -> vectors f (B, V, D) as the triplet sees them, and (B, K, D) after BN."""
        f = self.reduce(pooled)  # (B, V, C) -> (B, V, D)
        own = f[:, self.unclassified:]  # (B, K, D)
        return f, self.norm(own.flatten(1)).view_as(own)


class Seen(NamedTuple):
    """What an image shows. Visibilities are 0 or 1, without gradient."""
    whole_logits: Tensor | None  # (B, 1, H/4, W/4); None without whole attention
    local_logits: Tensor  # (B, 4, R, w)
    f: Tensor  # (B, V, D), before BN
    normed: Tensor  # (B, K, D), those that are classified, after it
    visible: Tensor  # (B, 8): whole body (always 1), four regions, three stripes
    chosen: Tensor  # (B, 5), f_choose
    inside: Tensor  # (B, 5, R) bool, rows of FR


class Sgsfa(nn.Module):
    """The network. ids: J; size: D; gamma, local_gamma: how much narrower the attention is than its map.

    The loss. trade_off: lambda of Eq. 11; at 0 no mask is trained, so that the body begins in row 0 and everything
    counts as visible. classified: spatial (L_d_cls has the stripes and their unions) | all (whole body and regions
    too). triplet: semantic (whole body and regions) | all (stripes too). regions: sampled (a random subset of f_choose
    and the mean of its losses) | all (the sum over f_choose). distance: D of Eq. 6, cosine | euclidean, in matching
    and in the triplet.

    visible_share: a region is visible from this share of its median area on; stripe_threshold: a stripe from this mean
    of the body's mask on. whole_attention: Table 5's row.

    Matching, which training does not depend on. match: parts (Eq. 6's seven) | semantic (its four regions) | spatial
    (its three stripes), in which the whole body's vector compares only pairs that share no part | parts_and_whole (it
    is a part as others, always visible). reduction: mean over the shared parts, or sum, Eq. 7 as printed. head_top:
    first | paper, see `head_row`; training takes first.

    Before training, `measure` needs the training set's maps; the medians of the pseudo-masks' areas stay with the
    weights.
    """

    whole_body = 0  # the part by which pairs that share none are compared
    classified_by = ("heads.classify.",)

    def __init__(self, *, backbone: Backbone, ids: int, match: str, size: int, gamma: int, local_gamma: int,
                 whole_attention: bool, label_smoothing: float, margin: float, trade_off: float,
                 visible_share: float, stripe_threshold: float, distance: str, reduction: str, head_top: str,
                 classified: str, triplet: str, regions: str):
        super().__init__()
        check_choices("SGSFA", CHOICES, features=match, distance=distance, reduction=reduction, head_top=head_top,
                      classified=classified, triplet=triplet, regions=regions)
        if whole_attention and not backbone.staged:
            raise ValueError("SGSFA's whole-body attention stands between the first stage and the second, and backbone "
                             f"{backbone.architecture!r} gives its maps at once; set whole_attention to false, or take "
                             "a Swin or a convolutional network")
        if not 0 <= trade_off <= 1:
            raise ValueError(f"trade_off is {trade_off}; lambda of Eq. 11 lies between 0 and 1")
        self.match, self.distance, self.reduction, self.head_top = match, distance, reduction, head_top
        self.size, self.label_smoothing, self.margin, self.trade_off = size, label_smoothing, margin, trade_off
        self.visible_share, self.stripe_threshold = visible_share, stripe_threshold
        self.mined = SEMANTIC if triplet == "semantic" else COMPARED
        self.first_classified = SEMANTIC if classified == "spatial" else 0  # of VECTORS; all after it are too
        self.sampled = regions == "sampled"

        self.backbone = backbone
        self.whole = None
        if whole_attention:
            self.whole = Attention(channels=backbone.channels[0], gamma=gamma, regions=1)
        self.local = Attention(channels=backbone.width, gamma=local_gamma, regions=len(REGIONS))
        self.heads = Heads(vectors=len(VECTORS), classified=len(VECTORS) - self.first_classified,
                           inputs=backbone.width, size=size, ids=ids)

        self.medians: Tensor
        self.register_buffer("medians", torch.full((len(REGIONS),), torch.nan))
        self._ready = False

    @property
    def matched(self) -> list[int]:
        """Which of VECTORS are embedded: the whole body first, then what is matched."""
        regions, stripes = range(1, SEMANTIC), range(SEMANTIC, COMPARED)
        return [0, *(() if self.match == "spatial" else regions), *(() if self.match == "semantic" else stripes)]

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.size,) * len(self.matched)

    def measure(self, maps: Iterable[np.ndarray]) -> dict[str, Any]:
        """Take the medians from the training images' maps (5, h', w') uint8, p x 255; nothing more to be recorded."""
        areas = [mask_areas(torch.from_numpy(probs4).float()[None] / 255) for probs4 in maps]
        self.medians.copy_(median_areas(*(torch.cat(column) for column in zip(*areas, strict=True))))
        return {}

    def body(self, image: Tensor, camera: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """image (B, 3, H, W), camera (B,) -> logits of the whole body's mask (B, 1, H/4, W/4), None without it, and the
        last map (B, C, R, w)."""
        if self.whole is None:
            return None, self.backbone(image, camera)[-1]  # (B, 3, H, W) -> (B, C, R, w)

        first, *later = self.backbone.each_stage(camera)
        x = first(image)  # (B, 3, H, W) -> (B, C1, H/4, W/4)
        logits, channels = self.whole(x)  # (B, 1, H/4, W/4), (B, 1, C1)
        x = x * logits.sigmoid() * channels[:, 0, :, None, None]  # 3.1, f' = f M'

        for stage in later:
            x = stage(x)  # -> (B, C, R, w)
        return logits, x

    def see(self, image: Tensor, camera: Tensor | None = None, *, head_top: str) -> Seen:
        """image (B, 3, H, W), camera (B,) -> vectors and visibilities.

        Attended maps are never made: their mean is a product of x with the mask, times the channels; and a 1x1
        convolution before the mean is the same as after it.
        """
        whole_logits, x = self.body(image, camera)  # (B, 3, H, W) -> (B, 1, H/4, W/4), (B, C, R, w)
        logits, channels = self.local(x)  # (B, C, R, w) -> (B, 4, R, w), (B, 4, C)
        masks = full(logits).sigmoid()
        m = masks.detach()

        inside, regions, stripes = self.shown(m, head_top=head_top)  # (B, 5, R), (B, 4), (B, 3)
        visible = torch.cat([m.new_ones(len(m), 1), regions, stripes], 1)  # (B, 8)

        f, normed = self.heads(self.pooled(x, masks, channels, inside))  # (B, V, C) -> (B, V, D), (B, K, D)
        return Seen(whole_logits, logits, f, normed, visible, chosen_regions(stripes), inside)

    def shown(self, m: Tensor, *, head_top: str) -> tuple[Tensor, Tensor, Tensor]:
        """Learned masks m (B, 4, R, w) -> rows of FR (B, 5, R) bool; visibility of regions (B, 4), of stripes (B, 3).

        Where lambda is 0 nothing has taught the masks, and none is asked: a stripe that has rows is visible.
        """
        if self.trade_off == 0:
            inside = region_rows(torch.zeros(len(m), dtype=torch.int64, device=m.device), m.shape[2])  # (B, 5, R)
            return inside, m.new_ones(len(m), len(REGIONS)), inside[:, :3].any(2).to(m.dtype)

        inside = region_rows(head_row(m[:, 0], rule=head_top), m.shape[2])  # (B, R, w) -> (B,) -> (B, 5, R)
        medians = self.medians.nan_to_num(nan=0.0, posinf=torch.inf)
        return (inside, region_visibility(m, medians, share=self.visible_share),
                stripe_visibility(m, inside, threshold=self.stripe_threshold))

    @staticmethod
    def pooled(x: Tensor, masks: Tensor, channels: Tensor, inside: Tensor) -> Tensor:
        """Last map x (B, C, R, w), masks (B, 4, R, w), channels (B, 4, C), rows of FR (B, 5, R) -> (B, V, C).

        The mean of x, of the four attended maps, and of x over each of FR.
        """
        rows, columns = x.shape[2:]
        pixels = rows * columns
        strips = row_weights(inside, masks.dtype).repeat_interleave(columns, 2) / columns  # (B, 5, R w)
        everywhere = masks.new_full((len(x), 1, pixels), 1 / pixels)
        weights = torch.cat([everywhere, masks.flatten(2) / pixels, strips], 1)  # (B, V, R w)

        means = weights @ x.flatten(2).mT  # (B, V, R w) x (B, R w, C) -> (B, V, C)
        whole, local, stripes = means.split((1, len(REGIONS), len(FR)), 1)
        return torch.cat([whole, local * channels, stripes], 1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, probs4 (B, 5, H/4, W/4) in [0, 1] with background first, and where regions are sampled uniform
        (B,) in [0, 1) -> total loss, named terms.
        """
        self._check_medians()
        pid, seen = batch["pid"], self.see(batch["image"], batch.get("camid"), head_top="first")
        logits = full(self.heads.classify(seen.normed))  # (B, K, D) -> (B, K, J)
        taking_part, weights = self._classified(seen, batch)  # (B, K) twice

        triplet = shared_triplet(seen.f[:, :self.mined], seen.visible[:, :self.mined], pid, distance=self.distance,
                                 margin=self.margin)
        attention = self._attention_loss(seen, batch["probs4"])
        identity = dynamic_identity_loss(logits, pid, weights, smoothing=self.label_smoothing)
        loss = self.trade_off * (triplet + attention) + (1 - self.trade_off) * identity  # Eq. (11)

        scalars = {"triplet": triplet.detach(), "attention": attention.detach(), "id": identity.detach()}
        return loss, scalars | {"accuracy": share_right(logits, pid, taking_part)}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image alone. Each part's vector at length 1 where D is cosine; an empty stripe's is 0.

        What is classified is matched after BN, other vectors as the triplet sees them. The whole body's vector comes
        first, with v = 0 where it is not matched. Weights without medians (a network never trained) count every region
        as visible.
        """
        seen = self.see(batch["image"], batch.get("camid"), head_top=self.head_top)
        vectors = torch.cat([seen.f[:, :self.first_classified], seen.normed], 1)[:, :COMPARED]  # (B, 8, D)
        vectors[:, SEMANTIC:] *= seen.inside[:, :3].any(2, keepdim=True)  # (B, 3, R) -> (B, 3, 1)

        parts, visible = vectors[:, self.matched].float(), seen.visible[:, self.matched].float()
        if self.distance == "cosine":
            parts = F.normalize(parts, dim=2)
        if self.match != "parts_and_whole":
            visible[:, self.whole_body] = 0
        return parts.flatten(1), visible

    def _classified(self, seen: Seen, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Which vectors L_d_cls trains in each image (B, K), of 0 and 1, and with which weight (B, K)."""
        spatial = weights = seen.chosen  # (B, 5)
        if self.sampled:
            spatial = drawn_regions(seen.chosen, batch["uniform"])
            weights = spatial / spatial.sum(1, keepdim=True).clamp(min=1)

        semantic = seen.visible[:, self.first_classified:SEMANTIC]  # (B, 5), of none where it is not classified
        return torch.cat([semantic, spatial], 1), torch.cat([semantic, weights], 1)

    def _attention_loss(self, seen: Seen, probs4: Tensor) -> Tensor:
        """L_se, Eq. (9)."""
        whole, local = seen.whole_logits, seen.local_logits  # (B, 1, H/4, W/4) or None, (B, 4, R, w)
        rows, columns = local.shape[2:]
        whole_target, local_target = pseudo_masks(probs4, whole=(4 * rows, 4 * columns), local=(rows, columns))

        loss = attention_loss(local.to(probs4.dtype), local_target)
        return loss if whole is None else loss + attention_loss(whole.to(probs4.dtype), whole_target)

    def _check_medians(self) -> None:
        """ValueError where nobody set or loaded the medians. Looked up once: on a GPU it waits for the device."""
        self._ready = self._ready or not bool(self.medians.isnan().any())
        if not self._ready:
            raise ValueError("SGSFA has no median areas of the pseudo-masks; call measure with the maps of its "
                             "training set before training, or load weights that hold them")
