"""A fit from disk gives what a fit in memory gives, and takes little memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.blocks import ArrayBlocks, BlockReader
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization
from tests.features.dask_cluster import DaskCluster
from tests.heads.conftest import Draw
from tests.heads.test_blocks import Shards

HEADS = [LogisticHead(random_state=0), SVMHead(random_state=0)]


def fitted_both_ways(head: Any, X: np.ndarray, y: np.ndarray, **given: Any) -> tuple[Any, Any]:
    in_memory = clone(head).fit(X, y, **given)
    return in_memory, clone(head).set_params(memory_limit=0).fit(Shards(X, ends=(100, 350)), y, **given)


def assert_same(fitted: tuple[Any, Any], X: np.ndarray, y: np.ndarray, **given: Any) -> None:
    """Several Cs may be as good as each other, to the digits that the path has; at one C the heads are the same."""
    in_memory, streamed = fitted
    assert streamed.normalize_ == in_memory.normalize_
    assert streamed.log_loss_cv_ == pytest.approx(in_memory.log_loss_cv_, abs=0.003)
    if streamed.C_ != in_memory.C_:
        in_memory = clone(in_memory).set_params(Cs=[streamed.C_]).fit(X, y, **given)
    size = np.abs(in_memory.coef_).max()
    np.testing.assert_allclose(streamed.coef_, in_memory.coef_, atol=1e-4 * size)
    np.testing.assert_allclose(streamed.intercept_, in_memory.intercept_, atol=1e-4 * size)
    assert streamed.accuracy_cv_ == pytest.approx(in_memory.accuracy_cv_, abs=0.015)
    assert streamed.accuracy_se_ == pytest.approx(in_memory.accuracy_se_, rel=0.5)


@pytest.mark.parametrize("head", HEADS, ids=["logistic", "svm"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("kind", ["auto", *NORMALIZATIONS])
def test_it_is_the_fit_in_memory(head: Any, n_classes: int, kind: Normalization, draw: Draw) -> None:
    X, y = draw(600, 40, n_classes=n_classes, spread=2)

    X = X.astype(np.float32)
    in_memory, streamed = fitted_both_ways(clone(head).set_params(normalize=kind), X, y)

    assert_same((in_memory, streamed), X, y)
    assert streamed.n_passes_ < 250


def test_half_precision_is_fitted_as_it_is_in_memory(draw: Draw) -> None:
    X, y = draw(600, 40, spread=2)

    X = X.astype(np.float16)
    fitted = fitted_both_ways(LogisticHead(random_state=0), X, y)

    assert_same(fitted, X, y)


def test_copies_weights_and_names_count_as_in_memory(draw: Draw) -> None:
    X, y = draw(600, 40, spread=2)
    X[300:400] = X[:100]
    weight = np.random.default_rng(0).integers(0, 3, size=600)
    names = np.array(["ant", "bee", "cat"])[y]

    head = LogisticHead(class_weight="balanced", random_state=0)
    in_memory, streamed = fitted_both_ways(head, X, names, sample_weight=weight)

    assert_same((in_memory, streamed), X, names, sample_weight=weight)
    assert streamed.classes_.tolist() == ["ant", "bee", "cat"]


def test_groups_are_kept_together_as_in_memory(draw: Draw) -> None:
    X, y = draw(600, 40, spread=2)

    groups = np.arange(600) // 5
    fitted = fitted_both_ways(LogisticHead(random_state=0), X, y, groups=groups)

    assert_same(fitted, X, y, groups=groups)
    in_memory, streamed = fitted
    at_its_c = clone(in_memory).set_params(Cs=[streamed.C_]).fit(X, y, groups=groups)
    assert streamed.accuracy_se_ == pytest.approx(at_its_c.accuracy_se_, rel=0.1)


def test_cs_that_were_asked_for_are_all_tried(draw: Draw) -> None:
    X, y = draw(600, 40, spread=2)

    in_memory, streamed = fitted_both_ways(LogisticHead([1e-3, 1e-1, 0.3, 1e-2, 0.03], random_state=0), X, y)

    assert streamed.Cs_.tolist() == in_memory.Cs_.tolist()
    np.testing.assert_allclose(streamed.scores_, in_memory.scores_, atol=0.005)


def test_more_features_than_rows_are_no_obstacle(draw: Draw) -> None:
    X, y = draw(90, 150)

    fitted = fitted_both_ways(LogisticHead(normalize="center", random_state=0), X, y)

    assert_same(fitted, X, y)


def test_nothing_to_hold_out_leaves_a_head_without_a_score(draw: Draw) -> None:
    X, y = draw(4, 10, n_classes=4)

    head = LogisticHead(memory_limit=0).fit(X, y)

    assert (head.predict(X) == y).all()
    assert np.isnan(head.accuracy_cv_)
    assert head.Cs_.tolist() == [head.C_]


def test_blocks_that_fit_in_memory_are_loaded(draw: Draw) -> None:
    X, y = draw(60, 10)

    loaded, given = LogisticHead(random_state=0).fit(Shards(X), y), LogisticHead(random_state=0).fit(X, y)

    np.testing.assert_array_equal(loaded.coef_, given.coef_)
    assert not hasattr(loaded, "n_passes_")


def fit_of_workers(head: Any, X: Any, y: np.ndarray, n_jobs: int | None) -> dict[str, Any]:
    fitted = clone(head).set_params(memory_limit=0, n_jobs=n_jobs).fit(X, y)
    return {name: value for name, value in vars(fitted).items() if name.endswith("_")}


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into tasks what is far too small for it."""
    monkeypatch.setattr("bottleneck.heads.blocks.SPAN_BYTES", 1)


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize(
    ("head", "numbers"),
    [
        (LogisticHead([0.03], normalize="center", random_state=0), (2,)),
        pytest.param(SVMHead(random_state=0), (2, 3), marks=pytest.mark.slow),
        pytest.param(LogisticHead(random_state=0), (2, 3), marks=pytest.mark.slow),
    ],
    ids=["few-passes", "svm", "logistic"],
)
def test_any_number_of_workers_fits_the_same_head_bit_for_bit(
    head: Any, numbers: tuple[int, ...], draw: Draw, tmp_path: Path
) -> None:
    X, y = draw(5000, 20, n_classes=3, spread=2)
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")

    alone = fit_of_workers(head, X, y, 1)
    together = [fit_of_workers(head, X, y, n_jobs) for n_jobs in numbers]

    assert len(BlockReader(ArrayBlocks(X)).spans()) == 3
    for fitted in together:
        assert fitted.keys() == alone.keys()
        assert all(np.array_equal(fitted[name], alone[name]) for name in alone)
    in_memory = clone(head).fit(X, y)
    assert_same((in_memory, clone(head).set_params(memory_limit=0, n_jobs=1).fit(X, y)), X, y)


