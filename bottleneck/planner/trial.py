"""Whether a trial of fine-tuning is worth its time before the decision: a few of its steps on one fold, two recipes."""

from dataclasses import replace
from math import ceil

from bottleneck.planner.alternatives import better_probe, rates_of, regime_to_train, training_limit
from bottleneck.planner.costs import (
    BLEND_POINTS,
    TIME_FACTOR,
    VIEWS,
    check_images,
    further_seconds,
    training_cost,
)
from bottleneck.planner.estimates import at_most, plus
from bottleneck.planner.evidence import ProbeEvidence, Regime
from bottleneck.planner.gain import unseen
from bottleneck.planner.head_costs import FOLD_SHARE_OF_HEAD, further_share
from bottleneck.planner.records import Alternative, Estimate, FineTune, Reason, Request, TrialPlan
from bottleneck.planner.shapes import (
    SHORTEST_FINETUNING,
    finetuning_steps,
    n_held_out,
    shape_of,
    steps_of_trainings,
)
from bottleneck.planner.wishes import BATCH_SIZE
from bottleneck.planner.wording import duration, percent, points

TRIAL_SHARE = 0.075
"""Share of the steps of a fine-tuning that shows where it is going: about a quarter of a fold's."""
LEAST_TRIAL_STEPS = SHORTEST_FINETUNING // 2
"""Choice: a trial is one short training."""
TRIAL_HELD_OUT = 2_000
"""Images that the runs of a trial are compared on, at most: their standard error is about a point then."""
TRIAL_SETTLES = 0.5
"""Assumption: the share of wrong decisions that a trial prevents, where the gain is not unknown altogether."""
OTHER: dict[Regime, Regime] = {"near": "far", "far": "near"}


def plan_trial(request: Request, training: Alternative, *, wrong: float) -> TrialPlan | None:
    """Return the trial that should come before the decision, or None where it is not worth its time, or there is none.

    ``wrong``: how likely the decision without it is wrong, and then costs the time of a whole training: spent in vain,
    or not spent on a gain that was there.
    """
    evidence, strategy = request.evidence, training.strategy
    if evidence is None or evidence.trial is not None or not isinstance(strategy, FineTune):
        return None
    if strategy.steps < finetuning_steps(request):
        return None  # the time is short for the training itself
    trial = shortened(request, evidence, strategy)
    limit, shape = training_limit(request), shape_of(strategy, request)
    surely = training_cost(request, strategy.steps, shape).seconds
    if limit is not None and surely.high + trial.seconds.high > limit:
        return None
    if unseen(evidence, request.profile):
        return trial
    # What is taken in vain does not begin anew on all images.
    whole = at_most(plus(surely, further_seconds(request, strategy.steps, shape)), limit)
    worth = TRIAL_SETTLES * wrong * (whole.value - (evidence.spent_seconds or 0.0))
    return trial if trial.seconds.value <= worth else None


def shortened(request: Request, evidence: ProbeEvidence, strategy: FineTune) -> TrialPlan:
    """Return the trial of a fine-tuning: first with the usual recipe, then with the other."""
    in_fold, _ = steps_of_trainings(strategy.steps, shape_of(strategy, request))
    least = ceil(LEAST_TRIAL_STEPS * BATCH_SIZE / strategy.batch_size)
    steps = min(in_fold, max(least, ceil(TRIAL_SHARE * strategy.steps)))
    usual = regime_to_train(evidence)
    # Rates that the user settled are the same near and far, as are AdamW's.
    by_rates: dict[tuple[float, float], FineTune] = {}
    for regime in (usual, OTHER[usual]):
        lr, lr_decay = rates_of(request, regime)
        by_rates.setdefault((lr, lr_decay), replace(strategy, regime=regime, lr=lr, lr_decay=lr_decay, steps=steps))
    recipes = tuple(by_rates.values())
    return TrialPlan(recipes=recipes, seconds=_trial_seconds(request, evidence, recipes))


def n_trained_on(n_samples: int, recipe: FineTune) -> int:
    """Return how many images the runs of a trial learn from, at most: no more than they see."""
    return min(n_samples, recipe.steps * recipe.batch_size)


def _trial_seconds(request: Request, evidence: ProbeEvidence, recipes: tuple[FineTune, ...]) -> Estimate:
    """Return the time of a trial: images opened, the fold's probe, short trainings, and scores along their paths."""
    profile, first, n_runs = request.profile, recipes[0], len(recipes)
    held = min(TRIAL_HELD_OUT, n_held_out(profile.n_samples, first.folds))
    opened = min(profile.n_samples, n_trained_on(profile.n_samples, first) + held)
    trained_on = n_runs * (first.steps * first.batch_size + check_images(profile, shape_of(first, request)))
    trained = trained_on * first.image_scale**2 * profile.train_seconds_per_image
    scored = n_runs * (BLEND_POINTS - 1) * held * profile.forward_seconds_per_image
    decoded = VIEWS * opened * profile.decode_seconds_per_image
    wide = better_probe(evidence)[0] == "all_stages"
    # On all stages the probe itself is to be fitted first.
    heads = evidence.head_seconds * (further_share(profile) * (1 + FOLD_SHARE_OF_HEAD) if wide else FOLD_SHARE_OF_HEAD)
    seconds = trained + scored + decoded + heads
    return Estimate(value=seconds, low=seconds / TIME_FACTOR, high=seconds * TIME_FACTOR)


def unseen_reasons(request: Request) -> tuple[Reason, ...]:
    """Say in what the request is unlike anything that the gain was learned from."""
    found = unseen(request.evidence, request.profile) if request.evidence is not None else ()
    if not found:
        return ()
    sentence = (
        f"What fine-tuning gains is unknown, as this is far outside of what it was learned from: {', '.join(found)}."
    )
    return (Reason(rule="unseen", sentence=sentence),)


def planned_trial_reason(trial: TrialPlan) -> Reason:
    """Say that the decision waits for a trial."""
    first = trial.recipes[0]
    looks = " and ".join(f"for {recipe.regime} images" for recipe in trial.recipes)
    sentence = (
        f"A trial decides: {first.steps:,} steps on one fold with the recipe {looks}, about "
        f"{duration(trial.seconds.value)} more."
    )
    return Reason(rule="trial", sentence=sentence)


def trial_reasons(evidence: ProbeEvidence) -> tuple[Reason, ...]:
    """Say what a trial showed, if there was one."""
    trial = evidence.trial
    if trial is None:
        return ()
    showed = [
        f"{points(run.gain)} (standard error {percent(run.standard_error)}) with the recipe for {run.regime} images"
        for run in trial.runs
    ]
    showed += [f"the recipe for {regime} images diverged" for regime in trial.diverged]
    if trial.stopped:
        showed.append(f"it stopped: {trial.stopped}")
    sentence = (
        f"A trial of {trial.steps:,} steps in {duration(trial.seconds)}, compared with the probe on {trial.n_images:,} "
        f"images that neither had seen: {'; '.join(showed)}."
    )
    return (Reason(rule="trial", sentence=sentence),)
