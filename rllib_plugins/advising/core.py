"""The exploration core: who acts in each state of a vector step, and how probable its action was.

Pure, vectorised and seeded. It is given states, the student's action distributions and the step counter; it knows
neither Ray, nor torch, nor how a tutor works. Evaluation never calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.behaviour import (
    FloatArray,
    IntArray,
    check_executed,
    exploring_tails,
    greedy_actions,
    sample,
)
from rllib_plugins.advising.consultation import ask, plan_step, rows_at_hand, rows_to_ask
from rllib_plugins.advising.counters import AdviceCounters, RecentMean
from rllib_plugins.advising.decision import Blank, BoolArray, Decision, ImitationWeights
from rllib_plugins.advising.reuse import AdviceDictionary, make_reuse, state_keys
from rllib_plugins.advising.rules import make_rule
from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.advising.settling import NOT_GREEDY, Settled, settle
from rllib_plugins.advising.trust import EarnedTrust
from rllib_plugins.config import AdviceConfig
from tutor_service.errors import UserError

__all__ = ["Decision", "ExplorationCore"]


@dataclass(slots=True)
class _Situation:
    """What a vector step finds: ``act``'s arguments, how far the tutor may act, and the step's random draws."""

    observations: NDArray[np.float32]
    policy: FloatArray
    legal: BoolArray | None
    q_values: FloatArray | None
    probability: float
    engagement: float
    own_draws: FloatArray
    draws: FloatArray


class ExplorationCore:
    """Decides every exploring step of one trial.

    Args:
        config: When to ask and what to do with advice.
        num_actions: Size of the Discrete action space.
        theta_steps: θ in env steps.
        advisor: The tutor; None: the student acts alone.
        seed: Seed of the student's draws and of the coins. The student's own stream is the same with and without
            a tutor, so that equal seeds are comparable.
        value_based: The student explores by ε-greedy (DQN); see ``exploring_tails`` for what a tutor changes in that.

    Raises:
        UserError: Unknown rule or option, a value out of range, or a tutor whose action set is not the task's.
    """

    def __init__(
        self,
        config: AdviceConfig,
        *,
        num_actions: int,
        theta_steps: float,
        advisor: Advisor | None,
        seed: int,
        value_based: bool = False,
    ):
        self._config = config
        self._num_actions = num_actions
        self._advisor = advisor
        self._value_based = value_based
        self._rule = make_rule(config.rule, config.rule_options)
        self._reuse = make_reuse(config.reuse, config.reuse_options)
        try:
            self._schedule = LinearSchedule(config.probability_initial, config.probability_final, theta_steps)
        except ValueError as error:
            raise UserError(f"advice: {error}") from error
        if self._reuse.needs_q and not value_based and advisor is not None:
            raise UserError(f"advice.reuse = '{config.reuse}' compares Q-values, which only the algorithm dqn has.")
        if advisor is not None:
            self._check_actions(getattr(advisor, "num_actions", num_actions))
        student, tutor = np.random.SeedSequence(seed).spawn(2)
        self._student_rng = np.random.Generator(np.random.PCG64(student))
        self._tutor_rng = np.random.Generator(np.random.PCG64(tutor))
        self._earned = config.trust == "earned"
        self._trust = EarnedTrust(config.trust_half_life, config.trust_floor)
        self._random_share = config.dqn_random_share if value_based else None
        self._tutor_share = 1.0 - (self._random_share or 0.0)
        self._dictionary = AdviceDictionary(self._reuse)
        self._counters = AdviceCounters()
        self._agreement = RecentMean()
        self._latency = RecentMean()
        self._num_free = 0
        self._probability = 0.0
        self._blank = Blank.of(0, num_actions)

    def act(
        self,
        observations: NDArray[np.float32],
        policy: FloatArray,
        *,
        legal: BoolArray | None = None,
        q_values: FloatArray | None = None,
        step: int,
    ) -> Decision:
        """Picks an action in each state.

        Args:
            observations: ``(n, obs_dim)`` flat states.
            policy: ``(n, num_actions)`` probabilities by which the untutored student would act, 0 on illegal actions.
                For a value student its own ε-greedy distribution.
            legal: ``(n, num_actions)`` mask; None: all are legal.
            q_values: ``(n, num_actions)``; a value student should always give them (its greedy action is read off).
            step: Env steps sampled so far in the trial.

        Raises:
            UserError: The tutor's action set is not the task's.
            ValueError: A row of ``policy`` is NaN or sums to 0.
        """
        own_draws = self._student_rng.random(len(policy))
        if self._advisor is None:
            return self._act_alone(policy, own_draws)
        draws = self._tutor_rng.random((3, len(policy)))
        probability = self._open_probability(step)
        engagement = self._trust.factor if self._earned else 1.0
        self._probability = probability * engagement * self._tutor_share
        if probability * engagement <= 0.0:
            return self._act_alone(policy, own_draws)
        return self._act_tutored(
            self._advisor,
            _Situation(observations, policy, legal, q_values, probability, engagement, own_draws, draws),
        )

    def observe(self, advantages: ArrayLike, heads: ArrayLike, eligible: ArrayLike) -> None:
        """Feeds earned trust with the steps of a learner update; arrays of one shape.

        Args:
            advantages: Of the executed actions, not standardised, in units of return.
            heads: ``Decision.heads`` of these steps.
            eligible: ``Decision.eligible`` of these steps.
        """
        self._trust.observe(advantages, heads, eligible)

    def imitation(self, step: int) -> ImitationWeights:
        """How much consulted steps are imitated at an env step."""
        if self._advisor is None:
            return ImitationWeights()
        evidence, trust = (self._trust.evidence, self._trust.trust) if self._earned else (0.0, 1.0)
        return ImitationWeights.of(self._config, self._rule.probability(self._schedule, step), evidence, trust)

    @property
    def num_consultations(self) -> int:
        """Env steps so far on which advice was used."""
        return self._counters.consultations

    def counters(self) -> dict[str, int]:
        """Running totals, by the names of ``metrics.COUNTERS``."""
        return self._counters.report()

    def gauges(self) -> dict[str, float]:
        """Values at this point of the trial, by the names of ``metrics.GAUGES``; NaN where there is nothing to say.

        ``advice/probability`` is the gate of the last step, trust included, before the rule looked at the state.
        """
        return {
            "advice/agreement": self._agreement.value,
            "advice/probability": self._probability,
            "advice/trust": self._trust.trust if self._earned else 1.0,
            "advice/effect": self._trust.effect,
            "advice/effect_se": self._trust.effect_se,
            "advice/latency_ms": self._latency.value,
        }

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on: plain numbers, bytes and arrays.

        That includes what the advisor has at hand, where it can tell (``get_state``): which estimator of μ is used
        depends on it.
        """
        return {
            "student_rng": self._student_rng.bit_generator.state,
            "tutor_rng": self._tutor_rng.bit_generator.state,
            "dictionary": self._dictionary.get_state(),
            "trust": self._trust.get_state(),
            "counters": self._counters.get_state(),
            "agreement": self._agreement.get_state(),
            "latency": self._latency.get_state(),
            "num_free": self._num_free,
            "probability": self._probability,
            "advisor": getattr(self._advisor, "get_state", lambda: None)(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``; an empty one changes nothing."""
        if not state:
            return
        self._student_rng.bit_generator.state = state["student_rng"]
        self._tutor_rng.bit_generator.state = state["tutor_rng"]
        self._dictionary.set_state(state["dictionary"])
        self._trust.set_state(state["trust"])
        self._counters.set_state(state["counters"])
        self._agreement.set_state(state["agreement"])
        self._latency.set_state(state["latency"])
        self._num_free = state["num_free"]
        self._probability = state["probability"]
        if state["advisor"] is not None:
            getattr(self._advisor, "set_state", lambda _: None)(state["advisor"])

    def _act_alone(self, policy: FloatArray, own_draws: FloatArray) -> Decision:
        rows, blank = self._row_numbers(len(policy)), self._blank
        actions = sample(policy, own_draws)
        executed = check_executed(policy[rows, actions])
        return Decision(actions, executed, executed, blank.no, blank.no, blank.no, blank.advice)

    def _act_tutored(self, advisor: Advisor, at: _Situation) -> Decision:
        policy, legal = at.policy, at.legal
        known = advisor.known(at.observations)
        self._check_actions(known.shape[1])
        at_hand = rows_at_hand(advisor, known, legal)
        engaged = self._engaged(at, known, at_hand)
        tails, greedy = policy, NOT_GREEDY
        if self._value_based:
            greedy = greedy_actions(policy, legal, at.q_values)
            share = self._random_share
            if share is not None:
                tails = exploring_tails(
                    policy, greedy, legal, probability=at.probability, random_share=share, engaged=engaged
                )

        coins, reuse_draws, advice_draws = at.draws
        gate = np.full(len(policy), engaged * (at.probability * self._tutor_share))
        keys = state_keys(at.observations) if self._reuse.stores else None
        q_values = at.q_values if self._reuse.needs_q else None
        plan = plan_step(gate, coins, reuse_draws, keys, self._dictionary, q_values, self._remaining())
        tutor, followed = known, at_hand
        to_ask = rows_to_ask(advisor, plan, at_hand)
        if to_ask.size:
            tutor, followed, latency_ms = ask(advisor, to_ask, at_hand, known, at.observations, legal, self._counters)
            if latency_ms > 0.0:
                self._latency.add(latency_ms, 1)
        if self._rule.reads_advice:
            followed = followed & self._rule.on_advice(tutor)

        settled = settle(
            policy,
            tails,
            tutor,
            plan.gate,
            plan.heads,
            plan.stored,
            at_hand,
            followed,
            at.own_draws,
            advice_draws,
            greedy,
            self._config.imitation == "all",
            self._rule.reads_advice,
            not self._rule.charges_agreement,
        )
        if keys is not None and len(settled.fresh_rows):
            actions = settled.actions.tolist()
            for row in settled.fresh_rows.tolist():
                self._dictionary.store(keys[row], actions[row], None if q_values is None else q_values[row])
        self._count(advisor, settled)
        return Decision(
            actions=settled.actions,
            behaviour=check_executed(settled.behaviour),
            policy=settled.policy,
            heads=plan.heads,
            eligible=settled.eligible,
            consulted=settled.consulted,
            advice=settled.advice,
        )

    def _engaged(self, at: _Situation, known: FloatArray, at_hand: BoolArray) -> FloatArray | float:
        """How far the tutor is engaged: trust where the rule says yes, else 0; ``(n,)``, or one number for all."""
        worthwhile = self._rule.on_state(at.policy, at.legal, at.q_values)
        if worthwhile is None and not self._rule.reads_advice:
            return at.engagement
        engaged = np.full(len(at.policy), at.engagement)
        if worthwhile is not None:
            engaged *= worthwhile
        if self._rule.reads_advice:
            engaged[at_hand & ~self._rule.on_advice(known)] = 0.0
        return engaged

    def _count(self, advisor: Advisor, settled: Settled) -> None:
        self._counters.add_reused(settled.num_reused)
        known_source = getattr(advisor, "known_source", None)
        if known_source is not None:
            self._counters.add_source(known_source, settled.num_known)
        num_consulted = settled.num_reused + len(settled.fresh_rows)
        if num_consulted:
            self._agreement.add(settled.agreement, num_consulted)
            self._num_free += settled.num_same

    def _remaining(self) -> int | None:
        budget = self._config.advice_budget
        return None if budget is None else budget - (self._counters.consultations - self._num_free)

    def _open_probability(self, step: int) -> float:
        """P(τ), below 1 where there has to be a control group; 0 once the advice budget is spent."""
        remaining = self._remaining()
        if remaining is not None and remaining <= 0:
            return 0.0
        probability = self._rule.probability(self._schedule, step)
        return min(probability, self._config.probability_cap) if self._earned else probability

    def _row_numbers(self, n: int) -> IntArray:
        if n != len(self._blank.rows):
            self._blank = Blank.of(n, self._num_actions)
        return self._blank.rows

    def _check_actions(self, num_advised: int) -> None:
        if num_advised != self._num_actions:
            raise UserError(
                f"the tutor advises on {num_advised} actions, the task has {self._num_actions}: "
                "give the tutor the task's own action labels."
            )
