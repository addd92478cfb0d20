import pytest

from bottleneck.planner import Budget, LinearProbe, Scratch, plan_transfer
from bottleneck.planner.wording import name_of
from tests.planner.conftest import AMPLE


def rules(plan):
    return [reason.rule for reason in plan.reasons]


def test_nothing_is_predicted_of_fine_tuning_random_weights(profile_of, evidence_of):
    plan = plan_transfer(profile_of(pretrained=False), Budget(), evidence=evidence_of(), strategy="finetune")

    assert plan.chosen.accuracy is None


def test_scratch_is_no_alternative_to_pretrained_weights(profile_of):
    many = plan_transfer(profile_of(n_samples=50_000), Budget())

    assert "scratch" not in {name_of(found.strategy) for found in many.alternatives}


@pytest.mark.parametrize(
    ("facts", "tried"),
    [
        ({"n_samples": 20_000}, True),
        ({"n_parameters": 270_000}, True),
        ({"n_samples": 19_999}, False),
        ({"n_parameters": 1_000_001}, False),
        ({"n_parameters": 270_000, "n_samples": 1_999, "rows_cached": 0}, False),
    ],
)
def test_without_pretrained_weights_scratch_needs_many_images_or_a_tiny_network(profile_of, evidence_of, facts, tried):
    plan = plan_transfer(profile_of(pretrained=False, **facts), AMPLE, evidence=evidence_of())

    assert isinstance(plan.strategy, Scratch if tried else LinearProbe)
    assert "no_pretrained_weights" in rules(plan)
    assert "finetune" not in {name_of(found.strategy) for found in plan.alternatives}
    assert plan.chosen.accuracy is None or not tried


@pytest.mark.parametrize("strategy", ["auto", "finetune"])
@pytest.mark.parametrize("n", [60, 110, 180, 500])
def test_who_allows_more_time_is_never_offered_less(profile_of, evidence_of, n, strategy):
    few = profile_of(n_samples=n, rows_cached=0, largest_class=20, smallest_class=5, takes_smaller_images=True)
    evidence = evidence_of(head_seconds=1.0, spent_seconds=5.0)

    offered = [
        plan_transfer(few, Budget(seconds=seconds), evidence=evidence, strategy=strategy).alternatives[-1].feasible
        for seconds in range(10, 400, 2)
    ]

    assert offered == sorted(offered)
    assert offered[0] is False
    assert offered.index(True) < 40  # sixty steps on smaller images, a few more in three folds


def test_scratch_must_fit_the_budget_too(profile_of, evidence_of):
    plan = plan_transfer(
        profile_of(pretrained=False, n_parameters=270_000), Budget(seconds=300), evidence=evidence_of()
    )

    assert plan.strategy == LinearProbe(layers="all_stages")
    assert rules(plan)[-1] == "does_not_fit"
