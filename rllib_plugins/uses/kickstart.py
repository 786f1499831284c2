"""Kickstarting: a cross-entropy towards the tutor in the student's own loss, with a weight that falls to nothing.

Schmitt et al. 2018 (arXiv 1803.03835): ℓ = ℓ_RL + λ(τ)·H(π_T(·|s), π(·|s)) in the states that the student visits,
without a filter by the critic. Two things differ from the source: λ falls linearly to 0 at θ, where there it is chosen
by population based training; and states are asked about with probability P(τ), within the advice budget. What was once
said about a state counts at each later visit. DQN has no policy: it imitates by softmax(Q/T), with T·H in units of Q,
in the states that it replays; T is ``imitation_temperature``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.rollout.arrays import NO_ROWS
from rllib_plugins.uses.base import Use, UseContext
from rllib_plugins.uses.consulting import Consultations
from rllib_plugins.uses.options import Kickstart


class Kickstarting(Use):
    """The working object of ``Kickstart``.

    Args:
        options: As configured.
        context: What it works with.
    """

    def __init__(self, options: Kickstart, context: UseContext) -> None:
        super().__init__(context)
        self._options, self._context = options, context
        self._consultations = Consultations(context)
        self._share = LinearSchedule(1.0, 0.0, context.config.theta_steps)

    def weight(self, step: int) -> float:
        """Return λ at an env step."""
        return self._options.weight * self._share(step)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about vector steps ``start`` to ``stop`` of the rollout, while that still weighs anything."""
        if self.weight(self._context.runner.num_env_steps_sampled_lifetime):
            visited = self._consultations.visited(self._context.runner.rollout, start, stop)
            self._consultations.ask(visited, self._consultations.probabilities(len(visited.actions)))

    def targets(self, observations: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """Return the tutor's distributions in some states times λ, ``(n, A)``; zeros where it was never asked."""
        weight = self.weight(step)
        return (weight * self._consultations.known(observations)).astype(np.float32) if weight else NO_ROWS

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._consultations.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is λ's share of its first value, effect is not measured."""
        step = self._context.runner.num_env_steps_sampled_lifetime
        trust = self._share(step)
        return self._consultations.gauges() | {
            "advice/trust": trust,
            "advice/effect": math.nan,
            "advice/effect_se": math.nan,
        }

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        return {"asking": self._consultations.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._consultations.set_state(state["asking"])
