"""Decide who acts in each state of a vector step, and say how probable the action was.

Pure, vectorised and seeded. It is given states, the student's action distributions and the step counter; it must not
know Ray, torch or how a tutor works. Evaluation never calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rllib_plugins.advising import kernels
from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig, ImitationWeights
from rllib_plugins.advising.decision import Decision, Decisions
from rllib_plugins.advising.kernels import Options, Plain
from rllib_plugins.advising.reuse import make_reuse
from rllib_plugins.advising.rules import LinearSchedule, make_rule
from rllib_plugins.advising.table import NOTHING, StoredActions
from rllib_plugins.advising.trust import EarnedTrust
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.metrics import AdviceCounters, RecentMean
from rllib_plugins.row_index import as_rows
from tutor_service.errors import UserError

_NO_ROWS = np.empty((0, 0))
_NO_MASKS = np.empty((0, 0), dtype=bool)
_NO_IMITATION = ImitationWeights()


class Explorer:
    """Decide every exploring step of one trial.

    Args:
        config: When to ask and what to do with advice.
        num_actions: Size of the Discrete action space.
        theta_steps: θ in env steps.
        advisor: The tutor; None: the student acts alone.
        seed: Seed of the student's draws and of the coins. The student's own stream is the same with and without
            a tutor, so that equal seeds are comparable.
        value_based: The student explores by ε-greedy (DQN); see ``kernels.explore_beside`` for what a
            ``dqn_random_share`` changes in that.
        learning_starts: Env steps until a value student begins to learn. Until then advice is compared with all of its
            actions, since its greedy action is no better than a random one.

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
        learning_starts: int = 0,
    ):
        self._config = config
        self._num_actions = num_actions
        self._advisor = advisor
        self._rule = make_rule(config.rule, config.rule_options)
        reuse = make_reuse(config.reuse, config.reuse_options)
        try:
            schedule = LinearSchedule(config.probability_initial, config.probability_final, theta_steps)
        except ValueError as error:
            raise UserError(f"advice: {error}") from error
        self._probability_at: Callable[[int], float] = partial(self._rule.probability, schedule)
        if advisor is not None:
            if reuse.needs_q and not value_based:
                raise UserError(f"advice.reuse = '{config.reuse}' compares Q-values, which only the algorithm dqn has.")
            if advisor.task.num_actions != num_actions:
                raise UserError(
                    f"the tutor advises on {advisor.task.num_actions} actions, the task has {num_actions}: "
                    "give the tutor the task's own action labels."
                )
        student, tutor = np.random.SeedSequence(seed).spawn(2)
        self._student_rng = np.random.Generator(np.random.PCG64(student))
        self._tutor_rng = np.random.Generator(np.random.PCG64(tutor))
        self._allowance, self._probability_cap = config.advice_budget, config.probability_cap
        self._earned = config.trust == "earned"
        self._trust = EarnedTrust(config.trust_half_life, config.trust_floor)
        self._random_share = config.dqn_random_share if value_based else None
        self._tutor_share = 1.0 - (self._random_share or 0.0)
        self._stored = StoredActions(reuse)
        self._counters = AdviceCounters()
        self._agreement = RecentMean()
        self._latency = RecentMean()
        self._num_free_consultations = 0
        self._gate = 0.0
        self._imitation_basis, self._imitation = (0.0, 0.0, 0.0), _NO_IMITATION
        self._judges = self._rule.looks
        self._learning_starts = learning_starts if value_based else 0
        fixed = config.imitation == "all", not self._rule.charges_agreement, self._rule.reads_advice
        self._trained, self._untrained = (tuple(Options(value_based, flag, *fixed)) for flag in (False, True))
        self._allocate(0)

    @property
    def acts_alone(self) -> bool:
        """Return whether the student takes every step by itself, so that ``draw_alone`` is all that acting needs."""
        return self._advisor is None

    def draw_alone(self, draws: Floats) -> None:
        """Draw the numbers that vector steps of a student that acts alone take, ``(T, n)``, as ``act`` would.

        Args:
            draws: Output: uniform numbers in [0, 1).
        """
        self._student_rng.random(out=draws)

    def act(
        self,
        observations: Floats32,
        policy: Floats,
        *,
        legal: Bools | None = None,
        q_values: Floats | None = None,
        step: int,
    ) -> Decision:
        """Pick an action in each state.

        Args:
            observations: ``(n, obs_dim)`` flat states.
            policy: ``(n, num_actions)`` probabilities by which the untutored student would act, 0 on illegal actions.
                For a value student its own ε-greedy distribution.
            legal: ``(n, num_actions)`` mask; None: all are legal.
            q_values: ``(n, num_actions)``; a value student should always give them (its greedy action is read off).
            step: Env steps sampled so far in the trial.

        Raises:
            ValueError: A row of ``policy`` is NaN or sums to 0.
        """
        decision = Decision.of(len(policy), self._num_actions)
        self.act_into(decision.steps(), 0, as_rows(observations), policy, legal=legal, q_values=q_values, step=step)
        return decision

    def act_into(
        self,
        out: Decisions,
        t: int,
        observations: Floats32,
        policy: Floats,
        *,
        legal: Bools | None = None,
        q_values: Floats | None = None,
        step: int,
    ) -> None:
        """Act as ``act`` does, into vector step ``t`` of ``out``; without a tutor what is about advice stays as it is.

        ``observations`` are C-contiguous.

        Raises:
            ValueError: A row of ``policy`` is NaN or sums to 0.
        """
        if len(self._own_draws) != len(policy):
            self._allocate(len(policy))
        self._student_rng.random(out=self._own_draws)
        if self._advisor is None:
            check_sound(kernels.act_alone(policy, self._own_draws, t, out.actions, out.probabilities))
            return
        self._tutor_rng.random(out=self._tutor_draws)
        left = self._remaining
        remaining = kernels.NO_LIMIT if left is None else left
        probability = self._probability_at(step) if remaining else 0.0
        engagement = 1.0
        if self._earned:  # there has to be a control group
            probability, engagement = min(probability, self._probability_cap), self._trust.factor
        self._gate = engagement * (probability * self._tutor_share)
        if probability * engagement > 0.0:
            student = (
                observations,
                policy,
                policy if self._random_share is None else np.empty_like(policy),
                _NO_ROWS if q_values is None else q_values,
                _NO_MASKS if legal is None else legal,
            )
            if self._judges:
                self._judge(policy, legal, q_values, observations)
            if self._random_share is not None:
                kernels.explore_beside(student, self._visits, engagement, probability, self._random_share)
            options = self._untrained if step < self._learning_starts else self._trained
            self._act_tutored(student, remaining, options, (t, out.actions, out.probabilities, out.flags, out.advice))
            return
        check_sound(kernels.act_alone(policy, self._own_draws, t, out.actions, out.probabilities))
        out.flags[:, t] = False
        if out.advice is not None:
            out.advice[t] = 0.0

    def bonus(self, observations: Floats32, legal: Bools | None, step: int) -> Floats32 | None:
        """Return what advice adds to the student's logits, or to its Q-values over T, for acting, ``(n, num_actions)``.

        It is asked for before ``act_into``, whose ``policy`` is that of both together. None: nothing, as here.

        Args:
            observations: ``(n, obs_dim)``, C-contiguous.
            legal: ``(n, num_actions)`` mask; None: all are legal.
            step: Env steps sampled so far in the trial.
        """
        return None

    def show(self, observations: Floats32, legal: Bools | None, step: int) -> Floats32:
        """Return what the student sees of advice beside its observations, ``(n, num_actions)``.

        It is asked for before the student looks, of explorers whose use says that it ``shows``. Here it is nothing.

        Args:
            observations: ``(n, obs_dim)``, the task's own, C-contiguous.
            legal: ``(n, num_actions)`` mask; None: all are legal.
            step: Env steps sampled so far in the trial.
        """
        return np.zeros((len(observations), self._num_actions), np.float32)

    def note_step(self, rewards: NDArray[Any], ended: Bools) -> None:
        """Take note of what a vector step led to, ``(n,)`` each; here nothing depends on it."""

    def begin_episodes(self) -> None:
        """Take note that all environments have begun an episode anew, out of turn."""

    def observe(self, advantages: ArrayLike, heads: ArrayLike, eligible: ArrayLike) -> None:
        """Feed earned trust with the steps of a learner update; arrays of one shape.

        Args:
            advantages: Of the executed actions, not standardised, in units of return.
            heads: ``Decision.heads`` of these steps.
            eligible: ``Decision.eligible`` of these steps.
        """
        self._trust.observe(advantages, heads, eligible)

    def imitation(self, step: int) -> ImitationWeights:
        """Return how much consulted steps are imitated at an env step."""
        if self._advisor is None:
            return _NO_IMITATION
        evidence, trust = (self._trust.evidence, self._trust.trust) if self._earned else (0.0, 1.0)
        basis = self._probability_at(step), evidence, trust
        if basis != self._imitation_basis:
            self._imitation_basis, self._imitation = basis, ImitationWeights.of(self._config, *basis)
        return self._imitation

    @property
    def num_consultations(self) -> int:
        """Count the env steps so far on which advice was used."""
        return self._counters.consultations

    @property
    def num_tutor_steps(self) -> int:
        """Count the env steps so far that the tutor took in the student's place."""
        return self.num_consultations

    def counters(self) -> dict[str, int]:
        """Return running totals, by the names of ``metrics.COUNTERS``."""
        return self._counters.report()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial, by the names of ``metrics.GAUGES``; NaN: nothing to say.

        ``advice/probability`` is the gate of the last step, trust included, before the rule looked at the state.
        """
        return {
            "advice/agreement": self._agreement.value,
            "advice/probability": self._gate,
            "advice/trust": self._trust.trust if self._earned else 1.0,
            "advice/effect": self._trust.effect,
            "advice/effect_se": self._trust.effect_se,
            "advice/latency_ms": self._latency.value,
        }

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on: plain numbers, bytes and arrays.

        That includes what the advisor knows: which estimator of μ is used depends on it.
        """
        return {
            "student_rng": self._student_rng.bit_generator.state,
            "tutor_rng": self._tutor_rng.bit_generator.state,
            "dictionary": self._stored.get_state(),
            "trust": self._trust.get_state(),
            "counters": self._counters.get_state(),
            "agreement": self._agreement.get_state(),
            "latency": self._latency.get_state(),
            "num_free_consultations": self._num_free_consultations,
            "gate": self._gate,
            "advisor": None if self._advisor is None else self._advisor.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        if not state:
            return
        self._student_rng.bit_generator.state = state["student_rng"]
        self._tutor_rng.bit_generator.state = state["tutor_rng"]
        self._stored.set_state(state["dictionary"])
        self._trust.set_state(state["trust"])
        self._counters.set_state(state["counters"])
        self._agreement.set_state(state["agreement"])
        self._latency.set_state(state["latency"])
        self._num_free_consultations = state["num_free_consultations"]
        self._gate = state["gate"]
        if self._advisor is not None:
            self._advisor.set_state(state["advisor"])

    def _judge(self, policy: Floats, legal: Bools | None, q_values: Floats | None, observations: Floats32) -> None:
        """Write where the rule opens the gate, and where it does not follow what is known.

        Raises:
            ValueError: A mask of another shape.
        """
        rule, visits = self._rule, self._visits
        worthwhile = rule.on_state(policy, legal, q_values)
        if worthwhile is not None and worthwhile.shape != visits.shape:
            raise ValueError(f"{type(rule).__name__}'s mask of states: {worthwhile.shape}, expected {visits.shape}")
        visits["open"] = True if worthwhile is None else worthwhile
        if rule.reads_advice:
            assert self._advisor is not None
            at_hand = self._advisor.opinions.look_up(observations)
            visits["ignored"] = ~rule.on_advice(at_hand)
            visits["open"] &= np.isnan(at_hand[:, 0]) | ~visits["ignored"]

    def _act_tutored(self, student: Plain, remaining: int, options: Plain, out: Plain) -> None:
        """Decide a vector step with a gate above 0; the arguments are fields of ``kernels``' records."""
        assert self._advisor is not None
        stored, visits, tutor = self._stored, self._visits, self._advisor.table.tutor
        observations, q_values = student[0], student[3]
        if stored.num_free < len(visits):
            stored.reserve(observations)
        coin = self._gate, remaining, self._draws
        is_done, settled = kernels.decide(coin, student, tutor, stored.stored, options, visits, out)
        if not is_done:
            if stored.runs_here:
                stored.serve(observations, q_values, self._draws[kernels.REUSE_DRAW], visits)
            advice = self._ask(tutor[0], observations)
            settled = kernels.finish(self._draws, student, advice, stored.stored, options, visits, out)
            if stored.runs_here:
                stored.store(observations, q_values, visits, out[1][out[0]])
        is_sound, num_reused, num_fresh, num_known, num_same, agreement = settled
        check_sound(is_sound)
        if num_reused or num_fresh or num_known:
            stored.num_free -= num_fresh
            self._count(num_known, num_reused)
            if num_reused + num_fresh:
                self._agreement.add(agreement, num_reused + num_fresh)
                self._num_free_consultations += num_same

    def _count(self, num_known: int, num_reused: int) -> None:
        """Count env steps whose advice was known, or stored."""
        assert self._advisor is not None
        self._counters.add(self._advisor.kept_source, num_known, num_reused)

    def _ask(self, distributions: Floats, observations: Floats32) -> Floats:
        """Ask where the coin says heads, nothing stored serves and nothing is known; return the step's advice."""
        visits = self._visits
        advice = distributions[visits["slot"]]
        visits["slot"] = np.arange(len(visits))
        to_ask = np.flatnonzero(visits["heads"] & (visits["ready"] == NOTHING) & ~visits["at_hand"])
        if to_ask.size:
            batch = self._consult(observations[to_ask])
            advice[to_ask] = batch.probabilities
            if self._rule.reads_advice:
                visits["ignored"][to_ask] = ~self._rule.on_advice(batch.distributions)
            batch.count(self._counters, self._latency)
        return advice

    def _consult(self, observations: Floats32) -> AdviceBatch:
        """Ask the tutor about ``(n, obs_dim)``."""
        assert self._advisor is not None
        return self._advisor.ask(observations)

    @property
    def _remaining(self) -> int | None:
        """Return the consultations left in the advice budget; None: any number."""
        if self._allowance is None:
            return None
        return max(0, self._allowance - (self._counters.consultations - self._num_free_consultations))

    def _allocate(self, n: int) -> None:
        """Allocate scratch arrays for n environments."""
        self._draws, self._visits = np.empty((4, n)), np.zeros(n, dtype=kernels.VISIT)
        self._visits["open"] = True
        self._own_draws, self._tutor_draws = self._draws[0], self._draws[1:]


def check_sound(is_sound: bool) -> None:
    """Raise ``ValueError`` where compiled code met a distribution that it could draw no action from."""
    if not is_sound:
        raise ValueError("an action distribution is NaN or sums to 0: the student has diverged, or no action is legal")
