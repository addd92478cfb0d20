"""The sentences of a plan that do not decide: what was measured, what will be done, and what would change it."""

from math import ceil, floor

from bottleneck.planner.alternatives import (
    ACCEPT_Z,
    ADAMW_HEAD,
    UNPROMISING,
    better_probe,
    looks_far,
    needed_seconds,
    shortest_seconds,
)
from bottleneck.planner.evidence import ProbeEvidence
from bottleneck.planner.gain import accuracy_with_twice_the_images
from bottleneck.planner.records import (
    Alternative,
    FineTune,
    LinearProbe,
    Profile,
    Reason,
    Request,
    RuleOfThumb,
    Scratch,
    Strategy,
)
from bottleneck.planner.shapes import full_steps, n_held_out, shape_of, trains_with_adamw
from bottleneck.planner.wording import duration, label, name_of, percent, points

IMBALANCED = 3
"""Choice: from so many times the images of the rarest class on, the most frequent one is said to outweigh it."""
THUMB_FEW = 1_000
"""The rule of thumb's number of images under which only the head is trained."""


def waiting_reasons(request: Request, alternatives: tuple[Alternative, ...]) -> tuple[Reason, ...]:
    """Say what the probes cost, and of every other strategy whether it fits."""
    profile = request.profile
    missing = profile.n_samples - profile.rows_cached
    probes = [found for found in alternatives if isinstance(found.strategy, LinearProbe) and found.feasible]
    first = Reason(
        rule="feature_pass",
        sentence=f"The features of {missing:,} of {profile.n_samples:,} images are still to be extracted; "
        f"with the probe that takes about {duration(probes[-1].seconds.value)}.",
    )
    return (first, *(_waiting_reason(other) for other in alternatives[1:]))


def _waiting_reason(other: Alternative) -> Reason:
    """Say whether a strategy that waits for the probes fits."""
    if not other.feasible:
        return unfit_reason(other)
    sentence = (
        f"{label(other.strategy).capitalize()}: fits, about {duration(other.seconds.value)}; decided after the probes."
    )
    return Reason(rule="wait_for_probe", sentence=sentence)


def unfit_reason(other: Alternative) -> Reason:
    """Say why a strategy is not feasible."""
    return Reason(rule="does_not_fit", sentence=f"{label(other.strategy).capitalize()}: {other.why_not}.")


def evidence_reasons(request: Request) -> tuple[Reason, ...]:
    """Say what the probes showed."""
    evidence = request.evidence
    if evidence is None:
        return ()
    sentence = (
        f"The penultimate probe is right on {percent(evidence.accuracy)} of the images out of fold (standard error "
        f"{percent(evidence.standard_error)}), which leaves {percent(1 - evidence.accuracy)} to gain, and on "
        f"{percent(evidence.train_accuracy)} of those it was fitted on: a gap of "
        f"{points(evidence.train_accuracy - evidence.accuracy)}."
    )
    accuracy = Reason(rule="probe_accuracy", sentence=sentence)
    return (
        accuracy,
        *_imbalance_reason(request.profile),
        *_layers_reason(evidence),
        *_signals_reason(evidence),
        *_more_labels_reason(evidence),
    )


def _imbalance_reason(profile: Profile) -> tuple[Reason, ...]:
    """Say that some classes have many more images than others, if they do."""
    ratio = profile.largest_class / profile.smallest_class
    if ratio < IMBALANCED:
        return ()
    sentence = (
        f"The most frequent class has {ratio:,.1f} times the images of the rarest ({profile.largest_class:,} and "
        f"{profile.smallest_class:,}): the accuracy says little about rare classes; class_weight='balanced' makes all "
        "classes count alike."
    )
    return (Reason(rule="imbalance", sentence=sentence),)


