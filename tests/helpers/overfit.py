"""A small batch that a network must be able to learn by heart: eight people of four structured pictures each."""

import torch
from torch import Tensor, nn


def people(*, height: int = 64, width: int = 32, ids: int = 8, images: int = 4, seed: int = 0, dsap: bool = False,
           cells: bool = False) -> dict[str, Tensor]:
    """A batch as training sees it. Each identity has its own colours for head, torso and legs on a noisy background.

    image (32, 3, H, W); pid (32,); camid (32,); labels (32, H/4, W/4) and labels16 (32, H/16, W/16) of 8 parts; with
    dsap also dsap (32, 24, 3, 32, 32), 0 outside a random half of the texels, and valid. cells: see `_cells`.
    """
    g = torch.Generator().manual_seed(seed)
    n = ids * images
    pid = torch.arange(ids).repeat_interleave(images)
    labels = _cells(n, height, width) if cells else _bodies(n, height, width)
    colours = torch.randn(ids, 8, 3, generator=g)
    painted = colours[pid][torch.arange(n)[:, None, None], labels].permute(0, 3, 1, 2)  # (n, 3, H/4, W/4)
    body = nn.functional.interpolate((labels > 0).float()[:, None], scale_factor=4)
    image = body * nn.functional.interpolate(painted, scale_factor=4) + 0.3 * torch.randn(n, 3, height, width,
                                                                                         generator=g)
    counts = nn.functional.one_hot(labels, 8).unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).sum((2, 4))
    batch = {"image": image.contiguous(), "pid": pid, "camid": torch.arange(n) % 2, "labels": labels,
             "labels16": counts.argmax(3)}
    if dsap:
        parts = torch.arange(24) % 8
        valid = torch.rand(n, 24, 32, 32, generator=g) < 0.5
        batch["valid"] = valid
        batch["dsap"] = colours[pid][:, parts][..., None, None] * valid[:, :, None]

    return batch


def _bodies(n: int, height: int, width: int) -> Tensor:
    """(n, H/4, W/4): six parts from the top down, in the middle, the same in every picture."""
    labels = torch.zeros(n, height // 4, width // 4, dtype=torch.long)
    rows = [0, height // 32, height // 10, height // 8, height // 6, height // 5, height // 4]
    for part, (top, bottom) in enumerate(zip(rows, rows[1:] + [height // 4], strict=True), start=1):
        labels[:, top:bottom, width // 16: 3 * width // 16] = part
    return labels


def _cells(n: int, height: int, width: int) -> Tensor:
    """(n, H/4, W/4): head, torso, upper leg and foot, each of whole cells of a map at 1/16, so that no cell holds two
    parts and a loss on that map can come to 0. The body is on the left in even pictures, on the right in odd ones; of
    every fourth the feet are out of sight."""
    tall, wide = height // 16, width // 32
    column = torch.tensor([1, 2, 5, 7]).repeat_interleave(tall)
    labels = torch.zeros(n, 4 * tall, 8 * wide, dtype=torch.long)
    labels[::2, :, :4 * wide] = labels[1::2, :, 4 * wide:] = column[:, None]
    labels[::4, 3 * tall:] = 0
    return labels


def learn(model: nn.Module, batch: dict[str, Tensor], *, steps: int, lr: float = 1e-3) -> tuple[dict, dict]:
    """Train on the one batch; the named scalars of the first and the last step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    history = []
    for _ in range(steps):
        loss, scalars = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in scalars.items()})

    return history[0], history[-1]


def embeds_finitely(model: nn.Module, batch: dict[str, Tensor]) -> bool:
    """Whether the model, as it is at test time, gives finite features and visibilities in [0, 1]."""
    model.eval()
    with torch.no_grad():
        features, visibility = model.embed(batch)
    return bool(features.isfinite().all() and ((visibility >= 0) & (visibility <= 1)).all())


def without_gradient(model: nn.Module, batch: dict[str, Tensor]) -> list[str]:
    """Names of the parameters that a backward pass leaves without a gradient, or with none but zeros."""
    model.train()
    model.zero_grad()
    loss, _ = model(batch)
    loss.backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
