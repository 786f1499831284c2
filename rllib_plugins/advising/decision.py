"""Hold what is decided about a vector step: who acts, how probable the action was, and what to imitate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising import kernels
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints

PROBABILITY_FLOOR = 1e-12
"""Least probability whose logarithm is taken: log 1e-12 = −27.6 stands for "the student would never do this"."""


def floored_logp(probabilities: NDArray[np.floating[Any]]) -> Floats32:
    """Return the log of probabilities that may be 0, of any shape, floored at ``PROBABILITY_FLOOR``."""
    return np.log(np.maximum(probabilities, PROBABILITY_FLOOR), dtype=np.float64).astype(np.float32)


class Decisions(Protocol):
    """Where vector steps are written: ``Decision``'s arrays, with an axis of vector steps before that of environments.

    Probabilities may be float32. ``advice`` may be None where there is no tutor.
    """

    actions: NDArray[Any]
    probabilities: NDArray[Any]
    flags: NDArray[Any]
    advice: Any


class Parts:
    """Parts of ``probabilities`` and ``flags`` by name, as views: few arrays reach compiled code faster than many."""

    __slots__ = ()

    probabilities: NDArray[Any]
    flags: Bools

    @property
    def behaviour(self) -> NDArray[Any]:
        """Return μ(a|s) of the executed action, by the estimator that was decided before the coin; above 0."""
        return self.probabilities[kernels.BEHAVIOUR]

    @property
    def policy(self) -> NDArray[Any]:
        """Return π_old(a|s) of the executed action; 0 where the student would never take the tutor's action."""
        return self.probabilities[kernels.POLICY]

    @property
    def heads(self) -> Bools:
        """Return the gate's coin; True also where advice was then missed."""
        return self.flags[kernels.HEADS]

    @property
    def eligible(self) -> Bools:
        """Return what is part of the randomised comparison.

        That is: the coin was fair (gate strictly between 0 and 1), advice was not missed, and on tails a value student
        took its greedy action.
        """
        return self.flags[kernels.ELIGIBLE]

    @property
    def consulted(self) -> Bools:
        """Return where the tutor's advice was used: heads, and advice was had."""
        return self.flags[kernels.CONSULTED]


@dataclass(slots=True)
class Decision(Parts):
    """One vector step.

    Attributes:
        actions: ``(n,)`` int64, executed.
        probabilities: ``(2, n)`` float64: ``behaviour`` and ``policy``.
        flags: ``(3, n)`` bool: ``heads``, ``eligible`` and ``consulted``.
        advice: ``(n, num_actions)`` float32, imitation target; zeros where not consulted. The advised action one-hot,
            whose mean over draws is π_T; π_T itself where ``imitation`` is ``all`` and the advice was drawn afresh.
            (Filtering by the advantage of the executed action judges that action only.)
    """

    actions: Ints
    probabilities: Floats
    flags: Bools
    advice: Floats32

    @classmethod
    def of(cls, n: int, num_actions: int) -> Decision:
        """Allocate zeros for ``n`` environments."""
        return cls(
            np.zeros(n, dtype=np.int64),
            np.zeros((2, n)),
            np.zeros((3, n), dtype=bool),
            np.zeros((n, num_actions), dtype=np.float32),
        )

    def steps(self) -> Decisions:
        """Return the same memory as one vector step among ``Decisions``."""
        return Decision(self.actions[None], self.probabilities[:, None], self.flags[:, None], self.advice[None])

    @property
    def behaviour_logp(self) -> Floats32:
        """Return log μ(a|s), ``(n,)``."""
        return floored_logp(self.behaviour)

    @property
    def policy_logp(self) -> Floats32:
        """Return log π_old(a|s), ``(n,)``, floored: nothing becomes infinite."""
        return floored_logp(self.policy)
