"""Images that belong together: what is held out is always of groups that were not trained on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, GroupKFold

from bottleneck import FineTuneSettings, LogisticHead, TransferClassifier
from bottleneck.errors import InvalidInputError, SkippedImagesWarning
from bottleneck.images import as_labelled_source

N_GROUPS, N_REPEATS = 10, 8


@pytest.fixture
def make(tiny_backbone, tmp_path):
    """Return a factory of quick classifiers that share a cache."""

    def build(**params) -> TransferClassifier:
        defaults = {"strategy": "probe", "cache_dir": tmp_path / "cache", "device": "cpu", "random_state": 0}
        return TransferClassifier(tiny_backbone, **{**defaults, **params})

    return build


def nearly_repeated() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    """Return images of patients of all colours, several of each: the labels are chance, and who saw one knows all."""
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(N_GROUPS), N_REPEATS)
    shades = rng.integers(50, 200, (N_GROUPS, 1, 1, 3))[people] + rng.integers(-20, 21, (len(people), 1, 1, 3))
    images = np.clip(shades + rng.integers(-25, 26, (len(people), 20, 20, 3)), 0, 255).astype(np.uint8)
    labels = rng.permutation(np.arange(N_GROUPS) % 2)[people]
    return images, labels, np.array([f"patient {number}" for number in people])


def test_accuracy_is_that_on_new_groups(make):
    images, labels, groups = nearly_repeated()
    classifier = make(strategy="all_stages_probe")

    alone = classifier.fit(images, labels).accuracy_cv_
    together = classifier.fit(images, labels, groups=groups).accuracy_cv_

    assert together < 0.5 < 0.75 < alone


def test_splitter_of_the_head_is_given_the_groups(make):
    images, labels, groups = nearly_repeated()
    splits = list(GroupKFold(5).split(images, labels, groups))

    by_splitter = make(head=LogisticHead(cv=GroupKFold(5))).fit(images, labels, groups=list(groups))

    by_hand = make(head=LogisticHead(cv=splits)).fit(images, labels, groups=groups)
    np.testing.assert_array_equal(by_splitter.head_.oof_proba_, by_hand.head_.oof_proba_)


def test_groups_of_unreadable_images_are_left_out_with_them(make, image_folder):
    (image_folder / "bluish" / "000.png").write_bytes(b"")
    source, labels = as_labelled_source(image_folder, None)
    groups = np.arange(24) // 2

    with pytest.warns(SkippedImagesWarning, match=r"000\.png"):
        skipping = make(on_error="skip").fit(image_folder, groups=groups)

    without = make().fit(np.array(source.ids)[1:], labels[1:], groups=groups[1:])
    np.testing.assert_array_equal(skipping.head_.coef_, without.head_.coef_)


def test_fine_tuning_is_compared_on_new_groups(make):
    images, labels, groups = nearly_repeated()
    settings = FineTuneSettings(steps=12, batch_size=16, lr=0.05, acceptance_z=0.0)

    classifier = make(strategy="finetune", finetune=settings).fit(images, labels, groups=groups)

    assert classifier.accuracy_cv_ < 0.75


@pytest.mark.parametrize("n_groups", [11, 13])
def test_groups_that_do_not_match_are_counted(make, n_groups):
    images, labels, _ = nearly_repeated()

    with pytest.raises(InvalidInputError, match=rf"12 rows, but {n_groups} groups"):
        make().fit(images[:12], labels[:12], groups=np.arange(n_groups))


def test_grid_search_routes_groups_to_splitter_and_classifier(make):
    images, labels, groups = nearly_repeated()

    with config_context(enable_metadata_routing=True):
        classifier = make(head=LogisticHead()).set_fit_request(groups=True)
        search = GridSearchCV(classifier, {"head__normalize": ["center", "l2"]}, cv=GroupKFold(3))
        search.fit(images, labels, groups=groups)

    assert search.best_score_ < 0.75
    assert search.best_estimator_.accuracy_cv_ < 0.75
