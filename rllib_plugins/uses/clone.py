"""Cloning: the student imitates its tutor in the states that it visits, and learns nothing from reward.

A control, which says what a tutor's advice is worth without reinforcement learning: behaviour cloning (Pomerleau 1991,
doi 10.1162/neco.1991.3.1.88) on the student's own states, whose advice is kept, as in DAgger (Ross et al. 2011, arXiv
1011.0686) with a student that acts by itself from the beginning. It asks as often as another student may.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import holds_guess
from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.advising.rules import LinearSchedule, make_rule
from rllib_plugins.advising.uses import Clone
from rllib_plugins.algorithms.advice_replay import AdviceMemory
from rllib_plugins.metrics import AdviceCounters, RecentMean
from rllib_plugins.policies import epsilon_greedy, masked_softmax
from rllib_plugins.rollout.arrays import flat
from rllib_plugins.uses.base import AdviceUse, Goal, Imitator, Trial

BATCH = 128
"""States per gradient step."""
SETTLED_SHARE = 0.02
"""Share of the states that the student need not follow for the others to be left alone."""


class Cloning(AdviceUse):
    """The working object of ``Clone``.

    Args:
        options: As configured.
        trial: What it works with.
    """

    learns_from_reward = False

    def __init__(self, options: Clone, trial: Trial) -> None:
        super().__init__(trial)
        self._trial, self._options = trial, options
        advice, seed, rollout = trial.config.advice, trial.config.seed or 0, trial.runner.rollout
        self._rule = make_rule(advice.rule, advice.rule_options)
        self._schedule = LinearSchedule(advice.probability_initial, advice.probability_final, trial.config.theta_steps)
        self._rng = np.random.default_rng([seed, 1])
        *_, obs_dim = rollout.observations.shape
        *_, num_actions = rollout.logits.shape
        self._memory = AdviceMemory(obs_dim, num_actions, with_masks=rollout.legal is not None, seed=seed)
        self._goal = Goal(options.until, SETTLED_SHARE)
        self._num_due = 0.0
        self._imitated_at = 0
        self._counters, self._agreement, self._latency = AdviceCounters(), RecentMean(), RecentMean()
        self._num_free_consultations = 0
        self._probability = 0.0

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about states of the vector steps ``start`` to ``stop`` of the rollout; keep the tutor's best guesses."""
        rollout = self._trial.runner.rollout
        observations, actions = flat(rollout.observations[start:stop]), flat(rollout.actions[start:stop])
        legal = None if rollout.legal is None else flat(rollout.legal[start:stop])
        chosen = self._choose(flat(rollout.logits[start:stop]), legal)
        if not chosen.size:
            return
        assert self._trial.advisor is not None
        batch = self._trial.advisor.ask(observations[chosen])
        for source, count in zip(*np.unique(batch.source, return_counts=True), strict=True):
            self._counters.add(int(source), int(count))
        self._counters.invalid += batch.invalid
        self._counters.tokens += batch.tokens
        if batch.latency_ms > 0.0:
            self._latency.add(batch.latency_ms, 1)
        guessed = holds_guess(batch.probabilities, None if legal is None else legal[chosen])
        if self._rule.reads_advice:
            guessed &= self._rule.on_advice(batch.probabilities)
        chosen, advised = chosen[guessed], batch.probabilities[guessed].argmax(axis=1)
        num_agreed = int((actions[chosen] == advised).sum())
        self._agreement.add(float(num_agreed), len(chosen))
        if not self._rule.charges_agreement:
            self._num_free_consultations += num_agreed
        block: dict[str, NDArray[Any]] = {
            "observations": observations[chosen],
            "advice": np.eye(batch.probabilities.shape[1])[advised],
        }
        if legal is not None:
            block["legal"] = legal[chosen]
        self._memory.put(block)

    def _choose(self, logits: NDArray[np.float32], legal: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Return which of the latest steps, ``(n, A)``, are asked about: where coin and rule say so, in the budget."""
        config, runner = self._trial.config, self._trial.runner
        step = runner.num_env_steps_sampled_lifetime - len(logits)
        self._probability = self._rule.probability(self._schedule, step)
        asked = self._rng.random(len(logits)) < self._probability
        q_values = None
        if config.value_based:
            policy = epsilon_greedy(logits, legal, config.epsilon_at(step))
            q_values = logits.astype(np.float64) if legal is None else np.where(legal, logits, -np.inf)
        else:
            policy = masked_softmax(logits, legal)
        worthwhile = self._rule.on_state(policy, legal, q_values)
        if worthwhile is not None:
            asked &= worthwhile
        chosen, budget = np.flatnonzero(asked), config.advice.advice_budget
        if budget is not None:
            chosen = chosen[: max(0, budget - (self._counters.consultations - self._num_free_consultations))]
        return chosen

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
        return self._counters.report()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust and effect are NaN: nothing is measured."""
        return {
            "advice/agreement": self._agreement.value,
            "advice/probability": self._probability,
            "advice/trust": math.nan,
            "advice/effect": math.nan,
            "advice/effect_se": math.nan,
            "advice/latency_ms": self._latency.value,
        }

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on."""
        assert self._trial.advisor is not None
        return {
            "rng": self._rng.bit_generator.state,
            "memory": self._memory.get_state(),
            "num_due": self._num_due,
            "imitated_at": self._imitated_at,
            "counters": self._counters.get_state(),
            "agreement": self._agreement.get_state(),
            "latency": self._latency.get_state(),
            "num_free_consultations": self._num_free_consultations,
            "probability": self._probability,
            "advisor": self._trial.advisor.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        assert self._trial.advisor is not None
        self._rng.bit_generator.state = state["rng"]
        self._memory.set_state(state["memory"])
        self._num_due, self._imitated_at = state["num_due"], state["imitated_at"]
        self._counters.set_state(state["counters"])
        self._agreement.set_state(state["agreement"])
        self._latency.set_state(state["latency"])
        self._num_free_consultations = state["num_free_consultations"]
        self._probability = state["probability"]
        self._trial.advisor.set_state(state["advisor"])
