"""Choose a strategy from what is measured, and stop at the probe unless more is worth its cost."""

from dataclasses import dataclass, replace
from typing import get_args

from bottleneck.errors import BudgetError, did_you_mean, wrong_parameter
from bottleneck.planner.alternatives import (
    SCRATCH_FROM,
    TINY_NETWORK,
    TINY_SCRATCH_FROM,
    better_probe,
    has_stages,
    list_alternatives,
    scratch_makes_sense,
)
from bottleneck.planner.evidence import ProbeEvidence
from bottleneck.planner.gain import predict_gain
from bottleneck.planner.parts import predict_costs
from bottleneck.planner.plan import Plan
from bottleneck.planner.reasons import (
    evidence_reasons,
    rule_of_thumb,
    training_reasons,
    unfit_reason,
    waiting_reasons,
    what_would_change,
)
from bottleneck.planner.records import (
    Alternative,
    Budget,
    FineTune,
    LinearProbe,
    Profile,
    Reason,
    Request,
    Scratch,
    Strategy,
    StrategyName,
    TrialPlan,
)
from bottleneck.planner.trial import plan_trial, planned_trial_reason, trial_reasons, unseen_reasons
from bottleneck.planner.wishes import NO_WISHES, Wishes
from bottleneck.planner.wording import name_of, percent, points

