"""Pooling: the student acts by the product of its own policy and its tutor's, which fades from it.

Policy shaping (Griffith et al. 2013, NeurIPS 26): b(a|s) ∝ exp f(s, a) · q(a|s)^κ, with f the student's logits, q the
tutor's distribution and κ falling linearly from ``strength`` to 0 at θ. PPO and A2C learn f through b, which is exactly
on policy: ratio, entropy and log-probability are b's. DQN, which learns off policy, is ε-greedy on
Q + T·κ·(log q − mean log q), T being ``imitation_temperature``. Evaluation plays f alone.

q is mixed with a share ``floor`` of the uniform distribution, so that no action is out of reach; it plays the part of
the source's C, the confidence in feedback. The source counts feedback on single actions; here the tutor is asked about
each state, within the advice budget.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor, legal_mask
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.kernels import Bools
from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.advising.table import Floats
from rllib_plugins.uses.options import Pool


def log_advice(told: Floats, legal: Bools, floor: float) -> Floats:
    """Return log q − mean log q over the legal actions, ``(n, A)``; zeros on others and where advice is missed.

    Args:
        told: ``(n, A)`` the tutor's distributions, 0 on illegal actions; NaN where missed.
        legal: ``(n, A)``.
        floor: Share of the uniform distribution in q, above 0.
    """
    num_legal = legal.sum(axis=1, keepdims=True)
    mixed = np.where(legal, (1.0 - floor) * told + floor / np.maximum(num_legal, 1), 1.0)
    logs = np.log(np.where(np.isnan(mixed), 1.0, mixed))
    return np.where(legal, logs - logs.sum(axis=1, keepdims=True) / np.maximum(num_legal, 1), 0.0)


class PoolingExplorer(Explorer):
    """Add the tutor's logarithm to what the student acts by; the student itself acts at every step.

    Args:
        options: As configured.
        config: As ``Explorer``'s.
        theta_steps: Likewise.
        advisor: The tutor.
        **fields: As ``Explorer``'s.
    """

    def __init__(
        self, options: Pool, config: AdviceConfig, *, theta_steps: float, advisor: Advisor, **fields: Any
    ) -> None:
        super().__init__(config, theta_steps=theta_steps, advisor=None, **fields)
        self._options, self._pooled = options, advisor
        self._share_at = LinearSchedule(1.0, 0.0, theta_steps)
        self._share = 1.0

    @property
    def acts_alone(self) -> bool:
        """Return False: the tutor's logarithm is in what the student acts by."""
        return False

    def bonus(self, observations: NDArray[np.float32], legal: Bools | None, step: int) -> NDArray[np.float32] | None:
        """Return κ·(log q − mean log q), ``(n, num_actions)``; None once κ is 0 or the budget is spent."""
        self._share = self._share_at(step)
        num_asked = len(observations) if self._budget is None else min(len(observations), self._remaining(self._budget))
        if self._share <= 0.0 or not num_asked:
            return None
        batch = self._pooled.ask(observations[:num_asked])
        batch.count(self._counters, self._latency)
        told = np.full((len(observations), self._num_actions), np.nan)
        told[:num_asked] = batch.probabilities
        mask = legal_mask(self._pooled.task, observations) if legal is None else legal
        return (self._options.strength * self._share * log_advice(told, mask, self._options.floor)).astype(np.float32)

    @property
    def num_tutor_steps(self) -> int:
        """Return 0: the student takes every step."""
        return 0

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is κ's share of its first value, effect is not measured."""
        unmeasured = dict.fromkeys(("advice/agreement", "advice/effect", "advice/effect_se"), math.nan)
        probability = float(self._share > 0.0)
        return super().gauges() | unmeasured | {"advice/trust": self._share, "advice/probability": probability}

    def get_state(self) -> dict[str, Any]:
        """Return what is known of the tutor's advice, too."""
        return super().get_state() | {"share": self._share, "pooled": self._pooled.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        super().set_state(state)
        if state:
            self._share = state["share"]
            self._pooled.set_state(state["pooled"])
