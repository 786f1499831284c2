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
from rllib_plugins.advising.consultation import ask, plan_step, rows_at_hand
from rllib_plugins.advising.counters import AdviceCounters, RecentMean
from rllib_plugins.advising.decision import Blank, BoolArray, Decision, ImitationWeights
from rllib_plugins.advising.reuse import NOTHING, AdviceDictionary, make_reuse, state_keys
from rllib_plugins.advising.rules import make_rule
from rllib_plugins.advising.schedule import LinearSchedule
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
        policy, legal, rows = at.policy, at.legal, self._row_numbers(len(at.policy))
        known = advisor.known(at.observations)
        self._check_actions(known.shape[1])
        at_hand = rows_at_hand(advisor, known, legal)
        engaged = self._engaged(at, known, at_hand)
        tails, greedy = policy, None
        if self._value_based:
            greedy = greedy_actions(policy, legal, at.q_values)
            share = self._random_share
            if share is not None:
                tails = exploring_tails(
                    policy, greedy, legal, probability=at.probability, random_share=share, engaged=engaged
                )

        coins, reuse_draws, advice_draws = at.draws
        gate = np.full(len(rows), engaged * (at.probability * self._tutor_share))
        keys = state_keys(at.observations) if self._reuse.stores else None
        q_values = at.q_values if self._reuse.needs_q else None
        plan = plan_step(gate, coins, reuse_draws, keys, self._dictionary, q_values, self._remaining())
        gate, heads = plan.gate, plan.heads
        is_stored = plan.stored != NOTHING
        reused = heads & is_stored
        fresh = heads ^ reused
        tutor = known
        if np.count_nonzero(fresh):
            tutor, has_advice, latency_ms = ask(advisor, fresh, at_hand, known, at.observations, legal, self._counters)
            if latency_ms > 0.0:
                self._latency.add(latency_ms, 1)
            fresh &= self._followed(tutor, has_advice)
        consulted = fresh | reused
        someone_alone = np.count_nonzero(consulted) < np.count_nonzero(heads)
        if tails is not policy and someone_alone:
            # Tails leaves out the share of exploring that the tutor would have done: alone, the student does it all.
            tails = np.where((heads & ~consulted)[:, None], policy, tails)

        actions = self._draw(at, tails, tutor, advice_draws, fresh, plan.stored, reused)
        if keys is not None:
            for row in fresh.nonzero()[0].tolist():
                self._dictionary.store(keys[row], int(actions[row]), None if q_values is None else q_values[row])

        # μ: a mixture where the tutor's part was at hand before the coin was thrown, else conditional on the coin,
        # which is the mixture at a gate of 1 on heads with advice and 0 otherwise.
        executed = rows * self._num_actions + actions
        from_tails = tails.take(executed)
        from_tutor = np.where(is_stored, plan.stored == actions, tutor.take(executed))
        weight, foreseen = gate, is_stored | at_hand
        if np.count_nonzero(foreseen) < len(rows):
            weight = np.where(foreseen, gate, consulted)
            from_tutor = np.where(weight > 0.0, from_tutor, 0.0)
        behaviour = weight * from_tutor + (1.0 - weight) * from_tails

        eligible = (gate > 0.0) & (gate < 1.0)
        if someone_alone:
            eligible &= consulted | ~heads
        if self._rule.reads_advice:
            eligible &= foreseen
        from_policy = from_tails if tails is policy else policy.take(executed)
        would_do = from_policy
        if greedy is not None:
            would_do = greedy == actions
            eligible &= consulted | would_do
        self._count(at, tails, reused, consulted, actions, would_do)
        return Decision(
            actions=actions,
            behaviour=check_executed(behaviour),
            policy=from_policy,
            heads=heads,
            eligible=eligible,
            consulted=consulted,
            advice=self._imitation_target(executed, consulted, fresh, tutor),
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

    def _draw(
        self,
        at: _Situation,
        tails: FloatArray,
        tutor: FloatArray,
        advice_draws: FloatArray,
        fresh: BoolArray,
        stored: IntArray,
        reused: BoolArray,
    ) -> IntArray:
        """The executed actions: stored ones, fresh draws from the tutor, or the student's own."""
        policy, draws = tails, at.own_draws
        if np.count_nonzero(fresh):
            policy, draws = np.where(fresh[:, None], tutor, tails), np.where(fresh, advice_draws, draws)
        drawn = sample(policy, draws)
        return np.where(reused, stored, drawn) if np.count_nonzero(reused) else drawn

    def _followed(self, tutor: FloatArray, has_advice: BoolArray) -> BoolArray:
        return has_advice & self._rule.on_advice(tutor) if self._rule.reads_advice else has_advice

    def _imitation_target(
        self, executed: IntArray, consulted: BoolArray, fresh: BoolArray, tutor: FloatArray
    ) -> NDArray[np.float32]:
        target = np.zeros((len(executed), self._num_actions), dtype=np.float32)
        target.put(executed, consulted)
        if self._config.imitation == "all":
            target[fresh] = tutor[fresh]
        return target

    def _count(
        self,
        at: _Situation,
        tails: FloatArray,
        reused: BoolArray,
        consulted: BoolArray,
        actions: IntArray,
        would_do: FloatArray | BoolArray,
    ) -> None:
        """Counts; ``would_do`` is how probable it was that the student does the same by itself."""
        self._counters.add_reused(int(np.count_nonzero(reused)))
        num_consulted = int(np.count_nonzero(consulted))
        if num_consulted:
            self._agreement.add(float(would_do.dot(consulted)), num_consulted)
            if not self._rule.charges_agreement:
                self._num_free += int(np.count_nonzero(consulted & (sample(tails, at.own_draws) == actions)))

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
