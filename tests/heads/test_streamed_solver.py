"""Heads of all folds and Cs are the minima that scikit-learn finds for each."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bottleneck.heads.blocks import ArrayBlocks, BlockReader
from bottleneck.heads.calibration import log_probabilities
from bottleneck.heads.losses import SIGMOID, SOFTMAX
from bottleneck.heads.moments import measure_moments
from bottleneck.heads.streamed_solver import (
    ALL_ROWS,
    StreamedHeads,
    StreamedProblem,
    judge_held_out,
    score_held_out,
    solve_streamed,
    untrained_curvature,
    zero_heads,
)
from tests.heads.conftest import Draw

N, CS = 240, (0.1, 3.0)


@pytest.fixture(params=[2, 3])
def posed(request: pytest.FixtureRequest, draw: Draw) -> tuple[StreamedProblem, np.ndarray]:
    """Return a problem with three folds, and its features."""
    X, y = draw(N, 6, n_classes=request.param, spread=2)
    parts, weights = np.arange(N) // request.param % 4 - 1, np.random.default_rng(0).uniform(0.5, 2, size=N)
    reader = BlockReader(ArrayBlocks(X, n_rows=50))
    moments = measure_moments(reader, kind="standardize", weights=weights, parts=parts, n_folds=3)
    normalizer = moments.normalizer()
    axes, spectrum = moments.principal_axes(normalizer)
    problem = StreamedProblem(
        reader=reader,
        labels=y,
        weights=weights,
        parts=parts,
        normalizer=normalizer,
        axes=axes,
        spectrum=spectrum,
        spread=moments.fold_spread(normalizer),
        loss=SIGMOID if request.param == 2 else SOFTMAX,
        n_outputs=1 if request.param == 2 else request.param,
    )
    return problem, X


def solved(problem: StreamedProblem) -> StreamedHeads:
    start = zero_heads(problem, folds=np.array([0, 1, 2, 0, 1, 2, ALL_ROWS]), Cs=np.array([*np.repeat(CS, 3), CS[1]]))
    return solve_streamed(problem, start, tol=1e-10, max_iter=500, dtype=np.float64)


def test_each_head_is_the_minimum_for_its_fold_and_c(posed: tuple[StreamedProblem, np.ndarray]) -> None:
    problem, X = posed

    heads = solved(problem)

    rows = problem.normalizer(X)
    for number, (fold, C) in enumerate(zip(heads.folds, heads.Cs, strict=True)):
        train = problem.parts != fold
        # A penalty on each feature in its fold's own scale is one on features in that scale.
        own = np.sqrt(problem.spread[fold]) if fold >= 0 else np.ones(6)
        naive = LogisticRegression(C=C, tol=1e-12, max_iter=10_000)
        naive.fit(rows[train] / own, problem.labels[train], sample_weight=problem.weights[train])
        np.testing.assert_allclose(heads.coef[number], naive.coef_ / own, atol=1e-5)


def test_held_out_rows_are_scored_by_the_fold_that_lacks_them(posed: tuple[StreamedProblem, np.ndarray]) -> None:
    problem, X = posed
    heads = solved(problem)
    of_folds = replace(
        heads, folds=heads.folds[:6], Cs=heads.Cs[:6], coef=heads.coef[:6], intercept=heads.intercept[:6]
    )
    kept = np.array([5, 20, 200])

    scored = score_held_out(problem, of_folds, kept)

    rows, held = problem.normalizer(X), problem.parts >= 0
    for number, found in enumerate(scored):
        logits = np.array(
            [
                heads.coef[3 * number + fold] @ row + heads.intercept[3 * number + fold]
                for row, fold in zip(rows, problem.parts, strict=True)
            ]
        )
        proba, weights = np.exp(log_probabilities(logits[held])), problem.weights[held]
        assert found.log_loss == pytest.approx(
            log_loss(problem.labels[held], proba, sample_weight=weights) * found.weight
        )
        assert found.weight == pytest.approx(weights.sum())
        expected = np.where(held[kept, None], logits[kept], np.nan)
        np.testing.assert_allclose(found.kept, expected, rtol=1e-4, atol=1e-5)
        of_C = replace(of_folds, coef=heads.coef[3 * number :][:3], intercept=heads.intercept[3 * number :][:3])
        right, losses = judge_held_out(problem, replace(of_C, folds=np.arange(3)), slope=2.0)
        log_proba = np.where(held[:, None], log_probabilities(2 * logits), np.nan)
        assert (right[held] == (proba.argmax(axis=1) == problem.labels[held])).all()
        np.testing.assert_allclose(losses, -log_proba[np.arange(N), problem.labels], rtol=1e-4, atol=1e-5)


def test_products_in_single_precision_are_near(posed: tuple[StreamedProblem, np.ndarray]) -> None:
    problem, _ = posed
    exact = solved(problem)

    start = zero_heads(problem, folds=exact.folds, Cs=exact.Cs)
    rough = solve_streamed(problem, start, tol=1e-3, max_iter=500, dtype=np.float32)

    np.testing.assert_allclose(rough.coef, exact.coef, atol=0.02)
    assert rough.n_iter < exact.n_iter


def test_curvature_of_what_is_untrained_is_that_of_chance(posed: tuple[StreamedProblem, np.ndarray]) -> None:
    problem, _ = posed
    of_classes = problem.fold_weights()

    bend = untrained_curvature(problem, of_classes)

    n_classes = of_classes.shape[1]
    chance = 0.25 if n_classes == 2 else (1 / n_classes) * (1 - 1 / n_classes)
    np.testing.assert_allclose(bend, np.tile(chance * of_classes.sum(axis=1)[:, None], problem.n_outputs))
