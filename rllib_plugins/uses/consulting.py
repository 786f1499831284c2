"""Ask a tutor about states that a student has visited: choose them within the budget, and count what came of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import holds_guess
from rllib_plugins.advising.rules import LinearSchedule, make_rule
from rllib_plugins.metrics import AdviceCounters, RecentMean
from rllib_plugins.policies import epsilon_greedy, masked_softmax
from rllib_plugins.rollout.arrays import RolloutArrays, flat
from rllib_plugins.stand_ins.stand_in import StandIn
from rllib_plugins.uses.base import Use, UseContext


class Visited(NamedTuple):
    """Hold steps of a student, the oldest first.

    Attributes:
        observations: ``(n, obs_dim)``.
        logits: ``(n, A)``: logits or Q-values.
        policy: ``(n, A)``: the distributions that the actions were drawn from.
        actions: ``(n,)``.
        legal: ``(n, A)``; None where every action is always legal.
    """

    observations: NDArray[np.float32]
    logits: NDArray[np.float32]
    policy: NDArray[np.float64]
    actions: NDArray[np.int64]
    legal: NDArray[np.bool_] | None

    def at(self, steps: NDArray[np.int64]) -> Visited:
        """Return some of the steps, ``(k,)``."""
        legal = None if self.legal is None else self.legal[steps]
        return Visited(self.observations[steps], self.logits[steps], self.policy[steps], self.actions[steps], legal)

    def advised(self, actions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the steps as an ``AdviceMemory`` takes them, with the advised actions ``(n,)``."""
        block: dict[str, NDArray[Any]] = {
            "observations": self.observations,
            "advice": np.eye(self.policy.shape[1])[actions],
        }
        return block if self.legal is None else block | {"legal": self.legal}


class Told(NamedTuple):
    """Hold what a tutor guessed.

    Attributes:
        steps: ``(k,)``: which of the steps have a guess.
        visited: These steps.
        actions: ``(k,)``: the guesses.
    """

    steps: NDArray[np.int64]
    visited: Visited
    actions: NDArray[np.int64]


