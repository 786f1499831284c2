"""What all three algorithm configs share: task, tutor, advice and the rollout."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from ray.tune.registry import register_env

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.config import refuse_on_several_runners, refuse_on_stock
from rllib_plugins.connectors import add_tutor
from rllib_plugins.rollout.env_runner import ArrayEnvRunner
from rllib_plugins.rollout.gathering import OrderedEnvRunner
from rllib_plugins.seeds import RUNNERS, derive_seed
from rllib_plugins.tasks import load_task
from tutor_service.errors import UserError

TASK_ENV = "llm-tutors-task"
"""The name of a task's single environment in Tune's registry."""


def _make_env(env_config: Any) -> Any:
    seed, runner = env_config["seed"], env_config.worker_index
    stream = derive_seed(seed, RUNNERS, runner) if runner else seed  # RLlib's own seeds of two runners overlap
    return load_task(env_config["task"], **env_config["task_options"]).make(stream=stream)


def _no_advisor(task: Any) -> None:
    return None


class TutoredConfig:
    """Add a task and a tutor to ``AlgorithmConfig``. Call ``tutoring`` last: it reads seed, γ and environments.

    Attributes:
        task: Name of the task.
        task_options: Keyword arguments of the task.
        tutor: Name of the tutor, or none.
        advice: How advice is asked for and used.
        theta_steps: θ in env steps.
        rollout: lean or stock.
        value_based: Whether the student explores by Q-values.
        is_proximal: Whether an update stays near the policy that sampled, as PPO's does.
    """

    value_based = False
    is_proximal = False

    task: str
    task_options: dict[str, Any]
    tutor: str
    advice: AdviceConfig
    theta_steps: float
    rollout: str

    def _set_tutoring_defaults(self) -> None:
        self.task, self.task_options = "", {}
        self.tutor, self.advice, self.theta_steps = "none", AdviceConfig(), 20_000.0
        self.rollout = "lean"

    def tutoring(
        self,
        *,
        task: str,
        task_options: dict[str, Any] | None = None,
        tutor: str = "none",
        advice: AdviceConfig | None = None,
        theta_steps: float = 20_000.0,
        rollout: str = "lean",
    ) -> Self:
        """Set the task and how the student is tutored in it.

        Args:
            task: Task by name, or as ``module:object``.
            task_options: Keyword arguments of the task.
            tutor: Tutor by name, or ``none``.
            advice: When to ask and how to use advice; default: ``AdviceConfig()``.
            theta_steps: θ, the env steps over which the consultation probability falls.
            rollout: ``lean``: arrays. ``stock``: RLlib's own EnvRunner with the tutor as connectors.
        """
        self.task, self.task_options = task, dict(task_options or {})
        self.tutor, self.advice, self.theta_steps = tutor, advice or AdviceConfig(), float(theta_steps)
        self.rollout = rollout
        register_env(TASK_ENV, _make_env)
        env_config = {"task": task, "task_options": self.task_options, "seed": self.seed or 0}  # type: ignore[attr-defined]
        self.environment(TASK_ENV, env_config=env_config)  # type: ignore[attr-defined]
        if rollout == "lean":
            self._use_arrays()
        else:
            self._use_connectors()
        return self

    def more_updates(self, factor: float) -> None:
        """Have the student take so many times as many gradient steps per env step; call it before ``tutoring``."""
        raise NotImplementedError

    def _use_arrays(self) -> None:
        """Sample into arrays: in this process, or in several that are gathered here, of which none may be lost."""
        config: Any = self
        if not config.num_env_runners:
            config.env_runners(env_runner_cls=ArrayEnvRunner)
            return
        config.env_runners(env_runner_cls=OrderedEnvRunner, create_local_env_runner=False)
        config.fault_tolerance(restart_failed_env_runners=False)

    @property
    def num_trial_envs(self) -> int:
        """Return the environments of all EnvRunners."""
        config: Any = self
        return int(config.num_envs_per_env_runner) * max(1, int(config.num_env_runners))

    def _use_connectors(self) -> None:
        """Put the tutor into RLlib's own EnvRunner; untutored, the pieces only keep a task's illegal actions out."""
        config: Any = self
        task = load_task(self.task, **self.task_options)
        has_masks = task.legal_batch(np.zeros((1, *task.observation_space.shape), np.float32)) is not None
        add_tutor(
            config,
            task=self.task,
            task_options=self.task_options,
            tutor=self.tutor,
            advice=self.advice,
            theta_steps=self.theta_steps,
            make_advisor=_no_advisor if has_masks and self.tutor == "none" else None,
        )

    def _validate_tutoring(self) -> None:
        """Refuse what the students cannot do, before anything is built.

        Raises:
            UserError: No task, a distributed learner, a multi-agent config, or EnvRunners that were added too late.
        """
        config: Any = self
        if config.in_evaluation:
            return
        if not self.task:
            raise UserError("task is not set: call tutoring(task=...) before build_algo()")
        if config.is_multi_agent:
            raise UserError("multi-agent configs are not supported: a tutor advises one student")
        if config.num_learners:
            raise UserError(f"num_learners={config.num_learners}: a student learns in its trial's process; set it to 0")
        if self.rollout == "lean" and (config.env_runner_cls is OrderedEnvRunner) != bool(config.num_env_runners):
            raise UserError(
                f"num_env_runners={config.num_env_runners} was set after tutoring(...), which reads it: set it before"
            )
        if config.num_env_runners and self.tutor != "none":
            refuse_on_several_runners(self.advice, config.num_env_runners)
        if self.rollout == "stock" and self.tutor != "none":
            refuse_on_stock(self.advice)
