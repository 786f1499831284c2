"""Define the schema of a sweep's file: axes, what deviates from cell to cell, and how results are read."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.algorithms.registry import ALGORITHMS, Algorithm
from rllib_plugins.config import SEED_LIMIT

SCHEMA_VERSION = 1
"""Version of the preset format; a preset of a higher one was written for a newer release."""

MAX_TRIALS = 10_000
UNTUTORED = "none"
CLONING = "cloning"
CONTROLS: dict[str, dict[str, Any]] = {"more_updates": {"updates_factor": 2.0}, CLONING: {}}
"""Students to compare tutored ones with beside the baseline, by name, with the fields that differ from it; those that
clone their tutor differ in what they make of advice (``rllib_plugins.uses.clone``)."""

TUNING_SEEDS = tuple(range(100, 120))
"""Seeds for choosing settings; the shipped hyperparameters were chosen on some of them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_TAKEN = {"artifacts", "auditions", "grades", "mlflow.db"}
"""What else lies in a results folder or is an experiment in MLflow."""

NAME_RULE = (
    "use at most 100 letters, digits, '.', '_' and '-', beginning with a letter or a digit, and none of "
    + ", ".join(sorted(_TAKEN))
)


def is_sweep_name(name: str) -> bool:
    """Return whether a sweep may have this name, which is that of its folder, too."""
    return _NAME.fullmatch(name) is not None and name not in _TAKEN


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Match(_Frozen):
    """Select the cells whose values are among those listed, on every axis that is named."""

    algorithm: list[str] | None = Field(default=None, description="Algorithms, e.g. [dqn].")
    tutor: list[str] | None = Field(
        default=None, description="Tutors; `none` is the untutored baseline, a control goes by its own name."
    )
    task: list[str] | None = Field(default=None, description="Tasks, by name.")
    reuse: list[bool] | None = Field(default=None, description="Reuse on or off; a baseline matches neither.")

    @property
    def wanted(self) -> dict[str, list[Any]]:
        """The values of each axis that is named."""
        return self.model_dump(exclude_none=True)

    @field_validator("*", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _selects_something(self) -> Match:
        if not self.model_fields_set:
            raise ValueError("names no axis: give algorithm, tutor, task or reuse")
        return self


class Override(_Frozen):
    """Set fields of the student in some cells."""

    match: Match = Field(description="Which cells.")
    set: dict[str, Any] = Field(
        description="Fields of StudentConfig by dotted name, e.g. {num_envs: 16, advice.weight_cap: 2}.", min_length=1
    )


class Extension(_Frozen):
    """Add seeds to cells whose first results have been seen."""

    seeds: list[int] = Field(description="The added seeds.", min_length=1)
    cells: list[Match] | None = Field(default=None, description="Which cells get them; none: all.")


class EvaluationConfig(_Frozen):
    """Schedule the evaluations of the greedy student, with the tutor off."""

    interval_steps: int = Field(default=2_000, gt=0, description="Env steps between evaluations.")
    episodes: int = Field(default=200, gt=0, description="Episodes per evaluation where no exact evaluation exists.")
    tutor_episodes: int = Field(
        default=32,
        ge=0,
        description="Episodes that each tutor plays by itself before the trials: a student that distils advice follows "
        "it only up to the tutor's own return. 0: it goes by its own evidence alone.",
    )
    max_share: float = Field(
        default=1 / 3,
        gt=0,
        le=1,
        description="Largest share of a trial's work that evaluation may take: where episodes are long there are "
        "fewer, and evaluations are rarer, in the same way for all arms. 1: no limit.",
    )


class ResourcesConfig(_Frozen):
    """State what a trial takes and how many run at once."""

    num_cpus_per_trial: float = Field(
        default=0.5, gt=0, description="Ray CPUs per trial; below 1, trials share a core. Typical: 0.25 to 1."
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, description="Trials that run at once; none: as the CPUs beside the tutors allow."
    )
    memory_mib_per_trial: int = Field(
        default=700,
        gt=0,
        description="MiB of memory of a trial, and of each of its EnvRunners. On this machine there must be enough "
        "for all trials that run at once.",
    )


class FailureSettings(_Frozen):
    """Say how often a trial is tried again, and from where."""

    max_failures: int = Field(
        default=2,
        ge=0,
        description="Times that a trial is tried again, from its last checkpoint, before it counts as failed.",
    )
    checkpoint_every: int = Field(default=5, ge=1, description="Least evaluations between checkpoints of a trial.")
    checkpoint_every_s: float = Field(
        default=60.0,
        ge=0,
        description="Least seconds between checkpoints of a trial: what a failure costs at most, and what keeps many "
        "quick trials from writing all the time.",
    )


class ConvergenceConfig(_Frozen):
    """Define when a trial has converged: see ``tune_sweeps.report.convergence``."""

    scale: Literal["task", "oracle", "own"] = Field(
        default="task",
        description="Between which returns the way is measured. task: from the best trivial player of the task to "
        "its best untutored student. oracle: to the task's oracle. own: from random play to the untutored student of "
        "the same algorithm.",
    )
    threshold_frac: float = Field(
        default=0.9, gt=0, le=1, description="Share of the way at which a trial counts as converged."
    )
    window_steps: int | None = Field(
        default=None,
        gt=0,
        description="Env steps whose evaluations are averaged, for convergence and for the final return; none: a tenth "
        "of the trial's.",
    )


class StatisticsConfig(_Frozen):
    """Hold the constants of ``tune_sweeps.report.statistics``."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Level of the confidence intervals.")
    resamples: int = Field(default=2_000, ge=100, le=100_000, description="Bootstrap resamples.")
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Error rate over all cells and looks; a cell is decided when its corrected p is at most this.",
    )
    max_seeds: int | None = Field(
        default=None,
        ge=2,
        description="Planned largest number of seeds, which decides what each look may spend of alpha; none: no plan.",
    )
    margin_frac: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Non-inferiority margin of the final return, as a share of the way from trivial play.",
    )
    few_seeds: int = Field(
        default=5, ge=2, description="Below this many seeds per cell the report calls the sample small."
    )


class SweepConfig(_Frozen):
    """Describe one sweep: algorithm × tutor × task × reuse, a baseline per algorithm and task, times seeds."""

    version: int = Field(default=SCHEMA_VERSION, ge=1, description="Version of this format.")
    name: str = Field(description="Name of the sweep: its folder under runs/ and its MLflow experiment.")
    description: str = Field(default="", description="One line for `tutor presets`.")
    numbered: bool = Field(
        default=False,
        description="Run a finished sweep anew under the next number (demo-2). Off: running it again does nothing.",
    )

    algorithms: list[Algorithm] = Field(default=list(ALGORITHMS), description="Student algorithms.")
    tutors: list[str] = Field(description="Tutors: names (see `tutor tutors`) or paths of YAML files.")
    tasks: list[str] = Field(description="Tasks: names (see `tutor tasks`) or module:object.")
    reuse: list[bool] = Field(
        default=[True],
        description="Advice reuse: on, off or both. Off and both need advice.use: coin, which all cells then have; the "
        "default use does not read it.",
    )
    tuning_seeds: list[int] = Field(
        default=list(TUNING_SEEDS),
        description="Seeds that settings are chosen on; none of them may be reported on. A list, or a number n for 100 "
        "… 99+n.",
    )
    seeds: list[int] = Field(
        default=[0], description="Seeds that are reported on: a list, or a number n for the first n that tune nothing."
    )
    tuning: bool = Field(
        default=False, description="Run on tuning_seeds in place of seeds, to choose settings; the report says so."
    )
    extensions: list[Extension] = Field(
        default_factory=list, description="Seeds added after the first results; written by `tutor sweep --more-seeds`."
    )
    baselines: bool = Field(
        default=True, description="Whether untutored baselines run; without them nothing is compared."
    )

    controls: list[Literal["more_updates", "cloning"]] = Field(
        default_factory=list,
        description="Further cells to compare tutored ones with. more_updates: an untutored student beside each "
        "baseline with twice the gradient steps per env step (updates_factor, to be changed by an override of tutor: "
        "more_updates). cloning: per tutor a student that imitates it and learns nothing from reward (advice.use: "
        "clone; an override of tutor: cloning changes its options).",
    )

    exclude: list[Match] = Field(default_factory=list, description="Cells that are left out.")
    overrides: list[Override] = Field(default_factory=list, description="What differs in some cells; the last wins.")

    num_env_steps: int | dict[str, int] | None = Field(
        default=None, description="Env steps per trial: for all tasks, per task, or none for each task's own default."
    )
    num_envs: int = Field(default=8, gt=0, description="Environments stepped as one vector.")
    num_env_runners: int = Field(
        default=0,
        ge=0,
        description="Processes beside the trial's own that step its environments; each takes one more CPU. They divide "
        "num_envs, and the experiment is the same. Worth it where an env step takes a millisecond or more.",
    )
    rollout: Literal["lean", "stock"] = Field(
        default="lean", description="lean: array rollout. stock: RLlib's EnvRunner."
    )
    task_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options by task, e.g. {snake: {size: 6}}."
    )
    hyperparameters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Hyperparameters by algorithm, by RLlib's names, e.g. {ppo: {lr: 0.001}}."
    )
    advice: AdviceConfig = Field(default_factory=AdviceConfig, description="How advice is asked for and used.")

    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="Evaluation of the student.")
    resources: ResourcesConfig = Field(default=ResourcesConfig(), description="What trials take.")
    failures: FailureSettings = Field(default=FailureSettings(), description="Retries and checkpoints.")
    convergence: ConvergenceConfig = Field(default=ConvergenceConfig(), description="When a trial has converged.")
    statistics: StatisticsConfig = Field(default=StatisticsConfig(), description="Constants of the report.")

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not is_sweep_name(value):
            raise ValueError(NAME_RULE)
        return value

    @field_validator("seeds", "tuning_seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if not 1 <= value <= MAX_TRIALS:
            raise ValueError(f"a sweep has 1 to {MAX_TRIALS:,} trials, and so as many seeds at the most")
        if info.field_name == "tuning_seeds":
            return list(range(TUNING_SEEDS[0], TUNING_SEEDS[0] + value))
        return free_seeds(value, info.data.get("tuning_seeds", TUNING_SEEDS))

    @field_validator("algorithms", "tutors", "tasks", "reuse", "controls", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | bool) else value

    @field_validator("algorithms", "tutors", "tasks", "reuse", "controls", "seeds", "tuning_seeds")
    @classmethod
    def _no_duplicates(cls, values: list[Any]) -> list[Any]:
        twice = sorted(str(value) for value, count in Counter(values).items() if count > 1)
        if twice:
            raise ValueError(f"lists {', '.join(twice)} more than once; every value of an axis counts once")
        return values

    @field_validator("algorithms", "tasks", "reuse")
    @classmethod
    def _not_empty(cls, values: list[Any]) -> list[Any]:
        if not values:
            raise ValueError("lists nothing, so no trial would run: list at least one")
        return values

    @field_validator("seeds", "tuning_seeds")
    @classmethod
    def _seeds_are_seeds(cls, values: list[int]) -> list[int]:
        if any(not 0 <= value < SEED_LIMIT for value in values):
            raise ValueError(f"a seed is 0 or more, and less than {SEED_LIMIT}")
        return values

    @model_validator(mode="after")
    def _seeds_are_disjoint(self) -> SweepConfig:
        both = sorted(set(self.all_seeds) & set(self.tuning_seeds)) if not self.tuning else []
        if both:
            raise ValueError(
                f"seeds and tuning_seeds share {', '.join(map(str, both))}: settings were chosen on them, and results "
                "are reported on others. Give other seeds, or the tuning_seeds that you used (tuning_seeds: [])"
            )
        twice = [seed for seed, count in Counter(self.all_seeds).items() if count > 1]
        if twice:
            raise ValueError(f"extensions repeat the seeds {', '.join(map(str, twice))}")
        most = self.statistics.max_seeds
        if most is not None and most < len(self.first_seeds):
            raise ValueError(f"statistics.max_seeds = {most}: the sweep begins with {len(self.first_seeds)} seeds")
        if CLONING in self.controls and not self.tutored:
            raise ValueError(
                "controls lists cloning, which imitates a tutor, and tutors lists none: list one, or leave it"
            )
        if self.tuning and not self.tuning_seeds:
            raise ValueError("tuning = True, but tuning_seeds is empty: give some, e.g. tuning_seeds: 5")
        return self

    @property
    def first_seeds(self) -> list[int]:
        """The seeds that every cell begins with."""
        return self.tuning_seeds if self.tuning else self.seeds

    @property
    def all_seeds(self) -> list[int]:
        """All seeds, those that were added later included."""
        return [*self.first_seeds, *(seed for extension in self.extensions for seed in extension.seeds)]

    @property
    def tutored(self) -> list[str]:
        """The tutors without ``none``, which the baselines stand for."""
        return [tutor for tutor in self.tutors if tutor != UNTUTORED]


def free_seeds(count: int, taken: Iterable[int]) -> list[int]:
    """Return the first seeds that are not taken."""
    left_out = set(taken)
    return list(islice((seed for seed in itertools.count() if seed not in left_out), count))
