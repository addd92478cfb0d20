from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck.finetune import FineTuneSettings, RateTest, lr_find, plot_rates
from bottleneck.finetune.lr_find import suggest

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = FineTuneSettings(batch_size=16, precision="float32")


def find(task, *, settings: FineTuneSettings = SETTINGS, **options: object) -> RateTest:
    return lr_find(task.source, task.labels, backbone=task.backbone, head=task.head, settings=settings, **options)


def test_rates_grow_evenly_to_the_top(colours):
    found = find(colours)

    assert len(found.rates) == len(found.losses) == 100
    np.testing.assert_allclose(np.diff(np.log10(found.rates)), 7 / 100)
    assert found.rates[0] == pytest.approx(1e-6, rel=0.1)
    assert found.rates[-1] == pytest.approx(10, rel=0.1)


def test_it_stops_when_the_loss_explodes(chance):
    found = find(chance, settings=replace(SETTINGS, clip_norm=1e9, group_multipliers=(1e4,)))

    assert len(found.rates) < 100
    assert all(np.isfinite(found.losses))
    assert found.suggestion < found.rates[-1] / 10


def test_suggested_rate_learns_and_is_below_the_one_that_explodes(colours):
    found = find(colours)

    assert 1e-4 < found.suggestion < found.rates[-1] / 5


def test_backbone_head_and_random_state_stay_as_they_were(colours):
    before = {name: tensor.clone() for name, tensor in colours.backbone.network.state_dict().items()}
    coef, state = colours.head.coef_.copy(), torch.get_rng_state()

    find(colours, steps=20)

    assert all(torch.equal(colours.backbone.network.state_dict()[name], before[name]) for name in before)
    assert np.array_equal(colours.head.coef_, coef)
    assert torch.equal(torch.get_rng_state(), state)


def test_same_seed_finds_the_same(colours):
    assert find(colours, steps=20) == find(colours, steps=20)


def test_suggestion_is_a_tenth_of_the_rate_at_the_lowest_loss():
    assert suggest([0.01, 0.1, 1.0, 10.0], [3.0, 2.0, 1.0, 5.0]) == pytest.approx(0.1)
    assert suggest([], []) == 1e-6


def test_plot_shows_the_losses_and_the_suggestion():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")

    axes = plot_rates(RateTest(rates=(0.01, 0.1), losses=(2.0, 1.0), suggestion=0.01))

    curve, mark = axes.get_lines()
    assert list(curve.get_ydata()) == [2.0, 1.0]
    assert list(mark.get_xdata()) == [0.01, 0.01]
    assert axes.get_xscale() == "log"
