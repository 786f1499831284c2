"""Write a report's numbers at full precision: tables as CSV, score matrices in the form that rliable takes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tune_sweeps.definition.grid import Cell
from tune_sweeps.report.convergence import FloatArray
from tune_sweeps.report.notes import notes
from tune_sweeps.report.results import COUNTERS, Analysis, CellResult
from tune_sweeps.report.statistics import Interval
from tune_sweeps.report.tables import by_task

Row = dict[str, Any]


def write_numbers(analysis: Analysis, folder: Path) -> None:
    """Write ``cells.csv``, ``trials.csv``, ``thresholds.csv``, and ``scores.npz`` with ``scores.json`` beside it."""
    cells = by_task(analysis.cells)
    _write_csv(folder / "cells.csv", [_cell_row(cell) for cell in cells])
    _write_csv(folder / "trials.csv", [row for cell in cells for row in _trial_rows(cell)])
    _write_csv(folder / "thresholds.csv", [row for cell in cells for row in _threshold_rows(cell)])
    matrices = score_matrices(analysis)
    np.savez(folder / "scores.npz", **{name: matrix.scores for name, matrix in matrices.items()})  # type: ignore[arg-type]
    axes = {name: {"runs": matrix.seeds, "tasks": matrix.tasks} for name, matrix in matrices.items()}
    (folder / "scores.json").write_text(json.dumps(axes, indent=1) + "\n", encoding="utf-8")


def to_json(analysis: Analysis) -> dict[str, Any]:
    """Return the results for a program: a row per cell, as in ``cells.csv``, and the notes."""
    return {
        "sweep": analysis.sweep.name,
        "status": analysis.sweep.status,
        "trials": analysis.counts,
        "cells": [_cell_row(cell) for cell in by_task(analysis.cells)],
        "notes": notes(analysis),
    }


class ScoreMatrix(NamedTuple):
    """Normalised final returns of one arm.

    Attributes:
        scores: ``(runs, tasks)``: 0 where the way of a task begins, 1 where it ends.
        seeds: Of the runs; those that every task has.
        tasks: Of the columns.
    """

    scores: FloatArray
    seeds: list[int]
    tasks: list[str]


def score_matrices(analysis: Analysis) -> dict[str, ScoreMatrix]:
    """Return the scores of each arm over all tasks on which it has any.

    An arm is ``algorithm · tutor``, and ``reuse`` or ``no reuse`` where that is read.
    """
    arms: dict[str, dict[str, dict[int, float]]] = {}
    for cell in analysis.cells:
        if cell.scores:
            name = cell.cell.named(cell.cell.algorithm, cell.cell.arm)
            seeds = [trial.run.seed for trial in cell.trials]
            arms.setdefault(name, {})[cell.cell.task] = dict(zip(seeds, cell.scores, strict=True))
    found = {}
    for name, by_task_ in arms.items():
        tasks = sorted(by_task_)
        seeds = sorted(set.intersection(*(set(by_task_[task]) for task in tasks)))
        scores = np.array([[by_task_[task][seed] for task in tasks] for seed in seeds]).reshape(len(seeds), len(tasks))
        found[name] = ScoreMatrix(scores, seeds, tasks)
    return found


def _cell_row(cell: CellResult) -> Row:
    versus = cell.versus
    return {
        **_axes(cell.cell),
        "num_trials": len(cell.trials),
        "num_converged": cell.num_converged,
        "threshold": cell.threshold.level,
        "horizon": cell.horizon,
        "steps": cell.steps,
        "first_hit_steps": cell.first_hit_steps,
        **_ends("final", cell.final),
        **_ends("speed_up", cell.speed_up),
        **_ends("speed_up_over_more_updates", versus.over_control if versus else None),
        **_ends("speed_up_over_cloning", versus.over_cloning if versus else None),
        **_ends("first_hit_speed_up", versus.at_threshold.first_hit if versus else None),
        "p": versus and versus.p,
        "p_corrected": versus and versus.p_corrected,
        **_ends("final_difference", versus.final if versus else None),
        **_ends("area_difference", versus.area if versus else None),
        **_ends("improvement", versus.improvement if versus else None),
        "not_worse": "" if versus is None or versus.not_worse is None else versus.not_worse,
        "stability": cell.stability,
        "updates": cell.updates,
        "wall_s": cell.wall_s,
        **{name: cell.totals[name] for name in COUNTERS},
    }


def _trial_rows(cell: CellResult) -> list[Row]:
    level = cell.threshold.level
    rows = []
    for trial in sorted(cell.trials, key=lambda t: t.run.seed):
        sustained, hit = (
            (None, None) if level is None else (p.convergence(level) for p in (trial.sustained, trial.first_hits))
        )
        rows.append(
            {
                **_axes(cell.cell),
                "seed": trial.run.seed,
                "final": trial.final,
                "area": trial.area,
                "converged": sustained and sustained.converged,
                "steps": sustained and sustained.steps,
                "hit": hit and hit.converged,
                "first_hit_steps": hit and hit.steps,
                "wall_s": trial.run.last.get("wall_s"),
            }
        )
    return rows


def _threshold_rows(cell: CellResult) -> list[Row]:
    return [
        {
            **_axes(cell.cell),
            "frac": point.frac,
            **_ends("speed_up", point.sustained),
            **_ends("first_hit_speed_up", point.first_hit),
        }
        for point in cell.speed_ups
    ]


def _axes(cell: Cell) -> Row:
    reuse = {True: "on", False: "off", None: ""}[cell.reuse]
    return {"task": cell.task, "algorithm": cell.algorithm, "tutor": cell.tutor, "reuse": reuse}


def _ends(name: str, value: Interval | None) -> Row:
    ends = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)


def _plain(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
