"""Every strategy open to a request, with its settings, its cost, and why it does not fit if it does not."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, sqrt

from bottleneck.planner.costs import (
    Cost,
    features_disk_bytes,
    memory_limit,
    probe_cost,
    training_cost,
    whole_seconds,
)
from bottleneck.planner.estimates import at_most
from bottleneck.planner.evidence import Layers, ProbeEvidence, Regime
from bottleneck.planner.gain import best_run, expected_gain, finetuned_accuracy, probe_accuracy
from bottleneck.planner.head_costs import further_head_seconds
from bottleneck.planner.records import (
    Alternative,
    Estimate,
    FineTune,
    LinearProbe,
    Profile,
    Request,
    Scratch,
    StrategyName,
)
from bottleneck.planner.shapes import (
    TrainingShape,
    affordable_steps,
    finetuning_steps,
    half_the_recipe,
    scratch_steps,
    shape_of,
    shape_of_finetuning,
    shape_of_scratch,
    shortest_finetuning,
    trains_with_adamw,
)
from bottleneck.planner.wishes import BATCH_SIZE
from bottleneck.planner.wording import duration, name_of, size

ACCEPT_Z = {"balanced": 0.25, "safe": 1.64}
"""A test at z = 1.64 loses up to 0.84 standard errors of accuracy where fine-tuning is better. Once the measured gain
is weighed against what was expected, accepting whatever is likelier better than worse loses least (z = 0); 0.25 did
as well in the table of cells, and is a little more careful."""
UNPROMISING = 0.01
"""Where less than this is expected of fine-tuning it must be as clearly better as for those who want no risk. Networks
that were kept at 0.25 with ants and bees (MobileNetV2, 244 images; expected were -0.4 to +0.6 points) were right on 0.7
to 3.3 points fewer of 153 unseen images than the probe in seven of eight cases."""
RECIPES: dict[Regime, tuple[float, float]] = {"near": (0.05, 2.6), "far": (0.1, 1.3)}
"""Head rate at batch 32 and factor between layer groups (2.6: Howard & Ruder 2018). A cold recipe lost 33 points
on one far task: far images need hot rates, and early layers that move. Seen with MobileNetV2 on clothing (333 images,
120 steps, one seed): 0.05 and 2.6 gained 2.7 points on unseen images, 0.02 and 2.6 1.9, 0.05 and 1.3 at most 0.8."""
ADAMW_LR, ADAMW_DECAY, ADAMW_HEAD = 1e-3, 1 / 0.75, 10.0
"""The recipe for AdamW, near and far: the head's rate, the factor between layer groups, and that below the head."""
SMALLER_SCALE, SMALLER_FROM = 5 / 7, 192
"""Training at 160 of 224 pixels takes half the time, and what is learned serves the full side (Touvron et al. 2019,
Fixing the train-test resolution discrepancy), if not as well: MobileNetV2 on clothing (333 images, 180 steps, one seed)
came to 78.5 % of 372 unseen images instead of 81.7. Below 192 pixels there is little to leave out."""
LEAST_SHARE = 0.25
"""Choice: with time for a smaller share of the recipe's steps than this, training is on smaller images."""
FAR_DELTA = 0.02
"""Assumption: earlier stages that add less than two points do not make a domain far, however certain they are."""
SCRATCH_LR = 0.1
"""Ten times the rate of fine-tuning: what is learned from nothing has nothing to lose."""
SCRATCH_FROM = 20_000
"""Design choice: with 1,000 images fine-tuning beats training from scratch on 18 of 19 VTAB tasks;
scratch is worth measuring from about 20,000 images on, or with tiny networks."""
UNASKED_SECONDS = 600.0
"""Choice: who gives no time budget did not ask to wait for hours; a strategy that is asked for has no such limit."""
TINY_NETWORK = 1_000_000
"""Assumption: parameters of a network that counts as tiny; the ResNet-20 of the pilot has 270,000."""


TINY_SCRATCH_FROM = 2_000
"""Choice: images under which not even a tiny network is worth minutes of training from nothing."""


