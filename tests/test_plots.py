import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bottleneck import (
    FeatureExtractor,
    HistoryDisplay,
    LearningCurveDisplay,
    LogisticHead,
    Plan,
    PlanDisplay,
    RegularizationDisplay,
    SVMHead,
    TransferClassifier,
)
from bottleneck.errors import InvalidInputError, MissingDependencyError
from bottleneck.finetune import EpochRecord
from bottleneck.heads import screen_features
from bottleneck.planner.gain import accuracy_with_twice_the_images
from tests.conftest import coloured_images, make_tiny_backbone


class Absent(MetaPathFinder):
    """Finds no matplotlib, as if it were not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "matplotlib":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@pytest.fixture(autouse=True)
def _no_windows() -> Iterator[None]:
    """Draw into memory, and leave no figure behind."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TransferClassifier:
    probe = TransferClassifier(
        make_tiny_backbone(), strategy="probe", cache_dir=tmp_path_factory.mktemp("cache"), cv=3, random_state=0
    )
    return probe.fit(*coloured_images(60))


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    labels = np.arange(90) % 3
    return rng.randn(90, 12) + labels[:, None], labels


@pytest.fixture(scope="module")
def head(features: tuple[np.ndarray, np.ndarray]) -> LogisticHead:
    return LogisticHead(cv=3, random_state=0).fit(*features)


def test_learning_curve_of_a_classifier_is_what_its_plan_measured(classifier: TransferClassifier):
    display = LearningCurveDisplay.from_estimator(classifier)

    evidence = classifier.plan_.request.evidence
    assert evidence is not None
    np.testing.assert_array_equal(np.column_stack(display.line_.get_data()), evidence.learning_curve)
    predicted = accuracy_with_twice_the_images(evidence.learning_curve)
    assert display.predicted == (2 * evidence.learning_curve[-1][0], predicted)
    assert display.ax_.get_xlabel() == "Labelled images"
    assert display.figure_ is display.ax_.figure


def test_learning_curve_of_a_head_is_measured_on_the_features_given(
    head: LogisticHead, features: tuple[np.ndarray, np.ndarray]
):
    display = LearningCurveDisplay.from_estimator(head, *features)

    X, y = features
    curve = screen_features({"": X}, y, normalizations=(head.normalize_,), random_state=0).learning_curve
    np.testing.assert_allclose(display.accuracy, [point.accuracy for point in curve])
    np.testing.assert_allclose(display.standard_error, [point.se for point in curve])
    assert display.n_samples.tolist() == [point.n_samples for point in curve]


def test_a_curve_of_two_points_is_drawn_without_a_prediction():
    display = LearningCurveDisplay(n_samples=[100, 200], accuracy=[0.5, 0.6]).plot()

    assert display.predicted is None
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["measured"]


def test_displays_draw_into_the_axes_given_with_the_style_given(classifier: TransferClassifier):
    from matplotlib import pyplot

    _, axes = pyplot.subplots(1, 2)

    curve = LearningCurveDisplay.from_estimator(classifier, ax=axes[0], line_kw={"color": "red"})
    path = RegularizationDisplay.from_estimator(classifier, ax=axes[1], line_kw={"color": "green"})

    assert (curve.ax_, path.ax_) == (axes[0], axes[1])
    assert (curve.line_.get_color(), path.line_.get_color()) == ("red", "green")
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("make", [LogisticHead, SVMHead])
def test_regularization_of_a_head_is_the_loss_of_every_c_it_tried(make: type, features: tuple[np.ndarray, np.ndarray]):
    head = make(cv=3, random_state=0).fit(*features)

    display = RegularizationDisplay.from_estimator(head)

    order = np.argsort(head.Cs_)
    np.testing.assert_array_equal(display.line_.get_xdata(), head.Cs_[order])
    np.testing.assert_array_equal(display.line_.get_ydata(), head.scores_[order])
    assert display.chosen == head.C_


def test_regularization_of_a_head_that_chose_nothing_is_one_clear_error():
    alone = LogisticHead().fit(np.eye(3), [0, 1, 2])

    with pytest.raises(InvalidInputError, match="knows of no C that it tried"):
        RegularizationDisplay.from_estimator(alone)


