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
from rllib_plugins.uses.asking import Asking
from rllib_plugins.uses.base import AdviceUse, Trial
from rllib_plugins.uses.registry import Kickstart


class Kickstarting(AdviceUse):
    """The working object of ``Kickstart``.

    Args:
        options: As configured.
        trial: What it works with.
    """

    def __init__(self, options: Kickstart, trial: Trial) -> None:
        super().__init__(trial)
        self._options, self._trial = options, trial
        self._asking = Asking(trial)
        self._share = LinearSchedule(1.0, 0.0, trial.config.theta_steps)

    def weight(self, step: int) -> float:
        """Return λ at an env step."""
        return self._options.weight * self._share(step)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about vector steps ``start`` to ``stop`` of the rollout, while that still weighs anything."""
        if self.weight(self._trial.runner.num_env_steps_sampled_lifetime):
            visited = self._asking.visited(self._trial.runner.rollout, start, stop)
            self._asking.ask(visited, self._asking.probabilities(len(visited.actions)))

    def targets(self, observations: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """Return the tutor's distributions in some states times λ, ``(n, A)``; zeros where it was never asked."""
        weight = self.weight(step)
        return (weight * self._asking.known(observations)).astype(np.float32) if weight else NO_ROWS

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._asking.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is λ's share of its first value, effect is not measured."""
        step = self._trial.runner.num_env_steps_sampled_lifetime
        trust = self._share(step)
        return self._asking.gauges() | {"advice/trust": trust, "advice/effect": math.nan, "advice/effect_se": math.nan}

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        return {"asking": self._asking.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._asking.set_state(state["asking"])
