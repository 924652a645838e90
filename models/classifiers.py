"""Classifiers of identities, one per feature: no bias in the last layer, which starts at N(0, 0.001^2).

B images, D numbers of a feature, J identities.
"""

from torch import nn

HIDDEN = 512  # numbers between the two layers of `hidden_classifier`; DSA prints none


def linear_classifier(size: int, ids: int) -> nn.Linear:
    """(B, D) -> (B, J) logits. The small start keeps the first softmax even, whatever the feature's scale."""
    classifier = nn.Linear(size, ids, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier


def hidden_classifier(size: int, ids: int) -> nn.Sequential:
    """(B, D) -> (B, J) logits through FC -> BN -> ReLU -> FC (DSA 3.2.4: "two fully connected layers").

    The first layer keeps torch's start: BN takes its scale out. Its bias would vanish in BN, so it has none.
    """
    return nn.Sequential(nn.Linear(size, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(inplace=True),
                         linear_classifier(HIDDEN, ids))
