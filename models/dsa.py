"""DSA-reID: densely semantically aligned re-ID (Zhang et al., CVPR 2019). Table of equations: docs/papers/dsa.md.

What distinguishes it: 24 body part images in u,v space (DSAP images), aligned texel by texel, pass a network of
their own (DSAG-Stream) whose features are added to those of the whole image (MF-Stream) in training. At test time
the DSAG-Stream is dropped, and with it every need for a parser.

B images, C channels, h x w a map, D numbers of a feature, J identities. A joined tensor of G branches is (B, G C, h,
w); the loop's form is a list of G tensors (B, C, h, w).
Part i of the 8: torso, hand, foot, upper leg, lower leg, upper arm, lower arm, head. f, d, z are the features of
MF-Stream, DSAG-Stream and their fusion; _G global, _L the eight local ones side by side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, last_stage
from models.choices import check_choices
from models.classifiers import hidden_classifier
from models.distributed_batch import processes, whole_batch
from models.losses import accuracy, batch_hard_triplet, euclidean, smoothed_cross_entropy
from models.resnet import BasicBlock, Bottleneck

CHOICES = {"features": ("f", "z", "z_global", "z_local"), "fusion": ("add", "concat")}
PARTS = 8
PRINTED = 256  # channels of a local branch, Table 1
# Fig. 4. First the left and right of each part, by DensePose's ids (front and back stay apart) ...
LEFT_RIGHT = ((1,), (2,), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16), (17, 18), (19, 20), (21, 22),
              (23, 24))
# ... then front and back: places in LEFT_RIGHT, counted from 1.
FRONT_BACK = ((1, 2), (3,), (4,), (5, 6), (7, 8), (9, 10), (11, 12), (13,))

Branched = Tensor | list[Tensor]


class BranchConv(nn.Module):
    """Convolution and batch normalisation of G branches that share no weight; `shared`: all read the same tensor.

    A list is convolved branch by branch; a joined tensor by one grouped convolution. Both give the same numbers.
    """

    def __init__(self, branches: int, inputs: int, outputs: int, kernel: int, *, stride: int = 1,
                 shared: bool = False):
        super().__init__()
        self.branches, self.shared = branches, shared
        groups = 1 if shared else branches
        self.conv = nn.Conv2d(groups * inputs, branches * outputs, kernel, stride=stride, padding=kernel // 2,
                              groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(branches * outputs)  # per channel, so the branches share nothing

    def forward(self, x: Branched) -> Branched:
        if isinstance(x, Tensor):
            return self.norm(self.conv(x))
        if self.shared:
            return separated(self.norm(self.conv(x[0])), self.branches)

        norm, conv, g = self.norm, self.conv, self.branches
        assert norm.running_mean is not None and norm.running_var is not None
        outputs = []
        for branch, w, mean, var, scale, shift in zip(
                x, conv.weight.chunk(g), norm.running_mean.chunk(g), norm.running_var.chunk(g), norm.weight.chunk(g),
                norm.bias.chunk(g), strict=True):
            y = F.conv2d(branch, w, stride=conv.stride, padding=conv.padding)  # (B, C, h, w) -> (B, outputs, h', w')
            outputs.append(F.batch_norm(y, mean, var, scale, shift, self.training, norm.momentum or 0.0, norm.eps))
        return outputs


class BranchBlock(nn.Module):
    """A residual block of G unshared branches: kernels (3, 3) is ResNet-18's, (1, 3, 1) ResNet-50's."""

    def __init__(self, branches: int, inputs: int, widths: tuple[int, ...], kernels: tuple[int, ...], *,
                 stride: int = 1, shared: bool = False):
        super().__init__()
        sizes = (inputs, *widths)
        # The stride is that of the first 3x3, as in torchvision.
        strided = kernels.index(3)
        self.convs = nn.ModuleList([
            BranchConv(branches, sizes[i], sizes[i + 1], kernel, stride=stride if i == strided else 1,
                       shared=shared and i == 0) for i, kernel in enumerate(kernels)])

        self.shortcut = None
        if stride != 1 or inputs != widths[-1] or shared:
            self.shortcut = BranchConv(branches, inputs, widths[-1], 1, stride=stride, shared=shared)

    def forward(self, x: Branched) -> Branched:
        y = x
        for conv in self.convs[:-1]:
            y = relu(conv(y))
        y, x = self.convs[-1](y), x if self.shortcut is None else self.shortcut(x)
        return relu(add(y, x))


class DsagStream(nn.Module):
    """Table 1. DSAP images (B, 24, 3, 32, 32) -> d_G (B, D) and d_L (B, D), each None if not asked for.

    sizes: D of f_G (global) and of f_L (local); width scales every channel of Table 1, but conv5_g always ends at f_G's
    size, and conv5_l at 1/8 of f_L's.
    """

    def __init__(self, *, sizes: dict[str, int], width: float, use_global: bool, use_local: bool):
        super().__init__()
        c1, c2, c4, c5_g, c5_l = (max(1, round(width * c)) for c in (32, 64, 128, 2048, 256))
        self.conv1 = BranchConv(24, 3, c1, 5)
        self.conv2 = BranchConv(24, c1, c2, 3)
        self.conv3 = nn.Sequential(BranchBlock(24, c2, (c2, c2), (3, 3), stride=2),
                                   BranchBlock(24, c2, (c2, c2), (3, 3)))
        self.conv4 = nn.Sequential(BranchBlock(13, c2, (c4, c4), (3, 3), stride=2),
                                   BranchBlock(13, c4, (c4, c4), (3, 3)))

        self.conv5_g = self.conv5_l = None
        if use_global:
            self.conv5_g = nn.Sequential(_basic(PARTS * c4, c5_g), _basic(c5_g, sizes["global"]))
        if use_local:
            part = sizes["local"] // PARTS
            self.conv5_l = nn.Sequential(BranchBlock(PARTS, c4, (c5_l, c5_l), (3, 3)),
                                         BranchBlock(PARTS, c5_l, (part, part), (3, 3)))

    def forward(self, dsap: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # conv1 joined everywhere: on CPUs two threads normalising a few channels hinder each other (shared cache line)
        texels = dsap.flatten(1, 2).contiguous(memory_format=torch.channels_last)  # -> (B, 24 3, 32, 32)
        x = branched(F.relu(self.conv1(texels), inplace=True), 24)  # -> (B, 24 c1, 32, 32), here and below or a list
        x = relu(self.conv2(x))  # -> (B, 24 c2, 32, 32)
        x = merge(self.conv3(x), LEFT_RIGHT)  # -> (B, 24 c2, 16, 16) -> (B, 13 c2, 16, 16)
        x = merge(self.conv4(x), FRONT_BACK)  # -> (B, 13 c4, 8, 8) -> (B, 8 c4, 8, 8)

        d_g = None if self.conv5_g is None else self.conv5_g(joined(x)).mean((2, 3))  # Eq. (1), -> (B, D)
        d_l = None if self.conv5_l is None else pooled(self.conv5_l(x))  # Eq. (2), -> (B, D)
        return d_g, d_l


class MfHead(nn.Module):
    """F of conv4_x (B, C, h, w) -> f_G (B, D) and f_L (B, D), each None if not asked for. It starts at random.

    f_G: conv5_x of the ResNet at stride 1, or the last stage that stands in its place. f_L: eight branches of
    conv5_x's blocks, each with 1/8 of its channels; on timm's networks those of a ResNet-50, as printed
    (three of 64, 64, 256 channels), however narrow the network is.

    inputs: C; outputs: of the last stage; sizes: D of f_G (global) and of f_L (local).
    """

    def __init__(self, *, architecture: str, inputs: int, outputs: int, use_global: bool, use_local: bool):
        super().__init__()
        conv5 = last_stage(architecture)
        first = conv5[0] if isinstance(conv5, nn.Sequential) else conv5
        part, blocks = outputs // PARTS, 2
        kernels: tuple[int, ...] = (3, 3)
        widths: tuple[int, ...] = (part, part)
        if not isinstance(first, BasicBlock):
            part, blocks = (part if isinstance(first, Bottleneck) else PRINTED), 3
            kernels, widths = (1, 3, 1), (part // 4, part // 4, part)
        self.sizes = {"global": outputs, "local": PARTS * part}

        self.conv5 = conv5 if use_global else None
        self.branches = None
        if use_local:
            self.branches = nn.Sequential(BranchBlock(PARTS, inputs, widths, kernels, shared=True),
                                          *[BranchBlock(PARTS, part, widths, kernels) for _ in range(blocks - 1)])

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        f_g = None if self.conv5 is None else self.conv5(x).mean((2, 3))  # (B, C, h, w) -> (B, D, h, w) -> (B, D)
        f_l = None if self.branches is None else pooled(self.branches([x] if looped(x) else x))  # -> 8 of (B, D/8)
        return f_g, f_l


class Dsa(nn.Module):
    """The two streams. ids: J. backbone gives conv1 - conv4 and loses its last stage: the head in its place is new.

    Switches: Table 3 (use_global, use_local, use_dsag; without the DSAG-Stream z is f, and the same losses act on f:
    "Baseline (Two branches)") and Table 5 (fusion add | concat: an FC 2 d -> d on [f, d]).
    Loss: id_weight [ID(f_G) + sum_i ID(f_L,i)] + fused_id_weight [ID(z_G) + ID(z_L)]
    + triplet_weight [T(z_G) + T(z_L)], T on raw Euclidean distances.

    Matching, which training does not depend on. match: f (no DSAP images needed) | z | z_global | z_local (these read
    `dsap`, but not its `valid`: texels that are not valid are 0 already).
    """

    distance = "euclidean"
    reduction = "mean"
    classified_by = ("classify_f.", "classify_z.")

    def __init__(self, *, backbone: Backbone, ids: int, match: str, dsag_width: float, use_global: bool,
                 use_local: bool, use_dsag: bool, fusion: str, label_smoothing: float, id_weight: float,
                 fused_id_weight: float, triplet_weight: float, margin: float):
        super().__init__()
        check_choices("DSA-reID", CHOICES, features=match, fusion=fusion)
        self.names = ("global",) * use_global + ("local",) * use_local
        _check(match, self.names, use_dsag=use_dsag)
        self.match, self.label_smoothing, self.margin = match, label_smoothing, margin
        self.id_weight, self.fused_id_weight, self.triplet_weight = id_weight, fused_id_weight, triplet_weight

        outputs = backbone.width
        self.backbone = backbone.without_last_stage()
        self.head = MfHead(architecture=backbone.architecture, inputs=backbone.width, outputs=outputs,
                           use_global=use_global, use_local=use_local)
        size = self.head.sizes

        self.dsag = None
        self.fuse = nn.ModuleDict()
        if use_dsag:
            self.dsag = DsagStream(sizes=size, width=dsag_width, use_global=use_global, use_local=use_local)
            if fusion == "concat":
                self.fuse = nn.ModuleDict({name: nn.Linear(2 * size[name], size[name]) for name in self.names})

        pieces = {"global": 1, "local": PARTS}  # f_G has one classifier, f_L one per part
        self.classify_f = nn.ModuleDict({name: nn.ModuleList([
            hidden_classifier(size[name] // pieces[name], ids) for _ in range(pieces[name])]) for name in self.names})
        self.classify_z = nn.ModuleDict({name: hidden_classifier(size[name], ids) for name in self.names})

    @property
    def matched(self) -> tuple[str, ...]:
        """global and local, of those that exist and are matched."""
        return self.names if self.match in ("f", "z") else (self.match[2:],)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (sum(self.head.sizes[name] for name in self.matched),)

    def mf_features(self, image: Tensor) -> dict[str, Tensor]:
        """image (B, 3, H, W) -> {global: f_G, local: f_L}, each (B, D)."""
        f_g, f_l = self.head(self.backbone(image)[-1])  # (B, 3, H, W) -> (B, C, h, w) -> (B, D) twice
        return {name: f for name, f in (("global", f_g), ("local", f_l)) if f is not None}

    def fused(self, f: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """{global: z_G, local: z_L}: z = f + d (3.2.3), or FC([f, d]); without a DSAG-Stream z = f."""
        if self.dsag is None:
            return f

        d = dict(zip(("global", "local"), self.dsag(batch["dsap"]), strict=True))  # (B, 24, 3, 32, 32) -> (B, D) twice
        if self.fuse:
            return {name: self.fuse[name](torch.cat([f[name], d[name]], 1)) for name in f}
        return {name: f[name] + d[name] for name in f}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image, pid, dsap (B, 24, 3, 32, 32) -> total loss, named terms; `accuracy` is that of f's classifiers."""
        f, pid = self.mf_features(batch["image"]), batch["pid"]  # (B, 3, H, W) -> {global, local: (B, D)}
        z = self.fused(f, batch)  # {global, local: (B, D)}
        terms: dict[str, Tensor] = {}
        right: dict[str, Tensor] = {}
        for name in self.names:
            logits = self._classify_f(name, f[name])  # (B, D) -> (B, J), or 8 of (B, D/8) -> (B, J)
            terms[f"id_f_{name}"] = torch.stack([self._identity(y, pid) for y in logits]).sum()
            right[name] = torch.stack([accuracy(y, pid) for y in logits]).mean()

            terms[f"id_z_{name}"] = self._identity(self.classify_z[name](z[name]), pid)  # (B, D) -> (B, J)
            matched, pids = whole_batch(z[name], pid)
            terms[f"triplet_{name}"] = batch_hard_triplet(euclidean(matched, matched), pids, margin=self.margin)

        weights = {"id_f": self.id_weight, "id_z": self.fused_id_weight, "triplet": self.triplet_weight}
        loss = torch.stack([weights[name.rpartition("_")[0]] * term for name, term in terms.items()]).sum()
        scalars = {name: term.detach() for name, term in terms.items()}
        return loss, scalars | {"accuracy": right[self.names[0]]}

    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One part: the matched features side by side, at length 1 together."""
        features = self.mf_features(batch["image"])
        if self.match != "f":
            features = self.fused(features, batch)

        feature = torch.cat([features[name] for name in self.matched], 1)  # -> (B, D) or (B, 2 D)
        feature = F.normalize(feature, dim=1).float()
        return feature, feature.new_ones(len(feature), 1)

    def _identity(self, logits: Tensor, pid: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, pid, smoothing=self.label_smoothing)

    def _classify_f(self, name: str, f: Tensor) -> list[Tensor]:
        """Logits of f_G, or of each f_L,i."""
        classifiers = self.classify_f[name]
        assert isinstance(classifiers, nn.ModuleList)
        return [classify(part) for classify, part in zip(classifiers, f.chunk(len(classifiers), 1), strict=True)]


def _check(match: str, branches: tuple[str, ...], *, use_dsag: bool) -> None:
    if not branches:
        raise ValueError("DSA-reID needs its global or its local branches; both are switched off")
    if match.startswith("z") and not use_dsag:
        raise ValueError(f"features {match}: this DSA-reID was built without its DSAG-Stream; take f")
    if match[2:] and match[2:] not in branches:
        raise ValueError(f"features {match}: this DSA-reID was built without its {match[2:]} branches; take f or z")


def looped(x: Tensor) -> bool:
    """Whether branches run one by one: on a CPU they do (benchmarks/step_time.py), elsewhere as one launch.

    Not where several processes share a batch: the loop normalises by the rows of one of them.
    """
    return x.device.type == "cpu" and processes() == 1


def branched(x: Tensor, branches: int) -> Branched:
    """(B, G C, h, w) -> the form that its device runs fastest."""
    return separated(x, branches) if looped(x) else x


def separated(x: Tensor, branches: int) -> list[Tensor]:
    """(B, G C, h, w) -> G tensors (B, C, h, w), each in channels_last memory of its own, as oneDNN wants them."""
    return [branch.contiguous(memory_format=torch.channels_last) for branch in x.chunk(branches, 1)]


def joined(x: Branched) -> Tensor:
    """The branches side by side along the channels: (B, G C, h, w)."""
    return x if isinstance(x, Tensor) else torch.cat(x, 1)


def relu(x: Branched) -> Branched:
    return F.relu(x, inplace=True) if isinstance(x, Tensor) else [F.relu(branch, inplace=True) for branch in x]


def add(x: Branched, y: Branched) -> Branched:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x + y
    return [a + b for a, b in zip(x, y, strict=True)]


def pooled(x: Branched) -> Tensor:
    """Each branch's mean over its map, side by side: (B, G C)."""
    return x.mean((2, 3)) if isinstance(x, Tensor) else torch.cat([branch.mean((2, 3)) for branch in x], 1)


def merge(x: Branched, groups: tuple[tuple[int, ...], ...]) -> Branched:
    """Add the branches of each group; groups count from 1, like body parts."""
    if isinstance(x, Tensor):
        branches = x.unflatten(1, (sum(map(len, groups)), -1))
        return torch.cat([branches[:, [i - 1 for i in group]].sum(1) for group in groups], 1)
    return [sum((x[i - 1] for i in group[1:]), x[group[0] - 1]) for group in groups]


def _basic(inputs: int, outputs: int) -> BasicBlock:
    """ResNet-18's block, at stride 1."""
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, downsample=shortcut)
