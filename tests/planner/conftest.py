"""An everyday profile to vary, and seeded requests of every kind."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from bottleneck.planner import Budget, ProbeEvidence, Profile
from bottleneck.planner.evidence import Trial, TrialRun

AMPLE = Budget(seconds=1e6)
"""Time enough for everything: without a budget of the user's own, training is kept short."""
EVERYDAY = Profile(
    n_samples=3_409,
    n_classes=10,
    smallest_class=61,
    largest_class=1_011,
    n_features=1_280,
    n_features_all_stages=2_416,
    n_parameters=2_223_872,
    image_side=224,
    pretrained=True,
    device="CPU",
    decode_seconds_per_image=0.002,
    forward_seconds_per_image=0.01,
    train_seconds_per_image=0.03,
    memory_available_bytes=8_000_000_000,
    train_bytes_per_image=60_000_000,
    feature_bytes_per_image=4_848,
    rows_cached=409,
)
PROMISING = ProbeEvidence(
    accuracy=0.6,
    standard_error=0.008,
    train_accuracy=0.9,
    head_seconds=12.0,
    all_stages_accuracy=0.7,
    learning_curve=((852, 0.5), (1_704, 0.56), (3_409, 0.6)),
)


@pytest.fixture(scope="session")
def profile_of() -> Callable[..., Profile]:
    """Return a function that makes the everyday profile with some facts changed."""
    return lambda **changes: replace(EVERYDAY, **changes)


@pytest.fixture(scope="session")
def evidence_of() -> Callable[..., ProbeEvidence]:
    """Return a function that makes evidence which promises a gain, with some of it changed."""
    return lambda **changes: replace(PROMISING, **changes)


@pytest.fixture(scope="session")
def cases() -> list[tuple[Profile, Budget, ProbeEvidence | None]]:
    """Return 400 seeded requests: tiny and large, cached and not, rich and poor, with and without evidence."""
    return [_case(Random(seed)) for seed in range(400)]


def _case(rng: Random) -> tuple[Profile, Budget, ProbeEvidence | None]:
    profile = _profile(rng)
    evidence = _evidence(rng, stages=profile.n_features_all_stages > profile.n_features)
    return profile, _budget(rng), evidence if rng.random() < 0.6 else None


def _profile(rng: Random) -> Profile:
    n = round(_log_uniform(rng, 20, 100_000))
    smallest = rng.randint(1, max(1, n // 20))
    width = rng.choice([64, 512, 1_280, 2_048])
    return Profile(
        n_samples=n,
        n_classes=rng.randint(2, 20),
        smallest_class=smallest,
        largest_class=rng.randint(smallest, n),
        n_features=width,
        n_features_all_stages=rng.choice([width, 2 * width]),
        n_parameters=round(_log_uniform(rng, 1e5, 1e8)),
        image_side=rng.choice([32, 224]),
        pretrained=rng.random() < 0.8,
        device="CPU",
        decode_seconds_per_image=_log_uniform(rng, 1e-4, 0.1),
        forward_seconds_per_image=_log_uniform(rng, 1e-4, 0.1),
        train_seconds_per_image=_log_uniform(rng, 1e-3, 0.3),
        memory_available_bytes=round(_log_uniform(rng, 1e9, 1e11)),
        train_bytes_per_image=round(_log_uniform(rng, 1e6, 2e8)),
        feature_bytes_per_image=rng.randint(100, 10_000),
        rows_cached=rng.choice([0, n // 2, n]),
    )


def _budget(rng: Random) -> Budget:
    return Budget(
        seconds=rng.choice([None, _log_uniform(rng, 10, 1e6)]),
        memory_bytes=rng.choice([None, round(_log_uniform(rng, 1e9, 1e11))]),
        disk_bytes=rng.choice([None, round(_log_uniform(rng, 1e7, 1e11))]),
        risk=rng.choice(["balanced", "safe"]),
    )


def _evidence(rng: Random, *, stages: bool) -> ProbeEvidence:
    accuracy = rng.uniform(0.1, 1.0)
    return ProbeEvidence(
        accuracy=accuracy,
        standard_error=rng.uniform(0.0, 0.04),
        train_accuracy=rng.uniform(accuracy, 1.0),
        head_seconds=_log_uniform(rng, 0.1, 100),
        all_stages_accuracy=min(1.0, max(0.0, accuracy + rng.gauss(0.03, 0.08))) if stages else None,
        learning_curve=rng.choice([(), ((100, 0.4), (200, 0.5), (400, 0.6)), ((100, 0.4), (200, 0.5))]),
        spent_seconds=rng.choice([None, _log_uniform(rng, 1, 1e4)]),
        early_stages_accuracy=rng.uniform(0.1, accuracy) if stages else None,
        neighbours_accuracy=rng.choice([None, rng.random()]),
        batch_norm_shift=rng.choice([None, rng.uniform(0.0, 2.0)]),
        trial=_trial(rng, stages=stages) if rng.random() < 0.3 else None,
    )


def _trial(rng: Random, *, stages: bool) -> Trial:
    regimes = rng.choice([(), ("near",), ("far",), ("near", "far"), ("far", "near")])
    runs = tuple(
        TrialRun(regime=regime, gain=rng.gauss(0.02, 0.05), standard_error=rng.uniform(0, 0.05), alpha=rng.random())
        for regime in regimes
    )
    return Trial(
        runs=runs,
        steps=rng.randint(60, 750),
        n_images=rng.randint(2, 2_000),
        starts_from=rng.choice(["penultimate", "all_stages"]) if stages else "penultimate",
        seconds=_log_uniform(rng, 0.1, 100),
        diverged=("far",) if regimes == ("near",) else (),
        stopped=rng.choice(["", "", "", "it was interrupted"]),
    )


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return low * (high / low) ** rng.random()
