"""Classifiers of identities against their formula, and how they start."""

import math

import torch

from models.classifiers import HIDDEN, hidden_classifier, linear_classifier


def test_the_hidden_classifier_is_fc_bn_relu_fc():
    torch.manual_seed(0)
    classifier = hidden_classifier(6, 4).double().train()
    first, norm, _, second = classifier
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    f = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        hidden = f @ first.weight.T
        deviation = ((hidden - hidden.mean(0)).square().mean(0) + norm.eps).sqrt()
        hidden = ((hidden - hidden.mean(0)) / deviation * norm.weight + norm.bias).clamp(min=0)
        assert torch.allclose(classifier(f), hidden @ second.weight.T, atol=1e-12)
    assert first.bias is None and second.bias is None and hidden.shape == (5, HIDDEN) == (5, 512)
    assert (hidden > 0).any() and (hidden == 0).any()


@torch.no_grad()
def test_the_last_layer_starts_near_zero_and_the_first_does_not():
    """N(0, 0.001^2): even first softmaxes; the layer before it keeps torch's uniform start, within 1 / sqrt(D)."""
    torch.manual_seed(0)
    first, _, _, second = hidden_classifier(300, 200)
    for layer in (second, linear_classifier(512, 200)):
        assert layer.bias is None
        assert abs(float(layer.weight.std()) - 0.001) < 2e-5 and abs(float(layer.weight.mean())) < 2e-5
    assert abs(float(first.weight.std()) - 1 / math.sqrt(300) / math.sqrt(3)) < 1e-3
