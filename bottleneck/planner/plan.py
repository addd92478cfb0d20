"""The planner's answer: what to do, why, what else there was, as text, as HTML and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bottleneck.errors import InvalidInputError
from bottleneck.planner.alternatives import training_limit
from bottleneck.planner.explain import as_html, as_text
from bottleneck.planner.health import Finding
from bottleneck.planner.json_format import from_json, to_json
from bottleneck.planner.parts import Part, PartCost, with_actual
from bottleneck.planner.records import (
    Alternative,
    Reason,
    Request,
    RuleOfThumb,
    Strategy,
    StrategyName,
    TrialPlan,
)
from bottleneck.planner.wording import name_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do with these images, made by ``plan_transfer``.

    Attributes
    ----------
    request : Request
        The profile, budget, evidence, strategy, seed and wishes that the plan was made from.
    strategy : LinearProbe, FineTune or Scratch
        The decision so far.
    needs_probe : bool
        Whether the decision waits for the evidence of the probes.
    reasons : tuple of Reason
        Why, each with a stable rule id and its numbers.
    alternatives : tuple of Alternative
        Every strategy considered, the chosen one too, the cheapest first.
    rule_of_thumb : RuleOfThumb
        What the usual rule of thumb would choose, to compare.
    what_would_change : tuple of Reason
        Settings that would lead to another strategy.
    trial : TrialPlan or None
        The trial of fine-tuning that the decision waits for, if any.
    costs : tuple of PartCost
        What the parts of carrying out the strategy were predicted to take, and after ``fit`` what they took.
    health : tuple of Finding
        What is wrong with the images themselves, the most serious first; it changes nothing in the plan.
    """

    request: Request
    strategy: Strategy
    needs_probe: bool
    reasons: tuple[Reason, ...]
    alternatives: tuple[Alternative, ...]
    rule_of_thumb: RuleOfThumb
    what_would_change: tuple[Reason, ...]
    trial: TrialPlan | None = None
    costs: tuple[PartCost, ...] = ()
    health: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in [found.strategy for found in self.alternatives]:
            raise InvalidInputError(f"The strategy of a Plan must be one of its alternatives. Got {self.strategy!r}.")

    @property
    def needs_trial(self) -> bool:
        """Whether the decision waits for a trial of fine-tuning; until then ``strategy`` is what would be done."""
        return self.trial is not None

    @property
    def strategy_name(self) -> StrategyName:
        """The name by which ``strategy=`` asks for this strategy."""
        return name_of(self.strategy)

    @property
    def seed(self) -> int:
        """The seed that the plan is carried out with."""
        return self.request.seed

    @property
    def training_limit(self) -> float | None:
        """Seconds that the whole run may take if it trains; None for as long as it needs."""
        return training_limit(self.request)

    @property
    def chosen(self) -> Alternative:
        """The alternative that ``strategy`` is: its predicted accuracy and its cost."""
        return next(found for found in self.alternatives if found.strategy == self.strategy)

    def with_actual(self, actual: Mapping[Part, float]) -> "Plan":
        """Return the plan with what its parts took: seconds, and bytes of memory and disk."""
        return replace(self, costs=with_actual(self.costs, actual))

    def to_json(self) -> str:
        """Return the plan as JSON that ``from_json`` turns into an equal plan."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return the plan that ``to_json`` wrote.

        Raises
        ------
        ModelFileError
            The text is not a plan, or was written by a newer version of the library.
        """
        return from_json(cls, text)

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)
