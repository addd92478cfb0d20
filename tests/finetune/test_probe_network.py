import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.errors import InvalidInputError
from bottleneck.estimators.layers import join_layers
from bottleneck.extraction import ExtractionSettings, Extractor, foldable_pairs, in_precision
from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.pixels import open_both
from bottleneck.finetune.probe_network import ProbeNetwork, as_backbone, as_head, build_network
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource, as_labelled_source, subset
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


def on_all_layers(task, **head: object):
    """Return the task with a head on all layers, joined as classifiers join them."""
    pixels = torch.from_numpy(task.pixels.transpose(0, 3, 1, 2).copy())
    layers = {name: layer.numpy() for name, layer in task.backbone.forward_layers(pixels).items()}
    features = join_layers(layers, tuple(layers))
    return dataclasses.replace(task, features=features, head=LogisticHead(**head).fit(features, task.labels))


@pytest.mark.parametrize("normalize", ["center", "l2", "standardize", "none"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_network_starts_as_the_probe_on_all_stages(backbone, normalize, precision):
    task = on_all_layers(make_task(*coloured_noise(45, seed=3, n_classes=3), backbone), normalize=normalize)

    network = build(task).train()

    with torch.no_grad(), in_precision(precision, CPU):
        logits = network(normalised(task)).float().numpy()
    expected = task.head.decision_function(task.features)
    np.testing.assert_allclose(logits, expected, atol=1e-4 if precision == "float32" else 0.1 * np.ptp(expected))


def test_tuned_backbone_and_head_on_all_stages_predict_what_the_network_predicts(backbone):
    task = on_all_layers(make_task(*coloured_noise(45, seed=3, n_classes=3), backbone))
    network = build(task).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)

    tuned = dataclasses.replace(task, backbone=as_backbone(network, backbone), head=as_head(network, task.head))

    proba = network(normalised(task)).softmax(dim=1).detach().numpy()
    features = on_all_layers(tuned).features
    np.testing.assert_allclose(tuned.head.predict_proba(features), proba, atol=1e-5)


def test_head_on_one_stage_is_no_start(backbone):
    task = make_task(*coloured_noise(45, seed=3), backbone)
    other = dataclasses.replace(task, head=LogisticHead().fit(task.features[:, :-1], task.labels))

    with pytest.raises(InvalidInputError, match=r"penultimate features of .* or on the .* of all its layers"):
        build(other)


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


@pytest.fixture(scope="module")
def ants(shared: Path) -> tuple[Backbone, ImageSource, NDArray[np.str_], NDArray[np.float32]]:
    """Return a pretrained MobileNetV2 with BatchNorm folded into its convolutions, and features of 24 photographs."""
    backbone = load_backbone("mobilenet_v2", shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors")
    backbone = backbone.with_network(with_identity_statistics(backbone.network))
    source, labels = as_labelled_source(shared / "data" / "hymenoptera" / "train", None)
    rows = np.linspace(0, len(labels) - 1, 24).astype(np.int64)
    features = np.concatenate(
        [
            batch.layers["penultimate"]
            for batch in Extractor(backbone, ExtractionSettings(device="cpu", workers=0)).extract(
                source, rows, precision="float32"
            )
        ]
    )
    return backbone, subset(source, rows), labels[rows], features


def with_identity_statistics(network: nn.Module) -> nn.Module:
    """Move all that BatchNorm does but its shift into the convolutions before it, as networks for phones have it."""
    folded = copy.deepcopy(network)
    for conv_name, norm_name in foldable_pairs(folded):
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        scale = norm.weight.data / torch.sqrt(norm.running_var + norm.eps)
        conv.weight.data *= scale[:, None, None, None]
        norm.bias.data -= norm.running_mean * scale
        norm.weight.data.fill_(1)
        norm.running_mean.fill_(0)
        norm.running_var.fill_(1 - norm.eps)
    return folded


def logits_of(network: ProbeNetwork, backbone: Backbone, source: ImageSource) -> torch.Tensor:
    with torch.inference_mode():
        (pixels,) = open_both(source, backbone, workers=0)[1].batches(np.arange(len(source)), batch_size=24)
        return network(backbone.preprocess.normalise(pixels))


@pytest.mark.shared
@pytest.mark.parametrize("normalize", ["l2", "standardize"])
def test_pretrained_network_starts_as_the_probe(ants, normalize):
    backbone, source, labels, features = ants
    head = LogisticHead(normalize=normalize, random_state=0).fit(features, labels)
    recipe = recipe_for(backbone, FineTuneSettings(), n_images=len(labels))

    logits = logits_of(build_network(backbone, head, recipe=recipe, device=CPU).eval(), backbone, source)

    decision = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(decision, head.decision_function(features), atol=1e-4)


@pytest.mark.shared
def test_network_whose_batch_norm_was_folded_is_destroyed_by_statistics_of_the_batch_and_not_if_these_are_frozen(ants):
    backbone, source, labels, features = ants
    head = LogisticHead(random_state=0).fit(features, labels)

    def trained_accuracy(batch_norm: str) -> float:
        recipe = recipe_for(backbone, FineTuneSettings(batch_norm=batch_norm), n_images=len(labels))
        network = build_network(backbone, head, recipe=recipe, device=CPU).requires_grad_(True).train()
        for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout)):
            dropout.eval()
        return float((head.classes_[logits_of(network, backbone, source).argmax(dim=1)] == labels).mean())

    assert trained_accuracy("frozen") == head.score(features, labels) == 1.0
    assert trained_accuracy("train") < 0.8
