"""A network is prepared once, and freed with its backbone."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bottleneck.extraction import prepared as prepared_module
from bottleneck.extraction.prepared import MAX_DEVICES, prepared_network
from tests.conftest import make_tiny_backbone

CPU = torch.device("cpu")


@pytest.fixture
def preparations(monkeypatch):
    """Return the devices of all preparations from now on."""
    seen = []
    prepare = prepared_module.prepare_for_inference

    def counted(network, device):
        seen.append(device)
        return prepare(network, device)

    monkeypatch.setattr(prepared_module, "prepare_for_inference", counted)
    return seen


def test_calls_share_one_preparation_also_from_many_threads(preparations):
    backbone = make_tiny_backbone()

    with ThreadPoolExecutor(4) as pool:
        ready = set(map(id, pool.map(lambda _: prepared_network(backbone, CPU), range(16))))

    assert len(ready) == 1
    assert preparations == [CPU]


def test_each_backbone_has_its_own():
    assert prepared_network(make_tiny_backbone(0), CPU) is not prepared_network(make_tiny_backbone(1), CPU)


def test_preparation_is_freed_with_the_backbone():
    backbone = make_tiny_backbone()
    network = weakref.ref(prepared_network(backbone, CPU).network.network)
    given = weakref.ref(backbone.network)

    del backbone
    gc.collect()

    assert given() is None
    assert network() is None


def test_only_the_latest_devices_are_kept(preparations):
    backbone = make_tiny_backbone()
    devices = [CPU, torch.device("cpu", 0), torch.device("meta")]

    for device in devices:
        prepared_network(backbone, device)
    prepared_network(backbone, devices[-1])

    assert len(preparations) == len(devices) > MAX_DEVICES
    prepared_network(backbone, CPU)
    assert len(preparations) == len(devices) + 1
