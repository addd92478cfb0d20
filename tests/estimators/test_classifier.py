"""The estimator inside scikit-learn's tools, on real files and a real cache."""

import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

from bottleneck import FeatureExtractor, FineTuneSettings, LogisticHead, SVMHead, TransferClassifier
from bottleneck.errors import BudgetError, InvalidInputError, SkippedImagesWarning, UnreadableImagesError
from bottleneck.extraction import Extractor
from bottleneck.images import as_labelled_source
from tests.conftest import coloured_images


@pytest.fixture
def make(tiny_backbone, tmp_path):
    """Return a factory of quick classifiers that share a cache."""

    def build(**params) -> TransferClassifier:
        defaults = {"strategy": "probe", "cache_dir": tmp_path / "cache", "device": "cpu", "random_state": 0}
        return TransferClassifier(**{"backbone": tiny_backbone, **defaults, **params})

    return build


@pytest.fixture
def counted_rows(monkeypatch) -> list[int]:
    """Return a list that grows by the number of images of every forward pass of feature extraction."""
    rows: list[int] = []
    extract = Extractor.extract

    def counting(self, source, wanted, *, precision):
        for batch in extract(self, source, wanted, precision=precision):
            rows.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(Extractor, "extract", counting)
    return rows


def test_fit_and_predict_on_a_folder_of_class_folders(make, image_folder):
    classifier = make().fit(image_folder)

    assert classifier.classes_.tolist() == ["bluish", "reddish"]
    assert classifier.score(image_folder) > 0.9
    paths = sorted(image_folder.rglob("*.png"))
    assert classifier.predict(paths).tolist() == classifier.predict([str(path) for path in paths]).tolist()
    np.testing.assert_allclose(classifier.predict_proba(paths).sum(axis=1), 1)


def test_probe_equals_a_head_fitted_directly_on_the_features(make, tiny_backbone, image_folder):
    source, labels = as_labelled_source(image_folder, None)
    extractor = FeatureExtractor(tiny_backbone, cache_dir=make().cache_dir, device="cpu")
    features = extractor.fit_transform(source)

    classifier = make().fit(image_folder)

    head = LogisticHead(cv=5, random_state=0).fit(features, labels)
    np.testing.assert_array_equal(classifier.decision_function(source), head.decision_function(features))


def test_second_fit_in_another_order_makes_no_forward_pass(make, image_folder, counted_rows):
    source, labels = as_labelled_source(image_folder, None)
    paths = np.array(source.ids)
    order = np.random.RandomState(0).permutation(len(paths))
    first = make().fit(paths, labels)
    counted_rows.clear()
    forward_passes = Extractor._forward_once
    Extractor._forward_once = None  # any forward pass would fail now

    try:
        second = make().fit(paths[order], labels[order])
    finally:
        Extractor._forward_once = forward_passes

    assert counted_rows == []
    assert second.cache_report_.rows_cached == len(paths)
    assert set(second.classes_) == set(first.classes_)


def test_grid_search_sends_each_image_through_the_backbone_exactly_once(make, counted_rows):
    images, labels = coloured_images(30)
    classifier = make(head=LogisticHead())

    search = GridSearchCV(classifier, {"head__normalize": ["center", "l2"], "head__cv": [2, 3]}, cv=3)
    search.fit(images, labels)

    assert sum(counted_rows) == 30
    assert search.best_score_ > 0.8


def test_parallel_grid_search_agrees_with_a_serial_one(make):
    images, labels = coloured_images(24)
    grid = {"head__normalize": ["center", "l2"]}

    serial = GridSearchCV(make(head=LogisticHead()), grid, cv=2).fit(images, labels)
    parallel = GridSearchCV(make(head=LogisticHead()), grid, cv=2, n_jobs=2).fit(images, labels)

    np.testing.assert_array_equal(serial.cv_results_["mean_test_score"], parallel.cv_results_["mean_test_score"])


def test_cross_validation_tools_work_on_lists_of_paths(make, image_folder):
    source, labels = as_labelled_source(image_folder, None)
    paths = list(source.ids)

    scores = cross_val_score(make(), paths, labels, cv=3)
    predicted = cross_val_predict(make(), paths, labels, cv=3, method="predict_proba")

    assert scores.mean() > 0.8
    assert predicted.shape == (24, 2)


def test_clone_has_the_same_parameters_and_no_state(make):
    images, labels = coloured_images(12)
    fitted = make(finetune=FineTuneSettings(lr=0.02)).fit(images, labels)

    copy = clone(fitted)

    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(images)


