"""What fine-tuning may gain over a probe: a prior from published tables, not fitted on this library's own runs.

The gain of fine-tuning over the penultimate probe is taken as a share of the headroom (1 - accuracy), which bounds it,
and that share as bivariate normal with the share that the probe on all stages recovers. Hence

    gain = (GAIN_SHARE - SLOPE * DELTA_SHARE) * headroom + SLOPE * delta_multi  +-  RESIDUAL * headroom

that is about 0.08 * headroom + 1.3 * delta_multi +- 0.27 * headroom, and never more than the headroom; a delta_multi
that is hardly more than its standard error counts for less. Two sources:

- the table: BYOL Table 3 (Grill et al. 2020, after Kornblith et al. 2019), 12 data sets of 2,040 to 75,750 images,
  ResNet-50 with supervised ImageNet weights, tuned linear probe and fine-tuning;
- the pilot: 38 cells of 7 tasks at 32 px, partly generated, with n = 200 and 800 and one ResNet-20 pretrained on
  CIFAR-10.

Far outside of what these sources hold (``SEEN_COUNTS``, ``SEEN_ACCURACIES``) the gain counts as unknown: the same line
with twice the doubt. A trial of fine-tuning (a few of its steps on one fold) is weighed against the line, each by how
sure it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot, pi, sin, sqrt
from statistics import NormalDist, linear_regression

from bottleneck.planner.evidence import Layers, ProbeEvidence, Trial, TrialRun
from bottleneck.planner.records import Estimate, Profile
from bottleneck.planner.wording import percent, points

GAIN_SHARE, GAIN_SPREAD = 0.335, 0.315
"""Mean and standard deviation of gain / headroom over the 12 data sets of the table."""
CORRELATION, CORRELATION_LOW = 2 * sin(pi * 0.78 / 6), 2 * sin(pi * 0.51 / 6)
"""Spearman's 0.78 between delta_multi and the gain in the pilot, and the low end of its 90 % interval, 0.51, as
Pearson correlations of normal variables. The spread uses the low end: the pilot had one small network."""
DELTA_SHARE = (0.527 - 0.418) / (1 - 0.418)
"""Mean share of the headroom that the probe chosen out of fold recovered in the pilot (41.8 to 52.7 %)."""
DELTA_SPREAD = DELTA_SHARE
"""Assumption: that share varies as much as its mean, as the share of the gain does (0.315 against 0.335)."""
SLOPE = CORRELATION * GAIN_SPREAD / DELTA_SPREAD
RESIDUAL = GAIN_SPREAD * sqrt(1 - CORRELATION_LOW**2)
UNSEEN_FACTOR = 2.0
"""Assumption: how much surer the line is where it was fitted than far outside."""
SHORTFALL, SHORTFALL_SPREAD = 0.05, 0.1
"""Assumption, to be fitted to cells: the share of the headroom that a whole training gains beyond a trial of 7.5 %
of its steps, and how much that varies."""
TRIAL_Z = 0.5
"""Standard errors by which another recipe must do better in a trial than the one that the evidence suggests."""
INTERVAL_Z = 1.645
"""Bounds of accuracies are 90 % intervals."""
CURVE_EXPONENT = -0.5
"""Learning curves: error(n) = a + b n^g with g near -0.5 predicted twice the data within about a point."""
CURVE_MIN_POINTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A count, where it lay in the sources: far outside is a factor ``COUNT_REACH`` beyond."""

    of: Callable[[Profile], int]
    low: int
    high: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """An accuracy or a difference of two, where it lay in the sources: far outside is ``ACCURACY_REACH`` beyond."""

    of: Callable[[ProbeEvidence], float | None]
    low: float
    high: float


