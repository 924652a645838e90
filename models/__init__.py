"""Networks: one paper, one file, beside the backbone, losses and classifiers that several share; parsers in a room.

In: batches, dicts of tensors. Out: losses, features with their visibility. Stages enter, each by its network's name.
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
