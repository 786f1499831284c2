"""A report's tables as cells of text: one list of rows for terminal, Markdown and CSV. Pure functions."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from tune_sweeps.console.terminal import duration
from tune_sweeps.definition.grid import REUSE_WORDS, Cell
from tune_sweeps.report.analysis import COUNTERS, Analysis, CellResult
from tune_sweeps.report.statistics import Interval

Rows = list[list[str]]
NONE = "–"
_WIDE = 120
_AXES = ("task", "algorithm", "tutor", "reuse")


def main_table(analysis: Analysis) -> tuple[list[str], Rows]:
    """One row per cell: what a reader looks at first."""
    header = [
        "task",
        "algorithm",
        "tutor",
        "reuse",
        "final return",
        "steps to threshold",
        "speed-up",
        "consultations",
        "LLM evaluations",
        "tokens",
        "missed",
        "wall time",
    ]
    rows = [
        [
            cell.cell.task,
            cell.cell.algorithm,
            tutor_word(cell),
            REUSE_WORDS[cell.cell.reuse],
            interval(cell.final),
            steps_word(cell),
            speed_word(cell),
            count(cell.totals["consultations"]),
            count(cell.totals["model_evaluations"]),
            count(cell.totals["tokens"]),
            count(cell.totals["missed"]),
            duration(cell.wall_s),
        ]
        for cell in by_task(analysis.cells)
    ]
    return header, rows


def terminal_table(analysis: Analysis, width: int) -> tuple[list[str], Rows]:
    """The main table for a terminal: without columns that say the same in every row, and in short words.

    Args:
        analysis: The results.
        width: Columns of the terminal; a narrow one gets no intervals.
    """
    cells = by_task(analysis.cells)
    wide = width >= _WIDE
    columns: dict[str, list[str]] = {
        "task": [cell.cell.task for cell in cells],
        "student": [cell.cell.algorithm for cell in cells],
        "tutor": [tutor_word(cell) for cell in cells],
        "reuse": [REUSE_WORDS[cell.cell.reuse] for cell in cells],
        "final return": [interval(cell.final if wide else Interval(cell.final.value)) for cell in cells],
        "steps to threshold": [steps_word(cell, wide) for cell in cells],
        "speed-up": [speed_word(cell, wide) for cell in cells],
        "consulted": [count(cell.totals["consultations"]) for cell in cells],
        "LLM evals": [count(cell.totals["model_evaluations"]) for cell in cells],
        "missed": [count(cell.totals["missed"]) for cell in cells],
        "wall time": [duration(cell.wall_s) for cell in cells],
    }
    for name in ("task", "reuse"):
        if len(set(columns[name]) - {NONE}) <= 1:
            del columns[name]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def test_table(analysis: Analysis) -> tuple[list[str], Rows]:
    """One row per tutored cell: differences to the untutored student and tests."""
    header = [
        "task",
        "algorithm",
        "tutor",
        "reuse",
        "speed-up",
        "p",
        "p (Holm)",
        "Δ final return",
        "Δ mean return",
        "stability",
        "store hits",
    ]
    rows = [
        [
            cell.cell.task,
            cell.cell.algorithm,
            tutor_word(cell),
            REUSE_WORDS[cell.cell.reuse],
            speed_word(cell),
            probability(cell.p),
            probability(cell.p_holm),
            interval(cell.final_difference, sign=True),
            interval(cell.auc_difference, sign=True),
            NONE if cell.stability is None else f"{cell.stability:.0%}",
            count(cell.totals["store_hits"]),
        ]
        for cell in by_task(analysis.cells)
        if cell.cell.tutored
    ]
    return header, rows


def aggregate_table(analysis: Analysis) -> tuple[list[str], Rows]:
    """One row per value of an axis: the interquartile mean of the speed-up."""
    header = ["axis", "value", "speed-up (interquartile mean)", "cells", "trials"]
    rows = [
        [item.axis, item.value, f"{interval(item.speed_up)}×", str(item.num_cells), str(item.num_trials)]
        for item in analysis.aggregates
    ]
    return header, rows


def by_task(cells: Sequence[CellResult]) -> list[CellResult]:
    """Cells in reading order: the untutored student of an algorithm before its tutored ones."""
    return sorted(cells, key=lambda c: (c.cell.task, c.cell.algorithm, c.cell.tutored, c.cell.tutor, not c.cell.reuse))


def tutor_word(cell: CellResult) -> str:
    """The tutor's name, or ``untutored``."""
    return cell.cell.tutor if cell.cell.tutored else "untutored"


