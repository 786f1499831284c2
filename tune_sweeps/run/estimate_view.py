"""Put an estimate into words, for ``tutor sweep --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any, NamedTuple

from rich.console import RenderableType

from tune_sweeps.console.rows import key, table
from tune_sweeps.console.terminal import duration
from tune_sweeps.definition.grid import NO_REUSE_WORD, Cell
from tune_sweeps.definition.resolve import ResolvedSweep
from tune_sweeps.run.estimate import TYPICAL_ANSWERS_PER_S, Estimate


def estimate_lines(resolved: ResolvedSweep, needed: Estimate, cpus: float) -> Iterator[RenderableType]:
    """Yield the cells as a table, and what they take as lines.

    Args:
        resolved: The sweep.
        needed: What it takes.
        cpus: Ray CPUs that this was estimated for.
    """
    yield f"sweep '{resolved.config.name}': {needed.num_cells} cells, {needed.num_trials} trials; nothing is started"
    yield table(_cells(resolved))
    runners = f" (one for each of {needed.num_env_runners} EnvRunners)" if needed.num_env_runners else ""
    yield (
        f"resources: {needed.trial_cpus:g} CPUs per trial{runners}, {needed.concurrent} trials at once on "
        f"{cpus:g} CPUs; tutors take {needed.tutor_cpus:g} CPUs and {needed.tutor_gpus:g} GPUs"
    )
    if resolved.tutors:
        yield f"deployed for it: {', '.join(resolved.tutors)}"
    yield f"env steps: {needed.env_steps:,}"
    for task, plan in needed.evaluations.items():
        episodes = f"{plan.episodes:,} episode{'s' * (plan.episodes != 1)}"
        how = f"{episodes}, about {plan.share:.0%} of a trial's work" if plan.share else "exact"
        yield f"evaluation of {task}: every {plan.interval_steps:,} env steps, {how}"
    yield f"consultations: about {needed.expected_consultations:,.0f}, an upper estimate"
    for tutor, most in needed.max_evaluations.items():
        yield f"LLM evaluations of {tutor}: at most {most:,} in trials; fewer where its store knows states already"
    if not needed.max_evaluations:
        yield "LLM evaluations: none"
    if needed.own_play:
        asked = ", ".join(f"{tutor} about {questions:,} times" for tutor, questions in needed.own_play.items())
        yield (
            f"before the trials each tutor plays {resolved.config.evaluation.tutor_episodes} episodes of each task by "
            f"itself, which asks it, too: {asked}, in about {duration(needed.own_play_seconds)}"
        )
    speed = "a laptop's typical speed, roughly," if needed.rough else "the speed of the sweeps in this results folder,"
    yield f"time: about {duration(needed.seconds)} at {speed} tutors' start not counted"
    if needed.max_answer_seconds:
        yield (
            f"      up to {duration(needed.max_answer_seconds)} more for answers that no store knows yet, at "
            f"{TYPICAL_ANSWERS_PER_S:g} a second; `tutor ask` shows how long one takes"
        )


def estimate_values(resolved: ResolvedSweep, needed: Estimate) -> dict[str, Any]:
    """Return what a sweep takes for a program: its name, its cells, and the fields of the estimate."""
    cells = [{key(name): value for name, value in row.items()} for row in _cells(resolved)]
    return {"sweep": resolved.config.name, "cells": cells, **asdict(needed)}


def _cells(resolved: ResolvedSweep) -> list[dict[str, Any]]:
    rows = sorted(
        {(trial.cell, trial.student.num_env_steps) for trial in resolved.trials},
        key=lambda row: (_arm(row[0]), row[1], row[0].algorithm),
    )
    found: list[dict[str, Any]] = []
    for (arm, steps), group in groupby(rows, key=lambda row: (_arm(row[0]), row[1])):
        members = [cell for cell, _ in group]
        seeds = sorted({sum(trial.cell == cell for trial in resolved.trials) for cell in members})
        found.append(
            {
                "task": arm.task,
                "tutor": members[0].arm,
                "use": arm.use or None,
                "reuse": None if members[0].reuse_word == NO_REUSE_WORD else members[0].reuse_word,
                "algorithms": [cell.algorithm for cell in members],
                "seeds": "–".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
                "env steps each": steps,
            }
        )
    return found


class _Arm(NamedTuple):
    task: str
    tutored: bool
    tutor: str
    use: str
    reuse: str


def _arm(cell: Cell) -> _Arm:
    return _Arm(cell.task, cell.tutored, cell.tutor, cell.use or "", str(cell.reuse))
