"""A backbone on its way through pickle and skops."""

import pickle

import pytest
import torch
from torch import nn

from bottleneck import load_backbone
from bottleneck.backbones.packing import tensors_of
from bottleneck.errors import BackboneError
from tests.conftest import make_tiny_backbone

PIXELS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_same(one, other) -> None:
    assert one.weights_digest == other.weights_digest
    assert (one.stages, one.layer_groups, one.reference) == (other.stages, other.layer_groups, other.reference)
    for layer, features in one.forward_layers(PIXELS).items():
        assert torch.equal(features, other.forward_layers(PIXELS)[layer])


@pytest.mark.parametrize("own", [False, True])
def test_pickle_keeps_any_backbone(own):
    backbone = make_tiny_backbone() if own else load_backbone("embedded")

    assert_same(pickle.loads(pickle.dumps(backbone)), backbone)


def test_state_of_a_named_backbone_is_plain_bytes_and_makes_it_again():
    embedded = load_backbone("embedded")
    network = embedded.with_network(embedded.network).network
    next(network.parameters()).mul_(2)
    tuned = embedded.with_network(network)

    state = tuned.__getstate__()
    again = type(tuned).__new__(type(tuned))
    again.__setstate__(state)

    assert isinstance(state["network"], bytes)
    assert_same(again, tuned)
    assert not any(parameter.requires_grad for parameter in again.network.parameters())
    assert not again.network.training


def test_state_of_an_own_module_is_refused():
    with pytest.raises(BackboneError, match="own module, whose code only pickle"):
        make_tiny_backbone().__getstate__()


def test_tensors_share_no_memory():
    layer = nn.Linear(3, 3)
    tensors = tensors_of(nn.Sequential(layer, layer))

    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors) == 4
