from dataclasses import replace

import numpy as np
import pytest

from bottleneck.finetune.compare import ALPHAS, Expected, HeldOut, compare, score_proba


def held_out(correct: np.ndarray, weights: np.ndarray | None = None) -> HeldOut:
    weights = np.ones(len(correct)) if weights is None else weights
    return HeldOut(
        correct=correct,
        log_loss=np.where(correct, 0.1, 2.0),
        margin=np.where(correct, 1.0, -1.0),
        weights=weights.astype(np.float32),
    )


def random_correct(accuracies: list[float], n_images: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n_images, 1)) < np.array(accuracies)


def test_clear_gain_is_accepted_with_the_best_alpha():
    comparison = compare(held_out(random_correct([0.7, 0.74, 0.88, 0.8, 0.8])), z=0.5)

    assert comparison.accepted
    assert comparison.alpha == 0.5
    assert comparison.more_right == pytest.approx(0.18, abs=0.03)
    assert comparison.gain == pytest.approx(0.18, abs=0.03)
    assert comparison.n_images == 2000
    assert [score.alpha for score in comparison.path] == list(ALPHAS)


def test_no_gain_is_rejected():
    assert not compare(held_out(random_correct([0.7] * 5)), z=0.0).accepted


def test_loss_is_rejected():
    comparison = compare(held_out(random_correct([0.8, 0.7, 0.6, 0.5, 0.4])), z=0.0)

    assert not comparison.accepted
    assert comparison.alpha == 0


def test_gain_within_the_noise_is_rejected_by_a_strict_z():
    # 38 images of a thousand differ, 24 of them in favour of fine-tuning: 1.0 points, 1.62 standard errors.
    correct = np.ones((1000, 5), dtype=bool)
    correct[:24, 0] = False
    correct[24:38, 1:] = False

    assert compare(held_out(correct), z=0.5).accepted
    assert not compare(held_out(correct), z=1.64).accepted


def test_choosing_among_useless_alphas_is_not_rewarded():
    """The best of four coins looks better than the probe's, by far on the images it was chosen on."""
    rng = np.random.default_rng(0)
    coins = [held_out(rng.random((100, 5)) < 0.5) for _ in range(200)]

    gains = [compare(tossed, z=0.5).gain for tossed in coins]

    naive_gains = [tossed.correct.mean(axis=0).max() - tossed.correct[:, 0].mean() for tossed in coins]
    assert np.mean(naive_gains) > 0.03
    assert np.mean(gains) < 2 * np.std(gains) / np.sqrt(len(gains))


def test_what_was_expected_counts_the_more_the_fewer_images_there_are():
    few, many = (held_out(random_correct([0.6] * 5, n_images=n)) for n in (12, 4000))
    promise = Expected(gain=0.1, spread=0.05)

    by_few, by_many = (compare(images, z=0.5, expected=promise) for images in (few, many))

    assert abs(by_few.gain - 0.1) < abs(by_few.measured - 0.1) / 3
    assert by_many.gain == pytest.approx(by_many.measured, abs=0.01)


def test_what_is_no_better_on_held_out_images_is_never_kept():
    """Whatever was expected: it replaces the probe only if it is better on images that neither has seen."""
    alike = held_out(random_correct([0.6], n_images=12).repeat(5, axis=1))

    comparison = compare(alike, z=0.0, expected=Expected(gain=0.2, spread=0.01))

    assert comparison.gain > 0.1
    assert not comparison.accepted


@pytest.mark.parametrize(
    "n_won, n_lost, in_doubt", [(0, 0, True), (0, 1, True), (0, 6, False), (2, 2, True), (3, 2, True), (6, 0, False)]
)
def test_it_is_in_doubt_which_is_better_unless_one_clearly_is(n_won, n_lost, in_doubt):
    correct = np.ones((40, 5), dtype=bool)
    correct[:n_lost, 1:] = False
    correct[n_lost : n_lost + n_won, 0] = False

    assert compare(held_out(correct), z=0.25).in_doubt is in_doubt


def test_no_more_is_gained_than_there_is_to_gain():
    correct = np.ones((20, 5), dtype=bool)
    correct[0, 0] = False

    comparison = compare(held_out(correct), z=0.0, expected=Expected(gain=0.3, spread=0.02))

    assert comparison.accepted
    assert comparison.tuned_accuracy == 1


def test_the_end_alone_counts_where_the_path_leads_through_nothing():
    images = held_out(random_correct([0.3, 0.1, 0.7, 0.7, 0.55]))

    assert compare(images, z=0.5).alpha == 0.75
    assert compare(images, z=0.5, end_alone=True).alpha == 1


@pytest.mark.parametrize("n_lost", [0, 1])
def test_a_network_that_is_surer_is_kept_unless_it_is_right_on_fewer_images(n_lost):
    correct = random_correct([0.7], n_images=200).repeat(5, axis=1)
    correct[np.flatnonzero(correct[:, 0])[:n_lost], 1:] = False
    surer = np.where(correct, [0.5, 0.1, 0.1, 0.1, 0.1], 2.0)
    images = HeldOut(correct=correct, log_loss=surer, margin=-surer, weights=np.ones(200, dtype=np.float32))

    comparison = compare(images, z=0.5)

    assert comparison.measured > 2 * comparison.standard_error
    assert comparison.more_right == pytest.approx(-n_lost / 200)
    assert comparison.accepted is (n_lost == 0)


def test_a_network_on_the_way_is_kept_where_the_end_is_no_good():
    images = held_out(random_correct([0.6, 0.7, 0.72, 0.6, 0.5], n_images=300))

    comparison = compare(images, z=0.5)

    assert comparison.accepted
    assert comparison.alpha in (0.25, 0.5)
    assert comparison.measured == pytest.approx(0.08, abs=0.05)


