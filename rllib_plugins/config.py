"""What one trial is: the student, its task, its tutor, and how it uses advice. Knows neither Ray nor torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tutor_service.errors import UserError

Algorithm = Literal["dqn", "ppo", "a2c"]
ALGORITHMS: tuple[Algorithm, ...] = ("dqn", "ppo", "a2c")


class AdviceConfig(BaseModel):
    """When a student asks its tutor, and what it does with the answer. Sources: arXiv 2509.08329 unless stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    weights: Literal["behaviour", "policy"] = Field(
        default="behaviour",
        description="behaviour: weight by ρ = min(c, π_old/μ), an honest gradient. policy: the paper's naive form.",
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
        description="Most of these gradient steps in a trial: they cost time, and most of what they bring comes early.",
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

    @model_validator(mode="after")
    def _rules_exist(self) -> AdviceConfig:
        from rllib_plugins.advising.reuse import make_reuse
        from rllib_plugins.advising.rules import make_rule

        rule = make_rule(self.rule, self.rule_options)
        if rule.needs_budget and self.advice_budget is None:
            raise UserError(
                f"advice.rule = '{self.rule}' advises until its budget is spent: "
                "set advice.advice_budget to a number of consultations."
            )
        make_reuse(self.reuse, self.reuse_options)
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


class StudentConfig(BaseModel):
    """One trial: everything that its result depends on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Algorithm = Field(description="Student algorithm: dqn, ppo or a2c.")
    task: str = Field(description="Task by name (see `tutor tasks`) or as module:object.")
    task_options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the task, e.g. {size: 6}."
    )
    tutor: str = Field(default="none", description="Tutor by name (see `tutor tutors`), or none.")
    num_env_steps: int = Field(default=40_000, gt=0, description="Environment steps to train for.")
    num_envs: int = Field(default=8, gt=0, description="Environments stepped as one vector.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the trial.")
    eval_interval_steps: int = Field(
        default=2_000, gt=0, description="Env steps between evaluations (greedy, tutor off)."
    )
    eval_episodes: int = Field(
        default=200, gt=0, description="Episodes per evaluation where no exact evaluation exists."
    )
    eval_max_share: float = Field(
        default=1 / 3,
        gt=0,
        le=1,
        description="Largest share of evaluation in the trial's work: longer episodes are evaluated less and more "
        "seldom than wished (see evaluation_plan). 1: as wished.",
    )
    rollout: Literal["lean", "stock"] = Field(
        default="lean",
        description="lean: our array rollout. stock: RLlib's own EnvRunner with the tutor as connectors.",
    )
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of the algorithm's defaults for the task, by RLlib's own names."
    )
    advice: AdviceConfig = Field(default_factory=AdviceConfig, description="How advice is asked for and used.")

    @model_validator(mode="after")
    def _theta_is_positive(self) -> StudentConfig:
        if self.theta_steps < 1:
            raise ValueError("advice.theta_frac × num_env_steps must be at least 1 env step")
        return self

    @model_validator(mode="after")
    def _rules_fit_the_algorithm(self) -> StudentConfig:
        from rllib_plugins.advising.reuse import make_reuse

        if self.algorithm != "dqn":
            if make_reuse(self.advice.reuse, self.advice.reuse_options).needs_q:
                raise UserError(
                    f"advice.reuse = '{self.advice.reuse}' compares Q-values, which {self.algorithm} does not have: "
                    "use it with dqn, or choose another reuse rule."
                )
            if self.advice.rule_options.get("measure") == "q_range":
                raise UserError(
                    f"advice.rule_options.measure = 'q_range' needs Q-values, which {self.algorithm} does not have: "
                    "use entropy or margin."
                )
        return self

    @model_validator(mode="after")
    def _advice_fits_the_rollout(self) -> StudentConfig:
        if self.rollout == "stock" and self.tutor != "none":
            refuse_on_stock(self.advice)
        return self

    @property
    def theta_steps(self) -> float:
        """θ in env steps."""
        return self.advice.theta_frac * self.num_env_steps


def refuse_on_stock(advice: AdviceConfig) -> None:
    """Refuse what ``rollout: stock`` would do otherwise than ``rollout: lean``.

    Raises:
        UserError: Earned trust: RLlib's EnvRunner does not know the advantages that it compares.
    """
    if advice.trust != "fixed":
        raise UserError(
            f"advice.trust = '{advice.trust}' compares advantages, which RLlib's own EnvRunner does not have: "
            "set advice.trust to 'fixed', or rollout: lean."
        )
