import numpy as np
import pytest

from bottleneck import TransferClassifier
from bottleneck.images import as_image_source
from bottleneck.report.evaluate import Evaluation, evaluate
from bottleneck.report.gallery import (
    MISTAKES_SHARE,
    MOST_MISTAKES,
    N_LIKELIEST,
    Gallery,
    choose_listed,
    collect_gallery,
    compose_gallery,
)
from bottleneck.report.nearness import Nearness
from tests.report.conftest import evaluation_of, sure_of


def nearness_of(n: int, copies: list[list[int]] | None = None) -> Nearness:
    """Return images each of which is nearest to the one before it."""
    groups = tuple(np.array(group) for group in copies or [])
    return Nearness(
        neighbours=(np.arange(n)[:, None] - 1) % n,
        copies=groups,
        exact=(True,) * len(groups),
        places=np.tile(np.linspace(0, 1, n)[:, None], 2),
    )


def gallery_of(evaluation: Evaluation, copies: list[list[int]] | None = None, seen: tuple[int, ...] = ()) -> Gallery:
    indices = choose_listed(evaluation)
    trained_on = np.isin(np.arange(len(evaluation.rows)), seen)
    return compose_gallery(
        evaluation, indices, nearness_of(len(indices), copies), trained_on, lambda row: f"picture {row}"
    )


def test_mistakes_come_first_by_falling_certainty_and_the_others_as_given():
    evaluation = evaluation_of([0, 0, 0, 0, 0], sure_of([1, 0, 1, 1, 0], [0.6, 0.99, 0.9, 0.7, 0.5], n_classes=2))

    gallery = gallery_of(evaluation)

    assert [image.row for image in gallery.images] == [2, 3, 0, 1, 4]
    assert gallery.mistakes == (0, 1, 2)
    assert [image.picture for image in gallery.images[:2]] == ["picture 2", "picture 3"]
    assert gallery.images[1].id == "image 3"


@pytest.mark.parametrize(("n_wrong", "n_right"), [(60, 0), (0, 60), (30, 30), (5, 55), (55, 5)])
def test_of_many_images_a_random_sample_is_listed_beside_the_surest_mistakes(n_wrong: int, n_right: int):
    n = n_wrong + n_right
    certainty = np.linspace(0.6, 0.9, n).tolist()
    evaluation = evaluation_of([0] * n, sure_of([1] * n_wrong + [0] * n_right, certainty, n_classes=2))

    found = choose_listed(evaluation, most=20)

    wrong = found[found < n_wrong]
    assert len(found) == len(set(found.tolist())) == 20
    assert len(wrong) == min(n_wrong, max(round(MISTAKES_SHARE * 20), 20 - n_right))
    assert wrong.tolist() == list(range(n_wrong))[::-1][: len(wrong)]
    np.testing.assert_array_equal(found, choose_listed(evaluation, most=20))


def test_all_images_of_a_small_test_set_are_listed():
    evaluation = evaluation_of([0, 1] * 10, sure_of([0, 1] * 10, n_classes=2))

    assert sorted(choose_listed(evaluation).tolist()) == list(range(20))


def test_shown_mistakes_are_at_most_a_screen_full():
    evaluation = evaluation_of([0] * 60, sure_of([1] * 60, n_classes=2))

    gallery = gallery_of(evaluation)

    assert gallery.mistakes == tuple(range(MOST_MISTAKES))
    assert gallery.n_images == len(gallery.images) == 60


def test_each_image_knows_its_likeliest_classes_in_order():
    rng = np.random.RandomState(0)
    proba = rng.dirichlet(np.ones(8), 12)

    gallery = gallery_of(evaluation_of(rng.randint(0, 8, 12).tolist(), proba))

    for image in gallery.images:
        row = proba[image.row]
        expected = np.argsort(-row)[:N_LIKELIEST]
        assert image.likeliest == tuple((int(code), row[code]) for code in expected)
        assert (image.predicted, image.certainty) == (row.argmax(), row.max())


def test_images_that_were_trained_on_are_marked_wherever_they_are_listed():
    evaluation = evaluation_of([0, 0, 0, 0], sure_of([0, 1, 0, 1], n_classes=2))

    gallery = gallery_of(evaluation, seen=(2, 3))

    assert [image.row for image in gallery.images if image.seen] == [3, 2]
    assert [gallery.images[i].row for i in gallery.seen] == [3, 2]


def test_copies_with_contradicting_labels_come_first():
    evaluation = evaluation_of([0, 0, 0, 0, 1], sure_of([0, 0, 0, 0, 1], n_classes=2))

    gallery = gallery_of(evaluation, copies=[[0, 1], [3, 4]])

    assert [(group.images, group.n_labels) for group in gallery.copies] == [((3, 4), 2), ((0, 1), 1)]
    assert [image.copies for image in gallery.images] == [0, 0, None, 1, 1]
    assert gallery.n_copies == 2


def test_a_doubted_label_is_marked_where_it_is_listed():
    true, predicted = [0] * 6 + [1] * 6, [0] * 5 + [1] + [1] * 6
    evaluation = evaluation_of(true, sure_of(predicted, 0.9, n_classes=2))

    gallery = gallery_of(evaluation)  # the mistake stands first, and next to the last image, which is of class 1

    assert [doubt.image for doubt in gallery.doubts] == [0]
    assert (gallery.images[0].row, gallery.images[0].suspect, gallery.n_doubts) == (5, True, 1)
    assert gallery.doubts[0].suggested == "class 1"
    assert not any(image.suspect for image in gallery.images[1:])


def test_a_real_test_set_is_collected_with_features_pictures_and_copies(classifier: TransferClassifier, test_set):
    images, labels = test_set
    twice, labels = np.concatenate([images, images[:1]]), np.append(labels, labels[0])

    gallery = collect_gallery(classifier, evaluate(classifier, twice, labels))

    rows = [image.row for image in gallery.images]
    assert sorted(rows) == list(range(31))
    assert [sorted(rows[i] for i in group.images) for group in gallery.copies] == [[0, 30]]
    assert rows[gallery.images[rows.index(30)].neighbours[0]] == 0
    assert all(image.picture and image.place for image in gallery.images)


def test_source_of_the_evaluation_may_hold_rows_that_were_not_predicted(classifier: TransferClassifier, test_set):
    images, _ = test_set
    evaluation = evaluation_of([0] * 30, sure_of([0] * 30, n_classes=2), source=as_image_source(images))
    part = Evaluation(
        source=evaluation.source,
        rows=np.array([4, 9, 11]),
        labels=evaluation.labels,
        n_classes=2,
        true=np.zeros(3, dtype=np.int64),
        scores=sure_of([1, 0, 0], n_classes=2),
        has_proba=True,
        unreadable=(),
    )

    gallery = collect_gallery(classifier, part)

    assert [image.id for image in gallery.images] == ["image 4", "image 9", "image 11"]