def list_alternatives(request: Request) -> tuple[Alternative, ...]:
    """Return every strategy that could answer the request, the cheapest first."""
    profile, asked = request.profile, request.strategy
    found = [_price_probe(request, "penultimate")]
    if has_stages(profile) or asked == "all_stages_probe":
        found.append(_price_probe(request, "all_stages"))
    if profile.pretrained or asked == "finetune":
        found.append(_price_finetune(request))
    if scratch_makes_sense(profile) or asked == "scratch":
        found.append(_price_scratch(request))
    return tuple(found)


def has_stages(profile: Profile) -> bool:
    """Return whether the backbone has stages below the penultimate layer."""
    return profile.n_features_all_stages > profile.n_features


def scratch_makes_sense(profile: Profile) -> bool:
    """Return whether training from random weights is worth considering.

    Not with pretrained weights: fine-tuning reaches about max(probe, scratch) + 1.4 points at the same cost (over the
    table in gain.py).
    """
    tiny = profile.n_parameters <= TINY_NETWORK and profile.n_samples >= TINY_SCRATCH_FROM
    enough = tiny or profile.n_samples >= SCRATCH_FROM
    return not profile.pretrained and enough


def looks_far(evidence: ProbeEvidence | None) -> bool:
    """Return whether the images look far from those of pretraining: whether the earlier stages clearly know more."""
    delta = None if evidence is None else evidence.delta_multi
    return evidence is not None and delta is not None and delta > max(FAR_DELTA, evidence.standard_error)


def regime_to_train(evidence: ProbeEvidence | None) -> Regime:
    """Return the recipe to fine-tune with: what a trial showed to be better, else the one for far images.

    On unseen images it was the better of both in 90 of 119 cells, by 3.1 points on average (plain fine-tuning, 13 tasks
    near and far). Where a network does not bear its rates, they are lowered to those of the other (`finetune.rates`).
    """
    run = None if evidence is None or evidence.trial is None else best_run(evidence.trial)
    return "far" if run is None else run.regime


def better_probe(evidence: ProbeEvidence) -> tuple[Layers, float]:
    """Return layers and accuracy of the better probe: all stages must be better by more than the standard error."""
    rival = evidence.all_stages_accuracy
    if rival is not None and rival - evidence.accuracy > evidence.standard_error:
        return "all_stages", rival
    return "penultimate", evidence.accuracy


def training_limit(request: Request) -> float | None:
    """Return the seconds that a run with training may take, or None for as long as it needs."""
    if request.budget.seconds is None and request.strategy == "auto":
        return UNASKED_SECONDS
    return request.budget.seconds


def needed_seconds(request: Request, alternative: Alternative) -> float:
    """Return the time that must be allowed for a strategy.

    A probe is refused only when it is expected not to fit, because nothing cheaper could replace it. What comes on top
    of a probe that is in hand, another one or training, must fit, unasked, even at the slow end of its estimate; of
    training that holds for the shortest run worth taking. What is asked for is tried where it is expected to fit; if
    it turns out not to, the probe stays.
    """
    return _seconds_to_allow(request, name_of(alternative.strategy), alternative.seconds)


def needed_for_further_head(request: Request) -> float:
    """Return the time that must be left for a head on all stages, once the first one is fitted."""
    return _seconds_to_allow(request, "all_stages_probe", further_head_seconds(request))


def _seconds_to_allow(request: Request, strategy: StrategyName, seconds: Estimate) -> float:
    first = strategy == "probe" or (strategy == "all_stages_probe" and request.evidence is None)
    return seconds.value if first or strategy == request.strategy else seconds.high


def _price_probe(request: Request, layers: Layers) -> Alternative:
    """Price a probe. After the evidence the penultimate one is in hand, whatever it cost."""
    cost, strategy = probe_cost(request, layers), LinearProbe(layers=layers)
    needed = _seconds_to_allow(request, name_of(strategy), cost.seconds)
    in_hand = request.evidence is not None and layers == "penultimate"
    return Alternative(
        strategy=strategy,
        accuracy=probe_accuracy(request.evidence, layers) if request.evidence else None,
        seconds=cost.seconds,
        memory_bytes=cost.memory_bytes,
        disk_bytes=cost.disk_bytes,
        why_not="" if in_hand else _shortfall(request, lambda asked: probe_cost(asked, layers), needed),
    )


