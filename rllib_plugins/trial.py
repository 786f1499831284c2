"""Run one trial: train a student to a fixed grid of evaluation points, as a Tune trainable or in this process."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from rllib_plugins import metrics
from rllib_plugins.algorithms.registry import make_config
from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import evaluate
from rllib_plugins.evaluation_plan import evaluation_wish, plan_evaluation
from rllib_plugins.hyperparameters import default_hyperparameters
from rllib_plugins.seeds import EVALUATION, derive_seed
from tutor_service.errors import UserError, unknown_name
from tutor_service.local_ray import start_local_ray

_CHECKPOINT = "trial.pkl"
_EVALUATION_ENVS = 8
_OBJECT_STORE_BYTES = 80 * 2**20

_ANY_NUMBER = (-math.inf, math.inf)
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("lr", "entropy_coeff", "vf_loss_coeff", "kl_coeff", "clip_param", "vf_clip_param"), (0, math.inf)),
    **dict.fromkeys(
        ("grad_clip", "num_steps_sampled_before_learning_starts", "target_network_update_freq"), (0, math.inf)
    ),
    **dict.fromkeys(("gamma", "lambda_", "tau"), (0, 1)),
    **dict.fromkeys(("train_batch_size_per_learner", "minibatch_size", "num_epochs", "n_step"), (1, math.inf)),
}
"""Least and greatest value of the hyperparameters that RLlib takes as they come."""

_ALWAYS_SET = _RANGES.keys() - {"grad_clip"}
"""Those of them that cannot be left out by giving nothing."""


def build_algorithm(config: StudentConfig) -> Any:
    """Build the RLlib algorithm of a trial; Ray must be running.

    Args:
        config: The trial.

    Raises:
        UserError: An unknown hyperparameter, task or tutor, or a value out of range.
    """
    algorithm = algorithm_config(config)
    _use_one_thread()
    return algorithm.build_algo()


def _use_one_thread() -> None:
    """Keep to one thread: networks this small lose by a second, and trials share the machine's cores."""
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1, user_api="blas")


def algorithm_config(config: StudentConfig) -> Any:
    """Return the RLlib config of a trial.

    Args:
        config: The trial.

    Raises:
        UserError: An unknown hyperparameter.
    """
    algorithm = make_config(config.algorithm)
    algorithm.debugging(seed=config.seed, log_level="ERROR")
    algorithm.env_runners(num_envs_per_env_runner=config.num_envs)
    apply_hyperparameters(algorithm, default_hyperparameters(config.algorithm, config.task) | config.hyperparameters)
    if config.updates_factor > 1:
        algorithm.more_updates(config.updates_factor)
    if config.num_env_runners:
        algorithm.env_runners(
            num_env_runners=config.num_env_runners, num_envs_per_env_runner=config.num_envs // config.num_env_runners
        )
    return algorithm.tutoring(
        task=config.task,
        task_options=config.task_options,
        tutor=config.tutor,
        advice=config.advice,
        theta_steps=config.theta_steps,
        rollout=config.rollout,
    )


def apply_hyperparameters(algorithm: Any, hyperparameters: dict[str, Any]) -> None:
    """Set fields of an RLlib config by name.

    Args:
        algorithm: The config.
        hyperparameters: By RLlib's names: fields of the config, and ``model_config`` as a dict of its fields.

    Raises:
        UserError: A name that the config does not have, a text where it has a number, or a number out of range.
    """
    for name, value in hyperparameters.items():
        if name == "model_config":
            known = algorithm.model_config
            for key in value:
                if key not in known:
                    raise unknown_name("hyperparameter model_config", key, known)
                if isinstance(value[key], str) and isinstance(known[key], int | float | list | tuple):
                    raise UserError(f"hyperparameter model_config.{key} = '{value[key]}': it is e.g. {known[key]}.")
            algorithm.rl_module(model_config=known | value)
        elif name.startswith("_") or not hasattr(algorithm, name) or callable(getattr(algorithm, name)):
            names = [n for n in vars(algorithm) if not n.startswith("_")]
            raise unknown_name("hyperparameter", name, names)
        elif name == "replay_buffer_config":
            algorithm.replay_buffer_config = algorithm.replay_buffer_config | value
        elif _is_no_number(value, getattr(algorithm, name), may_be_off=name not in _ALWAYS_SET):
            raise UserError(f"hyperparameter {name} = {value!r}: it is a number, e.g. {getattr(algorithm, name)}.")
        elif isinstance(value, int | float) and (wanted := _number_wanted(name, value)):
            raise UserError(f"hyperparameter {name} = {value}: give {wanted}, e.g. {getattr(algorithm, name)}.")
        else:
            setattr(algorithm, name, value)


def _is_no_number(value: Any, present: Any, may_be_off: bool) -> bool:
    """Return whether a text, a flag or nothing is given where a number is; a schedule may be in its place."""
    if isinstance(present, bool) or not isinstance(present, int | float):
        return False
    return isinstance(value, str | bool) or (value is None and not may_be_off)


def _number_wanted(name: str, value: float) -> str:
    """Return what to give in place of a number out of range; empty where it is in range."""
    low, high = _RANGES.get(name, _ANY_NUMBER)
    if math.isfinite(value) and low <= value <= high:
        return ""
    if not math.isfinite(low):
        return "a finite number"
    return f"a number from {low} to {high}" if math.isfinite(high) else f"a number of at least {low}"


