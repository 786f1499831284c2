"""Looks up every name that a sweep uses, and what the trials follow from them, before anything starts.

Owns what can be known to be wrong without Ray and MLflow. Must not know how a sweep is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllib_plugins.advising.advisors import check_recorded, check_tutor
from rllib_plugins.config import ALGORITHMS
from rllib_plugins.tasks import Task, load_task, task_names
from tune_sweeps.definition.config import UNTUTORED, SweepConfig
from tune_sweeps.definition.grid import Trial, grid
from tutor_service.client import service_url
from tutor_service.config import TutorConfig, is_tutor_file
from tutor_service.errors import UserError, unknown_name


@dataclass(frozen=True)
class ResolvedSweep:
    """A sweep with everything looked up.

    Attributes:
        config: The sweep.
        trials: Its trials, in the order of their start.
        tasks: The tasks by their short names.
        tutors: The tutors that are an LLM or its recorded answers, by their short names; no references.
    """

    config: SweepConfig
    trials: list[Trial]
    tasks: dict[str, Task]
    tutors: dict[str, TutorConfig]

    @property
    def tutor_cpus(self) -> float:
        """Ray CPUs that the tutors' replicas take at least; none where a remote service has them."""
        if service_url():
            return 0.0
        return sum(
            tutor.scaling.num_cpus * max(1, tutor.scaling.min_replicas)
            for tutor in self.tutors.values()
            if tutor.backend == "vllm"
        )


def resolve(config: SweepConfig) -> ResolvedSweep:
    """Looks up tasks and tutors and lays out the trials.

    Args:
        config: The sweep.

    Raises:
        UserError: A name that does not exist, a tutor that cannot advise on a task, a grid of no or of too many
            trials, or a field that a student refuses. Nothing has been started.
    """
    tasks = {entry: load_task(entry, **config.task_options.get(entry, {})) for entry in config.tasks}
    configs = {entry: check_tutor(entry) for entry in config.tutored}
    names = {entry: _tutor_name(entry, found) for entry, found in configs.items()}
    _check_keys(config, tasks, names.values())
    trials = grid(
        config.model_copy(update={"tutors": [_absolute(entry) for entry in config.tutors]}),
        {task.name: task.num_env_steps for task in tasks.values()},
        {_absolute(entry): name for entry, name in names.items()}.__getitem__,
        lambda entry: tasks[entry].name,
    )
    by_name = {task.name: task for task in tasks.values()}
    for trial in trials:
        if trial.cell.tutor in ORACLES and not has_oracle(by_name[trial.cell.task]):
            raise UserError(
                f"tutor '{trial.cell.tutor}' cannot serve task '{trial.cell.task}': the task has no oracle. Leave the "
                f"pair out (exclude: [{{tutor: {trial.cell.tutor}, task: {trial.cell.task}}}])."
            )
    used = {trial.cell.tutor for trial in trials}
    by_tutor = {names[entry]: found for entry, found in configs.items() if found is not None and names[entry] in used}
    for tutor, task in sorted({(trial.cell.tutor, trial.cell.task) for trial in trials}):
        if tutor in by_tutor:
            check_recorded(by_tutor[tutor], by_name[task])
    return ResolvedSweep(
        config=config,
        trials=trials,
        tasks=by_name,
        tutors=by_tutor,
    )


ORACLES = ("oracle", "worst")
"""Reference tutors that play by the task's oracle."""


def has_oracle(task: Task) -> bool:
    """Whether a task comes with a player to compare with."""
    return type(task).oracle is not Task.oracle or type(task).oracle_batch is not Task.oracle_batch


def _tutor_name(entry: str, found: TutorConfig | None) -> str:
    if found is not None:
        return found.name
    return Path(entry).stem if is_tutor_file(entry) else entry


def _absolute(entry: str) -> str:
    """A tutor's file by its whole path: trials have other working directories."""
    return str(Path(entry).expanduser().resolve()) if is_tutor_file(entry) else entry


def _check_keys(config: SweepConfig, tasks: Mapping[str, Task], tutors: Iterable[str]) -> None:
    """Whether all that is said about a task, an algorithm or a tutor is about one of this sweep."""
    steps = config.num_env_steps if isinstance(config.num_env_steps, dict) else {}
    for field, keys, known in (
        ("num_env_steps", steps, tasks),
        ("task_options", config.task_options, tasks),
        ("hyperparameters", config.hyperparameters, ALGORITHMS),
    ):
        for key in keys:
            if key not in known:
                raise unknown_name(f"key of {field}", key, known)
    valid: dict[str, list[Any]] = {
        "algorithm": list(ALGORITHMS),
        "task": [*(task.name for task in tasks.values()), *task_names()],
        "tutor": [*tutors, UNTUTORED],
    }
    for match in [*config.exclude, *(override.match for override in config.overrides)]:
        for axis, known_values in valid.items():
            for value in getattr(match, axis) or ():
                if value not in known_values:
                    raise unknown_name(axis, value, known_values, "in a match")