def test_regularization_of_several_labels_is_one_clear_error(features: tuple[np.ndarray, np.ndarray]):
    X, y = features
    several = LogisticHead(cv=3).fit(X, np.eye(3, dtype=int)[y])

    with pytest.raises(InvalidInputError, match="a head with one C"):
        RegularizationDisplay.from_estimator(several)


@pytest.mark.parametrize(
    ("metric", "expected"), [("loss", [3, 2]), ("accuracy", [0.1, 0.2]), ("learning_rate", [0.5, 0.4])]
)
def test_history_has_a_line_for_each_training(metric: str, expected: list[float]):
    history = [
        EpochRecord(
            stage=stage, epoch=i + 1, step=i, loss=3 - i, accuracy=(i + 1) / 10, learning_rates=(0.0, 0.5 - i / 10)
        )
        for stage in ("fold 1", "all")
        for i in range(2)
    ]

    display = HistoryDisplay(history=history, metric=metric).plot()  # type: ignore[arg-type]

    assert [line.get_label() for line in display.lines_] == ["fold 1", "all"]
    assert display.lines_[1].get_ydata() == pytest.approx(expected)


def test_history_of_a_probe_is_one_clear_error(classifier: TransferClassifier):
    with pytest.raises(InvalidInputError, match="no history: it is a probe"):
        HistoryDisplay.from_estimator(classifier)
    with pytest.raises(InvalidInputError, match="'loss', 'accuracy', 'learning_rate'"):
        HistoryDisplay(history=(), metric="speed")  # type: ignore[arg-type]


def test_plan_shows_every_alternative_with_its_bounds(classifier: TransferClassifier):
    display = PlanDisplay.from_estimator(classifier)

    known = [found for found in classifier.plan_.alternatives if found.accuracy is not None]
    drawn = [container.lines[0].get_data() for container in display.ax_.containers]
    assert [(x[0], y[0]) for x, y in drawn] == [(found.seconds.value, found.accuracy.value) for found in known]
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert sum("planned" in text for text in texts) == 1


def test_plan_that_waits_for_the_probes_is_one_clear_error(classifier: TransferClassifier):
    waiting: Plan = classifier.plan(*coloured_images(60))

    with pytest.raises(InvalidInputError, match="knows no accuracies yet"):
        PlanDisplay(plan=waiting).plot()


@pytest.mark.parametrize("display", [LearningCurveDisplay, RegularizationDisplay, HistoryDisplay, PlanDisplay])
def test_only_fitted_estimators_of_ours_are_drawn(classifier: TransferClassifier, display: type):
    with pytest.raises(NotFittedError):
        display.from_estimator(clone(classifier))
    with pytest.raises(InvalidInputError, match="must be a fitted TransferClassifier"):
        display.from_estimator("a classifier")


def test_a_head_without_its_features_is_one_clear_error(head: LogisticHead):
    with pytest.raises(InvalidInputError, match="the features and labels of the head"):
        LearningCurveDisplay.from_estimator(head)


def test_missing_matplotlib_is_told_with_the_extra_that_brings_it(
    classifier: TransferClassifier, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])

    with pytest.raises(MissingDependencyError, match=r"bottleneck-features\[plot\]"):
        LearningCurveDisplay.from_estimator(classifier)


def test_estimators_keep_the_diagram_of_scikit_learn(classifier: TransferClassifier, head: LogisticHead):
    for estimator in (classifier, clone(classifier), head, SVMHead(), FeatureExtractor()):
        page = estimator._repr_html_()

        assert "sk-container" in page
        assert type(estimator).__name__ in page
        assert all(name in page for name in estimator.get_params(deep=False))


def test_diagram_of_a_fitted_classifier_shows_what_came_of_it(classifier: TransferClassifier):
    page = classifier._repr_html_()

    for attribute in ("strategy_", "accuracy_cv_", "outcome_", "plan_"):
        assert attribute in page
        assert attribute not in clone(classifier)._repr_html_()
