import copy

import pytest
import torch
from torch import nn

from bottleneck.finetune.folding import fold_frozen
from tests.finetune.resnet20 import ResNet20

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def with_statistics(network: nn.Module) -> nn.Module:
    """Return the network as after a training, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 2, generator=generator)
                module.bias.data.normal_(generator=generator)
    return network.eval()


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def without_affine() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(5, affine=False))


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6, eps=0.1))


@pytest.mark.parametrize("make, n_folded", [(ResNet20, 19), (plain, 1), (without_affine, 1), (grouped, 1)])
def test_folded_network_is_the_same_function_with_the_same_gradients(make, n_folded):
    torch.manual_seed(0)
    network = with_statistics(make())
    folded = copy.deepcopy(network)

    n = fold_frozen(folded)

    out, expected = folded(IMAGES), network(IMAGES)
    out.square().mean().backward()
    expected.square().mean().backward()
    assert n == n_folded
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    for (name, ours), theirs in zip(folded.named_parameters(), network.parameters(), strict=True):
        scale = theirs.grad.abs().max()
        torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, atol=1e-4, rtol=1e-3, msg=name)


def test_names_of_modules_and_weights_stay():
    network = with_statistics(ResNet20())
    before, modules = network.state_dict(), [name for name, _ in network.named_modules()]

    fold_frozen(network)

    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [name for name, _ in network.named_modules()] == modules


def test_copy_of_a_folded_network_has_its_own_weights():
    network = with_statistics(plain())
    fold_frozen(network)
    out = network(IMAGES)

    twin = copy.deepcopy(network)
    twin[1].weight.data.zero_()

    assert torch.equal(network(IMAGES), out)
    assert not torch.equal(twin(IMAGES), out)


def test_batch_norm_that_follows_no_convolution_stays():
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5))

    assert fold_frozen(network) == 0
    assert type(network[2]) is nn.BatchNorm2d
