import numpy as np
import pytest

from bottleneck.report.calibration import N_BINS, calibrate


def naive_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    error = 0.0
    for number in range(N_BINS):
        inside = (confidence > number / N_BINS) & (confidence <= (number + 1) / N_BINS)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return error


def drawn(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, and answers that are right exactly as often as these say."""
    rng = np.random.RandomState(seed)
    confidence = rng.uniform(0.3, 1.0, n)
    return confidence, rng.rand(n) < confidence


def test_error_equals_a_loop_over_the_bins():
    confidence, correct = drawn(400)

    assert calibrate(confidence**2, correct).error == pytest.approx(naive_error(confidence**2, correct))


def test_every_image_is_in_one_bin_that_holds_its_confidence():
    confidence = np.concatenate([np.arange(1, N_BINS + 1) / N_BINS, [0.0, 1.0, 1.0 + 1e-12]])

    bins = calibrate(confidence, np.ones(len(confidence), dtype=bool)).bins

    assert sum(found.accuracy.n for found in bins) == len(confidence)
    assert all(found.low <= found.confidence <= found.high for found in bins)


def test_bins_count_what_was_right():
    bins = calibrate(np.array([0.95, 0.96, 0.97, 0.5]), np.array([True, False, True, False])).bins

    assert [(found.accuracy.n_right, found.accuracy.n) for found in bins] == [(0, 1), (2, 3)]
    assert bins[1].confidence == pytest.approx(0.96)


def test_error_by_chance_is_the_mean_error_of_calibrated_answers():
    confidence, _ = drawn(150)
    rng = np.random.RandomState(1)

    errors = [naive_error(confidence, rng.rand(150) < confidence) for _ in range(400)]

    calibration = calibrate(confidence, np.ones(150, dtype=bool))
    assert calibration.error_by_chance == pytest.approx(np.mean(errors), rel=0.1)


def test_error_of_calibrated_answers_vanishes_with_many_images():
    calibration = calibrate(*drawn(200_000))

    assert calibration.error < 0.005
    assert calibration.error_by_chance < 0.005


def test_certain_and_right_has_no_error():
    calibration = calibrate(np.ones(10), np.ones(10, dtype=bool))

    assert (calibration.error, calibration.error_by_chance) == (0, 0)
