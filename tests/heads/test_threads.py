"""Small products stay on one core."""

from threadpoolctl import threadpool_info

from bottleneck.heads.threads import limited_threads


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_small_products_use_one_thread_and_the_number_before_comes_back() -> None:
    before = blas_threads()

    with limited_threads(1e6):
        inside = blas_threads()

    assert set(inside) <= {1}
    assert blas_threads() == before


def test_large_products_use_all_threads_there_were() -> None:
    before = blas_threads()

    with limited_threads(1e15):
        assert blas_threads() == before