@pytest.mark.usefixtures("small_spans")
def test_workers_that_joblib_is_configured_with_are_used(draw: Draw) -> None:
    X, y = draw(5000, 12)
    head = LogisticHead([0.1], normalize="center", random_state=0)

    with joblib.parallel_config(backend="threading", n_jobs=2):
        configured = fit_of_workers(head, X, y, None)

    asked = fit_of_workers(head, X, y, 1)
    assert np.array_equal(configured["coef_"], asked["coef_"])


def test_blocks_that_only_come_in_order_are_for_one(draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.raises(InvalidInputError, match=r"'n_jobs' parameter of SVMHead must be None or 1 .*take\(rows\)"):
        SVMHead(memory_limit=0, n_jobs=2).fit(Shards(X), y)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        LogisticHead(memory_limit=0).fit(Shards(X), y)


@pytest.mark.parametrize("n_jobs", [0, 1.5, True])
def test_number_of_workers_that_is_none_is_refused(n_jobs: Any, draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.raises(InvalidInputError, match="The 'n_jobs' parameter of LogisticHead must be None or a positive"):
        LogisticHead(n_jobs=n_jobs).fit(X, y)


@pytest.mark.slow
@pytest.mark.usefixtures("small_spans")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_workers_of_a_dask_cluster_fit_the_same_head_bit_for_bit(draw: Draw, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    X, y = draw(9000, 20, n_classes=3, spread=2)
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    head = LogisticHead(random_state=0)
    cluster = DaskCluster(tmp_path)
    try:
        for _ in range(2):
            cluster.add_worker()
        with distributed.Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            with joblib.parallel_config(backend="dask", client=client):
                on_cluster = fit_of_workers(head, X, y, None)
    finally:
        cluster.close()

    alone = fit_of_workers(head, X, y, 1)
    assert all(np.array_equal(alone[name], on_cluster[name]) for name in alone)


@pytest.mark.parametrize("head", HEADS, ids=["logistic", "svm"])
def test_blocks_are_predicted_as_arrays_are(head: Any, draw: Draw) -> None:
    X, y = draw(60, 10)
    head = clone(head).fit(X, y)

    np.testing.assert_allclose(head.predict_proba(Shards(X)), head.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(head.predict(Shards(X)), head.predict(X))


def test_a_splitter_is_refused(draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.raises(InvalidInputError, match="The 'cv' parameter of LogisticHead must be a number of folds"):
        LogisticHead(cv=StratifiedKFold(3), memory_limit=0).fit(X, y)


def test_labels_of_another_length_are_refused(draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.raises(InvalidInputError, match="There are 60 rows, but 59 labels"):
        LogisticHead(memory_limit=0).fit(X, y[1:])


def test_too_few_iterations_are_announced(draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.warns(ConvergenceWarning, match="LogisticHead stopped after 2 iterations"):
        LogisticHead(max_iter=2, memory_limit=0).fit(X, y)


def memory_of_a_fit(tmp_path: Path, n_samples: int, n_features: int, *Cs: float) -> float:
    """Return by how many MB a process grows that fits a memory map."""
    rng = np.random.default_rng(0)
    means, y = 0.25 * rng.standard_normal((5, n_features)), np.arange(n_samples) % 5
    with (tmp_path / "X").open("wb") as file:
        for part in np.split(y, n_samples // 10_000):
            rows = means[part] + rng.standard_normal((len(part), n_features), dtype=np.float32)
            file.write(np.maximum(rows, 0).astype(np.float16).tobytes())
    np.save(tmp_path / "y.npy", y)
    script = Path(__file__).with_name("streamed_memory.py")
    command = [sys.executable, script, tmp_path / "X", tmp_path / "y.npy", n_features, *Cs]
    ran = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    grown, accuracy, _ = ran.stdout.split()
    assert float(accuracy) > 0.7
    return float(grown)


def test_memory_stays_below_the_size_of_the_features(tmp_path: Path) -> None:
    in_single_precision = 30_000 * 128 * 4 / 2**20

    assert memory_of_a_fit(tmp_path, 30_000, 128, 0.01) < 1.2 * in_single_precision


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_rows(tmp_path: Path) -> None:
    assert memory_of_a_fit(tmp_path, 400_000, 512, 0.01) < 300
