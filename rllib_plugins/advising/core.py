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
    executed_logp,
    exploring_tails,
    floored_logp,
    greedy_actions,
    sample,
    usable_rows,
)
from rllib_plugins.advising.consultation import ask, plan_step
from rllib_plugins.advising.counters import AdviceCounters, RecentMean
from rllib_plugins.advising.reuse import NOTHING, AdviceDictionary, make_reuse, state_keys
from rllib_plugins.advising.rules import make_rule
from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.advising.trust import EarnedTrust
from rllib_plugins.config import AdviceConfig
from tutor_service.errors import UserError

BoolArray = NDArray[np.bool_]


@dataclass(slots=True)
class Decision:
    """One vector step. Arrays may be shared between steps: do not write into them.

    Attributes:
        actions: ``(n,)`` int64, executed.
        behaviour_logp: ``(n,)`` float32, log μ(a|s) by the estimator that was decided before the coin.
        policy_logp: ``(n,)`` float32, log π_old(a|s). Where the student would never take the tutor's action it is
            log ``PROBABILITY_FLOOR`` (−27.6), so that ρ = π_old/μ is practically 0 and nothing becomes infinite.
        heads: ``(n,)`` bool, the gate's coin; True also where advice was then missed.
        eligible: ``(n,)`` bool, part of the randomised comparison: the coin was fair (gate strictly between 0 and 1),
            advice was not missed, and on tails a value student took its greedy action.
        consulted: ``(n,)`` bool, the tutor's advice was used: heads, and advice was at hand.
        advice: ``(n, num_actions)`` float32, imitation target; zeros where not consulted. The advised action one-hot,
            whose mean over draws is π_T; π_T itself where ``imitation`` is ``all`` and the advice was drawn afresh.
            (Filtering by the advantage of the executed action says something about that action only.)
    """

    actions: IntArray
    behaviour_logp: NDArray[np.float32]
    policy_logp: NDArray[np.float32]
    heads: BoolArray
    eligible: BoolArray
    consulted: BoolArray
    advice: NDArray[np.float32]


