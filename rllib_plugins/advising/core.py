"""The exploration core: who acts in each state of a vector step, and how probable its action was.

Pure, vectorised and seeded. It is given states, the student's action distributions and the step counter; it knows
neither Ray, nor torch, nor how a tutor works. Evaluation never calls it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rllib_plugins.advising import kernels
from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.behaviour import BoolArray, FloatArray, exploring_tails, greedy_actions
from rllib_plugins.advising.consultation import ask, judge, look_up
from rllib_plugins.advising.counters import UNACCOUNTED, AdviceCounters, RecentMean
from rllib_plugins.advising.decision import Decision, Decisions, ImitationWeights
from rllib_plugins.advising.reuse import make_reuse
from rllib_plugins.advising.row_index import as_rows
from rllib_plugins.advising.rules import make_rule
from rllib_plugins.advising.schedule import LinearSchedule
from rllib_plugins.advising.stored_actions import StoredActions
from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.advising.trust import EarnedTrust
from rllib_plugins.config import AdviceConfig
from tutor_service.errors import UserError

__all__ = ["Decision", "ExplorationCore"]

_NO_ROWS = np.empty((0, 0))
_NO_MASKS = np.empty((0, 0), dtype=bool)
_NO_IMITATION = ImitationWeights()


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
        reuse = make_reuse(config.reuse, config.reuse_options)
        try:
            schedule = LinearSchedule(config.probability_initial, config.probability_final, theta_steps)
        except ValueError as error:
            raise UserError(f"advice: {error}") from error
        self._probability_at = partial(self._rule.probability, schedule)
        if reuse.needs_q and not value_based and advisor is not None:
            raise UserError(f"advice.reuse = '{config.reuse}' compares Q-values, which only the algorithm dqn has.")
        if advisor is not None:
            self._check_actions(getattr(advisor, "num_actions", num_actions))
        self._known_source = int(getattr(advisor, "known_source", UNACCOUNTED))
        self._asks_always = self._known_source == UNACCOUNTED
        table = getattr(advisor, "table", None)
        self._table = table if isinstance(table, DistributionTable) else None
        student, tutor = np.random.SeedSequence(seed).spawn(2)
        self._student_rng = np.random.Generator(np.random.PCG64(student))
        self._tutor_rng = np.random.Generator(np.random.PCG64(tutor))
        self._budget, self._probability_cap = config.advice_budget, config.probability_cap
        self._earned = config.trust == "earned"
        self._trust = EarnedTrust(config.trust_half_life, config.trust_floor)
        self._random_share = config.dqn_random_share if value_based else None
        self._tutor_share = 1.0 - (self._random_share or 0.0)
        self._stored = StoredActions(reuse)
        self._counters = AdviceCounters()
        self._agreement = RecentMean()
        self._latency = RecentMean()
        self._num_free = 0
        self._probability = 0.0
        self._judges = self._rule.looks
        self._imitation_basis, self._imitation = (0.0, 0.0, 0.0), _NO_IMITATION
        options = config.imitation == "all", not self._rule.charges_agreement, self._rule.reads_advice
        self._options = {is_untrained: (value_based, is_untrained, *options) for is_untrained in (False, True)}
        self._make_room(0)

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
        decision = Decision.of(len(policy), self._num_actions)
        self.act_into(decision.steps(), 0, as_rows(observations), policy, legal=legal, q_values=q_values, step=step)
        return decision

    def act_into(
        self,
        out: Decisions,
        t: int,
        observations: NDArray[np.float32],
        policy: FloatArray,
        *,
        legal: BoolArray | None = None,
        q_values: FloatArray | None = None,
        step: int,
        is_untrained: bool = False,
    ) -> None:
        """As ``act``, written into vector step ``t`` of ``out``; without a tutor what is about advice stays as it is.

        ``observations`` are C-contiguous. While ``is_untrained`` a value student has learnt nothing: advice is compared
        with all that it does, since its greedy action is no better than a random one.

        Raises:
            UserError: The tutor's action set is not the task's.
            ValueError: A row of ``policy`` is NaN or sums to 0.
        """
        if len(self._own_draws) != len(policy):
            self._make_room(len(policy))
        self._student_rng.random(out=self._own_draws)
        if self._advisor is None:
            _check(kernels.act_alone(policy, self._own_draws, t, out.actions, out.probabilities))
            return
        self._tutor_rng.random(out=self._tutor_draws)
        remaining = kernels.NO_LIMIT if self._budget is None else self._remaining(self._budget)
        probability = self._probability_at(step) if remaining else 0.0
        engagement = 1.0
        if self._earned:  # there has to be a control group
            probability, engagement = min(probability, self._probability_cap), self._trust.factor
        self._probability = probability * engagement * self._tutor_share
        if probability * engagement > 0.0:
            self._act_tutored(
                out, t, observations, policy, legal, q_values, probability, engagement, remaining, is_untrained
            )
            return
        _check(kernels.act_alone(policy, self._own_draws, t, out.actions, out.probabilities))
        out.flags[:, t] = False
        if out.advice is not None:
            out.advice[t] = 0.0

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
            return _NO_IMITATION
        evidence, trust = (self._trust.evidence, self._trust.trust) if self._earned else (0.0, 1.0)
        basis = self._probability_at(step), evidence, trust
        if basis != self._imitation_basis:
            self._imitation_basis, self._imitation = basis, ImitationWeights.of(self._config, *basis)
        return self._imitation

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
            "dictionary": self._stored.get_state(),
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
        self._stored.set_state(state["dictionary"])
        self._trust.set_state(state["trust"])
        self._counters.set_state(state["counters"])
        self._agreement.set_state(state["agreement"])
        self._latency.set_state(state["latency"])
        self._num_free = state["num_free"]
        self._probability = state["probability"]
        if state["advisor"] is not None:
            getattr(self._advisor, "set_state", lambda _: None)(state["advisor"])

    def _act_tutored(
        self,
        out: Decisions,
        t: int,
        observations: NDArray[np.float32],
        policy: FloatArray,
        legal: BoolArray | None,
        q_values: FloatArray | None,
        probability: float,
        engagement: float,
        remaining: int,
        is_untrained: bool,
    ) -> None:
        stored, draws, found, options = self._stored, self._draws, self._found, self._options[is_untrained]
        if stored.room < len(policy):
            stored.reserve(observations)
        if self._table is not None:
            tutor = self._table.arrays
        else:
            assert self._advisor is not None
            tutor = look_up(self._advisor, observations, legal)
            self._check_actions(tutor[0].shape[1])
        judged = _NO_MASKS
        if self._judges:
            judged = judge(self._rule, policy, legal, q_values, observations, tutor)
        tails = policy
        if self._random_share is not None:
            tails = exploring_tails(
                policy,
                greedy_actions(policy, legal, q_values),
                legal,
                probability=probability,
                random_share=self._random_share,
                engaged=np.where(judged[0], engagement, 0.0) if self._judges else engagement,
            )
        q_values = _NO_ROWS if q_values is None else q_values
        allowed = _NO_MASKS if legal is None else legal
        outputs = out.actions, out.probabilities, out.flags, out.advice
        is_done, settled = kernels.decide(
            engagement * (probability * self._tutor_share),
            remaining,
            draws,
            observations,
            tutor,
            self._asks_always,
            stored.arrays,
            stored.reuse,
            policy,
            tails,
            q_values,
            allowed,
            judged,
            options,
            found,
            t,
            outputs,
        )
        if not is_done:
            stored.serve(observations, found, draws[2], q_values)
            known = self._ask(tutor, observations, legal)
            if self._rule.reads_advice:
                judged[1] = ~self._rule.on_advice(known)
            settled = kernels.settle(policy, tails, q_values, allowed, draws, known, judged, options, found, t, outputs)
            kernels.store(observations, q_values, stored.arrays, stored.reuse, found, t, outputs)
            stored.store(observations, found, out.actions[t], q_values)
        is_sound, num_reused, num_fresh, num_known, num_same, agreement = settled
        _check(is_sound)
        if num_reused or num_fresh or num_known:
            stored.room -= num_fresh
            self._counters.add_step(num_reused, 0 if self._asks_always else num_known, self._known_source)
            if num_reused + num_fresh:
                self._agreement.add(agreement, num_reused + num_fresh)
                self._num_free += num_same

    def _ask(self, tutor: kernels.Tutor, observations: NDArray[np.float32], legal: BoolArray | None) -> FloatArray:
        """Asks where the coin says heads, nothing stored serves, and it has to be; the distributions ``(n, …)``."""
        _, (ready, slots, heads, at_hand, _) = self._found
        known = tutor[0][slots]
        slots[:] = np.arange(len(slots))
        to_ask = (heads > 0) & (ready == kernels.NOTHING) & (self._asks_always | (at_hand == 0))
        if to_ask.any():
            assert self._advisor is not None
            latency_ms = ask(self._advisor, to_ask.nonzero()[0], known, observations, legal, self._counters)
            if latency_ms > 0.0:
                self._latency.add(latency_ms, 1)
        return known

    def _remaining(self, budget: int) -> int:
        """Consultations left in the advice budget."""
        return max(0, budget - (self._counters.consultations - self._num_free))

    def _make_room(self, n: int) -> None:
        """For the numbers of a vector step of n environments."""
        self._draws, self._found = np.empty((4, n)), kernels.room(n)
        self._own_draws, self._tutor_draws = self._draws[0], self._draws[1:]

    def _check_actions(self, num_advised: int) -> None:
        if num_advised != self._num_actions:
            raise UserError(
                f"the tutor advises on {num_advised} actions, the task has {self._num_actions}: "
                "give the tutor the task's own action labels."
            )


def _check(is_sound: bool) -> None:
    if not is_sound:
        raise ValueError("an action distribution is NaN or sums to 0: the student has diverged, or no action is legal")