def _signals_reason(evidence: ProbeEvidence) -> tuple[Reason, ...]:
    """Say what else was measured on the frozen features, which informs but does not decide."""
    early, neighbours, shift = evidence.early_stages_accuracy, evidence.neighbours_accuracy, evidence.batch_norm_shift
    parts = []
    if early is not None:
        parts.append(f"a probe on the earlier half of the stages is right on {percent(early)}")
    if neighbours is not None:
        parts.append(f"the nearest neighbours on {percent(neighbours)}")
    if shift is not None:
        parts.append(f"the inputs of BatchNorm lie {shift:.2f} standard deviations from those of pretraining")
    return (Reason(rule="signals", sentence=f"For comparison: {', '.join(parts)}."),) if parts else ()


def _layers_reason(evidence: ProbeEvidence) -> tuple[Reason, ...]:
    """Say what the earlier stages add, if it was measured."""
    if evidence.delta_multi is None:
        return ()
    verb = "beats" if better_probe(evidence)[0] == "all_stages" else "does not beat"
    sentence = (
        f"Adding the earlier stages changes that by {points(evidence.delta_multi)}: the all-stages probe {verb} the "
        f"penultimate one by more than its standard error."
    )
    return (Reason(rule="delta_multi", sentence=sentence),)


def _more_labels_reason(evidence: ProbeEvidence) -> tuple[Reason, ...]:
    """Say what twice the labelled images would bring, if the learning curve tells."""
    predicted = accuracy_with_twice_the_images(evidence.learning_curve)
    if predicted is None:
        return ()
    n, accuracy = max(evidence.learning_curve)
    sentence = (
        "Twice as many labelled images are expected to change the accuracy by about "
        f"{points(predicted - accuracy)}: so the learning curve of ridge regression goes on, which stands at "
        f"{percent(accuracy)} with {n:,} (leave-one-out)."
    )
    return (Reason(rule="more_labels", sentence=sentence),)


def training_reasons(request: Request, training: Alternative) -> tuple[Reason, ...]:
    """Say how a network will be trained and accepted; nothing for a probe."""
    strategy = training.strategy
    if isinstance(strategy, LinearProbe):
        return ()
    n_samples, full = request.profile.n_samples, full_steps(request, strategy)
    grows = shape_of(strategy, request).may_grow and strategy.folds == 1
    once, more = (", if one hold-out decides", ", or on more where these leave it in doubt,") if grows else ("", "")
    whose = "the recipe's" if request.wishes.steps is None else "the"
    batch = min(strategy.batch_size, n_samples)
    steps = Reason(
        rule="steps",
        sentence=f"{strategy.steps:,} of {whose} {full:,} steps of "
        f"{batch:,} images fit the time{once}; about {duration(training.seconds.value)} in all.",
    )
    held_out = f"{n_held_out(n_samples, strategy.folds):,} images{more}"
    on = "all images, fold by fold," if strategy.folds > 1 else held_out
    accept = _acceptance_reason(request, strategy, on=on)
    return (*_rates_reason(request, strategy), *_scale_reason(request, strategy), steps, accept)


def _acceptance_reason(request: Request, strategy: FineTune | Scratch, *, on: str) -> Reason:
    """Say how clearly a network must win, and on which images."""
    unpromising = request.wishes.accept_z is None and strategy.accept_z > ACCEPT_Z[request.budget.risk]
    so_clearly = f", so clearly because the probes promise less than {points(UNPROMISING)}" if unpromising else ""
    careful = " If not, the one a quarter of the way to it is asked the same, and to be right on more."
    return Reason(
        rule="acceptance",
        sentence=f"The network replaces the probe only if it is better on {on} that neither has seen, and its gain, "
        f"weighed against what is expected, exceeds {strategy.accept_z} times what is left of doubt{so_clearly}."
        f"{careful if isinstance(strategy, FineTune) else ''}",
    )


def _scale_reason(request: Request, strategy: FineTune | Scratch) -> tuple[Reason, ...]:
    """Say that images are made smaller for training, if they are."""
    scale, side = shape_of(strategy, request).image_scale, request.profile.image_side
    if scale == 1:
        return ()
    why = "which leaves time for more steps" if request.wishes.image_scale is None else "as was asked for"
    sentence = (
        f"Training images have {percent(scale)} of the side of {side} pixels, {why}; what is delivered sees the full "
        "side."
    )
    return (Reason(rule="smaller_images", sentence=sentence),)


