"""The training loop over arrays that all three algorithms share, as a mixin of RLlib's ``Algorithm``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.connectors.pieces import ConsultTutor
from rllib_plugins.policies import greedy
from rllib_plugins.rollout.env_runner import ArrayEnvRunner
from rllib_plugins.rollout.features import widen
from rllib_plugins.rollout.gathering import GatheredRollout
from rllib_plugins.rollout.network import ActorCriticView, QView
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.uses.base import Use, UseContext
from rllib_plugins.uses.options import make_use

_LEAN = "lean"


class LeanTraining:
    """Decide when to sample and when to update; put it before the RLlib algorithm and write ``after_sampling``."""

    config: Any
    env_runner: Any
    env_runner_group: Any
    learner_group: Any
    metrics: Any
    task: Task

    def setup(self, config: Any) -> None:
        """Build what RLlib builds, then let rollout and learner share one module."""
        self._target_steps: int | None = None
        self._stock_return_mean = math.nan
        self._gathered: GatheredRollout | None = None
        super().setup(config)  # type: ignore[misc]
        self.is_lean = self.config.rollout == "lean"
        self.learner = self.learner_group._learner
        module = self.learner.module[DEFAULT_MODULE_ID].unwrapped()
        if self.is_lean:
            if self.config.num_env_runners:
                self._gathered = GatheredRollout(self.config, self.env_runner_group)
                self._gathered.follow(self.learner.network.parameters)
            else:
                self.env_runner.bind(module)
            self.task = self.runner.task
            self.advice = self._make_use()
        else:
            self.task = load_task(self.config.task, **self.config.task_options)
            self.learner.imitation_at = lambda step: self.explorer.imitation(step)
        self._view = QView(module) if self.config.value_based else ActorCriticView(module)

    def _make_use(self) -> Use:
        context, advice = UseContext(self.config, self.runner, self.runner.advisor), self.config.advice
        return Use(context) if context.advisor is None else make_use(advice.named_use, advice.use_options).make(context)

    def _setup_logdir(self) -> None:
        """Make no folder where Tune gives none, since nothing is written to it.

        RLlib leaves an empty one per algorithm in ``~/ray_results``, and any other would outlive a killed trial.
        """
        if self._storage is not None:  # type: ignore[attr-defined]
            super()._setup_logdir()  # type: ignore[misc]

    @property
    def runner(self) -> ArrayEnvRunner | GatheredRollout:
        """Return the EnvRunner in this process, or what stands here for several in others."""
        runner: ArrayEnvRunner = self.env_runner
        return self._gathered or runner

    @property
    def num_env_steps(self) -> int:
        """Return the env steps sampled so far."""
        if self.is_lean:
            return self.runner.num_env_steps_sampled_lifetime
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def train_to(self, num_env_steps: int) -> None:
        """Train until so many env steps are sampled in all: exactly, up to the next full vector step, when lean.

        Args:
            num_env_steps: Env steps since the start of training.
        """
        while self.num_env_steps < num_env_steps:
            self._target_steps = num_env_steps
            try:
                result = self.train()  # type: ignore[attr-defined]
            finally:
                self._target_steps = None
            self._stock_return_mean = float(result[ENV_RUNNER_RESULTS].get(EPISODE_RETURN_MEAN, math.nan))

    def training_step(self) -> None:
        """Train to the target; without one, for a rollout and its update, or for the config's minimum of steps."""
        if not self.is_lean:
            super().training_step()  # type: ignore[misc]
            return
        runner, before = self.runner, self.num_env_steps
        at_least = max(runner.rollout.num_steps * runner.num_envs, self.config.min_sample_timesteps_per_iteration or 0)
        target = self._target_steps or 0
        if target <= before:
            target = before + at_least
        while self.num_env_steps < target:
            fragment = self.fragment_steps - runner.cursor % self.fragment_steps
            start, stop = runner.sample(min(fragment, math.ceil((target - self.num_env_steps) / runner.num_envs)))
            self.after_sampling(start, stop)
        self._log(self.num_env_steps - before)

    @property
    def fragment_steps(self) -> int:
        """Return the vector steps between updates; it divides the rollout's."""
        return self.runner.rollout.num_steps

    def after_sampling(self, start: int, stop: int) -> None:
        """Update, if it is time to, after vector steps ``start`` to ``stop`` of the rollout were written."""
        raise NotImplementedError

    # What a trial reports

    def greedy_policy(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the greedy student's policy, tutor off, ``(n, num_actions)`` for observations ``(n, obs_dim)``."""
        seen = widen(observations, self.runner.observation_space.shape[0]) if self.is_lean else observations
        return greedy(self._view.scores(seen), self.task.legal_batch(observations))

    def return_mean(self) -> float:
        """Return the mean return of the training episodes that ended since the last call; NaN where none did."""
        return self.runner.return_mean() if self.is_lean else self._stock_return_mean

    def advice_counters(self) -> dict[str, int]:
        """Return the numbers of ``metrics.COUNTERS``."""
        return self.advice.counters() if self.is_lean else self.explorer.counters()

    def advice_gauges(self) -> dict[str, float]:
        """Return those of ``metrics.GAUGES`` that are about advice."""
        return self.advice.gauges() if self.is_lean else self.explorer.gauges()

    @property
    def explorer(self) -> Explorer:
        """Return what decides the trial's exploring steps."""
        if self.is_lean:
            return self.runner.core
        for piece in self.env_runner._module_to_env.connectors:
            if isinstance(piece, ConsultTutor):
                return piece.core
        return Explorer(
            self.config.advice,
            num_actions=self.task.num_actions,
            theta_steps=self.config.theta_steps,
            advisor=None,
            seed=0,
            value_based=self.config.value_based,
        )

    def _log(self, num_new_steps: int) -> None:
        """Log once per iteration, so that the many small updates in it pay for no metrics."""
        self.runner.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, num_new_steps, reduce="lifetime_sum")
        self.metrics.aggregate([self.runner.get_metrics()], key=ENV_RUNNER_RESULTS)
        self.metrics.aggregate([self.learner.reduce_metrics()], key=LEARNER_RESULTS)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, and the learner's and buffer's own."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)  # type: ignore[misc]
        if self.is_lean:
            state[_LEAN] = self.get_lean_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        super().set_state(state)  # type: ignore[misc]
        if _LEAN in state:
            self.set_lean_state(state[_LEAN])

    def get_lean_state(self) -> dict[str, Any]:
        """Return what RLlib's own checkpoint of the learner leaves out."""
        state = {"learner": self.learner.get_lean_state(), "advice": self.advice.get_state()}
        return state if self._gathered is None else state | {"runners": self._gathered.get_state()}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_lean_state``."""
        self.learner.set_lean_state(state["learner"])
        self.advice.set_state(state["advice"])
        if self._gathered is not None:
            self._gathered.set_state(state["runners"])
        if self.runner.began_anew:
            self.advice.begin_episodes()
