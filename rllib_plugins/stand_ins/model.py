"""Define a model of the advice, and compare its answers with the tutor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import holds_guess
from rllib_plugins.array_types import Bools, Floats, Floats32

HALF_LIFE = 100.0
"""Compared answers after which one counts half."""
LEAST_COMPARED = 10.0
"""Compared answers below which a model is not given up."""


class Answers(NamedTuple):
    """Hold what a tutor said of distinct states.

    Attributes:
        observations: ``(n, obs_dim)``.
        told: ``(n, A)`` its distributions.
        legal: ``(n, A)``; None where every action is always legal.
    """

    observations: Floats32
    told: Floats
    legal: Bools | None

    def at(self, rows: NDArray[Any]) -> Answers:
        """Return some of them."""
        return Answers(self.observations[rows], self.told[rows], None if self.legal is None else self.legal[rows])


class Prediction(NamedTuple):
    """Hold what a model takes the tutor to say.

    Attributes:
        told: ``(n, A)`` distributions, 0 on illegal actions.
        confidence: ``(n,)``: the higher, the surer it is of the best of ``told``; of any scale.
    """

    told: Floats
    confidence: Floats


class Model(Protocol):
    """Predict what a tutor would say; its random numbers are its own."""

    def fit(self, answers: Answers) -> None:
        """Learn from all of the answers so far, those of earlier calls among them."""

    def predict(self, observations: Floats32, legal: Bools | None) -> Prediction:
        """Return what the tutor would say of ``(n, obs_dim)``, of which some actions are legal, ``(n, A)``."""

    def get_state(self) -> dict[str, Any]:
        """Return everything that later predictions and fits depend on, except the answers."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""


@dataclass(slots=True)
class Agreement:
    """Count how often predictions had the tutor's best guess; old comparisons fade.

    Attributes:
        num_compared: Comparisons.
        num_agreed: Of these, in how many it was the same.
    """

    num_compared: float = 0.0
    num_agreed: float = 0.0

    def add(self, agreed: Bools) -> None:
        """Add comparisons ``(n,)``."""
        decay = 0.5 ** (len(agreed) / HALF_LIFE)
        self.num_compared = self.num_compared * decay + len(agreed)
        self.num_agreed = self.num_agreed * decay + float(agreed.sum())

    def is_below(self, bound: float) -> bool:
        """Say whether the agreement, of enough comparisons, is below a bound."""
        return self.num_compared >= LEAST_COMPARED and self.num_agreed < bound * self.num_compared


def agrees(predicted: Floats, told: Floats, legal: Bools | None) -> Bools:
    """Return where the best of a prediction is a best guess of the tutor's, ``(n,)``.

    Where the tutor prefers no legal action to another, it has no guess to agree with, unless there is no other.

    Args:
        predicted: ``(n, A)``.
        told: ``(n, A)``.
        legal: ``(n, A)``; None: every action.
    """
    rows = np.arange(len(told))
    same = told[rows, predicted.argmax(axis=1)] >= told.max(axis=1) - 1e-9
    decided = holds_guess(told, legal)
    if legal is not None:
        decided |= legal.sum(axis=1) == 1
    return np.asarray(same & decided)


def threshold(confidence: Floats, agreed: Bools, sure_agreement: float) -> float:
    """Return the confidence from which on held-out predictions agree often enough; infinite where none does.

    That is the least one at and above which (a + 1)/(n + 2) is at least ``sure_agreement``, a of n having agreed:
    Laplace's estimate, so that a handful of them proves nothing. The source takes a percentile of the uncertainty of
    the predictions that were right.

    Args:
        confidence: ``(n,)``.
        agreed: ``(n,)``.
        sure_agreement: In (0, 1).
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    rates = (np.cumsum(agreed[order]) + 1.0) / (np.arange(len(order)) + 3.0)
    is_last = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)]  # of equals: all or none
    good = np.flatnonzero((rates >= sure_agreement) & is_last)
    return float(ranked[good[-1]]) if good.size else np.inf
