"""What fine-tuning may gain over a probe: a prior from published tables, not fitted on this library's own runs.

The gain of fine-tuning over the penultimate probe is taken as a share of the headroom (1 - accuracy), which bounds it,
and that share as bivariate normal with the share that the probe on all stages recovers. Hence

    gain = (GAIN_SHARE - SLOPE * DELTA_SHARE) * headroom + SLOPE * delta_multi  +-  RESIDUAL * headroom

that is about 0.08 * headroom + 1.3 * delta_multi +- 0.27 * headroom, and never more than the headroom. Two sources:

- the table: BYOL Table 3 (Grill et al. 2020, after Kornblith et al. 2019), 12 data sets of 2,040 to 75,750 images,
  ResNet-50 with supervised ImageNet weights, tuned linear probe and fine-tuning;
- the pilot: 38 cells of 7 tasks at 32 px, partly generated, with n = 200 and 800 and one ResNet-20 pretrained on
  CIFAR-10.
"""

from dataclasses import dataclass
from math import hypot, pi, sin, sqrt
from statistics import NormalDist, linear_regression

from bottleneck.planner.records import Estimate, Layers, ProbeEvidence

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
INTERVAL_Z = 1.645
"""Bounds of accuracies are 90 % intervals."""
CURVE_EXPONENT = -0.5
"""Learning curves: error(n) = a + b n^g with g near -0.5 predicted twice the data within about a point."""
CURVE_MIN_POINTS = 3


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


def predict_gain(evidence: ProbeEvidence) -> Gain:
    """Predict what fine-tuning gains over the penultimate probe."""
    headroom = 1 - evidence.accuracy
    if evidence.delta_multi is None:
        return Gain(centre=GAIN_SHARE * headroom, spread=GAIN_SPREAD * headroom, headroom=headroom)
    return Gain(
        centre=GAIN_SHARE * headroom + SLOPE * (evidence.delta_multi - DELTA_SHARE * headroom),
        # delta_multi is itself known only within about the probe's standard error.
        spread=hypot(RESIDUAL * headroom, SLOPE * evidence.standard_error),
        headroom=headroom,
    )


def finetuned_accuracy(evidence: ProbeEvidence) -> Estimate:
    """Predict the accuracy of the fine-tuned network."""
    gain = predict_gain(evidence)
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
