"""torchvision's import, which beside a CPU-only torch needs a hand: its wheels are built against CUDA."""

import torch


def import_torchvision() -> None:
    """Import torchvision, so that it, and what imports it, can be imported from then on.

    Beside a CPU-only torch its compiled operators do not load, and its import then fails while it registers shapes
    for two of them. Nothing here calls them, so they are declared, and the import goes through.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
