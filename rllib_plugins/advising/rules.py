"""Define advising rules: in which states, and with which probability, a student consults its tutor.

A rule may look at the state, at the student's policy and values, and at the advice, but never at the coin or at an
action of this step: the behaviour policy μ is computed from the rule's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rllib_plugins.array_types import Bools, Floats
from rllib_plugins.registries import NamedOptions


@dataclass(frozen=True, slots=True)
class LinearSchedule:
    """P(τ) = P_initial − (τ/θ)(P_initial − P_final) for τ ≤ θ, then P_final (arXiv 2509.08329).

    Attributes:
        initial: P_initial in [0, 1].
        final: P_final in [0, 1].
        theta: θ in env steps, above 0.

    Raises:
        ValueError: A field is out of its range.
    """

    initial: float
    final: float
    theta: float

    def __post_init__(self) -> None:
        for name in ("initial", "final"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"probability_{name} = {value!r} must be in [0, 1]")
        if not self.theta > 0:
            raise ValueError(f"theta = {self.theta!r} must be above 0 env steps")

    def __call__(self, step: int) -> float:
        """Return P at an env step."""
        if step >= self.theta:
            return self.final
        return self.initial - (step / self.theta) * (self.initial - self.final)


class AdvisingRule(BaseModel):
    """Say when to consult. Subclass it and override what differs; fields are the rule's options.

    Example:
        >>> class Losing(AdvisingRule):
        ...     '''Ask where the best Q-value is below a level.'''
        ...     level: float = 0.0
        ...
        ...     def on_state(self, policy, legal, q_values):
        ...         return q_values.max(axis=1) < self.level
        >>> rule = Losing(level=-0.2)
        >>> rule.on_state(None, None, np.array([[-0.5, -0.3], [0.1, -0.9]])).tolist()
        [True, False]

    Name it in a preset by its import path, ``rule: mypackage.rules:Losing``, or by its name from ``register_rule``.

    The gate of a state is ``probability(step) · on_state(...) · on_advice(...)``, times trust.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs_budget: ClassVar[bool] = False
    """The rule makes sense only with ``advice_budget``."""
    charges_agreement: ClassVar[bool] = True
    """A consultation whose advice is the student's own action takes from the advice budget too."""

    @property
    def reads_advice(self) -> bool:
        """Whether the gate depends on the advice: ``on_advice`` is overwritten."""
        return type(self).on_advice is not AdvisingRule.on_advice

    @property
    def looks(self) -> bool:
        """Whether the gate depends on more than the step."""
        return self.reads_advice or type(self).on_state is not AdvisingRule.on_state

    def probability(self, schedule: LinearSchedule, step: int) -> float:
        """Consultation probability at an env step, before the state is looked at. Default: P(τ)."""
        return schedule(step)

    def on_state(self, policy: Floats, legal: Bools | None, q_values: Floats | None) -> Bools | None:
        """Mask of states worth asking about.

        Args:
            policy: The student's action probabilities, ``(n, num_actions)``.
            legal: Mask of legal actions, ``(n, num_actions)``; None: all are legal.
            q_values: The student's Q-values, ``(n, num_actions)``; None for a sampling student.

        Returns:
            ``(n,)``; None stands for all states.
        """
        return None

    def on_advice(self, advice: Floats) -> Bools:
        """Mask of advice worth following, ``(n,)``, given tutor distributions ``(n, num_actions)``."""
        return np.ones(len(advice), dtype=bool)


class Linear(AdvisingRule):
    """Every state, with probability P(τ) (arXiv 2509.08329)."""


class Early(AdvisingRule):
    """Advise while the budget n > 0 (early advising, Torrey & Taylor 2013): P stays at P_initial until it is spent."""

    needs_budget: ClassVar[bool] = True

    def probability(self, schedule: LinearSchedule, step: int) -> float:
        """P_initial, at every step."""
        return schedule.initial