class StudentTrial(Trainable):
    """A trial as Tune sees it: each ``step`` trains to the next evaluation point (the first does not) and evaluates.

    Its config is a ``StudentConfig`` as a dict. Same config and same store: same metrics, also when it was stopped and
    restored in between, or runs in an actor that ran another trial before.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the student.

        Args:
            config: Fields of ``StudentConfig``.
        """
        self.student = StudentConfig.model_validate(config)
        self.algorithm = build_algorithm(self.student)
        self.plan = plan_evaluation(self.algorithm.task, evaluation_wish(self.student))
        self._next_point = 0
        self._return_mean = math.nan
        self._training_s = self._evaluation_s = 0.0

    def step(self) -> dict[str, Any]:
        """Train to the next evaluation point, evaluate the greedy student with the tutor off, and report.

        Returns:
            The numbers of ``rllib_plugins.metrics``, and ``done``.
        """
        student, algorithm = self.student, self.algorithm
        started, before = time.perf_counter(), algorithm.num_env_steps
        algorithm.train_to(self._next_point)
        elapsed, sampled = time.perf_counter() - started, algorithm.num_env_steps - before
        recent = algorithm.return_mean()
        self._return_mean = self._return_mean if math.isnan(recent) else recent
        evaluation = evaluate(
            algorithm.task,
            algorithm.greedy_policy,
            episodes=self.plan.episodes,
            seed=derive_seed(student.seed, EVALUATION, self._next_point),
            num_envs=min(_EVALUATION_ENVS, student.num_envs),
        )
        self._training_s += elapsed
        self._evaluation_s += time.perf_counter() - started - elapsed
        result: dict[str, Any] = {
            metrics.STEP_AXIS: algorithm.num_env_steps,
            "return_mean": self._return_mean,
            "eval/return_mean": evaluation.return_mean,
            "eval/return_std": evaluation.return_std,
            "eval/time_share": self._evaluation_s / (self._training_s + self._evaluation_s),
            "env_steps_per_s": sampled / elapsed if sampled else math.nan,
            **algorithm.advice_counters(),
            **dict.fromkeys(metrics.STAND_IN_GAUGES, math.nan),
            **algorithm.advice_gauges(),
            "updates": algorithm.learner.num_updates,
            "done": self._next_point >= student.num_env_steps,
        }
        self._next_point = min(self._next_point + self.plan.interval_steps, student.num_env_steps)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write RLlib's checkpoint of the algorithm, and where the trial is.

        Args:
            checkpoint_dir: An existing folder.
        """
        self.algorithm.save_to_path(Path(checkpoint_dir).absolute() / "algorithm")
        state = {
            "next_point": self._next_point,
            "return_mean": self._return_mean,
            "seconds": (self._training_s, self._evaluation_s),
        }
        (Path(checkpoint_dir) / _CHECKPOINT).write_bytes(pickle.dumps(state))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Go on where ``save_checkpoint`` was called.

        Args:
            checkpoint_dir: The folder that it wrote.

        Raises:
            UserError: The folder holds no checkpoint of a trial.
        """
        path = Path(checkpoint_dir) / _CHECKPOINT
        if not path.exists():
            raise UserError(f"{checkpoint_dir} holds no checkpoint of a trial: {_CHECKPOINT} is missing")
        self.algorithm.restore_from_path(Path(checkpoint_dir).absolute() / "algorithm")
        state = pickle.loads(path.read_bytes())
        self._next_point, self._return_mean = state["next_point"], state["return_mean"]
        self._training_s, self._evaluation_s = state["seconds"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial into this actor: everything heavy is imported already."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Stop the algorithm and close the environments."""
        self.algorithm.stop()
        self.algorithm.task.close()

    def _setup_logdir(self) -> None:
        if self._storage is not None:
            super()._setup_logdir()


def train(config: StudentConfig, on_result: Callable[[dict[str, Any]], None] | None = None) -> list[dict[str, Any]]:
    """Run one trial in this process.

    RLlib needs a Ray instance to build an algorithm: one that is running is used, else a minimal local one is started
    and left for the next call.

    Args:
        config: The trial.
        on_result: Called with each result.

    Returns:
        The results, one per evaluation point.

    Raises:
        UserError: A running Ray has too few CPUs for the trial's EnvRunners.
    """
    ensure_ray(max(1, config.num_env_runners))
    _check_cpus(config.num_env_runners)
    trial = StudentTrial(config=config.model_dump())
    results: list[dict[str, Any]] = []
    try:
        while not results or not results[-1]["done"]:
            results.append(trial.step())
            if on_result is not None:
                on_result(results[-1])
    finally:
        trial.cleanup()
    return results


def _check_cpus(num_env_runners: int) -> None:
    """Refuse EnvRunners that would wait for CPUs for ever.

    Raises:
        UserError: The Ray that runs has too few.
    """
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 0)) if num_env_runners else 0
    if num_env_runners > cpus:
        raise UserError(
            f"num_env_runners = {num_env_runners}: each takes a CPU, and the Ray that is running has {cpus}. Lower it, "
            "or start Ray with more."
        )


def ensure_ray(num_cpus: int = 1) -> None:
    """Start a minimal local Ray instance, on the loopback interface and without dashboard, if none is running.

    Args:
        num_cpus: CPUs that it announces.
    """
    import ray

    if not ray.is_initialized():
        start_local_ray(num_cpus, object_store_memory=_OBJECT_STORE_BYTES)
