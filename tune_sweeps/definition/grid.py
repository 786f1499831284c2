"""Lay out the cells and trials of a sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from rllib_plugins.config import StudentConfig
from rllib_plugins.uses.options import COIN_FIELDS, find_use, use_names
from tune_sweeps.definition.config import CLONING, CONTROLS, MAX_TRIALS, UNTUTORED, Extension, Match, SweepConfig
from tune_sweeps.definition.loading import set_nested
from tutor_service.errors import UserError, field_problems

REUSE_WORDS = {True: "reuse", False: "no reuse"}
NO_REUSE_WORD = "–"
"""Stands where there is nothing to say about reuse: nobody is asked, or the use of advice does not read it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the axes; its trials differ in the seed alone.

    Attributes:
        algorithm: Student algorithm.
        tutor: The tutor's short name; ``none`` for the untutored baseline, or the name of a control:
            ``more_updates``, ``cloning:oracle``.
        task: The task's name.
        reuse: Whether advice is reused; None without a tutor.
        use: What its students make of advice; None: untutored, or not known. No axis: two sweeps may differ in it.
    """

    algorithm: str
    tutor: str
    task: str
    reuse: bool | None
    use: str | None = field(default=None, compare=False)

    @property
    def tutored(self) -> bool:
        """False for a baseline and for a control."""
        return not self.baseline and self.control is None

    @property
    def control(self) -> str | None:
        """Which control it is; None for a baseline and for a tutored cell."""
        name = self.tutor.partition(":")[0]
        return name if name in CONTROLS else None

    @property
    def asks(self) -> str:
        """The short name of the tutor that its students ask; ``none`` where they ask nobody."""
        if self.control == CLONING:
            return self.tutor.partition(":")[2]
        return self.tutor if self.tutored else UNTUTORED

    @property
    def baseline(self) -> bool:
        """True for the untutored student that others are compared with."""
        return self.tutor == UNTUTORED

    @property
    def axes(self) -> dict[str, Any]:
        """The cell's value on each axis."""
        return {"algorithm": self.algorithm, "tutor": self.tutor, "task": self.task, "reuse": self.reuse}

    @property
    def arm(self) -> str:
        """The tutor's name, that it is cloned, or ``untutored`` and what differs from the baseline."""
        if self.tutored:
            return self.tutor
        if self.control == CLONING:
            return f"cloning of {self.asks}"
        return "untutored" if self.baseline else f"untutored, {self.tutor.replace('_', ' ')}"

    @property
    def reuse_word(self) -> str:
        """Whether advice is reused, for a person; ``NO_REUSE_WORD`` where the use of advice does not read that."""
        is_known = self.use in use_names()  # another is taken to read it
        if self.reuse is None or (is_known and "reuse" not in find_use(self.use or "").reads()):
            return NO_REUSE_WORD
        return REUSE_WORDS[self.reuse]

    @property
    def label(self) -> str:
        """The cell for a person: ``ppo · smollm2 · blackjack``, and ``reuse`` or ``no reuse`` where that is read."""
        return self.named(self.algorithm, self.arm, self.task)

    def named(self, *parts: str) -> str:
        """Join parts of its name, and whether advice is reused, for a person."""
        return " · ".join([*parts, *([] if self.reuse_word == NO_REUSE_WORD else [self.reuse_word])])


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
        """The trial for a person: ``ppo · smollm2 · blackjack · seed 0``."""
        return f"{self.cell.label} · seed {self.seed}"

    @property
    def key(self) -> str:
        """Its identity within the sweep, and a file name: ``ppo-smollm2-blackjack-reuse-s0``."""
        reuse = {True: "-reuse", False: "-noreuse", None: ""}[self.cell.reuse]
        text = f"{self.cell.algorithm}-{self.cell.tutor}-{self.cell.task}{reuse}-s{self.seed}"
        return re.sub(r"[^A-Za-z0-9._+-]", "_", text)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a sweep's axes by the short names that everything else goes by.

    Attributes:
        tutors: By name, a catalog name or the path of a file.
        tasks: By name, a registered name or module:object.
    """

    tutors: Mapping[str, str]
    tasks: Mapping[str, str]

    @staticmethod
    def of(config: SweepConfig) -> Entries:
        """Take every entry for a name."""
        return Entries({name: name for name in config.tutored}, {name: name for name in config.tasks})


def cells(config: SweepConfig, entries: Entries | None = None) -> list[Cell]:
    """List the cells of a sweep, baselines first; a tutor is cloned where it tutors.

    Args:
        config: The sweep; tasks and tutors in matches by their short names.
        entries: The axes; None: all entries are names.
    """
    found = entries or Entries.of(config)
    alone = [UNTUTORED] * config.baselines + [name for name in config.controls if name != CLONING]
    untutored = [
        Cell(algorithm, name, task, None)
        for task in found.tasks
        for algorithm in config.algorithms
        for name in alone + [f"{CLONING}:{tutor}" for tutor in found.tutors] * (CLONING in config.controls)
    ]
    tutored = [
        Cell(algorithm, tutor, task, reuse)
        for task in found.tasks
        for algorithm in config.algorithms
        for tutor in found.tutors
        for reuse in config.reuse
    ]
    kept = [cell for cell in untutored + tutored if not any(matches(match, cell) for match in config.exclude)]
    pairs = {(cell.algorithm, cell.tutor, cell.task) for cell in kept if cell.tutored}
    return [cell for cell in kept if cell.control != CLONING or (cell.algorithm, cell.asks, cell.task) in pairs]


def grid(config: SweepConfig, default_steps: Mapping[str, int], entries: Entries | None = None) -> list[Trial]:
    """List all trials of a sweep, in the order in which they are started.

    Args:
        config: The sweep; tasks and tutors by their short names in all fields but the axes.
        default_steps: By task's short name, the env steps of a trial where the sweep does not say.
        entries: The axes; None: all entries are names.

    Raises:
        UserError: No trial, more than 10,000, two trials of one key, or a field that a student refuses.
    """
    found = entries or Entries.of(config)
    chosen = cells(config, found)
    count = len(chosen) * len(config.all_seeds)
    if not 1 <= count <= MAX_TRIALS:
        raise UserError(
            f"the grid has {count:,} trials ({len(chosen):,} cells × {len(config.all_seeds):,} seeds); it must have 1 "
            f"to {MAX_TRIALS:,}. Check the axes and exclusions."
        )
    students: dict[Cell, StudentConfig] = {}
    for cell in chosen:
        student = _student(config, cell, found, default_steps[cell.task])
        students[replace(cell, use=None if cell.asks == UNTUTORED else student.advice.named_use)] = student
    rounds = [Extension(seeds=config.first_seeds), *config.extensions]
    trials = [
        Trial(cell, seed, student.model_copy(update={"seed": seed}))
        for added in rounds
        for seed in added.seeds
        for cell, student in students.items()
        if added.cells is None or any(matches(match, cell) for match in added.cells)
    ]
    keys = [trial.key for trial in trials]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(
            f"two trials have the key '{twice}': give tutors and tasks names that differ in more than signs."
        )
    return trials


def matches(match: Match, cell: Cell) -> bool:
    """Say whether a cell is selected; the name of a control selects all its cells."""
    names = {axis: (value,) for axis, value in cell.axes.items()} | {"tutor": (cell.tutor, cell.control)}
    return all(any(name in values for name in names[axis]) for axis, values in match.wanted.items())


def _advice(config: SweepConfig) -> dict[str, Any]:
    """Return the sweep's fields of advice; where reuse is off in some cells, the use is the coin in all of them.

    A use that is not named follows from the other fields of a trial, overrides among them.
    """
    advice = config.advice.model_dump(exclude_defaults=True)
    if "use" not in config.advice.model_fields_set:
        advice.pop("use", None)
        if False in config.reuse:
            advice["use"] = "coin"
    return advice


def _cloning(advice: dict[str, Any]) -> dict[str, Any]:
    """Return fields of advice for a student that clones its tutor, without those that only the coin reads."""
    return {name: value for name, value in advice.items() if name not in COIN_FIELDS} | {"use": "clone"}


def _student(config: SweepConfig, cell: Cell, entries: Entries, default_steps: int) -> StudentConfig:
    steps = config.num_env_steps
    if not isinstance(steps, int):
        steps = (steps or {}).get(cell.task, default_steps)
    fields: dict[str, Any] = {
        "algorithm": cell.algorithm,
        "task": entries.tasks[cell.task],
        "task_options": dict(config.task_options.get(cell.task, {})),
        "tutor": entries.tutors.get(cell.asks, UNTUTORED),
        "num_env_steps": steps,
        "num_envs": config.num_envs,
        "num_env_runners": config.num_env_runners,
        "eval_interval_steps": config.evaluation.interval_steps,
        "eval_episodes": config.evaluation.episodes,
        "eval_max_share": config.evaluation.max_share,
        "rollout": config.rollout,
        "hyperparameters": dict(config.hyperparameters.get(cell.algorithm, {})),
        **CONTROLS.get(cell.control or UNTUTORED, {}),
        "advice": _advice(config),
    }
    is_cloning = cell.control == CLONING
    if is_cloning:
        fields["advice"]["use_options"] = {}  # those of the sweep are another use's
    if cell.reuse is False:
        fields["advice"] |= {"reuse": "off", "reuse_options": {}}
    elif cell.reuse and config.advice.reuse == "off":
        raise UserError("reuse: lists on, but advice.reuse = 'off' names no rule. Set advice.reuse to budget or decay.")
    for override in config.overrides:
        if matches(override.match, cell):
            for key, value in override.set.items():
                set_nested(fields, key.split("."), value)
    if is_cloning:
        fields["advice"] = _cloning(fields["advice"])
    try:
        return StudentConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"cell {cell.label}: {field_problems(error, StudentConfig)}") from error
