import pytest

from bottleneck.errors import BudgetError
from bottleneck.finetune.timing import Ahead, Timing, ending_at, shortfall
from bottleneck.progress import Progress, silent

TIMING = Timing(head=2.0, prediction=0.1)


def test_trainings_share_what_heads_and_predictions_leave():
    ahead = Ahead(trainings=3, heads=2, images=50)

    assert ahead.seconds_a_training(100.0, TIMING) == pytest.approx((99 - 2 * 2 - 50 * 0.1) / 3)


def test_what_is_lacking_is_said_in_seconds():
    ahead = Ahead(trainings=2, images=50)

    assert shortfall(ahead, 70.0, TIMING, images_a_training=320) == ""
    assert shortfall(ahead, 60.0, TIMING, images_a_training=320) == (
        "the shortest trainings worth comparing need more than 69.0 s, and 60.0 s are left"
    )


def test_what_is_watched_ends_with_the_deadline_unless_it_is_over():
    told, now = [], [1.0]
    tell = ending_at(2.0, lambda: now[0], told.append)
    tell(Progress(stage="decoding", done=3, total=9))
    now[0] = 2.0

    tell(Progress(stage="decoding", done=9, total=9))
    with pytest.raises(BudgetError, match=r"no time was left after 6 of 9 \(decoding\)"):
        tell(Progress(stage="decoding", done=6, total=9))

    assert [event.done for event in told] == [3, 9, 6]


def test_without_a_deadline_nothing_is_watched():
    assert ending_at(None, lambda: 0.0, silent) is silent