def much_changed_for_little(fewer_right: int = 0) -> HeldOut:
    """A quarter of the way 3 of 200 images become right, and some fewer; from half of it 43 do, and 39 become wrong."""
    correct = np.zeros((200, 5), dtype=bool)
    correct[:120] = True
    correct[120:123, 1:] = True
    correct[123:163, 2:] = True
    correct[:fewer_right, 1:] = False
    correct[:39, 2:] = False
    return held_out(correct)


def test_where_the_way_is_refused_a_quarter_of_it_may_be_gone():
    comparison = compare(much_changed_for_little(), z=0.5)

    assert comparison.accepted
    assert comparison.careful
    assert comparison.refused_as_chosen
    assert comparison.alpha == 0.25
    assert comparison.more_right == pytest.approx(3 / 200)
    assert comparison.measured > comparison.standard_error > 0


@pytest.mark.parametrize(("fewer_right", "careful"), [(2, True), (3, False)])
def test_a_quarter_of_the_way_must_be_right_on_more_images_and_not_only_surer(fewer_right, careful):
    images = much_changed_for_little(fewer_right)
    log_loss = images.log_loss.copy()
    log_loss[images.correct[:, 1], 1] = 0.02

    comparison = compare(replace(images, log_loss=log_loss), z=0.5)

    assert comparison.careful is comparison.accepted is careful


@pytest.mark.parametrize(("fewer_right", "z"), [(4, 0.0), (0, 2.0)])
def test_a_quarter_of_the_way_is_asked_what_all_of_it_is(fewer_right, z):
    comparison = compare(much_changed_for_little(fewer_right), z=z)

    assert not comparison.accepted
    assert not comparison.careful
    assert comparison.refused_as_chosen
    assert comparison.alpha == 0
    assert comparison.more_right > 3 / 200


def test_where_the_end_alone_counts_nothing_on_the_way_is_asked():
    assert not compare(much_changed_for_little(), z=0.5, end_alone=True).accepted


def test_one_piece_of_evidence_chooses_for_itself():
    images = held_out(np.array([[False, False, True, True, True]]))

    assert compare(images, z=0.5).measured > 0
    assert compare(replace(images, groups=np.array([7])), z=0.5) == compare(images, z=0.5)


def test_how_probable_classes_are_tells_more_than_how_many_images_are_right_alone():
    correct = np.ones((60, 5), dtype=bool)
    correct[:10] = False
    correct[9:12, 1:] ^= True  # one image more is right, two are not any more
    correct[12:15, 0] = False
    unsure, sure = (np.where(correct, [right, *[0.1] * 4], 2.0) for right in (0.6, 0.1))

    by_sureness = [
        compare(HeldOut(correct=correct, log_loss=loss, margin=-loss, weights=np.ones(60, dtype=np.float32)), z=1.0)
        for loss in (sure, unsure)
    ]

    assert by_sureness[0].more_right == by_sureness[1].more_right > 0
    assert [comparison.accepted for comparison in by_sureness] == [False, True]


def test_clear_loss_is_rejected_whatever_was_expected():
    comparison = compare(
        held_out(random_correct([0.8, 0.7, 0.6, 0.5, 0.4], 200)), z=0.5, expected=Expected(gain=0.1, spread=0.1)
    )

    assert not comparison.accepted
    assert comparison.measured < comparison.gain < 0


def test_expecting_nothing_for_sure_is_never_exceeded():
    perfect = held_out(np.ones((30, 5), dtype=bool))

    assert not compare(perfect, z=0.0, expected=Expected(gain=0.0, spread=0.0)).accepted


def test_images_that_all_agree_on_leave_the_doubt_of_one():
    comparison = compare(held_out(np.ones((40, 5), dtype=bool)), z=0.5)

    assert comparison.standard_error == 1 / 40


def test_weights_decide_which_images_matter():
    correct = np.zeros((40, 5), dtype=bool)
    correct[:20, 0] = True
    correct[20:, 1:] = True
    heavy_end = np.where(np.arange(40) < 20, 1.0, 3.0)

    assert compare(held_out(correct, heavy_end), z=0.5).accepted
    assert not compare(held_out(correct, heavy_end[::-1]), z=0.5).accepted


def test_images_of_one_group_are_one_piece_of_evidence():
    correct = random_correct([0.7, 0.72, 0.75, 0.74, 0.73], n_images=300)
    alone = held_out(correct)
    repeated = HeldOut(
        correct=np.repeat(alone.correct, 4, axis=0),
        log_loss=np.repeat(alone.log_loss, 4, axis=0),
        margin=np.repeat(alone.margin, 4, axis=0),
        weights=np.repeat(alone.weights, 4),
        groups=np.repeat(np.arange(300) * 7, 4),
    )

    one, four = compare(alone, z=0.5), compare(repeated, z=0.5)

    assert four.gain == pytest.approx(one.gain)
    assert four.standard_error == pytest.approx(one.standard_error)


def test_hopeless_probability_is_wrong_and_finitely_bad():
    proba = np.array([[0.7, 0.1, 0.2], [1.0, 0.0, 0.0]])

    correct, log_loss, margin = score_proba(proba, np.array([0, 1]))

    assert correct.tolist() == [True, False]
    assert log_loss[0] == pytest.approx(-np.log(0.7))
    assert margin[0] == pytest.approx(np.log(0.7 / 0.2))
    assert margin[1] < 0
    assert np.isfinite([log_loss, margin]).all()
