"""When compiling pays, and what becomes of it where it fails."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck import Preprocess, load_backbone
from bottleneck.extraction import compiled as compiled_module
from bottleneck.extraction.compiled import (
    SAFETY,
    BatchKind,
    CompiledNetworks,
    CompileFacts,
    compiling_pays,
    supposed_facts,
)
from bottleneck.extraction.network import prepare_for_inference
from bottleneck.extraction.tapped import TappedNetwork

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KIND = BatchKind(shape=(4, 3, 16, 16), precision="float32", threads=1)


def tapped(backbone) -> TappedNetwork:
    return TappedNetwork(backbone, prepare_for_inference(backbone.network, CPU), CPU)


def test_compiling_pays_once_the_images_left_save_its_time_with_some_safety():
    facts = CompileFacts(compile_seconds=10.0, gain=2.0)
    break_even = round(SAFETY * 10.0 / (0.1 - 0.05))

    assert compiling_pays(break_even + 1, 0.1, facts)
    assert not compiling_pays(break_even - 1, 0.1, facts)


def test_compiling_that_gained_nothing_never_pays():
    assert not compiling_pays(10**9, 1.0, CompileFacts(compile_seconds=1.0, gain=0.9))


def test_matrix_units_make_compiling_worth_more():
    assert supposed_facts(matrix_units=True).gain > supposed_facts(matrix_units=False).gain


def test_graph_that_is_compiled_returns_every_layer_of_the_network(tiny_backbone):
    network = tapped(tiny_backbone)

    graph = compiled_module._trace(network)

    with torch.inference_mode():
        layers = dict(zip(tiny_backbone.layer_widths, graph(network.preprocess.normalise(PIXELS)), strict=True))
    for layer, expected in network(PIXELS).items():
        torch.testing.assert_close(layers[layer], expected)


def test_network_that_cannot_be_traced_stays_as_it_is():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return (x if x.sum() > 0 else -x).mean(dim=(2, 3))

    preprocess = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    compiled = CompiledNetworks(tapped(load_backbone(Branching(), preprocess=preprocess)))

    assert compiled.settle(KIND, PIXELS) is None
    assert compiled.is_settled(KIND)
    assert compiled.ready_for(KIND) is None


@pytest.mark.parametrize("error", [RuntimeError("No working C++ compiler found"), PermissionError("cache folder")])
def test_failing_compiler_is_logged_and_not_asked_again(tiny_backbone, monkeypatch, caplog, error):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(torch, "compile", fail)
    compiled = CompiledNetworks(tapped(tiny_backbone))

    with caplog.at_level(logging.INFO):
        assert compiled.settle(KIND, PIXELS) is None

    assert str(error) in caplog.text
    assert compiled.is_settled(KIND)
    assert compiled.ready_for(KIND) is None


@pytest.mark.parametrize(("change", "used"), [(0.0, True), (1.0, False)], ids=["faithful", "unfaithful"])
def test_function_is_used_only_if_its_features_agree(tiny_backbone, monkeypatch, change, used):
    monkeypatch.setattr(compiled_module, "_seconds_of_both", lambda *args: (2.0, 1.0))
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0))

    def as_compiled(graph, **options):
        return lambda images: tuple(layer + change * noise[: layer.shape[1]] for layer in graph(images))

    monkeypatch.setattr(torch, "compile", as_compiled)
    compiled = CompiledNetworks(tapped(tiny_backbone))

    facts = compiled.settle(KIND, PIXELS)

    assert facts is not None
    assert facts.gain == 2.0
    assert (compiled.ready_for(KIND) is not None) == used


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_compiled_network_gives_the_features_of_the_network_in_many_threads(tiny_backbone):
    from concurrent.futures import ThreadPoolExecutor

    from bottleneck.extraction.threads import using_threads

    network = tapped(tiny_backbone)
    batches = [torch.randint(0, 256, PIXELS.shape, dtype=torch.uint8) for _ in range(6)]
    with using_threads(1):
        forward = compiled_module._compile(network, threads=1)
        forward(PIXELS)

    def in_thread(lane: int) -> list[dict[str, torch.Tensor]]:
        with using_threads(1):
            return [forward(batches[(lane + turn) % 6]) for turn in range(60)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(in_thread, range(3)))

    expected = [network(batch) for batch in batches]
    for lane, results in enumerate(found):
        for turn, layers in enumerate(results):
            for layer, features in expected[(lane + turn) % 6].items():
                np.testing.assert_allclose(layers[layer], features, rtol=1e-3, atol=1e-4)
