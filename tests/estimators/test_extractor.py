"""The transformer, inside pipelines and alone."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from bottleneck import FeatureExtractor
from bottleneck.errors import InvalidInputError, SkippedImagesWarning
from tests.conftest import coloured_images


@pytest.fixture
def extractor(tiny_backbone, tmp_path) -> FeatureExtractor:
    return FeatureExtractor(tiny_backbone, cache_dir=tmp_path / "cache", device="cpu")


def test_features_have_a_row_an_image_and_a_name_a_column(extractor):
    images, _ = coloured_images(10)

    features = extractor.fit_transform(images)

    assert features.shape == (10, 16)
    assert features.dtype == np.float32
    assert extractor.get_feature_names_out().tolist()[:2] == ["penultimate_0", "penultimate_1"]
    assert len(extractor.get_feature_names_out()) == 16


def test_pandas_output_carries_the_names(extractor):
    images, _ = coloured_images(6)

    frame = extractor.set_output(transform="pandas").fit_transform(images)

    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == extractor.get_feature_names_out().tolist()


def test_pandas_output_keeps_the_index_of_a_column_of_paths(extractor, image_folder):
    paths = sorted(map(str, image_folder.rglob("*.png")))[::4]
    column = pd.Series(paths, index=[f"patient {i}" for i in range(len(paths))])

    frame = extractor.set_output(transform="pandas").fit_transform(column)

    assert frame.index.tolist() == column.index.tolist()
    assert (frame.dtypes == np.float32).all()
    # A list has an ``index`` too: the method.
    assert extractor.transform(paths).index.tolist() == list(range(len(paths)))


def test_polars_output_carries_the_names(extractor, image_folder):
    polars = pytest.importorskip("polars")
    paths = sorted(image_folder.rglob("*.png"))

    frame = extractor.set_output(transform="polars").fit_transform(paths)

    assert isinstance(frame, polars.DataFrame)
    assert frame.columns == extractor.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame.to_numpy(), extractor.set_output(transform="default").transform(paths))


def test_names_of_several_layers_say_which(extractor, tiny_backbone):
    images, _ = coloured_images(4)

    frame = extractor.set_params(layers="all_stages").set_output(transform="pandas").fit_transform(images)

    assert [f"{name}_0" in frame.columns for name in tiny_backbone.layer_widths] == [True] * 4
    assert frame.columns.is_unique


def test_pipeline_cross_validates(extractor):
    images, labels = coloured_images(24)

    scores = cross_val_score(make_pipeline(extractor, LogisticRegression(max_iter=500)), images, labels, cv=3)

    assert scores.mean() > 0.8


def test_all_stages_are_unit_rows_side_by_side(extractor, tiny_backbone):
    images, _ = coloured_images(6)
    widths = tiny_backbone.layer_widths

    features = clone(extractor).set_params(layers="all_stages").fit_transform(images)

    assert features.shape == (6, sum(widths.values()))
    blocks = np.split(features, np.cumsum(list(widths.values()))[:-1], axis=1)
    for block in blocks:
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5)


def test_unknown_layer_lists_those_there_are(extractor):
    images, _ = coloured_images(4)

    with pytest.raises(InvalidInputError, match=r"'stage1'.*Did you mean 'stage1'"):
        extractor.set_params(layers="stage_1").fit(images)


def test_skipped_image_is_a_row_of_nan(extractor, image_folder):
    paths = sorted(image_folder.rglob("*.png"))
    paths[3].write_bytes(b"")

    with pytest.warns(SkippedImagesWarning):
        features = extractor.set_params(on_error="skip").fit_transform(paths)

    assert np.isnan(features[3]).all()
    assert np.isfinite(np.delete(features, 3, axis=0)).all()