class Importance(AdvisingRule):
    """Advise where I(s) ≥ threshold (importance advising, Torrey & Taylor 2013), with probability P(τ).

    I(s) = max_a Q − min_a Q over legal actions for a value student. For a sampling student, which has no Q, the
    student-side forms of later work: the normalised entropy −Σ π log π / log(number of legal actions), or
    1 − (π₁ − π₂), the two largest probabilities. Both are in [0, 1], 1 where the student does not know.
    """

    threshold: float = Field(default=0.5, ge=0, description="Least importance; Q units for q_range, else in [0, 1].")
    measure: Literal["auto", "q_range", "entropy", "margin"] = Field(
        default="auto", description="auto: q_range where the student has Q-values, else margin."
    )

    def on_state(self, policy: Floats, legal: Bools | None, q_values: Floats | None) -> Bools | None:
        """Mask of states with I(s) ≥ threshold.

        Raises:
            ValueError: ``q_range`` is asked of a student without Q-values.
        """
        measure = self.measure
        if measure == "auto":
            measure = "margin" if q_values is None else "q_range"
        if measure == "q_range":
            if q_values is None:
                raise ValueError("advice.rule_options.measure = 'q_range' needs Q-values: the student is not DQN")
            return q_range(q_values, legal) >= self.threshold
        return (entropy if measure == "entropy" else margin)(policy, legal) >= self.threshold


class Mistake(Importance):
    """Importance advising that corrects mistakes only (mistake correcting, Torrey & Taylor 2013).

    Advice that equals the student's own action changes nothing and costs no advice budget. On heads the executed
    action is the advised one either way (where both agree, they are the same), so μ is that of importance advising.
    """

    charges_agreement: ClassVar[bool] = False


class Confidence(AdvisingRule):
    """Follow advice only where the tutor is sure: max_a π_T(a|s) ≥ threshold (our own), with probability P(τ)."""

    threshold: float = Field(default=0.5, ge=0, le=1, description="Least value of the largest tutor probability.")

    def on_advice(self, advice: Floats) -> Bools:
        """Mask of rows whose largest probability reaches the threshold; False on NaN rows."""
        return advice.max(axis=1) >= self.threshold - 1e-9


def q_range(q_values: Floats, legal: Bools | None) -> Floats:
    """max_a Q − min_a Q over legal actions, ``(n,)`` from ``(n, num_actions)``; 0 where one action is legal."""
    if legal is None:
        return np.asarray(q_values.max(axis=1) - q_values.min(axis=1))
    return np.where(legal, q_values, -np.inf).max(axis=1) - np.where(legal, q_values, np.inf).min(axis=1)


def entropy(policy: Floats, legal: Bools | None) -> Floats:
    """Entropy over its largest possible value, ``(n,)`` in [0, 1]; 0 where one action is legal."""
    nats = -np.where(policy > 0, policy * np.log(np.where(policy > 0, policy, 1.0)), 0.0).sum(axis=1)
    num_legal = policy.shape[1] if legal is None else legal.sum(axis=1)
    return nats / np.log(np.maximum(num_legal, 2))


def margin(policy: Floats, legal: Bools | None) -> Floats:
    """1 − (π₁ − π₂), the two largest probabilities, ``(n,)`` in [0, 1]. Illegal actions have probability 0."""
    top = np.partition(policy, -2, axis=1)
    return 1.0 - (top[:, -1] - top[:, -2])


_REGISTRY: NamedOptions[AdvisingRule] = NamedOptions("advice.rule", AdvisingRule)
_REGISTRY.register("linear", Linear)
_REGISTRY.register("early", Early)
_REGISTRY.register("importance", Importance)
_REGISTRY.register("mistake", Mistake)
_REGISTRY.register("confidence", Confidence)

register_rule = _REGISTRY.register
"""Make an advising rule known by a name, so that a config can say it."""
rule_names = _REGISTRY.names
make_rule = _REGISTRY.make