def test_settings_records_are_reached_as_nested_parameters(make):
    classifier = make(finetune=FineTuneSettings(lr=0.02), head=LogisticHead(cv=3))

    classifier.set_params(finetune__batch_size=16, head__cv=4, time_budget=5.0)

    assert classifier.finetune == FineTuneSettings(lr=0.02, batch_size=16)
    assert classifier.get_params()["finetune__batch_size"] == 16
    assert (classifier.head.cv, classifier.time_budget) == (4, 5.0)
    with pytest.raises(InvalidInputError, match="Did you mean 'batch_size'"):
        classifier.set_params(finetune__batchsize=16)


def test_joblib_round_trip_predicts_the_same(make, tmp_path):
    images, labels = coloured_images(16)
    classifier = make().fit(images, labels)

    joblib.dump(classifier, tmp_path / "classifier.joblib")
    loaded = joblib.load(tmp_path / "classifier.joblib")

    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))
    assert pickle.loads(pickle.dumps(classifier)).plan_ == classifier.plan_


def test_sample_weight_of_zero_is_the_same_as_leaving_the_image_out(make):
    images, labels = coloured_images(30)
    weight = np.ones(30)
    weight[20:] = 0

    weighted = make(head=LogisticHead(cv=2, normalize="center")).fit(images, labels, sample_weight=weight)
    without = make(head=LogisticHead(cv=2, normalize="center")).fit(images[:20], labels[:20])

    np.testing.assert_allclose(weighted.predict_proba(images), without.predict_proba(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("labels", [["b", "a"], [3, 7], [True, False], np.array(["x", "y"], dtype=object)])
def test_labels_of_any_kind_come_back_as_they_were(make, labels):
    images, numbers = coloured_images(16)
    y = np.array([labels[number] for number in numbers])

    predicted = make().fit(images, y).predict(images)

    assert predicted.dtype.kind == y.dtype.kind
    assert set(predicted.tolist()) <= set(np.asarray(labels).tolist())


@pytest.mark.parametrize("head", [SVMHead(), LogisticHead(normalize="l2")], ids=["svm", "logistic"])
def test_head_can_be_chosen(make, head):
    images, labels = coloured_images(24)

    classifier = make(head=head, strategy="auto").fit(images, labels)

    assert type(classifier.head_) is type(head)
    assert classifier.score(images, labels) > 0.8


def test_class_weights_and_seed_reach_a_head_that_has_none(make):
    images, labels = coloured_images(24)

    filled = make(head=LogisticHead(), class_weight="balanced", random_state=7).fit(images, labels)
    kept = make(head=LogisticHead(class_weight={0: 1, 1: 2}, random_state=3), class_weight="balanced").fit(
        images, labels
    )

    assert (filled.head_.class_weight, filled.head_.random_state) == ("balanced", 7)
    assert (kept.head_.class_weight, kept.head_.random_state) == ({0: 1, 1: 2}, 3)
    assert filled.head.class_weight is None


def test_fine_tuning_from_a_support_vector_machine_is_refused(make):
    images, labels = coloured_images(12)

    with pytest.raises(InvalidInputError, match=r"'head' parameter.*LogisticHead"):
        make(head=SVMHead(), strategy="finetune").fit(images, labels)


def test_all_stages_probe_uses_every_layer(make, tiny_backbone):
    images, labels = coloured_images(24)

    classifier = make(strategy="all_stages_probe").fit(images, labels)

    assert classifier.layers_ == tuple(tiny_backbone.layer_widths)
    assert classifier.n_features_in_ == sum(tiny_backbone.layer_widths.values())
    assert classifier.score(images, labels) > 0.8


def test_fine_tuned_or_not_the_result_predicts_and_says_what_happened(make):
    images, labels = coloured_images(40)

    classifier = make(strategy="finetune", finetune=FineTuneSettings(steps=12, batch_size=8)).fit(images, labels)

    assert classifier.strategy_ in ("finetune", "probe")
    assert (classifier.plan_.strategy.steps, classifier.plan_.strategy.batch_size) == (12, 8)
    assert classifier.outcome_
    assert len(classifier.history_) > 0
    assert classifier.score(images, labels) > 0.8


def test_training_from_scratch_runs_and_keeps_the_probe_unless_it_wins(make):
    images, labels = coloured_images(40)

    classifier = make(backbone="embedded", strategy="scratch", finetune=FineTuneSettings(steps=6, batch_size=8))
    classifier.fit(images, labels)

    assert classifier.strategy_ in ("scratch", "probe")
    assert len(classifier.history_) > 0
    assert classifier.score(images, labels) > 0.8


def test_own_module_cannot_be_trained_from_scratch(make):
    images, labels = coloured_images(12)

    with pytest.raises(InvalidInputError, match="strategy='finetune'"):
        make(strategy="scratch").fit(images, labels)


def test_one_image_a_class_is_enough(make):
    images, labels = coloured_images(2)

    classifier = make(strategy="auto").fit(images, labels)

    assert classifier.predict(images).tolist() == labels.tolist()


def test_unreadable_images_are_all_named(make, image_folder):
    bad = [image_folder / "bluish" / "000.png", image_folder / "reddish" / "003.png"]
    for path in bad:
        path.write_bytes(b"<html></html>")

    with pytest.raises(UnreadableImagesError) as caught:
        make().fit(image_folder)

    assert all(str(path) in str(caught.value) for path in bad)


def test_skipped_images_leave_gaps_and_shift_nothing(make, image_folder):
    bad = image_folder / "bluish" / "000.png"
    bad.write_bytes(b"")
    paths = sorted(image_folder.rglob("*.png"))
    classifier = make(on_error="skip")

    with pytest.warns(SkippedImagesWarning, match=r"000\.png"):
        classifier.fit(image_folder)
    with pytest.warns(SkippedImagesWarning):
        predicted = classifier.predict(paths)
    with pytest.warns(SkippedImagesWarning):
        proba = classifier.predict_proba(paths)

    assert [failure.id for failure in classifier.skipped_] == [str(bad)]
    assert predicted[0] is None
    assert np.isnan(proba[0]).all()
    assert predicted[1:].tolist() == classifier.predict(paths[1:]).tolist()


def test_plan_trains_nothing_and_prints_a_table(make, counted_rows):
    images, labels = coloured_images(24)

    plan = make(strategy="auto").plan(images, labels)

    assert sum(counted_rows) == 0
    assert "probe" in str(plan)
    assert max(map(len, str(plan).splitlines())) <= 100


def test_same_seed_gives_the_same_classifier(make, tmp_path):
    images, labels = coloured_images(24)

    one = make(cache_dir=tmp_path / "one").fit(images, labels)
    two = make(cache_dir=tmp_path / "two").fit(images, labels)

    np.testing.assert_array_equal(one.predict_proba(images), two.predict_proba(images))


def test_flattened_images_are_reshaped(make):
    images, labels = coloured_images(16)

    flat = make(image_shape=(20, 20, 3)).fit(images.reshape(16, -1), labels)

    whole = make().fit(images, labels)
    np.testing.assert_array_equal(flat.predict(images.reshape(16, -1)), whole.predict(images))


def test_budget_too_small_for_anything_says_the_smallest_that_would_do(make):
    images, labels = coloured_images(12)

    with pytest.raises(BudgetError, match=r"time_budget=[1-9]\d* would do"):
        make(time_budget=1e-6).fit(images, labels)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strategy": "fine-tune"}, "Did you mean 'finetune'"),
        ({"on_error": "ignore"}, "'on_error' parameter"),
        ({"device": "gpuu"}, "'device' parameter"),
        ({"precision": "float8"}, "'precision' parameter"),
        ({"risk": "bold"}, "'risk' parameter"),
        ({"time_budget": -5}, "'time_budget' parameter"),
        ({"time_budget": float("nan")}, "'time_budget' parameter"),
        ({"memory_limit": 0}, "'memory_limit' parameter .* of at least 1"),
        ({"memory_limit": "2 GB"}, "2e9 are 2 GB"),
        ({"memory_limit": 1.5}, "'memory_limit' parameter"),
        ({"disk_limit": -1}, "'disk_limit' parameter .* of at least 0"),
        ({"disk_limit": float("inf")}, "'disk_limit' parameter"),
        ({"backbone": "resnet5O"}, "Did you mean 'resnet50'"),
    ],
)
def test_wrong_parameter_is_one_clear_error(make, params, message):
    images, labels = coloured_images(12)
    classifier = make().set_params(**params)

    with pytest.raises(ValueError, match=message):
        classifier.fit(images, labels)


def test_labels_that_do_not_match_are_counted(make):
    images, labels = coloured_images(12)

    with pytest.raises(InvalidInputError, match=r"12.*11|11.*12"):
        make().fit(images, labels[:-1])


def test_default_cache_that_cannot_be_written_is_replaced_for_this_process(make, monkeypatch, tmp_path: Path):
    images, labels = coloured_images(12)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "home"))

    with pytest.warns(UserWarning, match="cannot be written"):
        classifier = make(cache_dir=None).fit(images, labels)

    assert classifier.predict(images).shape == (12,)
