"""Classifiers and heads also survive joblib and skops, which people have anyway."""

import subprocess
import sys

import joblib
import numpy as np
import pytest

from bottleneck import SVMHead, TransferClassifier
from bottleneck.errors import BackboneError
from tests.conftest import coloured_images, make_tiny_backbone

IMAGES, LABELS = coloured_images(24)
OURS = "bottleneck."


def fitted(tmp_path, backbone="embedded", **params) -> TransferClassifier:
    return TransferClassifier(
        backbone, strategy="probe", cache_dir=str(tmp_path / "cache"), random_state=0, **params
    ).fit(IMAGES, LABELS)


def test_joblib_keeps_classifiers_whole_also_on_own_modules(tmp_path):
    classifier = fitted(tmp_path, make_tiny_backbone(), head=SVMHead(kernel="rbf"))
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, joblib, numpy as np; folder = sys.argv[1]\n"
        "classifier = joblib.load(folder + '/classifier.joblib').set_params(cache_dir=folder + '/other')\n"
        "np.save(folder + '/proba.npy', classifier.predict_proba(np.load(folder + '/images.npy')))"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), classifier.predict_proba(IMAGES))


@pytest.mark.parametrize("head", [None, SVMHead(kernel="rbf")])
def test_skops_keeps_classifiers_on_named_backbones(head, tmp_path):
    sio = pytest.importorskip("skops.io")
    classifier = fitted(tmp_path, head=head)

    dumped = sio.dumps(classifier)

    unknown = sio.get_untrusted_types(data=dumped)
    assert all(name.startswith(OURS) for name in unknown)  # nothing of torch, and no functions
    loaded = sio.loads(dumped, trusted=unknown)
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), classifier.predict_proba(IMAGES))
    assert loaded.backbone_.weights_digest == classifier.backbone_.weights_digest
    assert loaded.plan_ == classifier.plan_


def test_skops_keeps_tuned_weights(tmp_path):
    sio = pytest.importorskip("skops.io")
    classifier = fitted(tmp_path)
    network = classifier.backbone_.with_network(classifier.backbone_.network).network
    next(network.parameters()).mul_(1.1)
    classifier.backbone_ = classifier.backbone_.with_network(network)

    dumped = sio.dumps(classifier)

    loaded = sio.loads(dumped, trusted=sio.get_untrusted_types(data=dumped))
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), classifier.predict_proba(IMAGES))


def test_skops_keeps_heads_alone_and_says_what_to_do_about_own_modules(tmp_path):
    sio = pytest.importorskip("skops.io")
    classifier = fitted(tmp_path, make_tiny_backbone())
    features = np.random.RandomState(0).standard_normal((5, 16)).astype(np.float32)

    dumped = sio.dumps(classifier.head_)

    loaded = sio.loads(dumped, trusted=sio.get_untrusted_types(data=dumped))
    np.testing.assert_array_equal(loaded.predict_proba(features), classifier.head_.predict_proba(features))
    with pytest.raises(BackboneError, match=r"own module.*joblib\.dump"):
        sio.dumps(classifier)
