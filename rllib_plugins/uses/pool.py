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

from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.uses.beside import ExplorerBeside
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


class PoolingExplorer(ExplorerBeside):
    """Add the tutor's logarithm to what the student acts by; its part is κ's share of its first value.

    Args:
        options: As configured.
        config: As ``Explorer``'s.
        **fields: As ``ExplorerBeside``'s.
    """

    def __init__(self, options: Pool, config: AdviceConfig, **fields: Any) -> None:
        super().__init__(config, **fields)
        self._options = options

    def bonus(self, observations: Floats32, legal: Bools | None, step: int) -> Floats32 | None:
        """Return κ·(log q − mean log q), ``(n, num_actions)``; None once κ is 0 or the budget is spent."""
        self._part = self._part_at(step)
        if self._part <= 0.0 or self._remaining == 0:
            return None
        told = self.told(observations, np.arange(len(observations)))
        mask = legal_mask(self._tutor.task, observations) if legal is None else legal
        return (self._options.strength * self._part * log_advice(told, mask, self._options.floor)).astype(np.float32)

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is κ's share of its first value."""
        return super().gauges() | {"advice/trust": self._part, "advice/probability": float(self._part > 0.0)}
