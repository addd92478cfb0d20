"""Features and labels may be torch tensors or half precision."""

import numpy as np
import pytest
import torch

from bottleneck.heads import LogisticHead, SVMHead, arrays
from bottleneck.heads.arrays import as_array, as_features, beside, eigh, log_expit, on_host, rows_at_once, turned
from tests.heads.conftest import Draw


def test_a_tensor_on_the_cpu_is_not_copied() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)

    array = as_array(tensor)
    tensor[0, 0] = 9

    assert array[0, 0] == 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(dtype: torch.dtype) -> None:
    features = as_features(torch.tensor([[1.5, 2.0]], dtype=dtype, requires_grad=True))

    assert features.dtype == np.float32
    assert features.tolist() == [[1.5, 2.0]]


def test_anything_else_is_left_alone() -> None:
    given = [[1.0, 2.0]]

    assert as_features(given) is given


def test_numpy_and_torch_compute_the_same() -> None:
    array = np.random.default_rng(0).standard_normal((4, 4))
    symmetric = array @ array.T
    tensor = torch.from_numpy(symmetric.copy())

    for function in (log_expit, turned, lambda values: abs(eigh(values)[0]), lambda values: abs(eigh(values)[1])):
        np.testing.assert_allclose(as_array(function(tensor)), function(symmetric.copy()), atol=1e-12)


def test_rows_of_a_tensor_come_as_arrays() -> None:
    tensor = torch.arange(12.0).reshape(4, 3)

    rows = on_host(tensor)

    assert (len(rows), rows.shape) == (4, (4, 3))
    assert rows[np.array([2, 0])].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert isinstance(rows[1:3], np.ndarray)


def test_values_go_where_an_array_is() -> None:
    values = np.ones(2)

    assert beside(np.zeros(3), values) is values
    assert isinstance(beside(torch.zeros(3), values), torch.Tensor)


def test_a_device_takes_more_rows_at_once_than_the_caches_of_a_processor() -> None:
    elsewhere = torch.zeros(1, device="meta")

    assert rows_at_once(np.zeros(1), width=100, on_processor=256) == 256
    assert rows_at_once(torch.zeros(1), width=100, on_processor=256) == 256
    assert rows_at_once(elsewhere, width=100, on_processor=256) == arrays.BLOCK_ELEMENTS // 100


@pytest.mark.parametrize("head", [LogisticHead(random_state=0), SVMHead(random_state=0)], ids=["logistic", "svm"])
def test_heads_take_tensors_as_they_take_arrays(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(60, 10)
    X, weight = X.astype(np.float32), np.arange(60) % 3 + 1.0

    of_arrays = head.fit(X, y, sample_weight=weight).predict_proba(X)
    of_tensors = head.fit(
        torch.from_numpy(X), torch.from_numpy(y), sample_weight=torch.from_numpy(weight)
    ).predict_proba(torch.from_numpy(X))

    np.testing.assert_array_equal(of_tensors, of_arrays)


def test_half_precision_gives_the_fit_of_the_same_numbers(draw: Draw) -> None:
    X, y = draw(60, 10)
    X = X.astype(np.float16)

    half, single = (LogisticHead(random_state=0).fit(given, y) for given in (X, X.astype(np.float32)))

    np.testing.assert_array_equal(half.coef_, single.coef_)
    np.testing.assert_array_equal(half.predict_proba(X), single.predict_proba(X.astype(np.float32)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_tensors_on_a_gpu_are_taken(draw: Draw) -> None:
    X, y = draw(60, 10)
    on_gpu = torch.from_numpy(X).cuda()

    head = LogisticHead(random_state=0).fit(on_gpu, torch.from_numpy(y).cuda())

    np.testing.assert_array_equal(head.predict(on_gpu), head.predict(X))
