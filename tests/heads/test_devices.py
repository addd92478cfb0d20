"""Heads solved by torch on a device are those that NumPy finds. Without a GPU the device is the processor."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.blocks import ArrayBlocks
from bottleneck.heads.devices import computing_on, load_features
from tests.heads.conftest import Draw

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])]


def assert_same(left: LogisticHead | SVMHead, right: LogisticHead | SVMHead, X: NDArray[Any]) -> None:
    assert (left.C_, left.normalize_) == (right.C_, right.normalize_)
    np.testing.assert_allclose(left.coef_, right.coef_, atol=1e-4 * np.abs(right.coef_).max())
    np.testing.assert_allclose(left.intercept_, right.intercept_, atol=1e-4 * np.abs(right.intercept_).max())
    # Beyond the best C the path only has to turn: L-BFGS in float32 ends there where rounding lets it.
    upto = right.Cs_ <= right.C_
    np.testing.assert_allclose(left.scores_[upto], right.scores_[upto], atol=1e-3)
    np.testing.assert_allclose(left.oof_proba_, right.oof_proba_, atol=1e-3)
    np.testing.assert_array_equal(left.predict(X), right.predict(X))


@pytest.mark.slow
@parametrize_with_checks([LogisticHead(device="cpu"), SVMHead(device="cpu")])
def test_scikit_learn_accepts_it(estimator: LogisticHead | SVMHead, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("head", [LogisticHead(random_state=0), SVMHead(random_state=0)], ids=["logistic", "svm"])
@pytest.mark.parametrize("shape", [(300, 40), (60, 90), (30, 4)], ids=["tall", "wide", "small"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_head_is_the_same_wherever_it_is_solved(
    device: str, head: LogisticHead, shape: tuple[int, int], n_classes: int, draw: Draw
) -> None:
    X, y = draw(*shape, n_classes=n_classes, spread=2)

    there = clone(head).set_params(device=device).fit(X.astype(np.float32), y)

    assert_same(there, clone(head).fit(X.astype(np.float32), y), X)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["center", "l2", "standardize", "none"])
def test_weights_groups_and_every_normalisation_are_the_same(device: str, kind: str, draw: Draw) -> None:
    X, y = draw(300, 30, spread=2)
    rng = np.random.default_rng(0)
    weight = np.where(rng.random(300) < 0.1, 0, rng.uniform(0.3, 2, 300))
    given = {"sample_weight": weight, "groups": np.arange(300) // 4}
    head = LogisticHead(normalize=kind, class_weight="balanced", random_state=0)

    there = clone(head).set_params(device=device).fit(X, y, **given)

    assert_same(there, clone(head).fit(X, y, **given), X)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_it_is_the_minimum_that_scikit_learn_finds(device: str, n_classes: int, draw: Draw) -> None:
    X, y = draw(400, 20, n_classes=n_classes, spread=2)

    head = LogisticHead(device=device, normalize="none", random_state=0).fit(X.astype(np.float32), y)

    naive = LogisticRegression(C=head.C_, tol=1e-12, max_iter=50_000).fit(X.astype(np.float32).astype(float), y)
    losses = [-one.predict_log_proba(X.astype(np.float32))[np.arange(400), y].sum() for one in (head, naive)]
    reached, least = (
        head.C_ * loss + 0.5 * np.square(one.coef_).sum() for loss, one in zip(losses, (head, naive), strict=True)
    )
    assert reached <= least * (1 + 1e-6)
    np.testing.assert_allclose(head.coef_, naive.coef_, atol=1e-4 * np.abs(naive.coef_).max())


@pytest.mark.parametrize("device", DEVICES)
def test_rows_are_worked_through_in_blocks(device: str, monkeypatch: pytest.MonkeyPatch, draw: Draw) -> None:
    X, y = draw(700, 20, n_classes=2, spread=2)
    whole = LogisticHead(device=device, random_state=0).fit(X, y)

    monkeypatch.setattr("bottleneck.heads.arrays.BLOCK_ELEMENTS", 2**13)
    monkeypatch.setattr("bottleneck.heads.solver.BLOCK_ELEMENTS", 2**12)

    assert_same(LogisticHead(device=device, random_state=0).fit(X, y), whole, X)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_arrays_and_blocks_are_taken_alike(device: str, dtype: torch.dtype, draw: Draw) -> None:
    X, y = draw(80, 6, n_classes=2, spread=2)
    tensor = torch.from_numpy(X).to(dtype)
    array = (tensor.float() if dtype == torch.bfloat16 else tensor).numpy()
    array.setflags(write=False)
    head = LogisticHead(device=device, random_state=0)

    of_tensor = clone(head).fit(tensor.requires_grad_(), torch.from_numpy(y))

    for given in (array, ArrayBlocks(array, n_rows=64)):
        np.testing.assert_allclose(clone(head).fit(given, y).coef_, of_tensor.coef_, rtol=1e-9, atol=1e-9)


def test_one_image_of_each_class_goes_by_class_means(draw: Draw) -> None:
    X, y = draw(4, 40, n_classes=4)

    head = LogisticHead(device="cpu").fit(X, y)

    np.testing.assert_allclose(head.coef_, LogisticHead().fit(X, y).coef_)


@pytest.mark.parametrize(
    "X, words",
    [
        (torch.zeros(6), "matrix"),
        (torch.full((6, 3), torch.nan), "NaN"),
        (torch.zeros(5, 3), "5 rows, but 6 labels"),
        (np.full((6, 3), np.inf, dtype=np.float16), "infinite"),
    ],
)
def test_features_that_are_none_are_refused(X: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        LogisticHead(device="cpu").fit(X, np.arange(6) % 2)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", 0, "xla:7"])
@pytest.mark.parametrize("head", [LogisticHead, SVMHead])
def test_a_device_that_is_not_there_is_refused(device: Any, head: type[LogisticHead], draw: Draw) -> None:
    with pytest.raises(InvalidInputError, match=r"'device' parameter of .* must be None, 'cpu', 'cuda'"):
        head(device=device).fit(*draw(20, 3))


@pytest.mark.parametrize(
    "head, y",
    [
        (SVMHead(kernel="rbf", device="cpu"), np.arange(20) % 2),
        (SVMHead(multi_class="crammer_singer", device="cpu"), np.arange(20) % 2),
        (LogisticHead(device="cpu"), np.eye(2, dtype=int)[np.arange(20) % 2]),
        (LogisticHead(device="cpu", cv="loo"), np.arange(20) % 2),
    ],
    ids=["rbf", "crammer_singer", "multilabel", "loo"],
)
def test_a_device_is_refused_for_what_only_numpy_solves(head: LogisticHead, y: NDArray[Any], draw: Draw) -> None:
    with pytest.raises(InvalidInputError, match=r"'device' parameter of .* must be None for"):
        head.fit(draw(20, 3)[0], y)


def test_more_than_the_memory_limit_is_refused_before_anything_is_read(draw: Draw) -> None:
    X, y = draw(100, 20)

    with pytest.raises(InvalidInputError, match=r"100 rows .* on cpu.*device=None"):
        LogisticHead(device="cpu", memory_limit=2 * 4 * 100 * 20 - 1).fit(X, y)

    assert LogisticHead(device="cpu", memory_limit=2 * 4 * 100 * 20).fit(X.astype(np.float32), y).C_ > 0


def test_a_device_whose_memory_runs_out_is_one_clear_error() -> None:
    with (
        pytest.raises(InvalidInputError, match=r"LogisticHead ran out of memory on cpu.*device=None"),
        computing_on(torch.device("cpu"), owner="LogisticHead"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("allowed", ["highest", "high"])
def test_products_are_exact_to_float32_meanwhile_whatever_the_program_allows(allowed: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        with computing_on(torch.device("cpu"), owner="LogisticHead"):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_tensor_that_is_on_the_device_is_not_copied() -> None:
    tensor = torch.zeros(4, 3)

    loaded = load_features(tensor, torch.device("cpu"), memory_limit="auto", owner="LogisticHead")

    assert loaded.data_ptr() == tensor.data_ptr()


def test_nobody_waits_for_torch_who_asks_for_no_device() -> None:
    code = (
        "import sys, numpy as np; from bottleneck import LogisticHead\n"
        "LogisticHead().fit(np.random.default_rng(0).random((40, 5)), np.arange(40) % 2)\n"
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@on_gpu
def test_a_tensor_on_a_gpu_is_solved_there(draw: Draw) -> None:
    X, y = draw(300, 40, spread=2)
    torch.cuda.reset_peak_memory_stats()

    head = LogisticHead(random_state=0).fit(torch.from_numpy(X).cuda(), y)

    assert torch.cuda.max_memory_allocated() > 2 * X.nbytes
    assert_same(head, LogisticHead(random_state=0).fit(X, y), X)
