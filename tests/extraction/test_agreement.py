"""How agreement is measured where a plain cosine would not say it."""

import numpy as np
import pytest

from bottleneck.extraction.agreement import lowest_cosine


@pytest.mark.parametrize(
    ("fast", "exact", "expected"),
    [
        ([[1, 0], [1, 1]], [[1, 0], [1, 0]], 0.5**0.5),
        ([[0, 0]], [[0, 0]], 1),
        ([[0, 0]], [[1, 0]], 0),
        ([[np.nan, 1]], [[1, 1]], 0),
        ([[np.inf, 1]], [[1, 1]], 0),
    ],
    ids=["the worst row counts", "both zero", "one zero", "nan", "infinite"],
)
def test_lowest_cosine_of_rows(fast, exact, expected):
    fast, exact = (np.array(rows, dtype=np.float32) for rows in (fast, exact))

    assert lowest_cosine({"a": exact, "b": fast}, {"a": exact, "b": exact}) == pytest.approx(expected)