def _price_finetune(request: Request) -> Alternative:
    """Price fine-tuning with as many steps as it is to take and the time allows."""
    profile, evidence = request.profile, request.evidence
    regime, shape = regime_to_train(evidence), _shape_of_finetuning(request)
    lr, lr_decay = rates_of(request, regime)
    strategy = FineTune(
        lr=lr,
        lr_decay=lr_decay,
        regime=regime,
        steps=_steps_within(request, _least_finetuning(request), finetuning_steps(request), shape),
        batch_size=request.wishes.batch_size,
        folds=shape.folds,
        accept_z=_accept_z(request, _gain_expected(request)),
        image_scale=shape.image_scale,
    )
    accuracy = finetuned_accuracy(evidence, profile) if evidence and profile.pretrained else None
    return _priced(request, strategy, accuracy)


def rates_of(request: Request, regime: Regime) -> tuple[float, float]:
    """Return the head's rate and the factor between layer groups: rates grow with the batch."""
    wishes, batches = request.wishes, request.wishes.batch_size / BATCH_SIZE
    lr, lr_decay = RECIPES[regime]
    lr *= batches
    if trains_with_adamw(request):
        lr, lr_decay = ADAMW_LR * sqrt(batches), ADAMW_DECAY
    return wishes.lr or lr, wishes.lr_decay or lr_decay


def _gain_expected(request: Request) -> float | None:
    """Return what fine-tuning is expected to gain over the probe it begins with; None before there is one."""
    profile, evidence = request.profile, request.evidence
    if evidence is None or not profile.pretrained:
        return None
    return expected_gain(evidence, profile, starts_from=better_probe(evidence)[0]).mean


def _accept_z(request: Request, gain: float | None = None) -> float:
    """Return how clearly a network must be better than the probe, where so much gain is expected."""
    asked = request.wishes.accept_z
    return z_to_accept(gain, z=ACCEPT_Z[request.budget.risk]) if asked is None else asked


def z_to_accept(gain: float | None, *, z: float) -> float:
    """Return how clearly a network must be better: by ``z``, or more clearly where hardly any gain is expected."""
    return max(z, ACCEPT_Z["safe"]) if gain is not None and gain < UNPROMISING else z


def _shape_of_finetuning(request: Request) -> TrainingShape:
    """Return the usual shape if there is time for a quarter of its steps, else a quicker one.

    Without a word about time nothing else is considered, and what the user settled stays in any case.
    """
    profile, wishes, thorough = request.profile, request.wishes, shape_of_finetuning(request)
    smaller = profile.takes_smaller_images and profile.image_side >= SMALLER_FROM and wishes.image_scale is None
    quicker = replace(thorough, image_scale=SMALLER_SCALE) if smaller else thorough
    full, least = finetuning_steps(request), _least_finetuning(request)
    limit = training_limit(request)
    if _is_unasked(request) or limit is None:
        return thorough
    worthwhile = training_cost(request, max(least, ceil(LEAST_SHARE * full)), thorough).seconds.low
    needed = _seconds_to_allow(request, "finetune", training_cost(request, least, thorough).seconds)
    if max(worthwhile, needed) <= limit:
        return thorough
    if wishes.folds is not None or training_cost(request, least, quicker).seconds.high <= limit:
        return quicker
    return replace(quicker, folds=1)


def _is_unasked(request: Request) -> bool:
    """Say whether nobody asked for training, or said how long it may take."""
    return request.budget.seconds is None and request.strategy == "auto"


def _least_finetuning(request: Request) -> int:
    """Return the fewest steps of fine-tuning worth taking: not many, where somebody asked for it or gave it time."""
    full, batch_size = finetuning_steps(request), request.wishes.batch_size
    return half_the_recipe(full, batch_size) if _is_unasked(request) else shortest_finetuning(full, batch_size)


def _price_scratch(request: Request) -> Alternative:
    """Price training from random weights, of whose accuracy a probe says nothing."""
    shape = shape_of_scratch(request)
    strategy = Scratch(
        lr=request.wishes.lr or SCRATCH_LR * request.wishes.batch_size / BATCH_SIZE,
        steps=_steps_within(request, _least_scratch(request), scratch_steps(request), shape),
        batch_size=request.wishes.batch_size,
        folds=shape.folds,
        accept_z=_accept_z(request),
    )
    return _priced(request, strategy, None)


