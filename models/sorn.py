"""SORN: semantic-aware occlusion-robust network (Zhang et al., TCSVT). Table of equations: docs/papers/sorn.md.

What distinguishes it: a semantic branch, trained beside the identity branches, says at test time which stripes of the
body are not occluded; only those local features are compared, together with a global feature whose channel sets were
each pushed onto another stripe (SPC loss).

B images, C backbone channels, h x w the last map (1/16 of the image), N channel sets, P stripes, K labels, J
identities.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.choices import check_choices
from models.classifiers import linear_classifier
from models.losses import accuracy, smoothed_cross_entropy

CHOICES = {"features": ("all", "global", "unmasked"), "reduction": ("mean", "sum")}
# From the 8 parts (background, head, torso, upper and lower arm, upper and lower leg, foot) to K labels.
LABELS = {8: (0, 1, 2, 3, 4, 5, 6, 7), 5: (0, 1, 2, 3, 3, 4, 4, 4), 2: (0, 1, 1, 1, 1, 1, 1, 1)}


def stripes(height: int, count: int) -> list[tuple[int, int]]:
    """Rows of `count` stripes: stripe p is floor(p height / count) .. floor((p + 1) height / count)."""
    if count > height:
        raise ValueError(f"{count} stripes do not fit a map of {height} rows; take fewer, or a taller image")

    cuts = [stripe * height // count for stripe in range(count + 1)]
    return list(zip(cuts, cuts[1:], strict=False))


def normalised_maps(a: Tensor) -> Tensor:
    """Aggregation maps A (B, N, h, w) -> M in (0, 1)."""
    mean = a.mean((2, 3), keepdim=True)  # Eq. (3), (B, N, h, w) -> (B, N, 1, 1)
    return torch.sigmoid(a - mean)  # Eq. (4)


def spc_loss(m: Tensor, *, reduction: str) -> Tensor:
    """Spatial-patch contrastive loss of maps M (B, N, h, w): what map n holds outside its own stripe n.

    reduction mean divides by the h w pixels; sum is the printed form. Summed over maps, averaged over images.
    """
    _, n, height, width = m.shape
    outside = m.new_ones(n, height, 1)
    for own, (top, bottom) in enumerate(stripes(height, n)):
        outside[own, top:bottom] = 0

    total = (m * outside).sum((1, 2, 3)).mean()  # Eq. (5), (B, N, h, w) -> (B,) -> ()
    return total / (height * width) if reduction == "mean" else total


def visibility_scores(e: Tensor, patches: int) -> Tensor:
    """Foreground mask E (B, h', w') of 0 and 1 -> v (B, P), each stripe's share of foreground."""
    rows = stripes(e.shape[1], patches)
    return torch.stack([e[:, top:bottom].mean((1, 2)) for top, bottom in rows], 1)  # Eq. (11)


def indicators(v: Tensor, tau: float) -> Tensor:
    """v (B, P) -> I (B, P), 1 where a stripe shows at least tau of foreground."""
    return (v >= tau).to(v.dtype)  # Eq. (12)


