"""Parsers of people, from here and from elsewhere: images -> labels, probabilities and, where there is a head, u,v.

In: (B, 3, H, W) uint8 RGB and a file of weights. Out: dicts of tensors. Stages enter; nothing of the pipeline does.
Importing this package makes torchvision importable beside a CPU-only torch.
"""

import torch


def _import_torchvision() -> None:
    """Import torchvision, whose wheels are built against CUDA.

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


_import_torchvision()
