"""Where distances are computed, by what ranks features; a file of its own, because what trains depends on device.py."""

import torch

from pipeline.base.processors import processors


def ranking_device(wanted: str) -> str:
    """auto | cpu | cuda -> cpu | cuda, from here on with no more threads than processors: metrics have two decimals, in
    which it cannot be seen what multiplied."""
    torch.set_num_threads(min(torch.get_num_threads(), processors()))  # torch's own choice knows of no quota
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
