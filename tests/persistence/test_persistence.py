"""A saved classifier comes back whole, or says what is wrong; nothing in its folder is ever run."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from torch import nn

from bottleneck import (
    FineTuneSettings,
    LogisticHead,
    Preprocess,
    SVMHead,
    TransferClassifier,
    load,
    load_backbone,
    save,
)
from bottleneck.errors import BackboneError, InvalidInputError, ModelFileError
from tests.conftest import coloured_images, make_tiny_backbone

IMAGES, LABELS = coloured_images(24)
NAMES = np.array(["bluish", "reddish"])[LABELS]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> TransferClassifier:
    """Return a probe on the embedded backbone, which can be built again by its name."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return TransferClassifier(strategy="probe", cache_dir=cache_dir, random_state=0).fit(IMAGES, NAMES)


def assert_same(loaded: TransferClassifier, saved: TransferClassifier) -> None:
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), saved.predict_proba(IMAGES))
    assert loaded.predict(IMAGES).tolist() == saved.predict(IMAGES).tolist()
    assert loaded.plan_ == saved.plan_
    assert loaded.history_ == saved.history_
    assert (loaded.strategy_, loaded.outcome_) == (saved.strategy_, saved.outcome_)
    assert loaded.classes_.dtype == saved.classes_.dtype


def test_loaded_classifier_predicts_the_same_bit_for_bit(fitted, tmp_path):
    save(fitted, tmp_path / "model")

    assert_same(load(tmp_path / "model"), fitted)


def test_another_process_predicts_the_same(fitted, tmp_path):
    save(fitted, tmp_path / "model")
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, numpy as np; from bottleneck import load; folder = sys.argv[1];"
        "classifier = load(folder + '/model').set_params(cache_dir=folder + '/cache');"
        "np.save(folder + '/proba.npy', classifier.predict_proba(np.load(folder + '/images.npy')))"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), fitted.predict_proba(IMAGES))


@pytest.mark.parametrize(
    "head",
    [
        SVMHead(),
        SVMHead(multi_class="crammer_singer"),
        SVMHead(kernel="rbf"),
        LogisticHead(normalize="l2"),
        LogisticHead(normalize="standardize"),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_head_comes_back(head, n_classes, tmp_path):
    labels = np.arange(24) % n_classes
    classifier = TransferClassifier(strategy="probe", head=head, cache_dir=tmp_path / "cache", random_state=0)
    classifier.fit(IMAGES, labels)

    save(classifier, tmp_path / "model")

    assert_same(load(tmp_path / "model"), classifier)


def test_all_stages_come_back(tmp_path):
    classifier = TransferClassifier(strategy="all_stages_probe", cache_dir=tmp_path / "cache", random_state=0)
    classifier.fit(IMAGES, NAMES)

    save(classifier, tmp_path / "model")

    assert_same(load(tmp_path / "model"), classifier)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["ä", "b"], dtype=object)[LABELS],
        LABELS.astype(bool),
        LABELS.astype(np.int8) - 3,
        LABELS + 1.0,
        (LABELS % 2 == 0).tolist(),
    ],
    ids=["object", "bool", "int8", "float", "list"],
)
def test_labels_keep_their_type(labels, tiny_backbone, tmp_path):
    classifier = TransferClassifier(tiny_backbone, strategy="probe", cache_dir=tmp_path / "cache", random_state=0)
    classifier.fit(IMAGES, labels)

    save(classifier, tmp_path / "model")

    assert_same(load(tmp_path / "model", backbone=tiny_backbone), classifier)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_arithmetic_and_image_shape_come_back(precision, tiny_backbone, tmp_path):
    classifier = TransferClassifier(
        tiny_backbone, strategy="probe", precision=precision, image_shape=(20, 20, 3), cache_dir=tmp_path / "cache"
    ).fit(IMAGES.reshape(24, -1), NAMES)

    save(classifier, tmp_path / "model")
    loaded = load(tmp_path / "model", backbone=tiny_backbone).set_params(cache_dir=tmp_path / "other")

    assert (loaded.precision_, loaded.image_shape) == (precision, (20, 20, 3))
    rows = IMAGES.reshape(24, -1)
    np.testing.assert_array_equal(loaded.predict_proba(rows), classifier.predict_proba(rows))


@pytest.mark.parametrize("strategy", ["finetune", "scratch"])
def test_trained_networks_come_back(strategy, tmp_path):
    settings = FineTuneSettings(steps=2, folds=2, acceptance_z=0.0)
    classifier = TransferClassifier(
        strategy=strategy, finetune=settings, precision="float32", cache_dir=tmp_path / "cache", random_state=0
    ).fit(IMAGES, NAMES)
    # Whether two steps were kept or not, the network is another one than its name says.
    classifier.backbone_ = classifier.backbone_.with_network(make_other_weights(classifier.backbone_))

    save(classifier, tmp_path / "model")

    loaded = load(tmp_path / "model")
    assert_same(loaded, classifier)
    assert len(loaded.history_) > 0