class SemanticBranch(nn.Module):
    """Maps of layer2, layer3, layer4 -> logits (B, K, 4h, 4w). Two 3x3 deconvolutions of stride 2, then 1x1."""

    def __init__(self, *, channels: tuple[int, ...], labels: int):
        super().__init__()
        width = channels[3] // 8  # 256 on a ResNet-50
        self.up1 = _deconvolution(channels[2] + channels[3], width)
        self.up2 = _deconvolution(width + channels[1], width)
        self.classify = nn.Conv2d(width, labels, 1)

    def forward(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> Tensor:
        x = self.up1(torch.cat([layer3, layer4], 1))  # (B, C3 + C4, h, w) -> (B, width, 2h, 2w)
        x = self.up2(torch.cat([layer2, x], 1))  # (B, C2 + width, 2h, 2w) -> (B, width, 4h, 4w)
        return self.classify(x)  # -> (B, K, 4h, 4w)


def _deconvolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False),
                         nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Sorn(nn.Module):
    """The network. ids: J. The switches are the paper's ablations (Tables I - III) and sweeps (Fig. 8).

    With the semantic branch alone it is Table III's external segmentation network (+S): see `maps`.
    channels: N c', kept when N varies; reduction: mean | sum over pixels in Eq. 5 and 7 (sum is the printed form).

    Matching, which training does not depend on. match: all (Eq. 15: the global feature, and the local ones where the
    mask says so) | global (the global feature alone) | unmasked (global and every local feature). tau: of Eq. 12.
    """

    distance = "cosine"
    reduction = "mean"
    classified_by = ("global_classifier.", "local_classifiers.")

    def __init__(self, *, backbone: Backbone, ids: int, match: str, tau: float, patches: int, channel_sets: int,
                 channels: int, use_global: bool, use_local: bool, use_semantic: bool, labels: int,
                 label_smoothing: float, lambda_global: float, lambda_spc: float, lambda_seg: float,
                 reduction: str):
        super().__init__()
        check_choices("SORN", CHOICES, features=match, reduction=reduction)
        _check_branches(match, use_global=use_global, use_local=use_local, use_semantic=use_semantic)
        _check_channels(channels, channel_sets=channel_sets, labels=labels)
        self.match, self.tau = match, tau
        self.patches, self.channel_sets, self.channels = patches, channel_sets, channels
        self.use_global, self.use_local, self.use_semantic = use_global, use_local, use_semantic
        self.label_smoothing, self.pixel_reduction = label_smoothing, reduction
        self.lambda_global, self.lambda_spc, self.lambda_seg = lambda_global, lambda_spc, lambda_seg

        self.backbone = backbone
        width = backbone.width
        if use_local:
            self.local_norm = nn.BatchNorm1d(patches * width)  # per channel, so the stripes share nothing
            self.local_classifiers = nn.ModuleList([linear_classifier(width, ids) for _ in range(patches)])

        if use_global:
            self.expand = nn.Conv2d(width, channels, 1, bias=False)
            nn.init.normal_(self.expand.weight, std=0.001)  # torch's start saturates the sigmoid of Eq. (4)
            self.global_norm = nn.BatchNorm1d(channels)
            self.global_classifier = linear_classifier(channels, ids)

        if use_semantic:
            self.semantic = SemanticBranch(channels=backbone.channels, labels=labels)
            self.to_labels: Tensor
            self.register_buffer("to_labels", torch.tensor(LABELS[labels]), persistent=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """D_p of [global, local 1 .. P], of those that exist and are matched."""
        local = self.use_local and self.match != "global"
        return (self.channels,) * self.use_global + (self.backbone.width,) * (self.patches if local else 0)

    def local_features(self, t: Tensor) -> Tensor:
        """T (B, C, h, w) -> (B, P, C), f_local^p: each stripe's mean, after its own BN."""
        rows = stripes(t.shape[2], self.patches)
        pooled = [t[:, :, top:bottom].mean((2, 3)) for top, bottom in rows]  # P of (B, C)
        return self.local_norm(torch.cat(pooled, 1)).unflatten(1, (self.patches, -1))  # (B, P C) -> (B, P, C)

    def global_feature(self, t: Tensor) -> Tensor:
        """T (B, C, h, w) -> (B, N c'), f_global = BN(GAP(T_g)), T_g = expand(T).

        `expand` is linear, so GAP(T_g) = expand(GAP(T)): the maps T_g, 3/2 as deep as T, are never made.
        """
        pooled = t.mean((2, 3), keepdim=True)  # (B, C, h, w) -> (B, C, 1, 1)
        return self.global_norm(self.expand(pooled).flatten(1))  # -> (B, N c')

    def aggregation_maps(self, t: Tensor) -> Tensor:
        """T (B, C, h, w) -> A (B, N, h, w), the sum of T_g over each set of c' channels.

        Again by linearity: the sum of a set's 1x1 filters, applied once.
        """
        filters = self.expand.weight.unflatten(0, (self.channel_sets, -1)).sum(1)  # (N, C, 1, 1)
        return F.conv2d(t, filters)  # Eq. (2), (B, C, h, w) -> (B, N, h, w)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, and with the semantic branch labels (B, H/4, W/4) of 8 parts -> total loss, named terms."""
        _, layer2, layer3, t = self.backbone(batch["image"], batch.get("camid"))  # -> ..., (B, C, h, w)
        pid, terms, weights = batch["pid"], {}, {}

        if self.use_local:
            f = self.local_features(t)  # (B, C, h, w) -> (B, P, C)
            logits = [classify(f[:, p]) for p, classify in enumerate(self.local_classifiers)]  # P of (B, J)
            terms["local"] = torch.stack([F.cross_entropy(y, pid) for y in logits]).sum()  # Eq. (1)
            weights["local"] = 1.0
            right = torch.stack([accuracy(y, pid) for y in logits]).mean()

        if self.use_global:
            g = self.global_classifier(self.global_feature(t))  # (B, C, h, w) -> (B, N c') -> (B, J)
            m = normalised_maps(self.aggregation_maps(t))  # (B, C, h, w) -> (B, N, h, w)
            terms["global"] = F.cross_entropy(g, pid)  # Eq. (6)
            terms["spc"] = spc_loss(m, reduction=self.pixel_reduction)
            weights |= {"global": self.lambda_global, "spc": self.lambda_spc}
            right = accuracy(g, pid)

        if self.use_semantic:
            s, target = self.semantic(layer2, layer3, t), self.to_labels[batch["labels"]]  # (B, K, 4h, 4w), (B, 4h, 4w)
            terms["seg"] = smoothed_cross_entropy(s, target, smoothing=self.label_smoothing,
                                                  reduction=self.pixel_reduction)  # Eq. (7), (8), (9)
            weights["seg"] = self.lambda_seg
            if not (self.use_global or self.use_local):
                right = (s.argmax(1) == target).float().mean()

        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # Eq. (10)
        return loss, {name: term.detach() for name, term in terms.items()} | {"accuracy": right}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image, and where given visibility (B, P), scores of a mask or joints from outside (Table III: +S, +P).

        Features [global, local 1 .. P], each at length 1, so that 1 - cos is the part distance: with reduction mean,
        d = 1 - D_total of Eq. (15). Visibility [1, I_1 .. I_P].
        """
        if not self.sizes:
            raise ValueError("this SORN was built to segment only; it has no feature to match")

        _, layer2, layer3, t = self.backbone(batch["image"], batch.get("camid"))  # -> ..., (B, C, h, w)
        features, visibility = [], []
        if self.use_global:
            features.append(F.normalize(self.global_feature(t), dim=1))  # Eq. (13), (B, C, h, w) -> (B, N c')
            visibility.append(t.new_ones(len(t), 1))
        if self.use_local and self.match != "global":
            features.append(F.normalize(self.local_features(t), dim=2).flatten(1))  # Eq. (14), -> (B, P C)
            visibility.append(self._visibility(batch, layer2, layer3, t))  # (B, P)
        return torch.cat(features, 1).float(), torch.cat(visibility, 1).float()  # Eq. (15)

    def maps(self, batch: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """For figures: M (B, N, h, w) and E (B, 4h, 4w), each None where its branch is missing."""
        _, layer2, layer3, t = self.backbone(batch["image"], batch.get("camid"))
        m = normalised_maps(self.aggregation_maps(t)) if self.use_global else None
        return m, self._mask(layer2, layer3, t) if self.use_semantic else None

    def _mask(self, layer2: Tensor, layer3: Tensor, t: Tensor) -> Tensor:
        """E (B, 4h, 4w): 1 where the likeliest label is not background."""
        return (self.semantic(layer2, layer3, t).argmax(1) != 0).to(t.dtype)

    def _visibility(self, batch: dict[str, Tensor], layer2: Tensor, layer3: Tensor, t: Tensor) -> Tensor:
        """I (B, P) of the local features: from outside where the batch has it, else from this network's mask."""
        if self.match == "unmasked":
            return t.new_ones(len(t), self.patches)
        if "visibility" in batch:
            return indicators(batch["visibility"].to(t.dtype), self.tau)
        if not self.use_semantic:
            raise ValueError("features all: this SORN was built without its semantic branch and no visibility from "
                             "outside was given; take unmasked or global")

        e = self._mask(layer2, layer3, t)  # (B, 4h, 4w)
        return indicators(visibility_scores(e, self.patches), self.tau)  # (B, 4h, 4w) -> (B, P)


def _check_branches(match: str, *, use_global: bool, use_local: bool, use_semantic: bool) -> None:
    if not (use_global or use_local or use_semantic):
        raise ValueError("SORN needs one of its branches; all are switched off")
    if match == "global" and not use_global:
        raise ValueError("features global: this SORN was built without its global branch; take all or unmasked")


def _check_channels(channels: int, *, channel_sets: int, labels: int) -> None:
    if channels % channel_sets:
        raise ValueError(f"{channels} channels do not divide into {channel_sets} sets; choose a multiple")
    if labels not in LABELS:
        raise ValueError(f"SORN knows 8, 5 or 2 semantic labels, not {labels}")