def _least_scratch(request: Request) -> int:
    """Return the fewest steps from random weights worth taking."""
    return half_the_recipe(scratch_steps(request), request.wishes.batch_size)


def _priced(request: Request, strategy: FineTune | Scratch, accuracy: Estimate | None) -> Alternative:
    """Price a training strategy: it does not fit if not even its shortest run does."""
    limit, least = training_limit(request), shortest_cost(request, strategy)
    needed = _seconds_to_allow(request, name_of(strategy), least.seconds)
    shortage = _shortfall(request, lambda asked: shortest_cost(asked, strategy), needed)
    impossible = f"this network cannot be trained: {request.profile.untrainable}" if request.profile.untrainable else ""
    why_not = impossible or shortage or _too_long_unasked(request, needed)
    shape = shape_of(strategy, request)
    cost = training_cost(request, strategy.steps, shape)
    # A schedule is shortened while it runs rather than late.
    seconds = at_most(whole_seconds(request, strategy.steps, shape, limit=limit), limit)
    return Alternative(
        strategy=strategy,
        accuracy=accuracy,
        seconds=least.seconds if why_not else seconds,
        memory_bytes=cost.memory_bytes,
        disk_bytes=cost.disk_bytes,
        why_not=why_not,
    )


def shortest_cost(request: Request, strategy: FineTune | Scratch) -> Cost:
    """Return what the shortest useful run of a strategy takes."""
    least = _least_finetuning(request) if isinstance(strategy, FineTune) else _least_scratch(request)
    return training_cost(request, least, shape_of(strategy, request))


def shortest_seconds(request: Request, strategy: FineTune | Scratch) -> float:
    """Return the time that the shortest useful run of a strategy must be allowed."""
    return _seconds_to_allow(request, name_of(strategy), shortest_cost(request, strategy).seconds)


def _too_long_unasked(request: Request, needed: float) -> str:
    """Say that training takes longer than one would wait without having asked for it."""
    limit = training_limit(request)
    if limit is None or needed <= limit:
        return ""
    return (
        f"it needs {duration(needed)}, and without a time_budget no more than {duration(limit)} is spent on training "
        f"(time_budget={ceil(needed)} would do)"
    )


def _steps_within(request: Request, shortest: int, full: int, shape: TrainingShape) -> int:
    """Return as many of ``full`` steps as the time may allow, or the shortest useful run.

    By the fast end of the estimate: a schedule that turns out too long is shortened while it runs, and one that turns
    out too short leaves time unused.
    """

    def seconds(steps: int) -> float:
        return training_cost(request, steps, shape).seconds.low

    return affordable_steps(shortest, full, training_limit(request), seconds)


def _shortfall(request: Request, price: Callable[[Request], Cost], seconds: float) -> str:
    """Say of each part of the budget that is short how much would do, or nothing if the cost fits."""
    budget = request.budget
    lacking = []
    if budget.seconds is not None and seconds > budget.seconds:
        lacking.append(
            f"it needs {duration(seconds)} and time_budget allows {duration(budget.seconds)} "
            f"(time_budget={ceil(seconds)} would do)"
        )
    needed, memory = price(request).memory_bytes, memory_limit(request)
    if needed <= memory:
        return "; ".join(lacking)
    streamed = price(replace(request, budget=replace(budget, disk_bytes=None))).memory_bytes
    if streamed < needed:  # features that the cache may take need not all be in memory
        disk = features_disk_bytes(request.profile)
        lacking.append(
            f"its features need {size(disk)} of disk and disk_limit allows {size(budget.disk_bytes or 0)} "
            f"(disk_limit={disk} would do)"
        )
    if streamed > memory:
        lacking.append(f"it needs {size(streamed)} of memory and {_memory_there_is(request, streamed)}")
    return "; ".join(lacking)


def _memory_there_is(request: Request, needed: int) -> str:
    """Say how much memory there is, and what would do as far as the user decides on it."""
    free, allowed = request.profile.memory_available_bytes, request.budget.memory_bytes
    if allowed is None or needed > free:
        return f"{size(free)} are free"
    return f"memory_limit allows {size(allowed)} (memory_limit={needed} would do)"
