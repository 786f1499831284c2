"""What the exploration core hands back for a vector step. Knows nothing of how it was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.behaviour import floored_logp
from rllib_plugins.config import AdviceConfig


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
    flags: NDArray[np.bool_]

    @property
    def behaviour(self) -> NDArray[Any]:
        """μ(a|s) of the executed action, by the estimator that was decided before the coin; above 0."""
        return self.probabilities[0]

    @property
    def policy(self) -> NDArray[Any]:
        """π_old(a|s) of the executed action; 0 where the student would never take the tutor's action."""
        return self.probabilities[1]

    @property
    def heads(self) -> NDArray[np.bool_]:
        """The gate's coin; True also where advice was then missed."""
        return self.flags[0]

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """Part of the randomised comparison.

        That is: the coin was fair (gate strictly between 0 and 1), advice was not missed, and on tails a value student
        took its greedy action.
        """
        return self.flags[1]

    @property
    def consulted(self) -> NDArray[np.bool_]:
        """The tutor's advice was used: heads, and advice was at hand."""
        return self.flags[2]


@dataclass(slots=True)
class Decision(Parts):
    """One vector step.

    Attributes:
        actions: ``(n,)`` int64, executed.
        probabilities: ``(2, n)`` float64: ``behaviour`` and ``policy``.
        flags: ``(3, n)`` bool: ``heads``, ``eligible`` and ``consulted``.
        advice: ``(n, num_actions)`` float32, imitation target; zeros where not consulted. The advised action one-hot,
            whose mean over draws is π_T; π_T itself where ``imitation`` is ``all`` and the advice was drawn afresh.
            (Filtering by the advantage of the executed action says something about that action only.)
    """

    actions: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    flags: NDArray[np.bool_]
    advice: NDArray[np.float32]

    @classmethod
    def of(cls, n: int, num_actions: int) -> Decision:
        """Arrays of zeros for ``n`` environments."""
        return cls(
            np.zeros(n, dtype=np.int64),
            np.zeros((2, n)),
            np.zeros((3, n), dtype=bool),
            np.zeros((n, num_actions), dtype=np.float32),
        )

    def steps(self) -> Decisions:
        """The same memory as one vector step among ``Decisions``."""
        return Decision(self.actions[None], self.probabilities[:, None], self.flags[:, None], self.advice[None])

    @property
    def behaviour_logp(self) -> NDArray[np.float32]:
        """log μ(a|s), ``(n,)``."""
        return floored_logp(self.behaviour)

    @property
    def policy_logp(self) -> NDArray[np.float32]:
        """log π_old(a|s), ``(n,)``; log ``PROBABILITY_FLOOR`` (−27.6) where it is 0: nothing becomes infinite."""
        return floored_logp(self.policy)


class ImitationWeights(NamedTuple):
    """How much a consulted step is imitated, by how its advice turned out.

    Attributes:
        better: Where the advised action turned out better than expected.
        worse: Where it did not; never above ``better``.
        replay: Times that a step is imitated again, whatever it turned out like.
    """

    better: float = 0.0
    worse: float = 0.0
    replay: float = 0.0

    @classmethod
    def of(
        cls, advice: AdviceConfig, probability: float, evidence: float = 0.0, trust: float = 1.0
    ) -> ImitationWeights:
        """The configured weight, annealed; the filter gives way to full imitation as evidence favours the tutor.

        With w = ``imitation_weight`` · P, g = ``imitation_gain`` and e the evidence, filtered imitation weighs advice
        that turned out better by w·trust·(1 − e) + w·g·e and other advice by w·g·e: what a single step says about
        advice is mostly noise, what the randomised comparison says is not. Trust counts although advice that is not
        trusted is not asked for: a replay buffer remembers what was. Steps are imitated again ``imitation_replay``·e
        times.

        Args:
            advice: How advice is used.
            probability: P(τ) in [0, 1].
            evidence: How far the comparison speaks for the tutor, in [0, 1]; 0 where nothing is known.
            trust: In the tutor, in [0, 1]; 1 where it is fixed.
        """
        if advice.imitation == "off":
            return cls()
        weight = advice.imitation_weight * probability
        if advice.imitation == "all":
            return cls(weight, weight)
        proven = advice.imitation_gain * evidence * weight
        return cls(trust * (1.0 - evidence) * weight + proven, proven, advice.imitation_replay * evidence)
