"""Compute what a report card says: pure functions of a tutor's answers, the oracle's and the values of actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rllib_plugins.array_types import Bools, Floats, Ints

_CONFIDENCE_Z = 1.96
_TIE = 1e-9


class LabelShare(NamedTuple):
    """Mean probability of one action label, the tutor's and the oracle's (None without one)."""

    label: str
    tutor: float
    oracle: float | None


class SituationGrade(NamedTuple):
    """Agreement in one kind of state.

    Attributes:
        name: The situation, in the task's words.
        share: Share of the visits.
        agreement: Share in which the tutor's best guess is one of the oracle's best actions.
        constant_agreement: The same for the best constant answer of the whole card.
        regret: Expected loss of return per decision of the best guess; None where action values are not known.
    """

    name: str
    share: float
    agreement: float
    constant_agreement: float
    regret: float | None


@dataclass(frozen=True)
class ReportCard:
    """A tutor's report card. Figures are means over visits; those against the oracle are None where there is none.

    Attributes:
        task: Name of the task.
        tutor: Name of the tutor.
        num_visits: Visits graded, answered or not.
        num_states: Distinct states among them.
        answered: Share of the visits that the tutor gave advice for; the other figures are over these.
        agreement: Share in which the tutor's best guess is one of the oracle's best actions.
        agreement_sampled: The same for an action drawn from the tutor's distribution.
        constant_action: Label of the constant answer that agrees most.
        constant_agreement: Its agreement; where it is illegal, a random legal action stands in.
        advantage_low: Lower end of the 95 % interval of ``agreement − constant_agreement`` (paired, normal).
        advantage_high: Upper end of it.
        regret: Expected loss of return per decision of the best guess, under best play afterwards.
        regret_sampled: The same for an action drawn from the tutor's distribution.
        constant_regret: The same for the constant answer that loses least.
        random_regret: The same for random advice.
        situations: Agreement by situation, the most visited first.
        labels: Mean probability of each action label.
        label_bias: Half the summed distance between those two: 0 unbiased, 1 always the wrong label.
        order_sensitivity: Mean total variation distance between the answers to two orders of the labels, 0 to 1.
        order_flips: Share in which the other order changes the best guess.
        first_label_excess: Probability on the label named first, over both orders, beyond its fair share.
        legal_mass: Mean probability mass that the model put on legal labels.
        legal_mass_min: The least.
        latency_ms: Mean milliseconds per advice that the model computed.
        tokens: Mean tokens per advice that the model computed.
        from_store: Share of the answers that came from the advice store.
        trivial: What the best of the task's trivial players returns, whom a student must beat to have learnt.
        trivial_player: Who that is.
        missed_because: Why the tutor gave no advice, where it gave none.
    """

    task: str
    tutor: str
    num_visits: int
    num_states: int
    answered: float
    agreement: float | None = None
    agreement_sampled: float | None = None
    constant_action: str | None = None
    constant_agreement: float | None = None
    advantage_low: float | None = None
    advantage_high: float | None = None
    regret: float | None = None
    regret_sampled: float | None = None
    constant_regret: float | None = None
    random_regret: float | None = None
    situations: tuple[SituationGrade, ...] = ()
    labels: tuple[LabelShare, ...] = ()
    label_bias: float | None = None
    order_sensitivity: float | None = None
    order_flips: float | None = None
    first_label_excess: float | None = None
    legal_mass: float | None = None
    legal_mass_min: float | None = None
    latency_ms: float | None = None
    tokens: float | None = None
    from_store: float | None = None
    trivial: float | None = None
    trivial_player: str | None = None
    missed_because: str = ""

    @property
    def beats_constant(self) -> bool | None:
        """True where the tutor agrees more often than any constant answer, clear of the noise; None: not known."""
        return None if self.advantage_low is None else self.advantage_low > 0

    @property
    def verdict(self) -> str:
        """Return the card in one plain sentence."""
        if not self.answered:
            reason = f": {self.missed_because}" if self.missed_because else "."
            return f"{self.tutor} gave no advice at all on {self.task}{reason}"
        if self.agreement is None or self.constant_agreement is None or self.advantage_high is None:
            return f"Not graded against best play: task '{self.task}' has no oracle."
        figures = (
            f"it agrees with the oracle in {self.agreement:.0%} of the states that students visit, and always "
            f"answering '{self.constant_action}' in {self.constant_agreement:.0%}"
        )
        if self.beats_constant:
            return f"{self.tutor} is better than any constant answer on {self.task}: {figures}."
        if self.advantage_high < 0:
            return f"{self.tutor} is no better than a constant answer on {self.task}, in fact worse: {figures}."
        return f"{self.tutor} is no better than a constant answer on {self.task}: {figures}."

    def to_metrics(self) -> dict[str, float]:
        """Return the known figures by name, ``grade/…``, for a tracker."""
        numbers = {
            f"grade/{name}": float(value)
            for name, value in vars(self).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        if self.beats_constant is not None:
            numbers["grade/beats_constant"] = float(self.beats_constant)
        return numbers


def constant_policies(legal: Bools) -> Floats:
    """Return for each action the policy that takes it, uniform where illegal: ``(num_actions, n, num_actions)``."""
    num_actions = legal.shape[1]
    policies = np.repeat((legal / legal.sum(axis=1, keepdims=True))[None], num_actions, axis=0)
    for action in range(num_actions):
        policies[action, legal[:, action]] = np.eye(num_actions)[action]
    return policies


def agreements(policies: Floats, oracle: Floats) -> Floats:
    """Return how probably a policy ``(…, n, num_actions)`` takes one of the oracle's best actions, ``(…, n)``."""
    best = oracle >= oracle.max(axis=1, keepdims=True) - _TIE
    return (policies * best).sum(axis=-1)


def regrets(policies: Floats, values: Floats) -> Floats:
    """Return the expected loss of return, ``(…, n)``; values ``(n, num_actions)`` are NaN for illegal actions."""
    known = np.where(np.isnan(values), 0.0, values)
    return np.maximum(np.nanmax(values, axis=1) - (policies * known).sum(axis=-1), 0.0)


def weighted_mean(figures: Floats, visits: Ints) -> float:
    """Return the mean over visits."""
    return float(np.average(figures, weights=visits))


def advantage_interval(differences: Floats, visits: Ints) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences over visits (normal approximation)."""
    mean = weighted_mean(differences, visits)
    variance = weighted_mean((differences - mean) ** 2, visits)
    half = _CONFIDENCE_Z * np.sqrt(variance / visits.sum())
    return mean - float(half), mean + float(half)