def test_weights_that_moved_can_be_pointed_at(tmp_path):
    from safetensors.torch import save_file

    tensors = dict(load_backbone("embedded").network.state_dict())
    save_file(tensors, tmp_path / "weights.safetensors")
    classifier = TransferClassifier(
        weights=tmp_path / "weights.safetensors", strategy="probe", cache_dir=tmp_path / "cache", random_state=0
    ).fit(IMAGES, NAMES)
    save(classifier, tmp_path / "model")
    (tmp_path / "weights.safetensors").rename(tmp_path / "moved.safetensors")

    with pytest.raises(ModelFileError, match=r"load_backbone\('embedded', weights=PATH\)"):
        load(tmp_path / "model")

    assert_same(
        load(tmp_path / "model", backbone=load_backbone("embedded", tmp_path / "moved.safetensors")), classifier
    )


def test_network_whose_layers_share_weights_can_be_included(tmp_path):
    shared = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    half = (0.5, 0.5, 0.5)
    backbone = load_backbone(network, preprocess=Preprocess(resize=16, crop=(16, 16), mean=half, std=half))
    classifier = TransferClassifier(backbone, strategy="probe", cache_dir=tmp_path / "cache", random_state=0)
    save(classifier.fit(IMAGES, NAMES), tmp_path / "model", include_backbone=True)

    assert_same(load(tmp_path / "model", backbone=network), classifier)


def test_own_module_must_be_given_again(tmp_path):
    backbone = make_tiny_backbone()
    classifier = TransferClassifier(backbone, strategy="probe", cache_dir=tmp_path / "cache", random_state=0)
    save(classifier.fit(IMAGES, NAMES), tmp_path / "model")

    assert_same(load(tmp_path / "model", backbone=make_tiny_backbone()), classifier)
    with pytest.raises(ModelFileError, match=r"own module.*load\(path, backbone=network\)"):
        load(tmp_path / "model")
    with pytest.raises(ModelFileError, match="are others"):
        load(tmp_path / "model", backbone=make_tiny_backbone(seed=1))


def test_tuned_weights_are_saved_with_the_classifier(tmp_path):
    classifier = TransferClassifier(strategy="probe", cache_dir=tmp_path / "cache", random_state=0).fit(IMAGES, NAMES)
    network = make_other_weights(classifier.backbone_)
    classifier.backbone_ = classifier.backbone_.with_network(network)

    save(classifier, tmp_path / "model")
    loaded = load(tmp_path / "model")

    assert_same(loaded, classifier)
    assert loaded.backbone_.weights == classifier.backbone_.weights
    save(loaded, tmp_path / "again")
    assert_same(load(tmp_path / "again"), classifier)


def make_other_weights(backbone):
    import copy

    import torch

    network = copy.deepcopy(backbone.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
    return network


def test_backbone_can_be_included(fitted, tmp_path):
    save(fitted, tmp_path / "small")
    save(fitted, tmp_path / "whole", include_backbone=True)

    assert not (tmp_path / "small" / "backbone.safetensors").exists()
    assert (tmp_path / "whole" / "backbone.safetensors").stat().st_size > 100_000
    assert_same(load(tmp_path / "whole"), fitted)


def test_saving_again_replaces_the_classifier_and_nothing_else(fitted, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").write_text("keep me")
    save(fitted, tmp_path / "model")

    save(fitted, tmp_path / "model")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes"]
    with pytest.raises(InvalidInputError, match="not a saved classifier"):
        save(fitted, tmp_path / "notes")
    (tmp_path / "notes" / "model.json").write_text('{"format": "layers-model", "weightsManifest": []}')
    with pytest.raises(InvalidInputError, match="not a saved classifier"):
        save(fitted, tmp_path / "notes")
    (tmp_path / "model" / "report.html").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"report\.html"):
        save(fitted, tmp_path / "model")
    assert (tmp_path / "model" / "report.html").read_text() == "mine"
    assert (tmp_path / "notes" / "important.txt").read_text() == "keep me"


def test_unfitted_classifier_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        save(TransferClassifier(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


class OwnHead(LogisticHead):
    """A head that is none of the library's."""


def test_head_of_ones_own_is_refused_with_a_way_out(tmp_path):
    classifier = TransferClassifier(strategy="probe", head=OwnHead(), cache_dir=tmp_path / "cache", random_state=0)
    classifier.fit(IMAGES, NAMES)

    with pytest.raises(InvalidInputError, match=r"joblib\.dump"):
        save(classifier, tmp_path / "model")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code in the folder was run')",)


def test_pickle_in_the_folder_is_never_run(fitted, tmp_path):
    folder = save(fitted, tmp_path / "model")
    (folder / "head.safetensors").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(ModelFileError, match="damaged"):
        load(folder)


def test_folder_that_is_no_classifier_says_so(tmp_path):
    with pytest.raises(ModelFileError, match=r"has no model\.json"):
        load(tmp_path)


def test_newer_format_says_what_to_install(fitted, tmp_path):
    folder = save(fitted, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "outcome": "something else"}))
    with pytest.raises(ModelFileError, match="changed"):
        load(folder)
    (folder / "model.json").write_text(json.dumps({**described, "version": 99}))

    with pytest.raises(ModelFileError, match="version 99"):
        load(folder)


def test_missing_weights_file_is_named(tmp_path):
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(dict(load_backbone("embedded").network.state_dict()), weights)
    classifier = TransferClassifier(
        weights=weights, strategy="probe", cache_dir=tmp_path / "cache", random_state=0
    ).fit(IMAGES, NAMES)
    save(classifier, tmp_path / "model")
    weights.unlink()

    with pytest.raises((ModelFileError, BackboneError), match=r"weights\.safetensors"):
        load(tmp_path / "model")
