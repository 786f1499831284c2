"""Look up every name that a sweep uses and lay out its trials, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllib_plugins.algorithms.registry import ALGORITHMS
from rllib_plugins.tasks import Task, load_task, task_names
from rllib_plugins.tutors import check_recorded, check_tutor
from tune_sweeps.definition.config import CLONING, CONTROLS, UNTUTORED, Match, SweepConfig
from tune_sweeps.definition.grid import Entries, Trial, grid
from tutor_service.client import service_url
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, unknown_name
from tutor_service.tutor_files import is_tutor_file

ORACLES = ("oracle", "worst")
"""Reference tutors that play by the task's oracle."""


@dataclass(frozen=True)
class ResolvedSweep:
    """A sweep with everything looked up.

    Attributes:
        config: The sweep as it was written.
        trials: Its trials, in the order of their start.
        tasks: The tasks by name.
        tutors: The tutors that are an LLM or its recorded answers, by name; no references.
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
            tutor.scaling.num_cpus * tutor.scaling.num_started
            for tutor in self.tutors.values()
            if tutor.backend == "vllm"
        )

    @property
    def num_env_runners(self) -> int:
        """EnvRunners of the trials that have most."""
        return max(trial.student.num_env_runners for trial in self.trials)

    @property
    def trial_cpus(self) -> float:
        """Ray CPUs of one of these trials: its own, and one for each EnvRunner."""
        return self.config.resources.num_cpus_per_trial + self.num_env_runners


def resolve(config: SweepConfig) -> ResolvedSweep:
    """Look up tasks and tutors and lay out the trials.

    Args:
        config: The sweep. In every other field than the axes a task may be meant by its short name or by
            ``module:Class``, a tutor by its short name or as it is listed.

    Raises:
        UserError: A name that does not exist, a tutor that cannot advise on a task, a grid of no or of too many
            trials, or a field that a student refuses. Nothing has been started.
    """
    configs = {entry: check_tutor(entry) for entry in config.tutored}
    tutor_names = {entry: _tutor_name(entry, found) for entry, found in configs.items()}
    for entry, name in tutor_names.items():
        if name in CONTROLS:
            raise UserError(f"tutors: '{entry}' is named '{name}', as a control is. Give it another name.")
    tasks = {entry: _load(entry, config.task_options) for entry in config.tasks}
    places = {place: task.name for entry, task in tasks.items() for place in (entry, _place(task))}
    canonical = _canonical(config, places, tutor_names)
    by_name = {task.name: task for task in tasks.values()}
    _check_names(canonical, by_name, tutor_names.values())
    entries = Entries(
        tutors=_by_name("tutor", config.tutored, tutor_names.__getitem__),
        tasks=_by_name("task", config.tasks, lambda entry: tasks[entry].name),
    )
    trials = grid(canonical, {name: task.num_env_steps for name, task in by_name.items()}, entries)
    for cell in {trial.cell for trial in trials}:
        if cell.asks in ORACLES and not by_name[cell.task].has_oracle:
            raise UserError(
                f"tutor '{cell.asks}' cannot serve task '{cell.task}': the task has no oracle. Leave the pair out "
                f"(exclude: [{{tutor: {cell.tutor}, task: {cell.task}}}])."
            )
    if config.convergence.scale == "oracle":
        missing = [name for name, task in by_name.items() if not task.has_oracle]
        if missing:
            raise UserError(f"convergence.scale = 'oracle': {', '.join(missing)} has no oracle. Use scale: task.")
    used = {trial.cell.asks for trial in trials}
    by_tutor = {
        tutor_names[entry]: found
        for entry, found in configs.items()
        if found is not None and tutor_names[entry] in used
    }
    for tutor, task in sorted({(trial.cell.asks, trial.cell.task) for trial in trials}):
        if tutor in by_tutor:
            check_recorded(by_tutor[tutor], by_name[task])
    for made in by_name.values():
        made.close()  # a simulator that was tried here must not be in the way of the trials'
    return ResolvedSweep(
        config=config,
        trials=trials,
        tasks=by_name,
        tutors=by_tutor,
    )


def _place(task: Task) -> str:
    """Return a task's class as ``module:Class``, which it may be named by whatever it is listed as."""
    return f"{type(task).__module__}:{type(task).__qualname__}"


