"""Shaping: the tutor's opinion of an action is added to its reward, with a weight that falls to nothing.

Knox & Stone 2012 ("Reinforcement learning from simultaneous human and MDP reward", AAMAS), their reward shaping:
r'(s, a) = r(s, a) + λ(τ)·H(s, a), with λ annealed. Here H(s, a) = q(a|s) − 1/|A(s)|, where q is the tutor's
distribution and A(s) are the legal actions, so that a tutor that prefers nothing adds nothing; λ falls linearly from
``weight`` to 0 at θ. It is not potential based: while λ is above 0 another policy may be the best one, such as to go
on following advice in place of ending an episode. What was once said about a state counts at each later visit, and
DQN adds the present λ's share to the transitions that it replays, so that nothing of it is left after θ. Returns that
a trial reports are the task's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.uses.base import Use, UseContext
from rllib_plugins.uses.consulting import Consultations
from rllib_plugins.uses.options import Shape


class Shaping(Use):
    """The working object of ``Shape``.

    Args:
        options: As configured.
        context: What it works with.
    """

    def __init__(self, options: Shape, context: UseContext) -> None:
        super().__init__(context)
        self._options, self._context = options, context
        self._consultations = Consultations(context)
        self._share = LinearSchedule(1.0, 0.0, context.config.theta_steps)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about vector steps ``start`` to ``stop`` of the rollout, while that still weighs anything."""
        if self._share(self._context.runner.num_env_steps_sampled_lifetime):
            visited = self._consultations.visited(self._context.runner.rollout, start, stop)
            self._consultations.ask(visited, self._consultations.probabilities(len(visited.actions)))

    def rewards(self, observations: NDArray[np.float32], actions: NDArray[np.int64], step: int) -> NDArray[np.float32]:
        """Return λ·H(s, a), ``(n,)``; 0 in states that the tutor was never asked about."""
        weight = self._options.weight * self._share(step)
        if not weight:
            return np.zeros(len(actions), np.float32)
        assert self._context.advisor is not None
        told = self._consultations.known(observations)
        num_legal = legal_mask(self._context.advisor.task, observations).sum(axis=1)
        above_uniform = told[np.arange(len(actions)), actions] - 1.0 / np.maximum(num_legal, 1)
        return np.where(told.any(axis=1), weight * above_uniform, 0.0).astype(np.float32)

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._consultations.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is λ's share of its first value, effect is not measured."""
        trust = self._share(self._context.runner.num_env_steps_sampled_lifetime)
        unmeasured = dict.fromkeys(("advice/effect", "advice/effect_se"), math.nan)
        return self._consultations.gauges() | unmeasured | {"advice/trust": trust}

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        return {"asking": self._consultations.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._consultations.set_state(state["asking"])
