"""What a plan means for fine-tuning: its settings, and what it is expected to gain."""

from dataclasses import replace
from typing import Any

from bottleneck.backbones import Backbone, has_layer_norm
from bottleneck.estimators.layers import PENULTIMATE
from bottleneck.finetune import Expected, FineTuneSettings
from bottleneck.finetune.recipe import choose_optimizer
from bottleneck.planner import FineTune, Plan, Scratch, Strategy
from bottleneck.planner.costs import recipe_steps
from bottleneck.planner.gain import expected_gain
from bottleneck.planner.records import Layers


def expect(plan: Plan, start: tuple[str, ...]) -> Expected | None:
    """Return what the planner expects fine-tuning to gain over the probe on these layers; None if it cannot say."""
    evidence = plan.request.evidence
    if evidence is None:
        return None
    layers: Layers = "penultimate" if start == PENULTIMATE else "all_stages"
    gain = expected_gain(evidence, plan.request.profile, starts_from=layers)
    return Expected(gain=gain.mean, spread=gain.spread)


def settings_for(plan: Plan, settings: FineTuneSettings, backbone: Backbone) -> FineTuneSettings:
    """Return the settings to carry out a plan with: the recipe's steps where a deadline cuts them while they run.

    More of them fit than were planned where layers are left as they are, which only the first steps tell.
    """
    strategy = plan.strategy
    if isinstance(strategy, FineTune) and plan.training_limit is not None:
        strategy = replace(strategy, steps=recipe_steps(plan.request.profile.n_samples))
    return planned_settings(settings, strategy, backbone)


def planned_settings(settings: FineTuneSettings, strategy: Strategy, backbone: Backbone) -> FineTuneSettings:
    """Return the settings with the plan's numbers wherever the user left "auto", for batches of the user's size."""
    assert isinstance(strategy, FineTune | Scratch)
    planned: dict[str, Any] = {
        "steps": max(1, round(strategy.steps * strategy.batch_size / settings.batch_size)),
        "folds": strategy.folds,
        "acceptance_z": strategy.accept_z,
    }
    if isinstance(strategy, FineTune):
        planned["image_scale"] = strategy.image_scale
        # The plan's rate and folds are no wishes of the user's.
        planned["check_rates"] = settings.lr == "auto"
        planned["more_folds"] = settings.folds == "auto"
    # The plan's rates are those of SGD; AdamW, with which networks with LayerNorm train, has rates of its own.
    if choose_optimizer(settings, has_layer_norm=has_layer_norm(backbone.network)) == "sgd":
        planned["lr"] = strategy.lr * settings.batch_size / strategy.batch_size
        planned["lr_decay"] = strategy.lr_decay if isinstance(strategy, FineTune) else 1.0
    chosen = {name: value for name, value in planned.items() if getattr(settings, name) == "auto"}
    return replace(settings, **chosen)
