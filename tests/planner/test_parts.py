"""The parts of a run: predicted, re-estimated, and what they took."""

import json

import pytest

from bottleneck.planner import Budget, Plan, plan_transfer
from tests.planner.conftest import AMPLE


def parts(plan):
    return {cost.part: cost for cost in plan.costs}


def test_before_the_run_the_parts_have_predictions_only_that_add_up_to_the_whole(profile_of):
    plan = plan_transfer(profile_of(preparation_seconds=2.0), AMPLE, strategy="scratch")

    found = parts(plan)
    assert list(found) == ["preparation", "features", "heads", "folds", "refit", "total", "memory", "disk"]
    assert all(cost.updated is None and cost.actual is None for cost in plan.costs)
    assert all(cost.predicted.low <= cost.predicted.value <= cost.predicted.high for cost in plan.costs)
    # The head before training is on all stages; the one that all begin with is on the penultimate layer.
    apart = [found[part].predicted.value for part in ("preparation", "features", "folds", "refit")]
    wider = found["heads"].predicted.value
    assert sum(apart) + wider < found["total"].predicted.value < sum(apart) + 10 * wider


def test_the_whole_run_is_the_cost_of_the_chosen_alternative(cases):
    for profile, budget, evidence in cases[:100]:
        try:
            plan = plan_transfer(profile, budget, evidence=evidence)
        except ValueError:
            continue
        total = parts(plan)["total"]
        now = total.predicted if evidence is None else total.updated
        assert (now.low, now.value, now.high) == (
            plan.chosen.seconds.low,
            plan.chosen.seconds.value,
            plan.chosen.seconds.high,
        )


def test_trainings_that_are_cut_to_fit_the_time_are_predicted_as_they_will_be_cut(profile_of, evidence_of):
    evidence = evidence_of(all_stages_accuracy=0.7, spent_seconds=50.0)
    ample = parts(plan_transfer(profile_of(), AMPLE, evidence=evidence, strategy="finetune"))
    short = parts(plan_transfer(profile_of(), Budget(seconds=600.0), evidence=evidence, strategy="finetune"))

    trained = [sum(found[part].updated.value for part in ("folds", "refit")) for found in (ample, short)]
    others = [found["total"].updated.value - seconds for found, seconds in zip((ample, short), trained, strict=True)]

    assert short["total"].updated.value == 600.0 < ample["total"].updated.value
    assert others[1] == pytest.approx(others[0])
    assert all(
        short[part].updated.low <= short[part].updated.value <= short[part].updated.high
        for part in short
        if short[part].updated
    )


def test_the_training_on_all_images_is_predicted_as_beginning_anew(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of(), strategy="finetune")

    on_all = plan.strategy.steps * 32 * profile_of().train_seconds_per_image
    assert parts(plan)["refit"].updated.value == pytest.approx(on_all, rel=0.01)


def test_where_the_probe_may_be_kept_the_training_on_all_images_may_not_be_done(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of(), strategy="finetune")
    found = parts(plan)
    folds_alone = sum(found[part].predicted.low for part in ("features", "heads", "folds"))

    assert found["refit"].predicted.low == 0
    assert found["total"].predicted.low == pytest.approx(folds_alone, rel=0.01)


def test_after_the_probes_what_is_ahead_is_estimated_again(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of(spent_seconds=200.0))

    found = parts(plan)
    assert {part for part, cost in found.items() if cost.updated is not None} == {"folds", "refit", "total"}
    assert found["total"].updated.value > found["total"].predicted.value > 0


def test_what_the_parts_took_stands_beside_and_survives_json(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    done = plan.with_actual({"features": 31.5, "total": 100.0, "disk": 1_000.0})

    assert {part: cost.actual for part, cost in parts(done).items() if cost.actual is not None} == {
        "features": 31.5,
        "total": 100.0,
        "disk": 1_000.0,
    }
    assert [cost.predicted for cost in done.costs] == [cost.predicted for cost in plan.costs]
    assert Plan.from_json(done.to_json()) == done


def test_a_plan_from_before_there_were_parts_can_be_read(profile_of):
    tree = json.loads(plan_transfer(profile_of(), AMPLE).to_json())
    del tree["costs"]

    old = Plan.from_json(json.dumps(tree))

    assert old.costs == ()
    assert "Predicted" not in str(old)
    assert "Predicted" not in old._repr_html_()


@pytest.mark.parametrize("limit", [None, 0])
def test_features_that_are_not_kept_are_predicted_to_take_no_disk(profile_of, limit):
    disk = parts(plan_transfer(profile_of(), Budget(disk_bytes=limit)))["disk"].predicted

    assert (disk.value == 0) == (limit == 0)
    assert disk.low <= disk.value <= disk.high