STOP_HEADROOM_SE = 2.0
"""Design choice: what is left to gain must be more than two standard errors of the probe's accuracy."""
WORTHWHILE_GAIN = 0.01
"""One point: the gain for which the pilot measured delta_multi's AUROC of 0.85."""
CHANCE_NEEDED = 0.3
"""Choice: a failed attempt costs time, not accuracy, so that the odds may be against it. In the nine cells of
tests/benchmarks/results/planner_cells.jsonl with the least chance (0.32 to 0.53) fine-tuning, as it is delivered,
gained 1.4 to 12.7 points over the better probe in seven, and nothing in two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The strategy so far, whether it waits for the probes or for a trial, and why."""

    strategy: Strategy
    needs_probe: bool
    reasons: tuple[Reason, ...]
    trial: TrialPlan | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether training is worth trying as far as is known, what would tell more, and why."""

    worthwhile: bool
    reasons: tuple[Reason, ...]
    trial: TrialPlan | None = None


def plan_transfer(
    profile: Profile,
    budget: Budget,
    *,
    evidence: ProbeEvidence | None = None,
    strategy: StrategyName = "auto",
    seed: int = 0,
    wishes: Wishes = NO_WISHES,
) -> Plan:
    """Decide how to make the best classifier of these images within the budget.

    Call it once with the profile: the plan says what fits, what everything would cost, and whether the decision waits
    for the probes (``plan.needs_probe``). If so, fit them and call it again with the same profile and budget and
    their evidence. The plan may then wait for a trial of fine-tuning (``plan.needs_trial``): run it and call once more
    with what it showed in the evidence; ``plan.strategy`` is what to do without. The function reads nothing but its
    arguments: the same arguments give the same plan.

    Parameters
    ----------
    profile : Profile
        Measured facts, taken before the feature pass.
    budget : Budget
        Time, memory and disk allowed to the whole run, and how cautious to be.
    evidence : ProbeEvidence, optional
        What the probes showed.
    strategy : {"auto", "probe", "all_stages_probe", "finetune", "scratch"}
        A strategy to be obeyed instead of chosen. One that turns out not to fit after the probes gives way to the
        better probe, because that is in hand.
    seed : int
        Kept in the plan for whoever carries it out; the decision is not random.
    wishes : Wishes
        What of training is not left to the planner.

    Returns
    -------
    Plan
        The strategy with its reasons, and every alternative with its predicted accuracy and cost.

    Raises
    ------
    InvalidInputError
        The strategy is unknown, or the evidence is of stages that the backbone does not have.
    BudgetError
        Before the probes: the strategy asked for, or with "auto" even the penultimate probe, does not fit the budget.
    """
    names = get_args(StrategyName)
    if strategy not in names:
        allowed = "one of " + ", ".join(map(repr, names))
        raise wrong_parameter("plan_transfer", "strategy", allowed, strategy, did_you_mean(str(strategy), names))
    if evidence is not None and evidence.all_stages_accuracy is not None and not has_stages(profile):
        allowed = "None for a backbone without further stages (n_features_all_stages == n_features)"
        raise wrong_parameter("ProbeEvidence", "all_stages_accuracy", allowed, evidence.all_stages_accuracy)
    request = Request(profile=profile, budget=budget, evidence=evidence, strategy=strategy, seed=seed, wishes=wishes)
    alternatives = list_alternatives(request)
    decision = _decide(request, alternatives)
    return Plan(
        request=request,
        strategy=decision.strategy,
        needs_probe=decision.needs_probe,
        reasons=decision.reasons,
        alternatives=alternatives,
        rule_of_thumb=rule_of_thumb(request),
        what_would_change=what_would_change(request, alternatives, decision.strategy),
        trial=decision.trial,
        costs=predict_costs(request, decision.strategy),
    )


def _decide(request: Request, alternatives: tuple[Alternative, ...]) -> Decision:
    """Follow the user, or else the evidence if there is any."""
    if request.strategy != "auto":
        return _obey(request, alternatives)
    if request.evidence is None:
        return _before_the_probes(request, alternatives)
    return _after_the_probes(request, request.evidence, alternatives)


def _obey(request: Request, alternatives: tuple[Alternative, ...]) -> Decision:
    """Take the strategy asked for, or say what it lacks; after the probes, fall back on the better one."""
    asked = next(found for found in alternatives if name_of(found.strategy) == request.strategy)
    reasons = (
        Reason(rule="forced", sentence=f"strategy={request.strategy!r} was asked for."),
        *evidence_reasons(request),
    )
    if asked.feasible:
        # Fine-tuning starts from the better probe, which only the probes tell.
        waits = isinstance(asked.strategy, FineTune) and request.evidence is None and has_stages(request.profile)
        reasons += training_reasons(request, asked)
        return Decision(strategy=asked.strategy, needs_probe=waits, reasons=reasons)
    if request.evidence is None:
        raise BudgetError(f"strategy={request.strategy!r} does not fit the budget: {asked.why_not}.")
    return _keep_probe(request.evidence, alternatives, (*reasons, unfit_reason(asked)))


def _before_the_probes(request: Request, alternatives: tuple[Alternative, ...]) -> Decision:
    """Start with the cheapest strategy, and wait for its evidence if another one fits too."""
    cheapest, *others = alternatives
    if not cheapest.feasible:
        raise BudgetError(
            f"No strategy fits the budget. The cheapest is a linear probe on the penultimate layer: {cheapest.why_not}."
        )
    return Decision(
        strategy=cheapest.strategy,
        needs_probe=any(other.feasible for other in others),
        reasons=waiting_reasons(request, alternatives),
    )


def _after_the_probes(request: Request, evidence: ProbeEvidence, alternatives: tuple[Alternative, ...]) -> Decision:
    """Choose between the better probe and the training strategy, which comes last."""
    training = alternatives[-1]
    verdict = _judge(request, evidence, training)
    reasons = (*evidence_reasons(request), *verdict.reasons)
    if not verdict.worthwhile:
        return replace(_keep_probe(evidence, alternatives, reasons), trial=verdict.trial)
    reasons += training_reasons(request, training)
    return Decision(strategy=training.strategy, needs_probe=False, reasons=reasons, trial=verdict.trial)


def _keep_probe(
    evidence: ProbeEvidence, alternatives: tuple[Alternative, ...], reasons: tuple[Reason, ...]
) -> Decision:
    """Stay with the better probe, or with the one in hand if there is no time for the other."""
    in_hand, *others = (found for found in alternatives if isinstance(found.strategy, LinearProbe))
    better = next((found for found in others if better_probe(evidence)[0] == "all_stages"), in_hand)
    if not better.feasible:
        reasons, better = (*reasons, unfit_reason(better)), in_hand
    return Decision(strategy=better.strategy, needs_probe=False, reasons=reasons)


def _judge(request: Request, evidence: ProbeEvidence, training: Alternative) -> Verdict:
    """Say whether training is worth trying, by the first rule that settles it."""
    profile, trial = request.profile, evidence.trial
    headroom = 1 - better_probe(evidence)[1]
    if headroom <= STOP_HEADROOM_SE * evidence.standard_error:
        return _settled(False, _headroom_reason(headroom, evidence))
    if isinstance(training.strategy, LinearProbe):
        return _settled(False, _untrained_reason(profile))
    if trial is not None and (trial.stopped or not trial.runs):
        return Verdict(worthwhile=False, reasons=trial_reasons(evidence))
    if not training.feasible:
        return Verdict(worthwhile=False, reasons=(*trial_reasons(evidence), unfit_reason(training)))
    if isinstance(training.strategy, Scratch):
        return _settled(True, _untrained_reason(profile))
    return _judge_gain(request, evidence, training)


def _settled(worthwhile: bool, reason: Reason) -> Verdict:
    """Return a verdict that waits for nothing."""
    return Verdict(worthwhile=worthwhile, reasons=(reason,))


def _judge_gain(request: Request, evidence: ProbeEvidence, training: Alternative) -> Verdict:
    """Say whether fine-tuning is likely enough to gain a point over the better probe, or should be tried first."""
    gain = predict_gain(evidence, request.profile)
    lead = better_probe(evidence)[1] - evidence.accuracy
    chance = gain.chance_above(lead + WORTHWHILE_GAIN)
    worthwhile = chance >= CHANCE_NEEDED
    trial = plan_trial(request, training, wrong=1 - chance if worthwhile else chance)
    low, high = gain.interval
    source = (
        "This is a prior from published results, not fitted on this library's own runs."
        if evidence.trial is None
        else "This weighs the trial against a prior from published results; how much a whole training gains beyond a "
        "trial is an assumption."
    )
    sentence = (
        f"Fine-tuning is predicted to change that by {points(gain.mean - lead)} (90 % interval {points(low - lead)} to "
        f"{points(high - lead)}); the chance of more than {points(WORTHWHILE_GAIN)} is {percent(chance)}, needed is "
        f"{percent(CHANCE_NEEDED)}. {source}"
    )
    reasons = (
        *unseen_reasons(request),
        *trial_reasons(evidence),
        Reason(rule="predicted_gain", sentence=sentence),
        *(() if trial is None else (planned_trial_reason(trial),)),
    )
    return Verdict(worthwhile=worthwhile, reasons=reasons, trial=trial)


def _headroom_reason(headroom: float, evidence: ProbeEvidence) -> Reason:
    """Say that too little is left to gain."""
    sentence = (
        f"The headroom of {percent(headroom)} is within {STOP_HEADROOM_SE:g} standard errors of "
        f"{percent(evidence.standard_error)}: a gain could not be told from chance."
    )
    return Reason(rule="headroom", sentence=sentence)


def _untrained_reason(profile: Profile) -> Reason:
    """Say whether a backbone without pretrained weights is trained."""
    tried = scratch_makes_sense(profile)
    sentence = (
        f"There are no pretrained weights. Training from scratch is {'tried' if tried else 'not tried'} with "
        f"{profile.n_samples:,} images and {profile.n_parameters:,} parameters: it takes {SCRATCH_FROM:,} images, "
        f"or {TINY_SCRATCH_FROM:,} and at most {TINY_NETWORK:,} parameters; what it would reach is unknown."
    )
    return Reason(rule="no_pretrained_weights", sentence=sentence)
