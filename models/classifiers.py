"""Classifiers of identities, one per feature: no bias in the last layer, which starts at N(0, 0.001^2).

They are of the people that a network was trained on, so a network that starts from another's weights has its own. Which
of its tensors they are a network says itself: `classified_by`, how their names begin.

B images, D numbers of a feature, J identities.
"""

from collections.abc import Iterable

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


def classifier_names(network: nn.Module, names: Iterable[str]) -> set[str]:
    """Of names of tensors those of the network's classifiers. ValueError if it does not say which they are."""
    begin = getattr(network, "classified_by", None)
    if begin is None:
        raise ValueError(f"{type(network).__name__} does not say which of its tensors are classifiers; write "
                         "`classified_by`, how their names begin, into its class")
    return {name for name in names if name.startswith(begin)}


def apart(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(all but the classifiers, the classifiers): parameters of a network that started from another's weights."""
    parameters = dict(network.named_parameters())
    own = classifier_names(network, parameters)
    return ([parameter for name, parameter in parameters.items() if name not in own],
            [parameter for name, parameter in parameters.items() if name in own])
