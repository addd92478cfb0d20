"""What a fitted classifier leaves in TensorBoard and MLflow, read back with their own readers."""

import re
import sys
from pathlib import Path

import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bottleneck import FineTuneSettings, TransferClassifier, log_to_mlflow, log_to_tensorboard
from bottleneck.errors import InvalidInputError, MissingDependencyError
from bottleneck.tracking import points_of, settings_of
from tests.conftest import coloured_images, make_tiny_backbone


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> TransferClassifier:
    """Return a classifier that was fine-tuned for a few steps."""
    images, labels = coloured_images(24)
    classifier = TransferClassifier(
        make_tiny_backbone(),
        strategy="finetune",
        cache_dir=tmp_path_factory.mktemp("cache"),
        finetune=FineTuneSettings(steps=6, batch_size=8, folds=1),
        cv=3,
        random_state=0,
    )
    return classifier.fit(images, labels)


@pytest.fixture(scope="module")
def probe(tuned: TransferClassifier) -> TransferClassifier:
    images, labels = coloured_images(24)
    return clone(tuned).set_params(strategy="probe").fit(images, labels)


def test_every_epoch_has_its_loss_accuracy_and_rates(tuned: TransferClassifier):
    points = list(points_of(tuned))

    record = tuned.history_[0]
    n_rates = len(tuned.backbone_.layer_groups) + 1
    assert len(points) == len(tuned.history_) * (2 + n_rates) + 1
    assert points[0] == (f"loss/{record.stage}", record.loss, record.step)
    assert points[1 + n_rates] == (f"learning_rate/{record.stage}/head", record.learning_rates[-1], record.step)
    assert points[-1] == ("accuracy_cv", tuned.accuracy_cv_, tuned.history_[-1].step)


def test_a_probe_has_its_accuracy_alone(probe: TransferClassifier):
    assert list(points_of(probe)) == [("accuracy_cv", probe.accuracy_cv_, 0)]


def test_settings_are_single_values(tuned: TransferClassifier):
    settings = settings_of(tuned)

    assert settings["finetune__steps"] == "6"
    assert settings["backbone"] == tuned.backbone_.name
    assert "finetune" not in settings
    assert all(len(value) < 200 for value in settings.values())


def test_tensorboard_reads_back_every_point(tuned: TransferClassifier, tmp_path: Path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert log_to_tensorboard(tuned, tmp_path / "run") == tmp_path / "run"

    found = EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    expected = list(points_of(tuned))
    assert set(found.Tags()["scalars"]) == {name for name, _, _ in expected}
    for name in found.Tags()["scalars"]:
        values = [(step, value) for other, value, step in expected if other == name]
        read = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in read] == [step for step, _ in values]
        assert [value for _, value in read] == pytest.approx([value for _, value in values], rel=1e-6)
    (outcome,) = found.Tensors("outcome/text_summary")
    assert outcome.tensor_proto.string_val[0].decode() == tuned.outcome_


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return mlflow, with its runs in files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = pytest.importorskip("mlflow", reason="mlflow is not installed")
    found.set_tracking_uri(f"file:{tmp_path}/runs")
    found.set_experiment("pets")
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MLflow, about its own way to keep runs in files
def test_mlflow_reads_back_every_point(tuned: TransferClassifier, mlflow):
    run = log_to_mlflow(tuned)

    kept, client = mlflow.get_run(run), mlflow.MlflowClient()
    assert kept.info.status == "FINISHED"
    assert kept.data.params == settings_of(tuned)
    assert kept.data.tags["strategy"] == tuned.strategy_
    assert mlflow.active_run() is None
    allowed = {name: re.sub("[^a-z0-9 ._/-]", "", name) for name, _, _ in points_of(tuned)}
    assert set(kept.data.metrics) == set(allowed.values())
    for name in kept.data.metrics:
        expected = [(step, value) for other, value, step in points_of(tuned) if allowed[other] == name]
        assert [(point.step, point.value) for point in client.get_metric_history(run, name)] == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflow_run_that_is_active_is_used_and_stays_open(probe: TransferClassifier, mlflow):
    with mlflow.start_run() as active:
        assert log_to_mlflow(probe) == active.info.run_id
        assert mlflow.active_run() is not None

    assert mlflow.get_run(active.info.run_id).data.metrics == {"accuracy_cv": probe.accuracy_cv_}


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_missing_package_is_told_with_the_extra_that_brings_it(probe, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingDependencyError, match=rf"bottleneck-features\[{package}\]"):
        log_to_mlflow(probe) if package == "mlflow" else log_to_tensorboard(probe, tmp_path / "run")


def test_only_a_fitted_classifier_is_taken(probe: TransferClassifier, tmp_path: Path):
    with pytest.raises(NotFittedError):
        log_to_tensorboard(clone(probe), tmp_path)
    with pytest.raises(InvalidInputError, match="must be a fitted TransferClassifier"):
        log_to_mlflow(probe.head_)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_mlflow_refuses_is_one_error_with_the_next_step(probe: TransferClassifier, mlflow):
    mlflow.set_tracking_uri("nonsense://nowhere")

    with pytest.raises(InvalidInputError, match=r"MLflow cannot start a run: .*nonsense.*set_tracking_uri"):
        log_to_mlflow(probe)
