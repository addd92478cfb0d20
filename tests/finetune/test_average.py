import pytest
import torch
from torch import nn

from bottleneck.finetune.average import WeightAverage

pytestmark = pytest.mark.usefixtures("one_thread")


def test_average_follows_the_formula_and_forgets_the_start():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(8.0)
    average, expected = WeightAverage(network, decay=0.9), 8.0

    for step in range(1, 200):
        network.weight.data.fill_(float(step % 2))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step % 2)

    torch.testing.assert_close(average.weights["weight"], torch.full((1, 1), expected))
    assert 0.4 < expected < 0.6


def test_statistics_are_averaged_and_counters_are_the_last_ones():
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, decay=0.5)
    generator = torch.Generator().manual_seed(0)

    for _ in range(40):
        network(torch.randn(8, 2, generator=generator) + 3)
        average.update()

    assert average.weights["num_batches_tracked"] == 40
    assert (average.weights["running_mean"] - 3).abs().max() < 1
    assert not torch.equal(average.weights["running_mean"], network.running_mean)


def test_network_itself_is_left_alone():
    network = nn.Linear(2, 2)
    average = WeightAverage(network, decay=0.5)
    before = network.weight.detach().clone()

    average.update()
    average.weights["weight"].zero_()

    assert torch.equal(network.weight, before)


def test_average_goes_on_from_another_one():
    network = nn.BatchNorm1d(2)
    whole, first = WeightAverage(network, decay=0.5), WeightAverage(network, decay=0.5)
    network.running_mean.fill_(4.0)
    whole.update()
    first.update()
    second = WeightAverage(network, decay=0.5)

    second.restore(first.weights, n_updates=first.n_updates)
    for average in (whole, second):
        average.update()

    assert all(torch.equal(whole.weights[name], second.weights[name]) for name in whole.weights)
