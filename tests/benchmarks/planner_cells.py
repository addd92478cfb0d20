"""Runs the strategies in one cell, each a complete procedure, and says of each what came out and what it took.

A cell is a task, a backbone, a number of training images and a seed. Strategies share what they have in common: the
run is opened, features extracted and the probe fitted once, by the same functions as ``TransferClassifier.fit``, and
every strategy is charged with it. ``finetune_near`` and ``finetune_far`` are ``strategy="finetune"`` with the planner's
two recipes, taken apart so that each part is timed, and the network trained on all images is known even where the
comparison rejects it; ``finetune_short`` is the recipe for far images with a quarter of the steps, about what a short
``time_budget`` leaves. ``raw_near`` and ``raw_far`` are plain fine-tuning: one training from the probe on all images,
of as many steps, without comparison, blend or fallback. ``scratch`` is `train_from_scratch`, without a comparison.
"""

import base64
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck import FineTuneSettings, TransferClassifier, load_backbone
from bottleneck.backbones import Backbone
from bottleneck.errors import FallbackWarning
from bottleneck.estimators.frozen import joined
from bottleneck.estimators.layers import join_layers
from bottleneck.estimators.opening import open_run
from bottleneck.estimators.planned import expect, planned_settings
from bottleneck.estimators.run import (
    Probe,
    Run,
    carry_out,
    extract_run,
    fit_probe,
    plan_run,
    start_of_finetuning,
)
from bottleneck.estimators.signals import batch_norm_shift, neighbours_accuracy
from bottleneck.extraction import Extractor, using_threads
from bottleneck.features import Features, compute_features
from bottleneck.finetune import train_from_scratch
from bottleneck.finetune.compare import HeldOut
from bottleneck.images import ImageSource, as_image_source
from bottleneck.planner.alternatives import RECIPES
from bottleneck.planner.head_costs import SHIFT_MOST
from bottleneck.planner.shapes import SHORTEST_FINETUNING
from bottleneck.progress import silent
from tests.benchmarks.planner_parts import TrainingSet, finetune_in_parts, finetune_plainly, pixels_of
from tests.benchmarks.planner_signals import layer_accuracies
from tests.benchmarks.planner_tasks import TaskImages, take
from tests.finetune.resnet20 import ResNet20