def steps_word(cell: CellResult, with_counts: bool = True) -> str:
    """Restricted mean of the steps; ``≥`` where some trials did not converge, and how many did."""
    if cell.steps is None:
        return NONE
    censored = cell.num_converged < len(cell.trials)
    suffix = f" ({cell.num_converged}/{len(cell.trials)})" if censored and with_counts and len(cell.trials) > 1 else ""
    return f"{'≥ ' if censored else ''}{cell.steps:,.0f}{suffix}"


def speed_word(cell: CellResult, with_interval: bool = True) -> str:
    """The speed-up, with its interval."""
    if cell.speed_up is None:
        return NONE
    return f"{interval(cell.speed_up if with_interval else Interval(cell.speed_up.value))}×"


def interval(value: Interval | None, sign: bool = False) -> str:
    """``1.23 [1.01, 1.50]``, or the value alone where there is no interval."""
    if value is None or not math.isfinite(value.value):
        return NONE
    form = "+.3g" if sign else ".3g"
    text = f"{value.value:{form}}"
    return text + (f" [{value.low:{form}}, {value.high:{form}}]" if value.has_interval else "")


def probability(p: float) -> str:
    """A p-value."""
    return NONE if math.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}")


def count(value: float) -> str:
    """A mean count."""
    return f"{value:,.0f}"


def markdown(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write_csv(analysis: Analysis, folder: Path) -> None:
    """Writes ``cells.csv`` and ``trials.csv``: all numbers, at full precision."""
    with (folder / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *(*_AXES, "num_trials", "num_converged", "threshold", "horizon", "steps"),
                *(*_columns("speed_up"), "p", "p_holm", *_columns("final"), *_columns("final_difference")),
                *(*_columns("auc_difference"), "stability", "wall_s", *COUNTERS),
            ]
        )
        for cell in by_task(analysis.cells):
            writer.writerow(
                [
                    *(*_axes(cell.cell), len(cell.trials), cell.num_converged),
                    *(_number(cell.threshold), cell.horizon, _number(cell.steps)),
                    *(*_ends(cell.speed_up), _number(cell.p), _number(cell.p_holm)),
                    *(*_ends(cell.final), *_ends(cell.final_difference), *_ends(cell.auc_difference)),
                    *(_number(cell.stability), cell.wall_s, *(cell.totals[name] for name in COUNTERS)),
                ]
            )
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_AXES, "seed", "status", "final", "auc", "converged", "steps", "wall_s"])
        for cell in by_task(analysis.cells):
            for trial in sorted(cell.trials, key=lambda t: t.run.seed):
                found = trial.convergence
                writer.writerow(
                    [
                        *(*_axes(cell.cell), trial.run.seed, trial.run.status, trial.final, trial.auc),
                        *(("", "") if found is None else (found.converged, found.steps)),
                        trial.run.last.get("wall_s", ""),
                    ]
                )


def _columns(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _axes(cell: Cell) -> list[str]:
    return [cell.task, cell.algorithm, cell.tutor, _reuse(cell.reuse)]


def _reuse(value: bool | None) -> str:
    return {True: "on", False: "off", None: ""}[value]


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def _ends(value: Interval | None) -> list[str]:
    return ["", "", ""] if value is None else [_number(value.value), _number(value.low), _number(value.high)]
