"""The table of a comparison."""

import pytest

from bottleneck.comparison import BackboneComparison, BackboneScore, Interval


def score(name: str, *, accuracy: float, behind: float, rate: float) -> BackboneScore:
    return BackboneScore(
        backbone=name,
        weights="random",
        accuracy=Interval(value=accuracy, low=accuracy - 0.05, high=accuracy + 0.03),
        behind=Interval(value=behind, low=behind - 0.02, high=behind + 0.02),
        seconds=12.3,
        images_per_second=rate,
        weight_bytes=9_000_000,
        feature_bytes=336_000,
        n_features=64,
        rows_extracted=300,
        rows_cached=0,
    )


TABLE = BackboneComparison(
    scores=(
        score("large", accuracy=0.93, behind=0.0, rate=4.0),
        score("middle", accuracy=0.92, behind=0.01, rate=40.0),
        score("small", accuracy=0.8, behind=0.13, rate=400.0),
    ),
    n_images=300,
    n_classes=10,
    n_folds=5,
    majority=0.107,
)


def test_rows_are_flat_and_become_a_frame():
    pandas = pytest.importorskip("pandas")

    frame = TABLE.to_frame()

    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["backbone"]) == ["large", "middle", "small"]
    assert {"accuracy", "accuracy_low", "accuracy_high", "behind_low", "images_per_second"} <= set(frame.columns)
    assert frame["behind_low"].tolist() == pytest.approx([-0.02, -0.01, 0.11])


def test_table_is_a_sequence_and_knows_best_and_quickest():
    assert (len(TABLE), TABLE[1].backbone, [one.backbone for one in TABLE][2]) == (3, "middle", "small")
    assert (TABLE.best.backbone, TABLE.quickest.backbone) == ("large", "middle")


def test_plot_draws_on_the_axes_given():
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()

    assert TABLE.plot(axes) is axes
    assert len(axes.texts) == 3