SEEN_COUNTS = {
    "images": Counted(of=lambda profile: profile.n_samples, low=50, high=75_750),
    "classes": Counted(of=lambda profile: profile.n_classes, low=2, high=500),
    "parameters": Counted(of=lambda profile: profile.n_parameters, low=270_000, high=25_600_000),
}
SEEN_ACCURACIES = {
    "accuracy": Measured(of=lambda evidence: evidence.accuracy, low=0.08, high=0.947),
    "gain from the earlier stages": Measured(of=lambda evidence: evidence.delta_multi, low=-0.16, high=2 * 0.109),
}
"""Of both sources and of the cells that the line was checked on (tests/benchmarks/results/planner_cells.jsonl): 13
tasks of 2 to 20 classes, 50 to 800 images, a ResNet-20 and the embedded backbone. The pilot's mean gain from the
earlier stages is 0.109; that this went up to twice as much is the assumption of ``DELTA_SPREAD``."""
COUNT_REACH, ACCURACY_REACH = 2.0, 0.1
"""Choice: outside by less than this is not far outside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Predicted gain over the penultimate probe: a normal variable of which nothing lies above the headroom."""

    centre: float
    spread: float
    headroom: float

    @property
    def mean(self) -> float:
        """The expected gain."""
        if not self.spread:
            return self.centre
        standard, edge = NormalDist(), (self.headroom - self.centre) / self.spread
        return self.centre - self.spread * standard.pdf(edge) / standard.cdf(edge)

    @property
    def interval(self) -> tuple[float, float]:
        """The 90 % interval."""
        if not self.spread:
            return self.centre, self.centre
        normal = NormalDist(self.centre, self.spread)
        low, high = (normal.inv_cdf(share * normal.cdf(self.headroom)) for share in (0.05, 0.95))
        return low, high

    def chance_above(self, gain: float) -> float:
        """Return the probability of gaining more than this."""
        if gain >= self.headroom:
            return 0.0
        normal = NormalDist(self.centre, self.spread)
        return 1 - normal.cdf(gain) / normal.cdf(self.headroom)


def predict_gain(evidence: ProbeEvidence, profile: Profile) -> Gain:
    """Predict what fine-tuning gains over the penultimate probe, from what a trial showed if there was one."""
    gain, trial = _prior_gain(evidence, profile), evidence.trial
    run = None if trial is None else best_run(trial)
    if trial is None or run is None or not gain.spread:
        return gain
    lead = evidence.delta_multi if trial.starts_from == "all_stages" and evidence.delta_multi else 0.0
    headroom = max(gain.headroom - lead, 0.0)
    measured = lead + run.gain + SHORTFALL * headroom
    # Images that all agree on still leave a doubt of one image.
    doubt = hypot(max(run.standard_error, 1 / trial.n_images), SHORTFALL_SPREAD * headroom)
    weight = gain.spread**2 / (gain.spread**2 + doubt**2)
    return Gain(
        centre=gain.centre + weight * (measured - gain.centre),
        spread=gain.spread * sqrt(1 - weight),
        headroom=gain.headroom,
    )


def expected_gain(evidence: ProbeEvidence, profile: Profile, *, starts_from: Layers) -> Gain:
    """Predict the gain over the probe that fine-tuning starts from, from what the probes showed alone.

    A trial is left out: it was measured on images that the comparison with the probe has too.
    """
    gain = _prior_gain(evidence, profile)
    lead = evidence.delta_multi or 0.0 if starts_from == "all_stages" else 0.0
    return Gain(centre=gain.centre - lead, spread=gain.spread, headroom=gain.headroom - lead)


def _prior_gain(evidence: ProbeEvidence, profile: Profile) -> Gain:
    """Predict the gain from what the probes showed."""
    headroom, doubt = 1 - evidence.accuracy, UNSEEN_FACTOR if unseen(evidence, profile) else 1.0
    if evidence.delta_multi is None:
        return Gain(centre=GAIN_SHARE * headroom, spread=doubt * GAIN_SPREAD * headroom, headroom=headroom)
    # delta_multi is itself known only within about the probe's standard error: what is due to chance is left out.
    usual, spread, error = DELTA_SHARE * headroom, DELTA_SPREAD * headroom, evidence.standard_error
    trust = spread**2 / (spread**2 + error**2) if headroom else 0.0
    return Gain(
        centre=GAIN_SHARE * headroom + SLOPE * trust * (evidence.delta_multi - usual),
        spread=doubt * hypot(RESIDUAL * headroom, SLOPE * spread * sqrt(1 - trust)),
        headroom=headroom,
    )