class Consultations:
    """Ask with probability P(τ), where the advising rule says yes, within ``advice_budget``; count what came of it.

    Args:
        context: What it works with.
    """

    def __init__(self, context: UseContext) -> None:
        advice = context.config.advice
        self._context = context
        self._stand_in = None
        if context.advisor is not None:
            self._stand_in = StandIn.of(advice, context.advisor, context.config.seed or 0)
        self._rule = make_rule(advice.rule, advice.rule_options)
        self._schedule = LinearSchedule(
            advice.probability_initial, advice.probability_final, context.config.theta_steps
        )
        self._rng = np.random.default_rng([context.config.seed or 0, 1])
        self._counters, self._agreement, self._latency = AdviceCounters(), RecentMean(), RecentMean()
        self._num_free_consultations = 0
        self._probability = 0.0

    def probability(self, step: int) -> float:
        """Return P(τ) at an env step, as the rule has it."""
        return self._rule.probability(self._schedule, step)

    def ask_about(
        self,
        rollout: RolloutArrays,
        probabilities: NDArray[np.float64] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Told:
        """Ask about some env steps among the vector steps ``start`` to ``stop`` of a rollout, the latest of the trial.

        Args:
            rollout: The vector steps.
            probabilities: With which each env step is asked about, ``(n,)``; None: P(τ) of the first.
            start: First vector step.
            stop: End of the vector steps, exclusive; None: all.
        """
        if probabilities is None:
            num_steps = rollout.rewards[start:stop].size
            first = self._context.runner.num_env_steps_sampled_lifetime - num_steps
            probabilities = np.full(num_steps, self.probability(first))
        self._probability = float(probabilities[-1])
        steps = np.flatnonzero(self._rng.random(len(probabilities)) < probabilities)
        told = self.ask(self._visited(rollout, steps, start, stop))
        return told._replace(steps=steps[told.steps])

    def ask(self, visited: Visited) -> Told:
        """Ask in one call about those of some steps that the rule chooses, within the budget.

        A distribution that prefers no legal action to another holds no guess, and neither does one that the rule does
        not follow.
        """
        chosen = self._choose(visited)
        if not chosen.size:
            return Told(chosen, visited, chosen)
        assert self._context.advisor is not None
        asked = visited.at(chosen)
        batch = (self._stand_in or self._context.advisor).ask(asked.observations)
        batch.count(self._counters, self._latency)
        guessed = holds_guess(batch.probabilities, asked.legal)
        if self._rule.reads_advice:
            guessed &= self._rule.on_advice(batch.distributions)
        told, advised = asked.at(np.flatnonzero(guessed)), batch.probabilities[guessed].argmax(axis=1)
        num_agreed = int((told.actions == advised).sum())
        self._agreement.add(float(num_agreed), len(advised))
        if not self._rule.charges_agreement:
            self._num_free_consultations += num_agreed
        return Told(chosen[guessed], told, advised)

    def known(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the tutor has said about some states so far, ``(n, A)``.

        Zeros where it was not asked, did not answer, or is not followed by the rule.
        """
        assert self._context.advisor is not None
        advisor, reads_advice = self._context.advisor, self._rule.reads_advice
        if self._stand_in is None:
            rows = advisor.table.look_up(observations)
            opinions = advisor.opinions.look_up(observations) if reads_advice else rows
        else:
            rows, opinions = self._stand_in.known(observations)
        followed = ~np.isnan(rows[:, 0])
        if reads_advice:
            followed &= self._rule.on_advice(opinions)
        return np.where(followed[:, None], rows, 0.0)

    def _visited(self, rollout: RolloutArrays, steps: NDArray[np.int64], start: int, stop: int | None) -> Visited:
        """Return some env steps, counted environment by environment, of some vector steps; see ``ask_about``."""
        legal = None if rollout.legal is None else flat(rollout.legal[start:stop])[steps]
        logits = flat(rollout.logits[start:stop])[steps]
        policy = self._policy(logits, legal, steps, rollout.rewards[start:stop])
        observations, actions = flat(rollout.observations[start:stop])[steps], flat(rollout.actions[start:stop])[steps]
        return Visited(observations, logits, policy, actions, legal)

    def _policy(
        self,
        logits: NDArray[np.float32],
        legal: NDArray[np.bool_] | None,
        steps: NDArray[np.int64],
        rewards: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Return what the actions of some of the latest env steps, of ``rewards`` ``(T, N)``, were drawn from."""
        config = self._context.config
        if not config.value_based:
            return masked_softmax(logits, legal)
        first, num_envs = self._context.runner.num_env_steps_sampled_lifetime - rewards.size, rewards.shape[1]
        epsilons = config.epsilon_at(first + steps // num_envs * num_envs)
        return epsilon_greedy(logits, legal, epsilons[:, None])

    def _choose(self, visited: Visited) -> NDArray[np.int64]:
        chosen, budget, q_values = np.arange(len(visited.actions)), self._context.config.advice.advice_budget, None
        if not chosen.size:
            return chosen
        if self._context.config.value_based:
            q_values = visited.logits.astype(np.float64)
            q_values = q_values if visited.legal is None else np.where(visited.legal, q_values, -np.inf)
        worthwhile = self._rule.on_state(visited.policy, visited.legal, q_values)
        if worthwhile is not None:
            chosen = np.flatnonzero(worthwhile)
        if budget is not None and self._stand_in is None:
            chosen = chosen[: max(0, budget - (self._counters.consultations - self._num_free_consultations))]
        return chosen

    def counters(self) -> dict[str, int]:
        """Return running totals; a consultation is a state that was asked about."""
        return self._counters.report()

    def gauges(self) -> dict[str, float]:
        """Return how asking went of late."""
        return {
            "advice/agreement": self._agreement.value,
            "advice/probability": self._probability,
            "advice/latency_ms": self._latency.value,
        } | ({} if self._stand_in is None else self._stand_in.gauges())

    def get_state(self) -> dict[str, Any]:
        """Return everything that later questions depend on, the tutor's side included."""
        assert self._context.advisor is not None
        return {
            "rng": self._rng.bit_generator.state,
            "counters": self._counters.get_state(),
            "agreement": self._agreement.get_state(),
            "latency": self._latency.get_state(),
            "num_free_consultations": self._num_free_consultations,
            "probability": self._probability,
            "advisor": self._context.advisor.get_state(),
            "stand_in": None if self._stand_in is None else self._stand_in.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        assert self._context.advisor is not None
        self._rng.bit_generator.state = state["rng"]
        self._counters.set_state(state["counters"])
        self._agreement.set_state(state["agreement"])
        self._latency.set_state(state["latency"])
        self._num_free_consultations = state["num_free_consultations"]
        self._probability = state["probability"]
        self._context.advisor.set_state(state["advisor"])
        if self._stand_in is not None:
            self._stand_in.set_state(state["stand_in"])


class FadingUse(Use):
    """Ask about visited states for as long as what is told still weighs anything: its share of λ falls to 0 at θ.

    Args:
        context: What it works with.
    """

    def __init__(self, context: UseContext) -> None:
        super().__init__(context)
        self._context = context
        self._consultations = Consultations(context)
        self._share = LinearSchedule(1.0, 0.0, context.config.theta_steps)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Ask about vector steps ``start`` to ``stop`` of the rollout."""
        if self._share(self._context.runner.num_env_steps_sampled_lifetime):
            self._consultations.ask_about(self._context.runner.rollout, start=start, stop=stop)

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