def _rates_reason(request: Request, strategy: FineTune | Scratch) -> tuple[Reason, ...]:
    """Say with which learning rates, and why with these."""
    if isinstance(strategy, Scratch):
        return ()
    wishes, evidence = request.wishes, request.evidence
    asked = ", as was asked for," if wishes.lr is not None else ","
    below = f"{strategy.lr_decay:.3g} for each layer group below the head"
    if trains_with_adamw(request):
        if wishes.lr_decay is None:
            below = f"{ADAMW_HEAD:g} below the head and {strategy.lr_decay:.3g} for each further layer group"
        sentence = f"AdamW trains at a learning rate of {strategy.lr:.2g}{asked} divided by {below}."
    else:
        tried = evidence is not None and evidence.trial is not None and (wishes.lr is None or wishes.lr_decay is None)
        why = ", as the trial suggests" if tried else ""
        bearable = ", and lower if the network does not bear that" if shape_of(strategy, request).checks_rates else ""
        sentence = f"The learning rate is {strategy.lr:.2g}{asked} divided by {below}{why}{bearable}."
    return (Reason(rule="rates", sentence=sentence),)


def rule_of_thumb(request: Request) -> RuleOfThumb:
    """Return what the rule of thumb that everybody repeats would choose."""
    n = request.profile.n_samples
    if n < THUMB_FEW:
        return RuleOfThumb(
            strategy="probe", sentence=f"{n:,} images are under {THUMB_FEW:,}: bottleneck features and a linear SVM."
        )
    if looks_far(request.evidence):
        return RuleOfThumb(strategy="scratch", sentence=f"{n:,} images of a far domain: train from scratch.")
    return RuleOfThumb(
        strategy="finetune",
        sentence=f"{n:,} images: fine-tune with augmentation, a learning rate ten times smaller and the first layers "
        "frozen.",
    )


def what_would_change(request: Request, alternatives: tuple[Alternative, ...], chosen: Strategy) -> tuple[Reason, ...]:
    """Say which settings would lead to another strategy."""
    limit = request.budget.seconds
    changes = []
    if request.strategy != "auto":
        changes.append(Reason(rule="strategy", sentence="strategy='auto' chooses by the evidence of the probes."))
    for other in alternatives:
        if other.strategy == chosen:
            continue
        if limit is not None and not other.feasible and needed_seconds(request, other) > limit:
            changes.append(_time_change(request, other))
        if other.feasible:
            changes.append(_strategy_change(other))
    if not isinstance(chosen, LinearProbe):
        changes += _training_changes(request, chosen)
    return tuple(changes)


def _time_change(request: Request, other: Alternative) -> Reason:
    """Say how much time would make room for a strategy."""
    sentence = f"time_budget={ceil(needed_seconds(request, other))} gives {label(other.strategy)} the time it needs."
    return Reason(rule="time_budget", sentence=sentence)


def _strategy_change(other: Alternative) -> Reason:
    """Say how to ask for a strategy."""
    seconds = duration(other.seconds.value)
    sentence = f"strategy={name_of(other.strategy)!r} is obeyed whatever the evidence; about {seconds} in all."
    return Reason(rule="strategy", sentence=sentence)


def _training_changes(request: Request, chosen: FineTune | Scratch) -> list[Reason]:
    """Say what would keep a network from being trained or accepted."""
    least = floor(shortest_seconds(request, chosen))
    changes = [Reason(rule="time_budget", sentence=f"A time_budget under {least} leaves no time for it.")]
    if request.wishes.accept_z is None and chosen.accept_z < ACCEPT_Z["safe"]:
        changes.append(
            Reason(rule="risk", sentence="risk='safe' keeps the probe unless the network is clearly better.")
        )
    return changes
