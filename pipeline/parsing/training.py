"""Training of human parsers: objective, optimizer, batches and metrics. The loop is pipeline/training/loop.py's.

A parser here is a module with `coarse(images) -> (logits, u,v maps or None)` at the head's stride and `parse`, as
models/parsers/torchvision_parsers.py has it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pipeline.base.progress import progress
from pipeline.loading.collate import batches_or_error, collate
from pipeline.parsing.augmentation import UNKNOWN
from pipeline.parsing.rendered_set import InOrder, LabelledSet
from pipeline.training.optimizers import Optimizer, Together, adam_update, muon_update

WARMUP = 0.05  # share of training
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.99)
MUON_FACTOR = 2.0  # Muon's rate over AdamW's
COLOURS = 3
RAREST = 5.0  # the largest ratio of a rare label's weight to the mean


class Objective(nn.Module):
    """A parser with its loss: cross-entropy over native labels, over the 8 parts where the labels give them, and L1 on
    the true label's u,v over the body.

    Labels are compared at half the input's size, u,v at the head's. A coarser cell's middle lies between two pixels;
    which one is read changes from step to step, so that nothing is shifted by half a pixel. Pixels of UNKNOWN label
    count nowhere.
    shares (C,): each native label's share of the pixels, from which the cross-entropies' weights come.
    """

    label_weights: Tensor
    part_weights: Tensor

    def __init__(self, parser: Any, *, shares: np.ndarray) -> None:
        super().__init__()
        self.parser = parser
        groups = np.eye(len(shares)) if parser.to_parts8 is None else parser.to_parts8.cpu().numpy()
        self.register_buffer("label_weights", rarity_weights(shares), persistent=False)
        self.register_buffer("part_weights", rarity_weights(groups @ shares), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """image (B,3,H,W), labels (B,H,W) and, read by a u,v head, uv (B,2,H,W); all uint8. has_uv (B,) bool: which
        images have u,v; without it all."""
        logits, uv = self.parser.coarse(batch["image"])
        before = int(torch.randint(2, ()))  # 0 | 1: the pixel after or before a cell's middle
        size = (batch["labels"].shape[1] // 2, batch["labels"].shape[2] // 2)
        labels = at_cells(batch["labels"], size, before).long()
        logits = F.interpolate(logits.contiguous(), size=size, mode="bilinear")
        known = labels != UNKNOWN
        loss = F.cross_entropy(logits, labels, weight=self.label_weights, ignore_index=UNKNOWN)
        of_label = logits.gather(1, (labels * known)[:, None])[:, 0]
        right = (of_label >= logits.amax(1)) & known  # a tenth of the time argmax takes
        scalars = {"label_loss": loss.detach(), "accuracy": right.sum() / known.sum()}

        if self.parser.to_parts8 is not None:
            error = parts_loss(logits, labels, self.parser.to_parts8, self.part_weights)
            loss, scalars["part_loss"] = loss + error, error.detach()
        if uv is not None:
            parts = at_cells(batch["labels"], uv.shape[-2:], before).long()
            parts = parts * (parts != UNKNOWN)
            if "has_uv" in batch:
                parts = parts * batch["has_uv"][:, None, None]
            error = uv_loss(uv, parts, at_cells(batch["uv"], uv.shape[-2:], before).float() / 255)
            loss, scalars["uv_loss"] = loss + error, error.detach()

        return loss, scalars


def parts_loss(logits: Tensor, labels: Tensor, to_parts: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of groups of labels: logits (B,C,h,w), labels (B,h,w), to_parts (G,C) ones and zeros,
    weights (G,). A label and its group agree early; which side of the body it is comes late. UNKNOWN stays unknown."""
    probabilities = torch.einsum("gc,bchw->bghw", to_parts, logits.softmax(1)).contiguous()
    groups = to_parts.new_full((UNKNOWN + 1,), UNKNOWN, dtype=torch.long)
    groups[:to_parts.shape[1]] = to_parts.argmax(0)
    return F.nll_loss(probabilities.clamp(min=1e-6).log(), groups[labels], weight=weights, ignore_index=UNKNOWN)


def at_cells(maps: Tensor, size: Sequence[int], before: int) -> Tensor:
    """(..., H, W) at the middles of h x w cells, where a middle between two pixels means the second, or with `before`
    the first."""
    rows, columns = ((torch.arange(cells, device=maps.device) + 0.5) * pixels / cells - 0.25 - before / 2
                     for cells, pixels in zip(size, maps.shape[-2:], strict=True))
    return maps[..., rows.round().long()[:, None], columns.round().long()]


def uv_loss(maps: Tensor, parts: Tensor, uv: Tensor) -> Tensor:
    """Mean |error| over body cells of the true part's pair: maps (B,24,2,h,w), parts (B,h,w) 0..24, uv (B,2,h,w)."""
    body = (parts > 0)[:, None]
    part = (parts - 1).clamp(min=0)[:, None, None].expand(-1, 1, 2, -1, -1)
    error = (maps.gather(1, part)[:, 0] - uv).abs() * body
    return error.sum() / (2 * body.sum()).clamp(min=1)


def rarity_weights(shares: np.ndarray, power: float = 0.25) -> Tensor:
    """Cross-entropy weights (share ** -power, their mean over pixels 1) of labels with these shares; at most
    RAREST."""
    weights = np.where(shares > 0, np.maximum(shares, 1e-6) ** -power, 0)
    weights = weights / (weights * shares).sum()
    return torch.from_numpy(np.minimum(weights, RAREST)).float()