def best_run(trial: Trial) -> TrialRun | None:
    """Return the run to believe: the first, which the evidence suggested, unless another is clearly better."""
    if not trial.runs:
        return None
    first, best = trial.runs[0], max(trial.runs, key=lambda run: run.gain)
    margin = TRIAL_Z * max(first.standard_error, best.standard_error)
    return best if best.gain - first.gain > margin else first


def unseen(evidence: ProbeEvidence, profile: Profile) -> tuple[str, ...]:
    """Say in what a request lies far outside of what the gain was learned from; nothing if it does not."""
    found = []
    for name, counted in SEEN_COUNTS.items():
        count = counted.of(profile)
        if not counted.low / COUNT_REACH <= count <= counted.high * COUNT_REACH:
            found.append(f"{count:,} {name} (seen were {counted.low:,} to {counted.high:,})")
    for name, measured in SEEN_ACCURACIES.items():
        value, say = measured.of(evidence), percent if name == "accuracy" else points
        if value is not None and not measured.low - ACCURACY_REACH <= value <= measured.high + ACCURACY_REACH:
            found.append(f"{name} of {say(value)} (seen were {say(measured.low)} to {say(measured.high)})")
    if profile.has_layer_norm:
        found.append("a network with LayerNorm (seen were networks with BatchNorm)")
    return tuple(found)


def finetuned_accuracy(evidence: ProbeEvidence, profile: Profile) -> Estimate | None:
    """Predict the accuracy of the fine-tuned network; None where nothing like it was seen, nor tried."""
    tried = evidence.trial is not None and bool(evidence.trial.runs)
    if unseen(evidence, profile) and not tried:
        return None
    gain = predict_gain(evidence, profile)
    low, high = gain.interval
    return _accuracy(evidence.accuracy + gain.mean, evidence.accuracy + low, evidence.accuracy + high)


def probe_accuracy(evidence: ProbeEvidence, layers: Layers) -> Estimate | None:
    """Return the measured accuracy of a probe, or ``None`` if it was not fitted."""
    accuracy = evidence.accuracy if layers == "penultimate" else evidence.all_stages_accuracy
    if accuracy is None:
        return None
    reach = INTERVAL_Z * evidence.standard_error
    return _accuracy(accuracy, accuracy - reach, accuracy + reach)


def accuracy_with_twice_the_images(curve: tuple[tuple[int, float], ...]) -> float | None:
    """Extend a learning curve to twice its largest number of images; ``None`` with under three numbers."""
    return accuracy_with(2 * max(curve)[0], curve) if curve else None


def accuracy_with(n_images: int, curve: tuple[tuple[int, float], ...]) -> float | None:
    """Extend a learning curve to a number of images beyond its largest; ``None`` with under three numbers."""
    if len({n for n, _ in curve}) < CURVE_MIN_POINTS:
        return None
    slope, limit = linear_regression([n**CURVE_EXPONENT for n, _ in curve], [1 - accuracy for _, accuracy in curve])
    last = max(curve)[1]
    error: float = limit + slope * n_images**CURVE_EXPONENT
    # More images never make a head worse on average: a curve that rises is noise.
    return max(last, 1 - max(error, 0.0))


def _accuracy(value: float, low: float, high: float) -> Estimate:
    """Return an estimate kept within [0, 1]."""
    value, low, high = (min(max(bound, 0.0), 1.0) for bound in (value, low, high))
    return Estimate(value=value, low=low, high=high)