def _load(entry: str, options: Mapping[str, dict[str, Any]]) -> Task:
    """Make a task with its options, which are found by its entry, its name or its class's place."""
    task = load_task(entry, **options.get(entry, {}))
    named = next((name for name in (task.name, _place(task)) if name in options and entry not in options), None)
    return task if named is None else load_task(entry, **options[named])


def _tutor_name(entry: str, found: TutorConfig | None) -> str:
    if found is not None:
        return found.name
    return Path(entry).stem if is_tutor_file(entry) else entry


def _by_name(kind: str, entries: Iterable[str], name: Callable[[str], str]) -> dict[str, str]:
    """Index an axis by short names; files by their whole paths, since trials have other working directories."""
    found: dict[str, str] = {}
    for entry in entries:
        if name(entry) in found:
            raise UserError(
                f"{kind}s: '{found[name(entry)]}' and '{entry}' are both named '{name(entry)}'. Rename one of them."
            )
        found[name(entry)] = str(Path(entry).expanduser().resolve()) if is_tutor_file(entry) else entry
    return found


def _canonical(config: SweepConfig, tasks: Mapping[str, str], tutors: Mapping[str, str]) -> SweepConfig:
    """Write the short names of tasks and tutors wherever the sweep uses their entries."""
    names = {"task": tasks, "tutor": tutors}

    def renamed(match: Match) -> Match:
        wanted = {
            axis: [names.get(axis, {}).get(value, value) for value in values] for axis, values in match.wanted.items()
        }
        return Match(**wanted)

    changes: dict[str, Any] = {
        "exclude": [renamed(match) for match in config.exclude],
        "overrides": [override.model_copy(update={"match": renamed(override.match)}) for override in config.overrides],
        "extensions": [
            added.model_copy(update={"cells": added.cells and [renamed(match) for match in added.cells]})
            for added in config.extensions
        ],
        "task_options": _rekeyed("task_options", config.task_options, tasks),
    }
    if isinstance(config.num_env_steps, dict):
        changes["num_env_steps"] = _rekeyed("num_env_steps", config.num_env_steps, tasks)
    return config.model_copy(update=changes)


def _rekeyed(field: str, values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if names.get(key, key) in found:
            raise UserError(f"{field}: '{key}' and '{names.get(key, key)}' are the same task. Give one of them.")
        found[names.get(key, key)] = value
    return found


def _check_names(config: SweepConfig, tasks: Mapping[str, Task], tutors: Iterable[str]) -> None:
    """Refuse what is said about a task, an algorithm or a tutor that is none of this sweep's."""
    steps = config.num_env_steps if isinstance(config.num_env_steps, dict) else {}
    for field, keys, known in (
        ("num_env_steps", steps, tasks),
        ("task_options", config.task_options, tasks),
        ("hyperparameters", config.hyperparameters, ALGORITHMS),
    ):
        for key in keys:
            if key not in known:
                raise unknown_name(f"key of {field}", key, known)
    names = list(tutors)
    valid: dict[str, list[Any]] = {
        "algorithm": list(ALGORITHMS),
        "task": [*tasks, *(name for name in task_names() if name not in tasks)],
        "tutor": [*names, UNTUTORED, *config.controls, *(f"{CLONING}:{name}" for name in names)],
        "reuse": [True, False],
    }
    for match in [*config.exclude, *(override.match for override in config.overrides)]:
        for axis, values in match.wanted.items():
            for value in values:
                if value not in valid[axis]:
                    raise unknown_name(axis, str(value), [str(known) for known in valid[axis]], "in a match")