PROBES, FINETUNINGS = ("probe", "all_stages_probe"), ("finetune_near", "finetune_far", "finetune_short")
STRATEGIES = (*PROBES, *FINETUNINGS, "raw_near", "raw_far", "scratch")
SHORT = 1 / 4
BACKBONES = ("resnet20_cifar10", "embedded", "mobilenet_v2")

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One place in the table."""

    task: str
    backbone: str
    n: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopwatch:
    """Wall and processor seconds of the parts of a procedure, by name."""

    parts: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Time what is done inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.parts[part] = (round(time.perf_counter() - wall, 4), round(time.process_time() - cpu, 4))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probed:
    """A run of which the probe is in hand: what every strategy starts from."""

    cell: Cell
    run: Run
    features: Features
    probe: Probe
    test: ImageSource
    test_features: dict[str, NDArray[np.float32]]
    test_codes: NDArray[np.uint8]
    watch: Stopwatch

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers of the backbone."""
        return tuple(self.run.extractor.backbone.layer_widths)

    def record(self, strategy: str, codes: NDArray[np.generic], watch: Stopwatch) -> Record:
        """Return what is said of every strategy, of which ``codes`` are the classes predicted for the test images."""
        return asdict(self.cell) | {
            "strategy": strategy,
            "accuracy": float((codes == self.test_codes).mean()),
            "predictions": packed(codes),
            "parts": self.watch.parts | watch.parts,
        }

    def codes_of(self, predicted: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return the number of each predicted class."""
        return np.searchsorted(self.probe.head.classes_, predicted).astype(np.uint8)


def load_named(name: str, shared: Path) -> Backbone:
    """Load a backbone anew, so that no cell profits from what an earlier one has prepared."""
    weights = shared / "weights"
    match name:
        case "resnet20_cifar10":
            return load_backbone(ResNet20(), weights / "resnet20_cifar10.safetensors")
        case "mobilenet_v2":
            return load_backbone(name, weights / "mobilenet_v2_imagenet_tf_hmirror.safetensors")
        case _:
            return load_backbone(name)


def run_cell(
    cell: Cell,
    images: TaskImages,
    rows: NDArray[np.int64],
    backbone: Backbone,
    *,
    strategies: Sequence[str],
    settings: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
) -> Iterator[Record]:
    """Yield the record of each strategy as soon as it is done; the probe comes first.

    ``settings`` are those of fine-tuning beside the recipe's rates; the table has the library's own.
    """
    with tempfile.TemporaryDirectory() as cache_dir:
        probed = run_probe(cell, images, rows, backbone, cache_dir=cache_dir)
        for strategy in STRATEGIES:
            if strategy in strategies:
                yield run_strategy(strategy, probed, settings)


def run_strategy(strategy: str, probed: Probed, settings: FineTuneSettings) -> Record:
    """Run one strategy to its end."""
    match strategy:
        case "probe":
            return probe_record(probed)
        case "all_stages_probe":
            return all_stages_record(probed)
        case "scratch":
            return scratch_record(probed, settings)
        case _:
            return finetune_record(strategy, probed, settings)


def run_probe(cell: Cell, images: TaskImages, rows: NDArray[np.int64], backbone: Backbone, *, cache_dir: str) -> Probed:
    """Do what ``TransferClassifier.fit`` does up to the probe, and predict the test images' features."""
    watch = Stopwatch()
    classifier = TransferClassifier(backbone, cache_dir=cache_dir, random_state=cell.seed)
    with watch.timing("open"):
        run = open_run(classifier, take(images.pool, rows), images.labels[rows], progress=silent)
        plan_run(run)
    with watch.timing("extract"):
        features = extract_run(run, "raise")
    with watch.timing("probe"):
        probe = fit_probe(run, features)
        plan_run(run, probe.evidence)
    if probe.evidence is None or not isinstance(features, Features):
        raise ValueError("nothing could be held out, or features do not fit in memory")
    test = as_image_source(images.test)
    layers = tuple(run.extractor.backbone.layer_widths)
    found = compute_features(test, run.extractor, None, precision=run.precision, layers=layers)
    return Probed(
        cell=cell,
        run=run,
        features=features,
        probe=probe,
        test=test,
        test_features=found.layers,
        test_codes=np.searchsorted(probe.head.classes_, images.test_labels).astype(np.uint8),
        watch=watch,
    )


def probe_record(probed: Probed) -> Record:
    """Describe the probe, and all that is known of the cell before anything is trained."""
    run, probe, head = probed.run, probed.probe, probed.probe.head
    codes = probed.codes_of(head.predict(probed.test_features["penultimate"]))
    watch, signals = Stopwatch(), {}
    with watch.timing("signals"):
        signals["layers"] = layer_accuracies(
            probed.features.layers, run.labels, normalization=head.normalize_, seed=run.seed
        )
        signals["neighbours"] = neighbours_accuracy(probed.features.layers["penultimate"], run.labels)
        pixels = pixels_of(run.source, run)
        rows = np.arange(min(len(run.labels), SHIFT_MOST))
        signals["batch_norm_shift"] = batch_norm_shift(run.extractor.backbone, pixels, rows)
    assert probe.evidence is not None
    record = probed.record("probe", codes, Stopwatch())
    return record | {
        "test_labels": packed(probed.test_codes),
        "n_test": len(codes),
        "profile": asdict(run.profile),
        "evidence": asdict(probe.evidence),
        "head": {"normalize": head.normalize_, "C": float(head.C_)},
        "signals": signals,
        "signal_seconds": watch.parts["signals"],
    }


def all_stages_record(probed: Probed) -> Record:
    """Fit the head on all stages."""
    run, watch = replace(probed.run, strategy="all_stages_probe"), Stopwatch()
    with watch.timing("all_stages_head"):
        outcome = carry_out(run, plan_run(run, probed.probe.evidence), probed.probe, probed.features)
    codes = probed.codes_of(outcome.head.predict(join_layers(probed.test_features, outcome.layers)))
    return probed.record("all_stages_probe", codes, watch) | {
        "delivered": outcome.strategy,
        "accuracy_cv": float(outcome.head.accuracy_cv_),
        "accuracy_cv_se": float(outcome.head.accuracy_se_),
    }


def finetune_record(strategy: str, probed: Probed, given: FineTuneSettings) -> Record:
    """Fine-tune with the planner's recipe for near or for far images, with a comparison or plainly."""
    kind, regime = strategy.split("_")
    lr, lr_decay = RECIPES["near" if regime == "near" else "far"]
    run, probe, watch = replace(probed.run, strategy="finetune", settings=given), probed.probe, Stopwatch()
    plan = plan_run(run, probe.evidence)
    asked = replace(given, lr=lr, lr_decay=lr_decay, check_rates=True)  # as for rates that the plan chose
    settings = planned_settings(asked, plan.strategy, run.extractor.backbone)
    with watch.timing("start"):
        start = start_of_finetuning(run, probe, probed.features)
    training = TrainingSet(run=run, head=start.head, features=joined(probed.features, start.layers), test=probed.test)
    assert settings.steps != "auto"
    if regime == "short":
        settings = replace(settings, steps=max(SHORTEST_FINETUNING, round(SHORT * settings.steps)))
    with using_threads(run.rates.train_threads):
        if kind == "raw":
            result = finetune_plainly(training, replace(settings, refit="anew"), watch)
        else:
            result = finetune_in_parts(training, settings, watch, expect(plan, start.layers))
    path = result.path_codes
    from_probe = probed.codes_of(start.head.predict(join_layers(probed.test_features, start.layers)))
    delivered = from_probe if path is None or not result.accepted else path[result.place]
    record = probed.record(strategy, delivered, watch)
    if kind == "raw" and path is None:  # nothing to fall back on
        record |= {"predictions": None, "accuracy": 0.0}
    return record | {
        "path_predictions": None if path is None else [packed(each) for each in path],
        "path_accuracy": None if path is None else [float((each == probed.test_codes).mean()) for each in path],
        "start_predictions": packed(from_probe),
        "held_out": None if result.held_out is None else packed_scores(result.held_out),
        "starts_from": "probe" if start is probe else "all_stages_probe",
        "accepted": result.accepted,
        "stopped": result.stopped,
        "steps": result.steps,
        "gentler": result.gentler,
        "flip": result.flip,
        "settings": {"lr": lr, "lr_decay": lr_decay, "folds": settings.folds},
        "comparison": None if result.comparison is None else asdict(result.comparison),
    }


def scratch_record(probed: Probed, settings: FineTuneSettings) -> Record:
    """Train the same network from random weights on all images, as the library would."""
    run, watch = probed.run, Stopwatch()
    with warnings.catch_warnings(), watch.timing("scratch"), using_threads(run.rates.train_threads):
        warnings.simplefilter("ignore", FallbackWarning)
        result = train_from_scratch(
            run.source, run.labels, backbone=run.extractor.backbone, settings=settings, seed=run.seed
        )
    extractor = Extractor(result.backbone, run.extractor.settings)
    features = compute_features(probed.test, extractor, None, precision="float32").layers["penultimate"]
    codes = probed.codes_of(result.head.predict(features))
    return probed.record("scratch", codes, watch) | {"steps": result.steps}


def packed_scores(held_out: HeldOut) -> dict[str, str]:
    """Return the log-losses and margins (n, n_alphas) of held-out images as text."""
    return {
        name: base64.b64encode(getattr(held_out, name).astype(np.float16).tobytes()).decode()
        for name in ("log_loss", "margin")
    }


def packed(codes: NDArray[np.generic]) -> str:
    """Return class numbers below 256 as text."""
    return base64.b64encode(codes.astype(np.uint8).tobytes()).decode()


def unpacked(text: str) -> NDArray[np.uint8]:
    """Return the class numbers that :func:`packed` wrote."""
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)
