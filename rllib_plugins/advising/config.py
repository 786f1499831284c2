"""Define how a student is advised: the fields of ``advice:`` in a preset, and what follows from them alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllib_plugins.advising.reuse import make_reuse
from rllib_plugins.advising.rules import make_rule
from rllib_plugins.stand_ins.registry import make_stand_in
from rllib_plugins.uses.options import ASKING_FIELDS, COIN_FIELDS, STAND_IN_FIELDS, make_use, uses_where
from tutor_service.errors import UserError


class AdviceConfig(BaseModel):
    """When a student asks its tutor, and what it does with the answer. Sources: arXiv 2509.08329 unless stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str | None = Field(
        default=None,
        description="What a student makes of advice: distil (imitate it where the student's own draws say that it "
        "helps; the tutor never acts), coin (the tutor acts in a share P(τ) of the steps), kickstart (imitate it "
        "everywhere with a weight that falls), shape (add its opinion of an action to the reward, with a weight that "
        "falls), handover (the tutor begins each episode), pool (act by the product of both policies), observe (see "
        "advice as part of the observation), clone (a control: imitate it everywhere and learn nothing from reward), "
        "or module:Class. "
        "Default: distil, and coin where a field of the coin's is set.",
    )
    use_options: dict[str, Any] = Field(default_factory=dict, description="Options of the use, by its own names.")
    tutor_return: float | None = Field(
        default=None,
        description="Mean return of the tutor's own play, where known: distil follows it only while the student's "
        "own return is below. A sweep measures it before its trials.",
    )
    follow: bool | None = Field(
        default=None,
        description="Whether the tutor is known to be worth following: true (distil imitates it up to tutor_return, "
        "except where the student's own draws say that it harms), false (never). Default: those draws alone decide. A "
        "sweep sets it by the tutor's own play.",
    )
    tutor_is_best: bool = Field(
        default=False,
        description="Whether a followed tutor plays about as well as can be: distil then follows it past tutor_return, "
        "until the student's own draws speak against it. A sweep sets it by the tutor's own play.",
    )
    probability_initial: float = Field(
        default=1.0, ge=0, le=1, description="P_initial: consultation probability at step 0."
    )
    probability_final: float = Field(
        default=0.1, ge=0, le=1, description="P_final: consultation probability from step θ on."
    )
    theta_frac: float = Field(
        default=0.5,
        gt=0,
        description="θ as a share of the trial's env steps: where P(τ) reaches P_final. Not given by the paper.",
    )
    probability_cap: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Upper bound of P(τ) while trust is earned: at 1 nothing is left to measure advice against.",
    )
    rule: str = Field(
        default="linear", description="Advising rule: linear, early, importance, mistake, confidence, or module:Class."
    )
    rule_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the advising rule, by its own names."
    )
    advice_budget: int | None = Field(
        default=None, ge=0, description="Consultations that a trial may make in all; none: unlimited."
    )
    reuse: str = Field(
        default="budget", description="Reuse rule: off, budget, decay, q_change (dqn only), or module:Class."
    )
    reuse_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the reuse rule, e.g. {budget: 3} (the paper's default)."
    )
    stand_in: str = Field(
        default="off",
        description="Who answers in the tutor's place, free of advice_budget: off (nobody), kept (states that were "
        "asked before get the stored answer), ensemble (new states too, by networks fitted to the answers, where they "
        "are sure), or module:Class.",
    )
    stand_in_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the stand-in, by its own names."
    )
    weights: Literal["behaviour", "policy"] = Field(
        default="behaviour",
        description="behaviour: weight by ρ = min(c, π_old/μ), so that steps in which the tutor acted count by how "
        "likely the student was to take them; unbiased where c caps nothing. policy: the paper's naive form.",
    )
    weight_cap: float = Field(default=1.0, gt=0, description="c in ρ = min(c, π_old/μ). Typical: 1 to 2.")
    imitation: Literal["off", "all", "filtered"] = Field(
        default="filtered",
        description="Learn from consulted steps: never, all, or where the advice turned out better than expected.",
    )
    imitation_weight: float = Field(
        default=1.0, ge=0, description="Weight of the imitation term at P = 1; annealed with P(τ)."
    )
    imitation_gain: float = Field(
        default=10.0,
        ge=0,
        description="Filtered imitation under earned trust: factor on imitation_weight, on every consulted step, once "
        "the measured effect speaks for the tutor. 0: the filter stays as it is. Typical: 1 to 10.",
    )
    imitation_until: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Filtered imitation: a step is imitated while the student would take the advised action with less "
        "than this probability. Below 1 the student keeps trying its own actions. Typical: 0.7 to 0.95.",
    )
    imitation_replay: float = Field(
        default=16.0,
        ge=0,
        description="Filtered imitation under earned trust, lean rollout: how often an advised step is imitated again, "
        "in gradient steps of their own, once the measured effect speaks for the tutor. 0: never. Typical: 4 to 32.",
    )
    imitation_replay_steps: int = Field(
        default=2_000,
        ge=0,
        description="Most of these gradient steps in a trial: they cost time, and most of their gain comes early.",
    )
    trust: Literal["fixed", "earned"] = Field(
        default="earned",
        description="earned: the gate follows the measured effect of advice, P(τ)·Φ(w·z + b). fixed: the gate is P(τ).",
    )
    trust_floor: float = Field(
        default=0.05, ge=0, le=1, description="Smallest gate factor, so that a tutor is re-examined."
    )
    trust_half_life: float = Field(
        default=4_000, gt=0, description="Compared env steps after which evidence about the tutor counts half."
    )
    dqn_random_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="DQN only. none: on tails the student explores by its own ε-greedy schedule. A number: P(τ) takes "
        "that schedule's place, and this share of it is random, the rest the tutor's; 0 is the paper's form.",
    )

    deadline_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds that a vector step waits for advice, retries included; then the student acts by itself. "
        "Typical: 30; more for endpoints that think.",
    )
    wait: bool = Field(
        default=False,
        description="Wait for advice however long it takes, in place of deadline_s: a sweep is as slow as its tutor, "
        "and stands still while that is away.",
    )

    @property
    def patience_s(self) -> float:
        """Return the seconds that a vector step waits for advice; infinite where it waits however long."""
        return math.inf if self.wait else self.deadline_s

    @model_validator(mode="after")
    def _use_fits(self) -> AdviceConfig:
        """Choose the use where none is named; refuse options that the named one does not read.

        Raises:
            UserError: A field of the coin's beside another use.
        """
        coins, asking = self._changed(COIN_FIELDS), self._changed(ASKING_FIELDS)
        if self.use is None:
            object.__setattr__(self, "use", "coin" if coins else "distil")
        if self.follow and self.tutor_return is None:
            raise UserError(
                "advice.follow = true needs advice.tutor_return, the mean return of the tutor's own play: a student is "
                "led up to that (tutor audition measures it)."
            )
        if self.tutor_is_best and not self.follow:
            raise UserError(
                f"advice.tutor_is_best = true says that the tutor is worth following, and advice.follow = {self.follow}"
                ": set advice.follow to true, or leave advice.tutor_is_best out."
            )
        read = make_use(self.named_use, self.use_options).reads()
        for name in coins:
            if name not in read:
                raise UserError(
                    f"advice.{name} = {getattr(self, name)!r} is read where a coin decides whether the tutor acts: "
                    f"leave it out, or set advice.use to 'coin' in place of '{self.use}'."
                )
        for name in asking:
            if name not in read:
                raise UserError(
                    f"advice.{name} = {getattr(self, name)!r} says in which states to ask, which advice.use = "
                    f"'{self.use}' decides by itself: leave it out, or choose another use."
                )
        for name in self._changed(STAND_IN_FIELDS):
            if name not in read:
                others = uses_where(lambda other: other.reads().issuperset(STAND_IN_FIELDS))
                raise UserError(
                    f"advice.{name} = {getattr(self, name)!r}: no tutor has one under advice.use = '{self.use}'. "
                    f"Leave it out, or set advice.use to {others}."
                )
        return self

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Return which of some fields differ from their defaults."""
        fields = type(self).model_fields
        return [n for n in names if getattr(self, n) != fields[n].get_default(call_default_factory=True)]

    @property
    def named_use(self) -> str:
        """Return ``use``, which is named once the fields are checked."""
        return self.use or "distil"

    @property
    def has_stand_in(self) -> bool:
        """Tell whether anybody answers in the tutor's place."""
        return not make_stand_in(self.stand_in, self.stand_in_options).is_off

    @model_validator(mode="after")
    def _rules_exist(self) -> AdviceConfig:
        rule = make_rule(self.rule, self.rule_options)
        if rule.needs_budget and self.advice_budget is None:
            raise UserError(
                f"advice.rule = '{self.rule}' advises until its budget is spent: "
                "set advice.advice_budget to a number of consultations."
            )
        make_reuse(self.reuse, self.reuse_options)
        make_stand_in(self.stand_in, self.stand_in_options).check_budget(self.advice_budget)
        return self


