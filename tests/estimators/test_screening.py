import numpy as np

from bottleneck.estimators.screening import screen_early_stages, screen_layers, screened_rows
from bottleneck.features import CacheReport, Features
from bottleneck.heads import screen_features

LABELS = np.array(["a", "b", "c", "c"] * 50)


def rows_for(labels=LABELS, *, sample_weight=None, groups=None, seed=0, limit=4096):
    return screened_rows(labels, sample_weight=sample_weight, groups=groups, seed=seed, limit=limit)


def features_of(**layers) -> Features:
    n = len(layers["penultimate"])
    report = CacheReport(
        rows_extracted=n, rows_cached=0, rows_skipped=0, seconds=1.0, space="test", precision="float32"
    )
    return Features(kept=np.arange(n), layers=layers, report=report)


def test_few_rows_are_all_screened():
    np.testing.assert_array_equal(rows_for(), np.arange(200))


def test_many_rows_are_sampled_class_by_class():
    rows = rows_for(limit=100)

    assert np.unique(LABELS[rows], return_counts=True)[1].tolist() == [25, 25, 50]
    assert (np.diff(rows) > 0).all()


def test_rows_without_weight_are_not_screened():
    weight = np.ones(200)
    weight[:150] = 0

    np.testing.assert_array_equal(rows_for(sample_weight=weight), np.arange(150, 200))


def test_each_group_is_screened_by_one_of_its_rows():
    groups = np.random.default_rng(0).integers(0, 30, 200)

    rows = rows_for(groups=groups)

    np.testing.assert_array_equal(np.sort(groups[rows]), np.unique(groups))


def test_screen_of_all_rows_is_that_of_the_joined_layers():
    rng = np.random.default_rng(0)
    early, late = (rng.standard_normal((200, width)).astype(np.float32) for width in (40, 50))
    early[np.arange(200), np.unique(LABELS, return_inverse=True)[1]] += 3

    found = screen_layers(
        features_of(early=early, penultimate=late),
        LABELS,
        layers=("early", "penultimate"),
        sample_weight=None,
        groups=None,
        normalization="center",
        seed=0,
    )

    together = np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True) for part in (early, late)])
    expected = screen_features(
        {"penultimate": late, "all_stages": together}, LABELS, normalizations=("center",), random_state=0
    )
    assert found.gain("all_stages", over="penultimate") == expected.gain("all_stages", over="penultimate")
    assert found.learning_curve == expected.learning_curve


def test_too_few_groups_say_nothing():
    layers = {"penultimate": np.random.default_rng(0).standard_normal((200, 40)).astype(np.float32)}

    found = screen_layers(
        features_of(**layers),
        LABELS,
        layers=("penultimate",),
        sample_weight=None,
        groups=np.arange(200) // 5,
        normalization="center",
        seed=0,
    )

    assert found is None


def test_early_stages_are_the_first_half_of_the_stages_joined():
    rng = np.random.default_rng(0)
    layers = {
        name: rng.standard_normal((200, 20)).astype(np.float32) for name in ("one", "two", "three", "penultimate")
    }
    layers["two"][np.arange(200), np.unique(LABELS, return_inverse=True)[1]] += 2

    found = screen_early_stages(
        features_of(**layers),
        LABELS,
        layers=tuple(layers),
        sample_weight=None,
        groups=None,
        normalization="center",
        seed=0,
    )

    together = np.hstack(
        [layers[name] / np.linalg.norm(layers[name], axis=1, keepdims=True) for name in ("one", "two")]
    )
    expected = screen_features({"early": together}, LABELS, normalizations=("center",), random_state=0)
    assert found == expected.best("early").loo_accuracy > 0.7
