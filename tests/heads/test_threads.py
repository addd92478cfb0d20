"""Small products, and those of workers, stay on one core."""

import threading

from threadpoolctl import threadpool_info, threadpool_limits

from bottleneck.heads.threads import limited_threads, one_thread


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


def test_workers_compute_on_one_core_also_those_that_are_threads() -> None:
    inside: list[int] = []

    def work() -> None:
        with one_thread():
            inside.extend(blas_threads())

    with threadpool_limits(2, user_api="blas"):
        with one_thread():
            worker = threading.Thread(target=work)
            worker.start()
            worker.join()
            inside += blas_threads()

        assert set(inside) == {1}
        assert set(blas_threads()) == {2}
