"""What a plan means for fine-tuning: its settings, and what it is expected to gain."""

from dataclasses import replace
from itertools import takewhile
from typing import Any

from bottleneck.backbones import Backbone, has_layer_norm
from bottleneck.estimators.layers import PENULTIMATE
from bottleneck.finetune import Expected, FineTuneSettings
from bottleneck.finetune.recipe import checks_rates, choose_optimizer
from bottleneck.planner import FineTune, Plan, Scratch, Strategy, Wishes
from bottleneck.planner.evidence import Layers
from bottleneck.planner.gain import expected_gain
from bottleneck.planner.shapes import finetuning_steps


def wishes_of(settings: FineTuneSettings, backbone: Backbone) -> Wishes:
    """Return what a plan must know of settings that the user chose."""

    def asked(kind: type[Any], *names: str) -> dict[str, Any]:
        chosen = {name: getattr(settings, name) for name in names}
        return {name: kind(value) for name, value in chosen.items() if value != "auto"}

    z, norm = settings.acceptance_z, has_layer_norm(backbone.network)
    return Wishes(
        **asked(int, "batch_size", "steps", "folds"),
        **asked(float, "lr", "lr_decay", "image_scale"),
        **asked(bool, "more_folds"),
        **asked(str, "optimizer", "refit"),
        check_rates=checks_rates(settings, has_layer_norm=norm, pretrained=backbone.pretrained),
        accept_z=None if z == "auto" else float(z),
    )


def n_frozen(settings: FineTuneSettings) -> int:
    """Return how many layer groups, from the input, stay as they are: no gradients go through these."""
    multipliers = settings.group_multipliers or ()
    return max(int(settings.freeze_groups), sum(1 for _ in takewhile(lambda factor: factor == 0, multipliers)))


def expect(plan: Plan, start: tuple[str, ...]) -> Expected | None:
    """Return what the planner expects fine-tuning to gain over the probe on these layers; None if it cannot say."""
    evidence = plan.request.evidence
    if evidence is None:
        return None
    layers: Layers = "penultimate" if start == PENULTIMATE else "all_stages"
    gain = expected_gain(evidence, plan.request.profile, starts_from=layers)
    return Expected(gain=gain.mean, spread=gain.spread)


def settings_for(plan: Plan, settings: FineTuneSettings, backbone: Backbone) -> FineTuneSettings:
    """Return the settings to carry out a plan with: all steps where a deadline cuts them while they run.

    More of them fit than were planned where layers are left as they are, which only the first steps tell.
    """
    strategy = plan.strategy
    if isinstance(strategy, FineTune) and plan.training_limit is not None:
        strategy = replace(strategy, steps=finetuning_steps(plan.request))
    return planned_settings(settings, strategy, backbone)


def planned_settings(settings: FineTuneSettings, strategy: Strategy, backbone: Backbone) -> FineTuneSettings:
    """Return the settings with the numbers of a plan that knows the user's wishes, wherever these left "auto"."""
    assert isinstance(strategy, FineTune | Scratch)
    planned: dict[str, Any] = {
        "steps": strategy.steps,
        "folds": strategy.folds,
        "acceptance_z": strategy.accept_z,
    }
    if isinstance(strategy, FineTune):
        planned["image_scale"] = strategy.image_scale
        # The plan's rate and folds are no wishes of the user's.
        planned["check_rates"] = bool(settings.lr == "auto")  # numpy's numbers compare to numpy's bool
        planned["more_folds"] = bool(settings.folds == "auto")
    # The plan's rates are those of SGD; AdamW, with which networks with LayerNorm train, has rates of its own.
    if choose_optimizer(settings, has_layer_norm=has_layer_norm(backbone.network)) == "sgd":
        planned["lr"] = strategy.lr
        planned["lr_decay"] = strategy.lr_decay if isinstance(strategy, FineTune) else 1.0
    chosen = {name: value for name, value in planned.items() if getattr(settings, name) == "auto"}
    return replace(settings, **chosen)
