import numpy as np
import pytest

from bottleneck.heads.evidence import mean_and_se


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_it_is_the_error_of_a_mean(rng: np.random.Generator) -> None:
    values = rng.standard_normal(50)

    mean, se = mean_and_se(values, np.ones(50))

    assert mean == pytest.approx(values.mean())
    assert se == pytest.approx(values.std() / np.sqrt(50))


def test_a_row_of_weight_two_adds_as_much_as_two_of_one_group(rng: np.random.Generator) -> None:
    values, weights = rng.standard_normal(40), rng.integers(1, 4, size=40)
    rows = np.repeat(np.arange(40), weights)

    assert mean_and_se(values, weights) == pytest.approx(mean_and_se(values[rows], np.ones(len(rows)), rows))


def test_copies_of_a_row_are_evidence_unless_they_are_a_group(rng: np.random.Generator) -> None:
    values = rng.standard_normal(40)
    alone = mean_and_se(values, np.ones(40))
    again, groups = np.tile(values, 4), np.tile(np.arange(40), 4)

    assert mean_and_se(again, np.ones(160), groups) == pytest.approx(alone)
    assert mean_and_se(again, np.ones(160)) == pytest.approx((alone[0], alone[1] / 2))


def test_mean_of_what_is_always_right_is_exactly_one(rng: np.random.Generator) -> None:
    assert mean_and_se(np.ones(7, dtype=bool), rng.uniform(0, 1, size=7)) == (1.0, 0.0)