def learning_rate(share: float, *, lr: float) -> float:
    """Linear from 0 to lr over the first 5 % of training, then half a cosine down to 0."""
    if share < WARMUP:
        return lr * (share + WARMUP / 20) / (WARMUP * 1.05)
    return lr * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP))) / 2


def make_optimizer(parser: nn.Module, *, dtype: torch.dtype = torch.float32) -> Together:
    """Muon for the convolutions that mix channels, at twice the rate of AdamW for all else: depthwise convolutions,
    those with a bias (squeeze-and-excitation, classifier), the first one, biases and normalisation.

    dtype: of Muon's iteration. No weight decay on biases and normalisation.
    """
    mixing = [module.weight for module in parser.modules()
              if isinstance(module, nn.Conv2d) and module.bias is None and module.weight.shape[1] > COLOURS]
    rest = set(parser.parameters()) - set(mixing)
    groups = [{"params": [weight for weight in parser.parameters() if weight in rest and (weight.ndim > 1) == wide],
               "factor": 1.0, "weight_decay": WEIGHT_DECAY if wide else 0.0} for wide in (True, False)]
    muon = Optimizer([{"params": mixing, "factor": MUON_FACTOR}], muon_update(dtype), weight_decay=WEIGHT_DECAY)
    return Together([Optimizer(groups, adam_update(BETAS, decoupled=True), weight_decay=WEIGHT_DECAY), muon])


def training_batches(sequence: Dataset, *, batch: int, start: int, stop: int, workers: int
                     ) -> Iterator[dict[str, Tensor]]:
    """The batches of steps start .. stop - 1 of an endless training sequence, such as `Shuffled`; each has exactly
    `batch` images, whatever came before."""
    loader = DataLoader(sequence, batch_size=batch, sampler=range(start * batch, stop * batch), num_workers=workers,
                        collate_fn=collate)
    yield from batches_or_error(loader)


def evaluate(parser: Any, labelled: LabelledSet, *, groups: np.ndarray, names: Sequence[str], batch: int,
             device: torch.device, coarser: tuple[np.ndarray, Sequence[str]] | None = None) -> dict[str, Any]:
    """Scores over all pixels of a held-out part: `iou` of each group of native labels (`groups`[label] is an index
    into `names`; None where a group is neither there nor found), their mean `miou<number of groups>`, the same over
    images with less than a tenth of the person hidden (`_clear`) and over the others (`_hidden`) where that is
    known, `pixel_accuracy` over native labels and, with a u,v head, `uv_error`: the mean |error|, in [0,1], over body
    pixels whose part is right. `coarser`: other groups and names that `iou` and mean are told for too."""
    loader = DataLoader(InOrder(labelled), batch_size=batch)
    parser.eval()
    parsed = ((truth, parser.parse(truth["image"].to(device)))
              for truth in progress(loader, "held out", unit="batches"))
    counts, error, body = tally(parsed, len(groups))

    means: dict[str, float | None] = {}
    by_name: dict[str, float | None] = {}
    for table, called in ((groups, names), *([coarser] if coarser else [])):
        iou = overlap(counts.sum(0), table, len(called))
        means[f"miou{len(called)}"] = mean(iou)
        by_name |= {name: value and round(value, 4) for name, value in zip(called, iou, strict=True)}

    if labelled.hidden is not None:
        means |= {f"miou{len(names)}_{name}": mean(overlap(part, groups, len(names)))
                  for name, part in zip(("clear", "hidden"), counts, strict=True)}

    return {**means, "iou": by_name,
            "pixel_accuracy": round(float(np.trace(counts.sum(0)) / counts.sum()), 4),
            **({"uv_error": round(error / (2 * body), 4) if body else None} if labelled.uv else {}),
            "images": len(labelled)}


def mean(iou: Sequence[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [value for value in iou if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def tally(parsed: Iterable[tuple[dict[str, Tensor], dict[str, Tensor]]], classes: int
          ) -> tuple[np.ndarray, float, int]:
    """From (truth, parse) batches: pixel counts (person hidden or not, true label, parsed label), the sum of |u,v
    error| over body pixels whose part is right, and the number of those."""
    counts, error, body = np.zeros((2, classes, classes), np.int64), 0.0, 0
    for truth, output in parsed:
        true, native = truth["labels"].long(), output["native"].cpu().long()
        cells = (truth["hidden"].long()[:, None, None] * classes + true) * classes + native
        known = cells[true != UNKNOWN]
        counts += torch.bincount(known, minlength=counts.size).reshape(counts.shape).numpy()
        if "uv" in output:
            right = (true == native) & (true > 0)
            difference = output["uv"].cpu() - truth["uv"].permute(0, 2, 3, 1) / 255
            error += float(difference[right].abs().double().sum())
            body += int(right.sum())

    return counts, error, body


def overlap(counts: np.ndarray, groups: np.ndarray, number: int) -> list[float | None]:
    """Pixel counts (true label, parsed label) -> IoU of each group, None where it is neither there nor found."""
    merge = np.eye(number, dtype=np.int64)[groups]  # (labels, groups)
    grouped = merge.T @ counts @ merge
    intersection = np.diag(grouped)
    union = grouped.sum(0) + grouped.sum(1) - intersection
    return [float(i / u) if u else None for i, u in zip(intersection, union, strict=True)]
