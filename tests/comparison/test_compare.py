"""Backbones on the same held-out images."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict

from bottleneck import FeatureExtractor, LogisticHead, compare_backbones
from bottleneck.errors import BackboneError, InvalidInputError, SkippedImagesWarning, UnreadableImagesError
from tests.conftest import coloured_images, make_tiny_backbone, write_image_folder

HEAD = LogisticHead([1.0], normalize="center")


@pytest.fixture(scope="module")
def backbones():
    return [make_tiny_backbone(seed) for seed in (0, 1)]


@pytest.fixture
def data():
    return coloured_images(40, seed=3, side=16)


def test_accuracy_is_that_of_plain_cross_validation(backbones, data, tmp_path):
    X, y = data
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    head = LogisticRegression(C=0.01)

    table = compare_backbones(X, y, backbones, cv=cv, head=head, cache_dir=tmp_path, random_state=0)

    expected = {}
    for backbone in backbones:
        features = FeatureExtractor(backbone, cache_dir=tmp_path).fit_transform(X)
        expected[backbone.weights_digest] = (cross_val_predict(head, features, y, cv=cv) == y).mean()
    assert sorted(score.accuracy.value for score in table) == sorted(expected.values())
    assert (table.n_images, table.n_classes, table.n_folds, table.majority) == (40, 2, 4, 0.5)


def test_each_image_goes_through_each_backbone_once(backbones, data, tmp_path):
    X, y = data

    first = compare_backbones(X, y, backbones, head=HEAD, cv=2, cache_dir=tmp_path, random_state=0)
    second = compare_backbones(X, y, backbones, head=HEAD, cv=2, cache_dir=tmp_path, random_state=0)

    assert [score.rows_extracted for score in first] == [40, 40]
    assert [(score.rows_extracted, score.rows_cached) for score in second] == [(0, 40), (0, 40)]
    assert [score.accuracy for score in first] == [score.accuracy for score in second]


def test_costs_are_those_of_the_backbone(backbones, data, tmp_path):
    X, y = data

    (score,) = compare_backbones(X, y, backbones[:1], head=HEAD, cv=2, cache_dir=tmp_path, random_state=0)

    widths = backbones[0].layer_widths
    assert score.n_features == widths["penultimate"]
    assert score.feature_bytes == 40 * 2 * sum(widths.values())
    assert score.weight_bytes == sum(part.nbytes for part in backbones[0].network.state_dict().values())
    assert score.images_per_second > 0
    assert score.seconds > 0


def test_copies_and_groups_are_never_on_both_sides(backbones):
    """Labels that mean nothing: only a picture's own copy could tell them."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8), 2, axis=0)
    y = np.repeat(rng.integers(0, 2, 30), 2)
    rows = np.arange(60)
    noisy = np.clip(X + rng.integers(-40, 40, X.shape), 0, 255).astype(np.uint8)

    for images, groups in ((X, None), (noisy, rows // 2)):
        table = compare_backbones(images, y, backbones[:1], groups=groups, head=HEAD, random_state=0)
        assert table.best.accuracy.low < 0.6


def test_splitter_is_given_the_groups(backbones, data):
    X, y = data

    table = compare_backbones(
        X, y, backbones[:1], groups=np.arange(40) // 4, cv=GroupKFold(5), head=HEAD, random_state=0
    )

    assert (table.n_images, table.n_folds) == (40, 5)


def test_head_that_reads_from_disk_gives_the_same(backbones, data, tmp_path):
    X, y = data
    heads = [LogisticHead([1.0], normalize="center", memory_limit=limit) for limit in ("auto", 0)]

    in_memory, from_disk = (
        compare_backbones(X, y, backbones[:1], head=head, cv=2, cache_dir=tmp_path, random_state=0) for head in heads
    )

    assert from_disk.best.accuracy == in_memory.best.accuracy


def test_unreadable_images_are_left_out_or_raised(backbones, tmp_path):
    folder = write_image_folder(tmp_path / "images")
    (folder / "bluish" / "000.png").write_bytes(b"<html></html>")

    with pytest.warns(SkippedImagesWarning):
        table = compare_backbones(folder, None, backbones[:1], head=HEAD, on_error="skip", random_state=0)
    assert table.n_images == 23
    with pytest.raises(UnreadableImagesError, match=r"000\.png"):
        compare_backbones(folder, None, backbones[:1], head=HEAD)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("resnet50", InvalidInputError, "must be a list such as"),
        ([], InvalidInputError, "must be a list such as"),
        (["embedded", "resnet5O"], BackboneError, "Did you mean 'resnet50'"),
        (["embedded", "embedded"], InvalidInputError, "is there twice"),
    ],
)
def test_mistake_is_said_before_any_image_is_read(tmp_path, wrong, error, said):
    missing = [str(tmp_path / "no.png"), str(tmp_path / "neither.png")]

    with pytest.raises(error, match=said):
        compare_backbones(missing, [0, 1], wrong)


def test_one_image_a_class_cannot_be_held_out(backbones):
    X, y = coloured_images(2, side=16)

    with pytest.raises(InvalidInputError, match="No image can be held out"):
        compare_backbones(X, y, backbones[:1], head=HEAD)
