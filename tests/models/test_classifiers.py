"""Classifiers of identities: their formula, how they start, and which tensors of a network they are.

They are what depends on the number of people, and nothing that is matched depends on them.
"""

import math

import pytest
import torch
from torch import nn

from models.classifiers import HIDDEN, apart, classifier_names, hidden_classifier, linear_classifier
from pipeline.base.body_parts import PARTS8_TO_PARTS4
from tests.helpers.networks import network
from tests.helpers.overfit import people

SMALL = {"baseline": {}, "sorn": {"channels": 48, "tau": 0.15}, "dsa": {"dsag_width": 0.0625, "match": "z"},
         "esa": {"channels": 16}, "sgsfa": {"size": 16}, "sgam": {"width": 16}, "pcb": {"stripes": 2, "width": 16}}
LAYERS = {"baseline": 1, "sorn": 4, "dsa": 11, "esa": 1, "sgsfa": 1, "sgam": 5, "pcb": 2}  # classifiers, by the papers
DEEP = {"baseline", "dsa"}  # FC, BN (five tensors with its counter), FC: seven tensors each


@pytest.mark.parametrize("name", SMALL)
def test_they_are_what_the_number_of_people_shapes_and_the_layers_before_it(name):
    few, many = (network(name, ids=ids, **SMALL[name]).state_dict() for ids in (5, 8))
    assert few.keys() == many.keys()
    shaped = {key for key in few if few[key].shape != many[key].shape}
    found = classifier_names(network(name, **SMALL[name]), few)
    assert len(shaped) == LAYERS[name]
    assert found >= shaped and len(found) == LAYERS[name] * (7 if name in DEEP else 1)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_matched_does_not_depend_on_them(name):
    """Nor does everything: with noise in place of all the others, features are others."""
    model = network(name, **SMALL[name]).eval()
    batch = people(height=64, width=32, dsap=True, cells=True)
    four = torch.tensor(PARTS8_TO_PARTS4.tolist())[batch["labels"]]
    batch["probs4"] = nn.functional.one_hot(four, 5).permute(0, 3, 1, 2).float()
    if hasattr(model, "medians"):
        model.medians.fill_(0.1)
    classifiers = classifier_names(model, model.state_dict())
    before = model.embed(batch)[0]

    def disturb(chosen):
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if (key in classifiers) == chosen:
                    parameter.add_(torch.randn_like(parameter))
        return model.embed(batch)[0]

    assert torch.equal(disturb(True), before)
    assert not torch.equal(disturb(False), before)


@pytest.mark.parametrize("name", SMALL)
def test_apart_shares_out_every_parameter_once(name):
    model = network(name, **SMALL[name])
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    others, classifiers = ([names[id(parameter)] for parameter in part] for part in apart(model))
    assert sorted(others + classifiers) == sorted(names.values())
    assert set(classifiers) == classifier_names(model, names.values()) and "backbone.conv1.weight" in others


def test_a_network_that_does_not_say_which_they_are_is_named():
    with pytest.raises(ValueError, match="Linear does not say which of its tensors are classifiers; write `"):
        classifier_names(nn.Linear(2, 2), ["weight"])


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
