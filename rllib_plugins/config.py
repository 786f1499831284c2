"""Define one trial: the student, its task, its tutor, and how it uses advice."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.reuse import make_reuse
from rllib_plugins.algorithms.registry import Algorithm
from rllib_plugins.uses.options import make_use, uses_where
from tutor_service.errors import UserError

_RUNNER_FIELDS = {
    "num_env_runners",
    "num_envs_per_env_runner",
    "num_cpus_per_env_runner",
    "env_runner_cls",
    "create_local_env_runner",
}
"""Fields of RLlib's configs that follow from those of a trial."""

SEED_LIMIT = 2**31
"""Seeds are less than this, so that every library's generator takes them."""


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
    num_envs: int = Field(default=8, gt=0, le=65_536, description="Environments stepped as one vector.")
    num_env_runners: int = Field(
        default=0,
        ge=0,
        description="Processes beside the trial's own that step its environments, num_envs / num_env_runners each; the "
        "experiment is the same. 0: the trial's own steps them, the fastest where an env step takes microseconds.",
    )
    seed: int = Field(default=0, ge=0, lt=SEED_LIMIT, description="Seed of everything random in the trial.")
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
    updates_factor: float = Field(
        default=1.0,
        ge=1,
        description="Times as many gradient steps per env step: a control for what a tutored student spends on advice. "
        "ppo: more passes, dqn: more batches, a2c: smaller batches. Typical: 2.",
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
    def _runners_share_the_environments(self) -> StudentConfig:
        if self.num_envs % max(1, self.num_env_runners):
            raise ValueError(
                f"num_env_runners = {self.num_env_runners} does not divide num_envs = {self.num_envs}: each EnvRunner "
                "steps as many environments"
            )
        if self.num_env_runners and self.tutor != "none":
            refuse_on_several_runners(self.advice, self.num_env_runners)
        is_intense = self.updates_factor > 1 or "training_intensity" in self.hyperparameters
        if self.num_env_runners and self.algorithm == "dqn" and self.rollout == "stock" and is_intense:
            raise ValueError(
                f"updates_factor and hyperparameters.training_intensity of a stock dqn with num_env_runners = "
                f"{self.num_env_runners} would be counted with an EnvRunner more: set num_env_runners to 0, or "
                "rollout: lean"
            )
        taken = _RUNNER_FIELDS & self.hyperparameters.keys()
        if taken:
            raise ValueError(
                f"hyperparameters.{min(taken)} follows from num_envs and num_env_runners: set these instead"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit_the_algorithm(self) -> StudentConfig:
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


def refuse_on_several_runners(advice: AdviceConfig, num_env_runners: int) -> None:
    """Refuse what only one EnvRunner can do.

    Raises:
        UserError: A use whose explorer keeps to itself what it learns of its own episodes, or a stand-in that acts.
    """
    use = make_use(advice.named_use, advice.use_options)
    if use.acts and advice.has_stand_in:
        others = uses_where(lambda other: not (other.acts or other.has_own_explorer()) and "stand_in" in other.reads())
        raise UserError(
            f"advice.stand_in = '{advice.stand_in}' with advice.use = '{advice.named_use}' and num_env_runners = "
            f"{num_env_runners}: several explorers would each have their own. Set num_env_runners to 0, or advice.use "
            f"to {others}."
        )
    if use.has_own_explorer():
        raise UserError(
            f"advice.use = '{advice.named_use}' with num_env_runners = {num_env_runners}: its explorer shares nothing "
            "with those of other EnvRunners. Set num_env_runners to 0, or advice.use to another."
        )


def refuse_on_stock(advice: AdviceConfig) -> None:
    """Refuse what ``rollout: stock`` would do otherwise than ``rollout: lean``.

    Raises:
        UserError: A use in which the tutor does not act, which learns beside the lean rollout; earned trust: RLlib's
            EnvRunner does not know the advantages that it compares.
    """
    if not make_use(advice.named_use, advice.use_options).on_stock:
        raise UserError(
            f"advice.use = '{advice.named_use}' learns beside the lean rollout: "
            "set advice.use to 'coin' and advice.trust to 'fixed', or rollout: lean."
        )
    if advice.has_stand_in:
        raise UserError(
            f"advice.stand_in = '{advice.stand_in}' works in the lean rollout: leave it out, or set rollout: lean."
        )
    if advice.trust != "fixed":
        raise UserError(
            f"advice.trust = '{advice.trust}' compares advantages, which RLlib's own EnvRunner does not have: "
            "set advice.trust to 'fixed', or rollout: lean."
        )
