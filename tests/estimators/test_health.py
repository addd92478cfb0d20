"""What a plan says of the images themselves, before anything is extracted and after the probes."""

import shutil

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import LeaveOneGroupOut, PredefinedSplit
from torch import nn

from bottleneck import LogisticHead, Preprocess, SVMHead, TransferClassifier, load_backbone
from bottleneck.errors import SkippedImagesWarning
from bottleneck.estimators.health import doubted, sets_of
from bottleneck.planner import Finding, Plan
from tests.conftest import coloured_images


@pytest.fixture
def make(tiny_backbone, tmp_path):
    """Return a factory of quick classifiers that share a cache."""

    def build(**params) -> TransferClassifier:
        defaults = {"strategy": "probe", "cache_dir": tmp_path / "cache", "device": "cpu", "random_state": 0}
        return TransferClassifier(tiny_backbone, **{**defaults, **params})

    return build


@pytest.fixture
def make_wide(make):
    """Return the same factory on a network whose features are wide enough to tell near copies."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        network = nn.Sequential(stage, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 96))
    preprocess = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = load_backbone(network, preprocess=preprocess)
    return lambda **params: make(**params).set_params(backbone=backbone)


def found_by(plan: Plan) -> dict[str, Finding]:
    """Return findings by their rule, each of which occurs once."""
    by_rule = {finding.rule: finding for finding in plan.health}
    assert len(by_rule) == len(plan.health)
    return by_rule


def rows_of(finding: Finding) -> list[list[int]]:
    return [[image.row for image in images] for images in finding.sets]


def photographs(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images of a few coloured patches each, which no two share."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 6, 6, 3)).astype(np.uint8).repeat(12, axis=1).repeat(12, axis=2)


def test_good_images_have_no_findings(make):
    images, labels = coloured_images(40)

    classifier = make().fit(images, labels)

    assert classifier.plan(images, labels).health == ()
    assert classifier.plan_.health == ()
    assert "The images" not in str(classifier.plan_)


def test_classes_of_one_and_two_images_are_named_in_the_first_plan(make):
    images, labels = coloured_images(43)
    names = np.array(["red", "blue"])[labels].astype(object)
    names[0], names[1:3] = "one", "two"

    found = found_by(make().plan(images, names))

    assert {rule: finding.classes[0].label for rule, finding in found.items()} == {
        "single_image_class": "one",
        "two_image_class": "two",
    }
    assert found_by(make().fit(images, names).plan_).keys() == found.keys()


def test_exact_copies_are_found_before_and_after_extraction_by_the_names_of_their_files(make, image_folder):
    first, other = image_folder / "bluish", image_folder / "reddish"
    shutil.copy(first / "000.png", other / "copied.png")
    shutil.copy(first / "002.png", first / "again.png")
    classifier = make()

    before, after = found_by(classifier.plan(image_folder)), found_by(classifier.fit(image_folder).plan_)

    assert before.keys() == after.keys() - {"label_suspects"} == {"exact_copies_across_labels", "exact_copies"}
    for found in (before, after):
        (mixed,), (same,) = found["exact_copies_across_labels"].sets, found["exact_copies"].sets
        assert sorted((image.id, image.label) for image in mixed) == sorted(
            [(str(first / "000.png"), first.name), (str(other / "copied.png"), other.name)]
        )
        assert {image.id for image in same} == {str(first / "002.png"), str(first / "again.png")}


def test_images_of_equal_features_and_different_content_are_no_exact_copies(make, image_folder):
    folder = image_folder / "bluish"
    Image.open(folder / "000.png").save(folder / "other_bytes.png", compress_level=1)

    assert found_by(make().fit(image_folder).plan_) == {}


def test_near_copies_of_different_labels_are_found_and_named_by_the_rows_of_x(make_wide):
    images, labels = photographs(40), np.arange(40) % 2
    images[7] = np.clip(images[2] + 3.0, 0, 255)
    images[9] = np.clip(images[3] + 3.0, 0, 255)

    found = found_by(make_wide().fit(images, labels).plan_)

    assert rows_of(found["near_copies_across_labels"]) == [[2, 7]]
    assert rows_of(found["near_copies"]) == [[3, 9]]
    assert [image.id for image in found["near_copies"].sets[0]] == ["image 3", "image 9"]


def test_rows_are_those_of_x_where_images_could_not_be_read(make, image_folder):
    (image_folder / "bluish" / "000.png").write_bytes(b"")
    shutil.copy(image_folder / "bluish" / "004.png", image_folder / "bluish" / "copied.png")

    with pytest.warns(SkippedImagesWarning):
        found = found_by(make(on_error="skip").fit(image_folder).plan_)

    assert {image.id for image in found["exact_copies"].sets[0]} == {
        str(image_folder / "bluish" / name) for name in ("004.png", "copied.png")
    }
    assert rows_of(found["exact_copies"]) == [[2, 12]]


def test_images_without_weight_are_none(make):
    images, labels = coloured_images(40)
    images[2] = images[0]

    found = make().fit(images, labels, sample_weight=np.r_[0.0, np.ones(39)]).plan_.health

    assert found == ()


@pytest.mark.parametrize("head", [LogisticHead(), SVMHead()])
def test_changed_labels_are_doubted_with_the_class_that_they_were(make, head):
    images, labels = coloured_images(120)
    wrong = np.array([10, 35, 80])
    labels[wrong] = 1 - labels[wrong]

    doubt = found_by(make(head=head).fit(images, labels).plan_)["label_suspects"]

    rows = {image.row for (image,) in doubt.sets}
    assert rows <= set(wrong.tolist())
    assert len(rows) >= 2
    assert all(image.suggested == str(1 - labels[image.row]) for (image,) in doubt.sets)
    assert all(image.proba < 0.05 for (image,) in doubt.sets)


def test_a_label_is_doubted_below_a_tenth_of_chance_or_of_what_is_usual_in_its_class():
    proba = np.array([[0.04, 0.96], [0.06, 0.94], *[[0.9, 0.1]] * 8, [np.nan, np.nan], [0.01, 0.99]])
    rare = np.array([[0.03, 0.97], [0.02, 0.98], *[[0.1, 0.9]] * 8])

    assert doubted(np.zeros(12, dtype=int), proba).tolist() == [11, 0]
    assert doubted(np.array([0, 0, *[1] * 8]), rare).tolist() == []


def test_copies_in_different_groups_leak_and_classes_of_one_group_cannot_be_held_out(make):
    images, labels = coloured_images(60)
    labels = labels.copy()
    labels[[0, 1, 2]] = 2
    groups = np.arange(60) // 3
    images[30] = images[20]
    classifier = make()

    found = found_by(classifier.fit(images, labels, groups=groups).plan_)

    assert rows_of(found["copies_across_groups"]) == [[20, 30]]
    assert [(count.label, count.n_images) for count in found["class_in_one_group"].classes] == [("2", 3)]
    assert found["group_of_several_labels"].n_sets == len({g for g in groups if len(set(labels[groups == g])) > 1})
    assert "class_never_held_out" not in found


def test_classes_that_splits_leave_out_are_named(make):
    images, labels = coloured_images(60)
    labels = labels.copy()
    labels[50:55], labels[55:60] = 2, 3
    fold = np.arange(60) % 3
    fold[50:55], fold[55:60] = 0, -1

    found = found_by(make(head=LogisticHead(cv=PredefinedSplit(fold))).fit(images, labels).plan_)

    assert [count.label for count in found["class_missing_in_training"].classes] == ["2"]
    assert [count.label for count in found["class_never_held_out"].classes] == ["3"]


def test_a_splitter_by_groups_is_followed(make):
    images, labels = coloured_images(60)
    labels, groups = labels.copy(), np.arange(60) // 5 % 4
    labels[groups == 3] = 2

    found = found_by(make(head=LogisticHead(cv=LeaveOneGroupOut())).fit(images, labels, groups=groups).plan_)

    assert [count.label for count in found["class_missing_in_training"].classes] == ["2"]


def test_rows_left_out_one_by_one_leave_no_class_out(make):
    images, labels = coloured_images(40)

    assert make(head=LogisticHead(cv="loo")).fit(images, labels).plan_.health == ()


def test_a_fit_from_disk_says_what_it_did_not_look_for_and_finds_copies(make):
    images, labels = coloured_images(60)
    images[31] = images[30 - 1]

    found = found_by(make(head=LogisticHead(memory_limit=0)).fit(images, labels).plan_)

    assert rows_of(found["exact_copies"]) == [[29, 31]]
    assert "fitted from disk" in found["not_searched"].sentence


def test_findings_decide_nothing_and_are_the_same_each_time(make):
    images, labels = coloured_images(60)
    images[31] = images[29]

    one, two = (make().fit(images, labels) for _ in range(2))

    assert one.plan_.health == two.plan_.health != ()
    assert Plan.from_json(one.plan_.to_json()) == one.plan_
    assert one.plan_.strategy_name == "probe"


def test_numbers_that_occur_again_make_sets_in_order_of_their_first():
    found = sets_of(np.array([5, 3, 9, 3, 5, 7, 5]))

    assert [positions.tolist() for positions in found] == [[0, 4, 6], [1, 3]]
    assert sets_of(np.arange(4)) == sets_of(np.empty(0, dtype=int)) == []
