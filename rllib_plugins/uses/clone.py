"""Cloning: the student imitates its tutor in the states that it visits, and learns nothing from reward.

A control, which says what a tutor's advice is worth without reinforcement learning: behaviour cloning (Pomerleau 1991,
doi 10.1162/neco.1991.3.1.88) on the student's own states, whose advice is kept, as in DAgger (Ross et al. 2011, arXiv
1011.0686) with a student that acts by itself from the beginning. It asks as often as any other student may.
"""

from __future__ import annotations

import math
from typing import Any

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.advice_replay import AdviceMemory
from rllib_plugins.uses.base import BATCH, SETTLED_SHARE, Goal, Imitator, Use, UseContext
from rllib_plugins.uses.consulting import Consultations
from rllib_plugins.uses.options import Clone


class Cloning(Use):
    """The working object of ``Clone``.

    Args:
        options: As configured.
        context: What it works with.
    """

    learns_from_reward = False

    def __init__(self, options: Clone, context: UseContext) -> None:
        super().__init__(context)
        self._context, self._options = context, options
        seed, rollout = context.config.seed or 0, context.runner.rollout
        self._consultations = Consultations(context)
        *_, obs_dim = rollout.observations.shape
        *_, num_actions = rollout.logits.shape
        self._memory = AdviceMemory(obs_dim, num_actions, with_masks=rollout.legal is not None, seed=seed)
        self._goal = Goal(options.until, SETTLED_SHARE)
        self._num_due = 0.0
        self._imitated_at = 0

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about states of the vector steps ``start`` to ``stop`` of the rollout; keep the tutor's best guesses."""
        told = self._consultations.ask_about(self._context.runner.rollout, start=start, stop=stop)
        if told.steps.size:
            self._memory.put(told.visited.advised(told.actions))

    def imitate(self, learner: Imitator, step: int, weights: ImitationWeights) -> None:
        """Take the gradient steps that are due, on any of the kept states."""
        self._num_due += (step - self._imitated_at) * self._options.gradient_steps / 256.0
        self._imitated_at = step
        while self._num_due >= 1.0 and len(self._memory):
            self._num_due -= 1.0
            if not learner.imitate_again(self._memory.sample(BATCH), self._goal):
                self._num_due = 0.0

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._consultations.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust and effect are NaN: nothing is measured."""
        unmeasured = dict.fromkeys(("advice/trust", "advice/effect", "advice/effect_se"), math.nan)
        return self._consultations.gauges() | unmeasured

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        return {
            "asking": self._consultations.get_state(),
            "memory": self._memory.get_state(),
            "num_due": self._num_due,
            "imitated_at": self._imitated_at,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._consultations.set_state(state["asking"])
        self._memory.set_state(state["memory"])
        self._num_due, self._imitated_at = state["num_due"], state["imitated_at"]