@dataclass(slots=True)
class _Blank:
    """Read-only arrays of a vector step without advice, kept because they are the same at every step."""

    rows: IntArray
    no: BoolArray
    advice: NDArray[np.float32]

    @classmethod
    def of(cls, n: int, num_actions: int) -> _Blank:
        blank = cls(np.arange(n), np.zeros(n, dtype=bool), np.zeros((n, num_actions), dtype=np.float32))
        for array in (blank.rows, blank.no, blank.advice):
            array.setflags(write=False)
        return blank


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
        self._tutor_share = 1.0 - config.dqn_random_share if value_based else 1.0
        self._dictionary = AdviceDictionary(self._reuse)
        self._counters = AdviceCounters()
        self._agreement = RecentMean()
        self._latency = RecentMean()
        self._num_free = 0
        self._probability = 0.0
        self._blank = _Blank.of(0, num_actions)

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
        self._probability = probability * self._tutor_share * (self._trust.factor if self._earned else 1.0)
        if self._probability <= 0.0:
            return self._act_alone(policy, own_draws)
        return self._act_tutored(self._advisor, observations, policy, legal, q_values, probability, own_draws, draws)

    def observe(self, advantages: ArrayLike, heads: ArrayLike, eligible: ArrayLike) -> None:
        """Feeds earned trust with the steps of a learner update; arrays of one shape.

        Args:
            advantages: Of the executed actions, not standardised, in units of return.
            heads: ``Decision.heads`` of these steps.
            eligible: ``Decision.eligible`` of these steps.
        """
        self._trust.observe(advantages, heads, eligible)

    def imitation_weight(self, step: int) -> float:
        """Weight of the imitation term at an env step: the configured one times P(τ); 0 where imitation is off."""
        if self._advisor is None or self._config.imitation == "off":
            return 0.0
        return self._config.imitation_weight * self._rule.probability(self._schedule, step)

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
        """Everything that the next steps depend on: plain numbers, bytes and arrays."""
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

    def _act_alone(self, policy: FloatArray, own_draws: FloatArray) -> Decision:
        rows, blank = self._row_numbers(len(policy)), self._blank
        actions = sample(policy, own_draws)
        logp = executed_logp(policy[rows, actions])
        return Decision(actions, logp, logp, blank.no, blank.no, blank.no, blank.advice)

    def _act_tutored(
        self,
        advisor: Advisor,
        observations: NDArray[np.float32],
        policy: FloatArray,
        legal: BoolArray | None,
        q_values: FloatArray | None,
        probability: float,
        own_draws: FloatArray,
        draws: FloatArray,
    ) -> Decision:
        rows = self._row_numbers(len(policy))
        known = advisor.known(observations)
        self._check_actions(known.shape[1])
        at_hand = usable_rows(known, legal)
        engaged = self._engaged(policy, legal, q_values, known, at_hand)
        gate, tails, greedy = probability * engaged, policy, None
        if self._value_based:
            share = self._config.dqn_random_share
            greedy = greedy_actions(policy, legal, q_values)
            tails = exploring_tails(policy, greedy, legal, probability=probability, random_share=share, engaged=engaged)
            gate *= self._tutor_share
        own = sample(tails, own_draws)

        keys = state_keys(observations) if self._reuse.stores else None
        q_needed = q_values if self._reuse.needs_q else None
        plan = plan_step(gate, draws[0], draws[1], keys, self._dictionary, q_needed, self._remaining())
        gate, heads = plan.gate, plan.heads
        is_stored = plan.stored != NOTHING
        fresh = heads & ~is_stored
        if np.count_nonzero(fresh):
            tutor, has_advice, latency_ms = ask(advisor, fresh, at_hand, known, observations, legal, self._counters)
            if latency_ms > 0.0:
                self._latency.add(latency_ms, 1)
            fresh &= self._followed(tutor, has_advice)
            advised = np.where(fresh, sample(tutor, draws[2]), plan.stored)
            if keys is not None:
                for row in np.flatnonzero(fresh).tolist():
                    self._dictionary.store(keys[row], int(advised[row]), None if q_needed is None else q_needed[row])
        else:
            tutor, has_advice, advised = known, at_hand, plan.stored
        consulted = heads & (advised != NOTHING)
        actions = np.where(consulted, advised, own)

        # μ: a mixture where the tutor's part was at hand before the coin was thrown, else conditional on the coin,
        # which is the mixture at a gate of 1 on heads with advice and 0 otherwise.
        foreseen = is_stored | at_hand
        weight = np.where(foreseen, gate, consulted)
        from_tutor = np.where(is_stored, plan.stored == actions, tutor[rows, actions])
        behaviour = weight * np.where(weight > 0.0, from_tutor, 0.0) + (1.0 - weight) * tails[rows, actions]

        eligible = (gate > 0.0) & (gate < 1.0) & (consulted | ~heads)
        if self._rule.reads_advice:
            eligible &= foreseen
        if greedy is not None:
            eligible &= consulted | (actions == greedy)
        self._count(heads & is_stored, consulted, consulted & (actions == (own if greedy is None else greedy)))
        return Decision(
            actions=actions,
            behaviour_logp=executed_logp(behaviour),
            policy_logp=floored_logp(policy[rows, actions]),
            heads=heads,
            eligible=eligible,
            consulted=consulted,
            advice=self._imitation_target(rows, actions, consulted, fresh, tutor),
        )

    def _engaged(
        self,
        policy: FloatArray,
        legal: BoolArray | None,
        q_values: FloatArray | None,
        known: FloatArray,
        at_hand: BoolArray,
    ) -> FloatArray:
        """How far the tutor is engaged in each state, ``(n,)``: trust where the rule says yes, else 0."""
        engaged = np.full(len(policy), self._trust.factor if self._earned else 1.0)
        worthwhile = self._rule.on_state(policy, legal, q_values)
        if worthwhile is not None:
            engaged *= worthwhile
        if self._rule.reads_advice:
            engaged[at_hand & ~self._rule.on_advice(known)] = 0.0
        return engaged

    def _followed(self, tutor: FloatArray, has_advice: BoolArray) -> BoolArray:
        return has_advice & self._rule.on_advice(tutor) if self._rule.reads_advice else has_advice

    def _imitation_target(
        self, rows: IntArray, actions: IntArray, consulted: BoolArray, fresh: BoolArray, tutor: FloatArray
    ) -> NDArray[np.float32]:
        target = np.zeros((len(actions), self._num_actions), dtype=np.float32)
        target[rows, actions] = consulted
        if self._config.imitation == "all":
            target[fresh] = tutor[fresh]
        return target

    def _count(self, reused: BoolArray, consulted: BoolArray, agreed: BoolArray) -> None:
        num_consulted, num_agreed = int(np.count_nonzero(consulted)), int(np.count_nonzero(agreed))
        self._counters.add_reused(int(np.count_nonzero(reused)))
        if num_consulted:
            self._agreement.add(num_agreed, num_consulted)
        self._num_free += 0 if self._rule.charges_agreement else num_agreed

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
            self._blank = _Blank.of(n, self._num_actions)
        return self._blank.rows

    def _check_actions(self, num_advised: int) -> None:
        if num_advised != self._num_actions:
            raise UserError(
                f"the tutor advises on {num_advised} actions, the task has {self._num_actions}: "
                "give the tutor the task's own action labels."
            )
