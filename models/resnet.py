"""ResNet-18 and ResNet-50 (He et al. 2016), as torchvision has them: its names, its start, its arithmetic.

Written out here because importing torchvision takes longer than most stages' work: with its detection operators comes
torch's compiler. A test holds both against torchvision's, bit for bit, so that its weight files load and a seed draws
the start that it draws there.

B images, C channels of a map of h x w cells.
"""

import torch
from torch import Tensor, nn

# torchvision's IMAGENET1K_V1.
IMAGENET = {"resnet18": "resnet18-f37072fd.pth", "resnet50": "resnet50-0676ba61.pth"}
URL = "https://download.pytorch.org/models/"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (Fig. 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, width, h / stride, w / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (Fig. 5, right); the 3x3 has the stride, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, 4 width, h / stride, w / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)), "resnet50": (Bottleneck, (3, 4, 6, 3))}  # of the four stages


class Resnet(nn.Module):
    """The parts of `architecture`, resnet18 | resnet50, freshly drawn: from (B, 3, H, W) `maxpool` leaves
    (B, 64, H/4, W/4), layer4 (B, 512 expansion, H/32, W/32); `fc` has ImageNet's 1000 classes."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        block, counts = BLOCKS[architecture]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, counts[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, counts[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, counts[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, counts[3], stride=2)
        self.fc = nn.Linear(512 * block.expansion, 1000)  # drawn, though no re-ID network keeps it: a seed's order

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def imagenet_weights(architecture: str) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1, downloaded once. OSError and RuntimeError where it cannot be."""
    return torch.hub.load_state_dict_from_url(URL + IMAGENET[architecture], progress=False, check_hash=True,
                                              weights_only=True)


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, width: int, count: int, *, stride: int) -> nn.Sequential:
    """A residual stage; its first block has the stride, and where size or channels change a shortcut of its own."""
    outputs = width * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(block(inputs, width, stride=stride, downsample=shortcut),
                         *(block(outputs, width) for _ in range(1, count)))
