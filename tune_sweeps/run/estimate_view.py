"""A plan in words, for ``tutor sweep --dry-run``. Knows plans and rich tables, and starts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table

from tune_sweeps.console.terminal import duration
from tune_sweeps.definition.config import UNTUTORED
from tune_sweeps.definition.grid import REUSE_WORDS
from tune_sweeps.definition.resolve import ResolvedSweep
from tune_sweeps.run.estimate import Plan


def plan_lines(resolved: ResolvedSweep, plan: Plan, cpus: float) -> Iterator[RenderableType]:
    """The cells as a table, and what they take as lines.

    Args:
        resolved: The sweep.
        plan: What it takes.
        cpus: Ray CPUs that the plan was made for.
    """
    yield f"sweep '{resolved.config.name}': {plan.num_cells} cells, {plan.num_trials} trials; nothing is started"
    yield _cells(resolved)
    yield (
        f"resources: {plan.trial_cpus:g} CPUs per trial, {plan.concurrent} trials at once on {cpus:g} CPUs; tutors "
        f"take {plan.tutor_cpus:g} CPUs and {plan.tutor_gpus:g} GPUs"
    )
    if resolved.tutors:
        yield f"deployed for it: {', '.join(resolved.tutors)}"
    yield f"env steps: {plan.env_steps:,}"
    yield f"consultations by P(τ): about {plan.expected_consultations:,.0f}; earned trust makes them fewer"
    for tutor, most in plan.max_evaluations.items():
        yield f"LLM evaluations of {tutor}: at most {most:,}; fewer where its advice store knows states already"
    if not plan.max_evaluations:
        yield "LLM evaluations: none"
    speed = "a laptop's typical speed, roughly," if plan.rough else "the speed of the sweeps in this results folder,"
    yield f"time: about {duration(plan.seconds)} at {speed} tutors' start and first answers not counted"


def _cells(resolved: ResolvedSweep) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("task", "tutor", "reuse", "algorithms", "seeds", "env steps each"):
        table.add_column(column)
    rows = sorted(
        {(t.cell.task, t.cell.tutor, t.cell.reuse, t.cell.algorithm, t.student.num_env_steps) for t in resolved.trials},
        key=lambda row: (row[0], row[1] != UNTUTORED, row[1], str(row[2]), row[4], row[3]),
    )
    for (task, tutor, reuse, steps), group in groupby(rows, key=lambda row: (row[0], row[1], row[2], row[4])):
        table.add_row(
            task,
            "untutored" if tutor == UNTUTORED else tutor,
            REUSE_WORDS[reuse],
            ", ".join(row[3] for row in group),
            str(len(resolved.config.seeds)),
            f"{steps:,}",
        )
    return table
