"""A prepared network computes the same function."""

import pytest
import torch
from torch import nn

from bottleneck.extraction.network import fold_batch_norm, prepare_for_inference


def seeded(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(*layers).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def test_folded_network_gives_the_same_output_without_batch_norm():
    network = seeded(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    images = torch.randn(2, 3, 12, 12)
    expected = network(images)

    folded = fold_batch_norm(network)

    assert folded == 2
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_given_network_is_left_alone():
    network = seeded(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    prepare_for_inference(network, torch.device("cpu"))

    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class ConvUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) + self.conv(x)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    "network",
    [
        ConvUsedTwice(),
        Untraceable(),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
    ],
    ids=["conv used twice", "cannot be traced", "no conv before", "no running statistics"],
)
def test_batch_norm_that_cannot_be_folded_is_kept(network: nn.Module):
    network.eval()
    images = torch.rand(2, 3, 8, 8)
    expected = network(images)

    folded = fold_batch_norm(network)

    assert folded == 0
    assert torch.equal(network(images), expected)


def test_parametrised_or_hooked_convolution_is_not_folded():
    from torch.nn.utils.parametrizations import weight_norm

    network = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    network[2].register_forward_hook(lambda module, args, output: 2 * output)
    network.eval()
    images = torch.rand(2, 3, 8, 8)
    expected = network(images)

    assert fold_batch_norm(network) == 0
    assert torch.equal(network(images), expected)
