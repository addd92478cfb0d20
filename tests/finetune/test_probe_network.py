import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.probe_network import ProbeNetwork, as_backbone, as_head, build_network
from tests.finetune.tasks import coloured_noise, make_task

CPU = torch.device("cpu")


def build(task, **settings: object) -> ProbeNetwork:
    recipe = recipe_for(task.backbone, FineTuneSettings(**settings), n_images=len(task.labels))
    return build_network(task.backbone, task.head, recipe=recipe, device=CPU)


def normalised(task) -> torch.Tensor:
    return task.backbone.preprocess.normalise(torch.from_numpy(task.pixels.transpose(0, 3, 1, 2).copy()))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalize", ["center", "l2", "standardize", "none"])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_network_starts_as_the_probe(backbone, normalize, n_classes, batch_norm):
    task = make_task(*coloured_noise(45, seed=3, n_classes=n_classes), backbone, normalize=normalize)

    network = build(task, batch_norm=batch_norm).eval()

    logits = network(normalised(task)).detach().numpy()
    decision = logits[:, 1] - logits[:, 0] if n_classes == 2 else logits
    np.testing.assert_allclose(decision, task.head.decision_function(task.features), atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalize", ["l2", "standardize"])
def test_tuned_backbone_and_head_predict_what_the_network_predicts(backbone, normalize, n_classes):
    task = make_task(*coloured_noise(45, seed=3, n_classes=n_classes), backbone, normalize=normalize)
    network = build(task).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)

    tuned_backbone, tuned_head = as_backbone(network, backbone), as_head(network, task.head)

    pixels = torch.from_numpy(task.pixels.transpose(0, 3, 1, 2).copy())
    features = tuned_backbone.forward_layers(pixels)["penultimate"].numpy()
    proba = network(normalised(task)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(tuned_head.predict_proba(features), proba, atol=1e-5)
    assert tuned_backbone.weights_digest != backbone.weights_digest
    assert list(tuned_head.classes_) == list(task.head.classes_)
    assert not any(parameter.requires_grad for parameter in tuned_backbone.network.parameters())


def test_backbone_and_head_it_started_from_stay_as_they_were(colours):
    before = [parameter.clone() for parameter in colours.backbone.network.parameters()]
    coef = colours.head.coef_.copy()
    network = build(colours)
    for parameter in network.parameters():
        parameter.data.zero_()

    tuned = as_head(network, colours.head)

    assert not np.any(tuned.coef_)
    assert np.array_equal(colours.head.coef_, coef)
    assert all(map(torch.equal, before, colours.backbone.network.parameters()))


def test_building_leaves_the_random_state_of_the_caller_alone(colours):
    before = torch.get_rng_state()

    build(colours)

    assert torch.equal(torch.get_rng_state(), before)


def folded(*, freeze_batch_norm: bool) -> ProbeNetwork:
    """Return a network whose BatchNorm does nothing in eval mode, as one folded into its convolutions."""
    norm = nn.BatchNorm2d(3)
    norm.running_var.fill_(1 - norm.eps)
    network = nn.Sequential(norm, nn.Flatten())
    return ProbeNetwork(network, nn.Identity(), normalize_rows=False, freeze_batch_norm=freeze_batch_norm)


def test_frozen_batch_norm_survives_train_mode_where_batch_statistics_would_destroy_the_network():
    images = 5 + 3 * torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    frozen, free = folded(freeze_batch_norm=True), folded(freeze_batch_norm=False)

    out_frozen, out_free = frozen.train()(images), free.train()(images)

    torch.testing.assert_close(out_frozen, images.flatten(1))
    assert (out_free - images.flatten(1)).abs().mean() > 3
    assert torch.equal(frozen.network[0].running_mean, torch.zeros(3))
    assert not torch.equal(free.network[0].running_mean, torch.zeros(3))


def test_scale_and_shift_of_frozen_batch_norm_learn():
    network = folded(freeze_batch_norm=True).train()

    network(torch.ones(2, 3, 4, 4)).sum().backward()

    assert network.network[0].weight.grad.abs().min() > 0
    assert network.network[0].bias.grad.abs().min() > 0


def test_batch_norm_of_a_frozen_group_keeps_its_statistics_whatever_the_setting():
    network = folded(freeze_batch_norm=False)
    network.network.requires_grad_(False)

    network.train()(torch.full((2, 3, 4, 4), 7.0))

    assert torch.equal(network.network[0].running_mean, torch.zeros(3))


def test_fresh_head_starts_with_equal_logits(colours):
    network = build(colours, head="fresh").eval()

    assert not network(normalised(colours)).any()


def test_statistics_that_are_estimated_anew_follow_the_momentum_rule(colours):
    network = build(colours, batch_norm="train", batch_size=32, steps=2000)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {32 / 2000}
    assert {norm.momentum for norm in colours.backbone.network.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_convolutions_are_in_the_memory_order_that_is_fastest(colours):
    network = build(colours)

    assert network.network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
