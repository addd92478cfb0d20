"""Fixtures of the tests of fine-tuning."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bottleneck.backbones import Backbone
from tests.finetune.tasks import Task, colour_blind_backbone, coloured_noise, make_task, three_stage_backbone


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Several tests train; more threads only wait for each other on networks this small."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return colour_blind_backbone()


@pytest.fixture(scope="session")
def colours(backbone: Backbone) -> Task:
    """Return a task that the frozen features cannot do and fine-tuning can."""
    return make_task(*coloured_noise(60, seed=0), backbone)


@pytest.fixture(scope="session")
def staged() -> Task:
    """Return a task for a backbone with three layer groups."""
    return make_task(*coloured_noise(60, seed=0), three_stage_backbone())


@pytest.fixture(scope="session")
def chance(backbone: Backbone) -> Task:
    """Return a task that nobody can do."""
    pixels, labels = coloured_noise(60, seed=1)
    return make_task(pixels, np.random.default_rng(0).permutation(labels), backbone)
