"""Distil advice where it is measured to help: the tutor never acts, and a student that it cannot help loses nothing.

The student plays alone, asks about the states that it has visited, measures on its own draws whether taking the advised
action more often would raise its return and where (``benefit``), and imitates the advice there while that says so:
on-policy distillation as in kickstarting (Schmitt et al. 2018, arXiv 1803.03835), on the student's own states as in
DAgger (Ross et al. 2011, arXiv 1011.0686), filtered by the expected advantage in a state as in critic-guided policy
reuse (Zhang et al. 2022, arXiv 2210.08153). Its steps are its own, so no importance weights are needed.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.advice_replay import AdviceMemory
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.uses.base import BATCH, SETTLED_SHARE, Goal, Imitator, Use, UseContext
from rllib_plugins.uses.benefit import Benefit
from rllib_plugins.uses.consulting import Consultations
from rllib_plugins.uses.evidence import Draws
from rllib_plugins.uses.options import Distil
from rllib_plugins.uses.phase import Episodes, Limits, Phase
from rllib_plugins.uses.window import Window

MEMORY = 32_768
"""Visited states kept with their advice; the oldest give way."""


class Distillation(Use):
    """The working object of ``Distil``.

    Args:
        options: As configured.
        context: What it works with.
    """

    def __init__(self, options: Distil, context: UseContext) -> None:
        config, seed = context.config, context.config.seed or 0
        advice = config.advice
        super().__init__(context)
        self._options, self._context = options, context
        self._consultations = Consultations(context)
        self._benefit = Benefit(options.half_life, seed)
        rollout = context.runner.rollout
        self._memory = AdviceMemory(
            rollout.observations.shape[-1],
            rollout.logits.shape[-1],
            with_masks=rollout.legal is not None,
            seed=seed,
            capacity=MEMORY,
        )
        self._phase = Phase()
        is_bounded = config.value_based and advice.tutor_return is None
        self._limits = Limits(
            options,
            phase_steps=options.phase_steps if is_bounded else math.inf,
            tutor_return=math.inf if advice.tutor_return is None else advice.tutor_return,
            follow=advice.follow,
            is_best=advice.tutor_is_best,
            stall_steps=math.inf if config.value_based else options.stall_steps,
            plateau_steps=options.plateau_steps,
            explores=config.value_based,
            lead_steps=options.lead_steps,
            last_step=config.theta_steps,
            fade_steps=options.fade_steps if config.is_proximal else math.inf,
        )
        self._window = Window(rollout)
        self._begins = False
        self._num_due = 0.0
        self._imitated_at = 0

    def compare(self, advantages: NDArray[np.float32]) -> None:
        """Ask about the states of complete rollouts, and learn from the student's draws in them."""
        window = self._window
        if not window.add(self._context.runner.rollout, advantages):
            return
        told = self._consultations.ask_about(window.rollout, self._probabilities(window.rollout))
        if told.steps.size:
            asked, gained = told.visited, window.advantages.reshape(-1)[told.steps].astype(np.float64)
            self._benefit.observe(Draws(asked.observations, asked.policy, asked.actions, told.actions, gained))
            self._memory.put(asked.advised(told.actions))
        returns = window.finished_returns()
        limits = self._limits if len(self._memory) else self._limits._replace(follow=None)  # nothing to imitate yet
        self._begins |= self._phase.update(self._benefit, returns, window.advantages.size, limits)

    def begin_episodes(self) -> None:
        """Take note that the running episodes were cut off between two rollouts."""
        self._window.begin_episodes()

    def imitate(self, learner: Imitator, step: int, weights: ImitationWeights) -> None:
        """Take the gradient steps that are due, on states where advice helps."""
        num_new, self._imitated_at = step - self._imitated_at, step
        if not self._phase.is_on or not self._context.config.learns_at(step):
            return
        if self._begins:
            self._begins, self._num_due = False, float(self._options.first_gradient_steps)
        self._num_due += num_new * self._options.gradient_steps / 256.0
        goal = Goal(self._options.until * self._phase.strength(self._limits), SETTLED_SHARE)
        while self._num_due >= 1.0:
            self._num_due -= 1.0
            sample = self._memory.sample(BATCH)
            helped = self._helps(sample.observations)
            if helped.mean() < SETTLED_SHARE or not learner.imitate_again(sample.where(helped), goal):
                self._num_due = 0.0

    def _helps(self, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return in which states advice is imitated, ``(n,)``: behind a tutor that plays as well as can be, in all."""
        if self._limits.is_best:
            return np.ones(len(observations), np.bool_)
        caution = -self._options.benefit_of_doubt if self._limits.follow else self._options.caution
        return self._benefit.helps(observations, caution)

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._consultations.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is 1 while advice is imitated, less as it fades, else 0."""
        return self._consultations.gauges() | {
            "advice/trust": self._phase.strength(self._limits),
            "advice/effect": self._benefit.effect,
            "advice/effect_se": self._benefit.effect_se,
        }

    def _probabilities(self, rollout: RolloutArrays) -> NDArray[np.float64]:
        """Return with which probability each step of a rollout is asked about, ``(T·N,)``."""
        num_steps, num_envs = rollout.rewards.shape
        first = self._context.runner.num_env_steps_sampled_lifetime - num_steps * num_envs
        options, phase = self._options, self._phase
        is_idle = not phase.is_on and phase.num_idle >= options.patience_steps
        share = options.idle_share if is_idle else 1.0
        return np.repeat(
            [share * self._consultations.probability(first + t * num_envs) for t in range(num_steps)], num_envs
        )

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        return {
            "asking": self._consultations.get_state(),
            "benefit": self._benefit.get_state(),
            "memory": self._memory.get_state(),
            "phase": asdict(self._phase),
            "window": self._window.get_state(),
            "begins": self._begins,
            "num_due": self._num_due,
            "imitated_at": self._imitated_at,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._consultations.set_state(state["asking"])
        self._benefit.set_state(state["benefit"])
        self._memory.set_state(state["memory"])
        phase = state["phase"]
        latest, total = [Episodes(*part) for part in phase["latest"]], Episodes(*phase["total"])
        self._phase = Phase(**phase | {"latest": latest, "total": total})
        self._window.set_state(state["window"])
        self._begins, self._num_due = state["begins"], state["num_due"]
        self._imitated_at = state["imitated_at"]
