"""Which cells and trials a sweep consists of: pure functions of its configuration. Knows neither Ray nor MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rllib_plugins.config import StudentConfig
from tune_sweeps.definition.config import MAX_TRIALS, UNTUTORED, Match, SweepConfig
from tune_sweeps.definition.loading import problems
from tutor_service.errors import UserError

REUSE_WORDS = {True: "reuse", False: "no reuse", None: "–"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the axes; its trials differ in the seed alone.

    Attributes:
        algorithm: Student algorithm.
        tutor: The tutor's short name; ``none`` for the untutored baseline.
        task: The task's name.
        reuse: Whether advice is reused; None for a baseline.
    """

    algorithm: str
    tutor: str
    task: str
    reuse: bool | None

    @property
    def tutored(self) -> bool:
        """False for a baseline."""
        return self.tutor != UNTUTORED

    @property
    def label(self) -> str:
        """For a person: ``ppo · smollm2 · blackjack · reuse``."""
        parts = [self.algorithm, self.tutor if self.tutored else "untutored", self.task]
        return " · ".join(parts + ([REUSE_WORDS[self.reuse]] if self.tutored else []))


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run of the grid.

    Attributes:
        cell: Its combination of the axes.
        seed: Its seed.
        student: Everything that its result depends on.
    """

    cell: Cell
    seed: int
    student: StudentConfig

    @property
    def label(self) -> str:
        """For a person: ``ppo · smollm2 · blackjack · reuse · seed 0``."""
        return f"{self.cell.label} · seed {self.seed}"

    @property
    def key(self) -> str:
        """Identifies the trial within its sweep and is a file name: ``ppo-smollm2-blackjack-reuse-s0``."""
        reuse = {True: "-reuse", False: "-noreuse", None: ""}[self.cell.reuse]
        text = f"{self.cell.algorithm}-{self.cell.tutor}-{self.cell.task}{reuse}-s{self.seed}"
        return re.sub(r"[^A-Za-z0-9._+-]", "_", text)


def cells(
    config: SweepConfig, tutor_name: Callable[[str], str] = str, task_name: Callable[[str], str] = str
) -> list[Cell]:
    """The cells of a sweep: baselines first, since every comparison needs them.

    Args:
        config: The sweep.
        tutor_name: From an entry of the tutor axis (a name or a path) to the tutor's short name.
        task_name: From an entry of the task axis (a name or module:object) to the task's short name.
    """
    tasks = [task_name(task) for task in config.tasks]
    tutored = [
        Cell(algorithm, tutor_name(tutor), task, reuse)
        for task in tasks
        for algorithm in config.algorithms
        for tutor in config.tutored
        for reuse in config.reuse
    ]
    untutored = [
        Cell(algorithm, UNTUTORED, task, None) for task in tasks for algorithm in config.algorithms if config.baselines
    ]
    return [cell for cell in untutored + tutored if not any(matches(match, cell) for match in config.exclude)]


def grid(
    config: SweepConfig,
    default_steps: Mapping[str, int],
    tutor_name: Callable[[str], str] = str,
    task_name: Callable[[str], str] = str,
) -> list[Trial]:
    """All trials of a sweep, in the order in which they are started.

    Args:
        config: The sweep.
        default_steps: By task's short name, the env steps of a trial where the sweep does not say.
        tutor_name: From an entry of the tutor axis (a name or a path) to the tutor's short name.
        task_name: From an entry of the task axis (a name or module:object) to the task's short name.

    Raises:
        UserError: No trial, more than 10,000, two tutors or tasks of one name, or a field that a student refuses.
    """
    tutors = _by_name("tutor", config.tutored, tutor_name)
    tasks = _by_name("task", config.tasks, task_name)
    chosen = cells(config, tutor_name, task_name)
    count = len(chosen) * len(config.seeds)
    if not 1 <= count <= MAX_TRIALS:
        raise UserError(
            f"the grid has {count:,} trials ({len(chosen):,} cells × {len(config.seeds):,} seeds); it must have 1 to "
            f"{MAX_TRIALS:,}. Check the axes and exclusions."
        )
    students = [
        _student(config, cell, tasks[cell.task], tutors.get(cell.tutor, UNTUTORED), default_steps[cell.task])
        for cell in chosen
    ]
    trials = [
        Trial(cell, seed, student.model_copy(update={"seed": seed}))
        for seed in config.seeds
        for cell, student in zip(chosen, students, strict=True)
    ]
    keys = [trial.key for trial in trials]
    if len(set(keys)) < count:
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(
            f"two trials have the key '{twice}': give tutors and tasks names that differ in more than signs."
        )
    return trials


def matches(match: Match, cell: Cell) -> bool:
    """Whether a cell is selected."""
    return all(
        wanted is None or getattr(cell, axis) in wanted
        for axis, wanted in ((name, getattr(match, name)) for name in Match.model_fields)
    )


def _by_name(kind: str, entries: Sequence[str], name: Callable[[str], str]) -> dict[str, str]:
    """From short names to the entries of an axis."""
    found: dict[str, str] = {}
    for entry in entries:
        if found.setdefault(name(entry), entry) != entry:
            raise UserError(
                f"{kind}s: '{found[name(entry)]}' and '{entry}' are both named '{name(entry)}'. Rename one of them."
            )
    return found


def _student(config: SweepConfig, cell: Cell, task: str, tutor: str, default_steps: int) -> StudentConfig:
    steps = config.num_env_steps
    if not isinstance(steps, int):
        steps = (steps or {}).get(task, default_steps)
    fields: dict[str, Any] = {
        "algorithm": cell.algorithm,
        "task": task,
        "task_options": dict(config.task_options.get(task, {})),
        "tutor": tutor,
        "num_env_steps": steps,
        "num_envs": config.num_envs,
        "eval_interval_steps": config.evaluation.interval_steps,
        "eval_episodes": config.evaluation.episodes,
        "rollout": config.rollout,
        "hyperparameters": dict(config.hyperparameters.get(cell.algorithm, {})),
        "advice": config.advice.model_dump(exclude_defaults=True),
    }
    if cell.reuse is False:
        fields["advice"] |= {"reuse": "off", "reuse_options": {}}
    elif cell.reuse and config.advice.reuse == "off":
        raise UserError("reuse: lists on, but advice.reuse = 'off' names no rule. Set advice.reuse to budget or decay.")
    for override in config.overrides:
        if matches(override.match, cell):
            for key, value in override.set.items():
                _set(fields, key, value)
    try:
        return StudentConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"cell {cell.label}: {'; '.join(problems(error, StudentConfig))}") from error


def _set(fields: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = fields.get(part)
        fields[part] = dict(inner) if isinstance(inner, Mapping) else {}
        fields = fields[part]
    fields[last] = value
