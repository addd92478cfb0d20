import pytest

from bottleneck.planner import FineTune, LinearProbe, Scratch
from bottleneck.planner.wording import duration, label, name_of, percent, points, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.345, "0.34 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (313, "5 min 13 s"),
        (599.6, "10 min"),
        (3_599, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (276_480, "3.2 days"),
        (1e9, "32 years"),
    ],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 B"), (999, "999 B"), (8_760_000, "8.8 MB"), (99_600_000, "100 MB"), (999_700, "1 MB"), (2e12, "2 TB")],
)
def test_sizes_are_said_in_decimal_units(n_bytes, words):
    assert size(n_bytes) == words


def test_accuracies_are_said_in_percent_and_differences_in_signed_points():
    assert (percent(0.8631), points(0.0131), points(-0.2)) == ("86.3 %", "+1.3 points", "-20.0 points")


def test_every_strategy_has_a_label_and_a_name():
    run = {"steps": 1_500, "batch_size": 32, "folds": 1, "accept_z": 0.5}
    strategies = [
        LinearProbe(layers="penultimate"),
        LinearProbe(layers="all_stages"),
        FineTune(lr=0.01, lr_decay=2.6, regime="near", **run),
        Scratch(lr=0.025, **run),
    ]

    assert [name_of(strategy) for strategy in strategies] == ["probe", "all_stages_probe", "finetune", "scratch"]
    assert [label(strategy) for strategy in strategies] == [
        "probe, penultimate layer",
        "probe, all stages",
        "fine-tuning, 1,500 steps",
        "scratch, 2 x 1,500 steps",
    ]
