"""Identity classifiers, one a feature, never shared: the last layer has no bias and starts at N(0, 0.001^2)."""

from torch import nn


def linear_classifier(size: int, ids: int) -> nn.Linear:
    """(B, size) -> (B, ids) logits. The small start keeps the first softmax even, whatever the feature's scale."""
    classifier = nn.Linear(size, ids, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier


def hidden_classifier(size: int, ids: int, hidden: int = 512) -> nn.Sequential:
    """(B, size) -> (B, ids) logits through FC -> BN -> ReLU -> FC (DSA 3.2.4: "two fully connected layers").

    The first layer keeps torch's start: BN takes its scale out. Its bias would vanish in BN, so it has none.
    """
    return nn.Sequential(nn.Linear(size, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
                         linear_classifier(hidden, ids))
