"""A tapped network gives what the backbone gives, in many threads at once."""

from concurrent.futures import ThreadPoolExecutor

import torch

from bottleneck.extraction.network import prepare_for_inference
from bottleneck.extraction.tapped import TappedNetwork

CPU = torch.device("cpu")


def tapped(backbone) -> TappedNetwork:
    return TappedNetwork(backbone, prepare_for_inference(backbone.network, CPU), CPU)


def noise(seed: int, n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_every_layer_equals_that_of_the_untouched_backbone(tiny_backbone):
    layers = tapped(tiny_backbone)(noise(0))

    expected = tiny_backbone.forward_layers(noise(0))
    assert list(layers) == list(expected) == list(tiny_backbone.layer_widths)
    for layer, features in expected.items():
        torch.testing.assert_close(layers[layer], features, rtol=1e-4, atol=1e-5)


def test_threads_never_get_each_others_features(tiny_backbone):
    network = tapped(tiny_backbone)
    expected = [network(noise(seed)) for seed in range(8)]

    def mixes(lane: int) -> int:
        wrong = 0
        for turn in range(60):
            seed = (lane + turn) % 8
            layers = network(noise(seed))
            wrong += any(not torch.equal(layers[layer], expected[seed][layer]) for layer in layers)
        return wrong

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(mixes, range(6))) == [0] * 6


def test_backbone_itself_keeps_no_taps(tiny_backbone):
    tapped(tiny_backbone)

    assert not any(module._forward_hooks for module in tiny_backbone.network.modules())
