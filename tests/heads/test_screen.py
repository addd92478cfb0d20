"""Screening ranks normalisations and blocks by exact leave-one-out."""

import numpy as np
import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.heads import screen_features
from bottleneck.heads.folds import deal
from bottleneck.heads.normalize import Normalization, fit_normalizer
from bottleneck.heads.ridge import leave_one_out
from bottleneck.heads.screen import MAX_ROWS, choose_normalization, distinct_rows
from bottleneck.heads.training import make_generator
from tests.heads.conftest import Draw
from tests.heads.test_ridge import predict_each_row_by_the_others


def test_every_normalisation_of_every_block_is_tried(draw: Draw) -> None:
    X, y = draw(60, 50)

    result = screen_features({"late": X[:, 5:], "all": [X[:, :5], X[:, 5:]]}, y)

    tried = [(record.block, record.balance, record.normalization) for record in result.records]
    assert tried == [
        ("late", "width", "l2"),
        ("late", "width", "center"),
        ("late", "width", "standardize"),
        ("all", "width", "center"),
        ("all", "width", "standardize"),
        ("all", "equal", "center"),
        ("all", "equal", "standardize"),
    ]


def test_only_the_normalisations_asked_for_are_tried(draw: Draw) -> None:
    X, y = draw(60, 50)

    result = screen_features({"late": X, "all": [X[:, :5], X[:, 5:]]}, y, normalizations=("l2",))

    assert [(record.block, record.balance) for record in result.records] == [
        ("late", "width"),
        ("all", "width"),
        ("all", "equal"),
    ]
    assert {record.normalization for record in result.records} == {"l2"}


def test_accuracy_is_that_of_leaving_one_out_by_hand(draw: Draw) -> None:
    X, y = draw(40, 6, spread=2)

    result = screen_features({"late": X}, y)

    for record in result.records:
        normalized = fit_normalizer(X, np.ones(40), record.normalization)(X)
        brute = predict_each_row_by_the_others(normalized, y, np.ones(40), record.penalty)
        assert record.loo_accuracy == pytest.approx((brute.argmax(axis=1) == y).mean())
        np.testing.assert_allclose(record.squared_errors, np.square(brute - np.eye(3)[y]).sum(axis=1), atol=1e-4)
        assert record.loo_accuracy_se == pytest.approx(np.sqrt(record.loo_accuracy * (1 - record.loo_accuracy) / 40))


def test_a_block_that_knows_more_is_found_and_its_gain_measured(draw: Draw) -> None:
    X, y = draw(90, 12, spread=2)
    noise = np.random.default_rng(9).standard_normal((90, 12))

    result = screen_features({"noise": noise, "both": [X, noise]}, y)

    gain = result.gain("both", over="noise")
    assert result.best().block == "both"
    assert gain.accuracy == pytest.approx(result.best("both").loo_accuracy - result.best("noise").loo_accuracy)
    assert gain.accuracy > 3 * gain.se > 0


def test_the_first_block_is_kept_when_another_adds_nothing(draw: Draw) -> None:
    X, y = draw(90, 40)
    noise = np.random.default_rng(9).standard_normal((90, 40))

    assert screen_features({"late": X, "both": [X, noise]}, y).best().block == "late"


def test_the_learning_curve_rises_to_all_rows(draw: Draw) -> None:
    X, y = draw(160, 20, n_classes=4, spread=2.5)

    result = screen_features({"late": X}, y, random_state=0)

    assert [point.n_samples for point in result.learning_curve] == [40, 80, 160]
    assert result.learning_curve[0].accuracy < result.learning_curve[2].accuracy
    assert result.learning_curve[2].accuracy == result.best().loo_accuracy


@pytest.mark.parametrize("kind", ["l2", "center", "standardize"])
@pytest.mark.parametrize("n_features", [25, 60, 300])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_learning_curve_is_that_of_parts_normalised_by_themselves(
    kind: Normalization, n_features: int, weighted: bool, draw: Draw
) -> None:
    X, y = draw(120, n_features, spread=3)
    weights = np.random.default_rng(0).uniform(0.3, 2, size=120) if weighted else np.ones(120)

    curve = screen_features(
        {"late": X}, y, sample_weight=weights, normalizations=(kind,), random_state=0
    ).learning_curve

    # The parts are dealt after the rows are told apart, which draws no number here.
    rng = make_generator(0)
    for n_parts, point in zip((4, 2), curve[:2], strict=True):
        dealt = deal(y, n_parts, rng)
        correct = np.zeros(120)
        for part in range(n_parts):
            rows = dealt == part
            normalized = fit_normalizer(X[rows], weights[rows], kind)(X[rows])
            left_out = leave_one_out(normalized, y[rows], weights=weights[rows])
            best = min(left_out, key=lambda loo: weights[rows] @ np.square(loo.predictions - np.eye(3)[y[rows]]).sum(1))
            correct[rows] = best.predictions.argmax(axis=1) == y[rows]
        assert point.accuracy == pytest.approx(np.average(correct, weights=weights), abs=1e-9)


def test_the_learning_curve_leaves_out_sizes_with_one_image_of_a_class(draw: Draw) -> None:
    X, y = draw(20, 6, n_classes=4)

    assert [point.n_samples for point in screen_features({"late": X}, y).learning_curve] == [10, 20]


def test_copies_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 20)), rng.integers(2, size=30)

    once = screen_features({"late": X}, y)
    thrice = screen_features({"late": np.repeat(X, 3, axis=0)}, np.repeat(y, 3))

    assert [r.loo_accuracy for r in thrice.records] == [r.loo_accuracy for r in once.records]


def test_rows_without_weight_are_left_out(draw: Draw) -> None:
    X, y = draw(40, 6, spread=2)
    weight = (np.arange(40) % 5 > 0).astype(float)

    weighted = screen_features({"late": X}, y, sample_weight=weight)
    removed = screen_features({"late": X[weight > 0]}, y[weight > 0])

    assert [r.loo_accuracy for r in weighted.records] == [r.loo_accuracy for r in removed.records]


def test_many_rows_are_screened_by_a_stratified_sample() -> None:
    X = np.arange(3.0 * MAX_ROWS)[:, None]
    y = (np.arange(len(X)) % 4 == 0).astype(int)

    rows, weights = distinct_rows([X], y, np.ones(len(X)), np.random.default_rng(0))

    assert len(rows) == len(weights) == MAX_ROWS
    assert y[rows].mean() == pytest.approx(1 / 4, abs=1e-3)


def test_one_image_of_each_class_leaves_the_default(draw: Draw) -> None:
    X, y = draw(4, 40, n_classes=4)

    rng = np.random.default_rng(0)
    assert choose_normalization(X, y, weights=np.ones(4), rng=rng) == "l2"
    assert choose_normalization(X[:, :8], y, weights=np.ones(4), rng=rng) == "center"
    with pytest.raises(InvalidInputError, match="needs a class with two distinct rows"):
        screen_features({"late": X}, y)


def test_blocks_of_another_length_are_refused(draw: Draw) -> None:
    X, y = draw(12, 4)

    with pytest.raises(InvalidInputError, match="There are 12 labels"):
        screen_features({"late": X[:-1]}, y)


def test_an_unknown_block_is_answered_with_the_nearest(draw: Draw) -> None:
    X, y = draw(12, 4)

    with pytest.raises(InvalidInputError, match="Did you mean 'penultimate'"):
        screen_features({"penultimate": X}, y).best("penultimat")