PAPER_ADVICE = AdviceConfig(
    weights="policy",
    imitation="off",
    trust="fixed",
    probability_cap=1.0,
    dqn_random_share=0.0,
    reuse_options={"budget": 3},
)
"""Advice as the paper uses it: naive log-probability, no imitation, fixed trust, tutor in place of random actions."""


class ImitationWeights(NamedTuple):
    """How much a consulted step is imitated, by how its advice turned out.

    Attributes:
        better: Where the advised action turned out better than expected.
        worse: Where it did not; never above ``better``.
        replay: Times that a step is imitated again, whatever it turned out like.
    """

    better: float = 0.0
    worse: float = 0.0
    replay: float = 0.0

    @classmethod
    def of(
        cls, advice: AdviceConfig, probability: float, evidence: float = 0.0, trust: float = 1.0
    ) -> ImitationWeights:
        """The configured weight, annealed; the filter gives way to full imitation as evidence favours the tutor.

        With w = ``imitation_weight`` · P, g = ``imitation_gain`` and e the evidence, filtered imitation weighs advice
        that turned out better by w·trust·(1 − e) + w·g·e and other advice by w·g·e: what a single step says about
        advice is mostly noise, what the randomised comparison says is not. Trust counts although advice that is not
        trusted is not asked for: a replay buffer remembers what was. Steps are imitated again ``imitation_replay``·e
        times.

        Args:
            advice: How advice is used.
            probability: P(τ) in [0, 1].
            evidence: How far the comparison speaks for the tutor, in [0, 1]; 0 where nothing is known.
            trust: In the tutor, in [0, 1]; 1 where it is fixed.
        """
        if advice.imitation == "off":
            return cls()
        weight = advice.imitation_weight * probability
        if advice.imitation == "all":
            return cls(weight, weight)
        proven = advice.imitation_gain * evidence * weight
        return cls(trust * (1.0 - evidence) * weight + proven, proven, advice.imitation_replay * evidence)
