"""Parsers of people, from here and from elsewhere: images -> labels, probabilities and, where there is a head, u,v.

In: (B, 3, H, W) uint8 RGB and a file of weights. Out: dicts of tensors. Stages enter; nothing of the pipeline does.
Importing this package makes torchvision importable beside a CPU-only torch.
"""

from models.torchvision_import import import_torchvision

import_torchvision()
