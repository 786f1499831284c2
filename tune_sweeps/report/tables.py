"""Put a report's results into tables of text, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tune_sweeps.console.rows import NONE
from tune_sweeps.console.terminal import duration
from tune_sweeps.definition.grid import REUSE_WORDS
from tune_sweeps.report.results import Aggregate, Analysis, CellResult, Versus
from tune_sweeps.report.statistics import Interval
from tune_sweeps.tracking.reader import ORACLE

_VERDICTS = {True: ", followed up to there", False: ", not followed", None: ""}
_WIDE = 120
_CELL: Mapping[str, Callable[[CellResult], str]] = {
    "task": lambda c: c.cell.task,
    "algorithm": lambda c: c.cell.algorithm,
    "tutor": lambda c: c.cell.arm,
    "reuse": lambda c: c.cell.reuse_word,
}


class Table(NamedTuple):
    """Cells of text.

    Attributes:
        header: Names of the columns.
        rows: As many words each.
    """

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = ["| " + " | ".join(self.header) + " |", "|" + " --- |" * len(self.header)]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def _table(columns: Mapping[str, Callable[[CellResult], str]], cells: Iterable[CellResult]) -> Table:
    chosen = by_task(cells)
    return Table(list(columns), [[column(cell) for column in columns.values()] for cell in chosen])


def main_table(analysis: Analysis) -> Table:
    """Return one row per cell: what a reader looks at first."""
    columns = {
        **_CELL,
        "final return": lambda c: interval(c.final),
        "steps to threshold": steps_word,
        "speed-up": speed_word,
        "consultations": lambda c: count(c.totals["consultations"]),
        "LLM evaluations": lambda c: count(c.totals["model_evaluations"]),
        "tokens": lambda c: count(c.totals["tokens"]),
        "missed": lambda c: count(c.totals["missed"]),
    }
    return _table(columns, analysis.cells)


def terminal_table(analysis: Analysis, width: int) -> Table:
    """Return the main table in short words, without columns that say the same in every row.

    Args:
        analysis: The results.
        width: Columns of the terminal; a narrow one gets no intervals.
    """
    wide = width >= _WIDE
    columns: dict[str, Callable[[CellResult], str]] = {
        "task": _CELL["task"],
        "student": _CELL["algorithm"],
        "tutor": _CELL["tutor"],
        "reuse": _CELL["reuse"],
        "final return": lambda c: interval(c.final, with_ends=wide),
        "steps to threshold": lambda c: steps_word(c, wide),
        "speed-up": lambda c: speed_word(c, wide),
        "consulted": lambda c: count(c.totals["consultations"]),
        "LLM evals": lambda c: count(c.totals["model_evaluations"]),
        "missed": lambda c: count(c.totals["missed"]),
        "wall time": lambda c: duration(c.wall_s),
    }
    for name in ("task", "reuse"):
        if len({columns[name](cell) for cell in analysis.cells} - {NONE}) <= 1:
            del columns[name]
    return _table(columns, analysis.cells)


def versus_table(analysis: Analysis) -> Table:
    """Return one row per tutored cell: differences to the untutored student and tests."""

    def of(word: Callable[[Versus], str]) -> Callable[[CellResult], str]:
        return lambda c: NONE if c.versus is None else word(c.versus)

    columns = {
        **_CELL,
        "speed-up": speed_word,
        "by first hit": of(lambda v: times(v.at_threshold.first_hit)),
        "over more updates": of(lambda v: times(v.over_control)),
        "over cloning": of(lambda v: times(v.over_cloning)),
        "p": of(lambda v: probability(v.p)),
        "p (corrected)": of(lambda v: probability(v.p_corrected) if v.twin is None else f"as {REUSE_WORDS[True]}"),
        "Δ final return": of(lambda v: interval(v.final, sign=True)),
        "final return": of(lambda v: {True: "not worse", False: "worse", None: "undecided"}[v.not_worse]),
        "P(improved)": of(lambda v: interval(v.improvement)),
        "Δ mean return": of(lambda v: interval(v.area, sign=True)),
        "stability": lambda c: NONE if c.stability is None else f"{c.stability:.0%}",
        "store hits": lambda c: count(c.totals["store_hits"]),
    }
    compared = [cell for cell in analysis.cells if cell.versus is not None]
    for name in ("over more updates", "over cloning"):
        if all(columns[name](cell) == NONE for cell in compared):
            del columns[name]
    return _table(columns, compared)


def threshold_table(analysis: Analysis) -> Table:
    """Return the speed-up of each tutored cell at every share of the way."""
    cells = [cell for cell in by_task(analysis.cells) if cell.versus is not None]
    fracs = [point.frac for point in cells[0].speed_ups] if cells else []
    rows = [
        [*(word(cell) for word in _CELL.values()), *(times(point.sustained) for point in cell.speed_ups)]
        for cell in cells
    ]
    return Table([*_CELL, *(f"{frac:g}" for frac in fracs)], rows)


def effort_table(analysis: Analysis) -> Table:
    """Return what each arm took: whether arms are fair is for the reader to see."""
    columns = {
        **_CELL,
        "seeds": lambda c: str(len(c.trials)),
        "env steps": lambda c: count(c.horizon),
        "updates": lambda c: count(c.updates),
        "wall time": lambda c: duration(c.wall_s),
    }
    return _table(columns, analysis.cells)


def reference_table(analysis: Analysis) -> Table:
    """Return the players that each task's students are compared with, best first."""
    rows = []
    for task, returns in sorted(analysis.sweep.references.items()):
        for name, value in sorted(returns.items(), key=lambda item: -item[1]):
            rows.append([task, name, f"{value:.3g}", "the task's best" if name == ORACLE else "trivial"])
    for task, tutors in sorted(analysis.sweep.own_play.items()):
        for name, played in sorted(tutors.items()):
            steps = f", {count(played['num_env_steps'])} env steps" if played["num_env_steps"] else ""
            missed = f", {played['missed_share']:.0%} of its answers missed" if played["missed_share"] else ""
            verdict = _VERDICTS[played.get("follow")]
            words = f"plays itself{steps}{missed}{verdict}"
            rows.append([task, f"tutor {name}", f"{played['return_mean']:.3g}", words])
    thresholds = {(c.cell.task, c.cell.algorithm): c for c in analysis.cells if c.cell.baseline}
    for (task, algorithm), cell in sorted(thresholds.items()):
        level = cell.threshold.level
        word = f"{level:.3g}" if level is not None else "none"
        rows.append([task, f"threshold of {algorithm}", word, f"{cell.threshold.frac:g} of the way"])
    return Table(["task", "player or level", "return", "what it is"], rows)


def aggregate_table(analysis: Analysis) -> Table:
    """Return one row per value of an axis: interquartile means of the speed-up and of the score."""
    columns: dict[str, Callable[[Aggregate], str]] = {
        "axis": lambda a: a.axis,
        "value": lambda a: a.value,
        "speed-up (interquartile mean)": lambda a: times(a.speed_up),
        "score (interquartile mean)": lambda a: interval(a.score),
        "cells": lambda a: str(a.num_cells),
        "trials": lambda a: str(a.num_trials),
    }
    return Table(list(columns), [[word(item) for word in columns.values()] for item in analysis.aggregates])


def by_task(cells: Iterable[CellResult]) -> list[CellResult]:
    """Sort cells for reading: the untutored student of an algorithm before its tutored ones."""
    return sorted(
        cells,
        key=lambda c: (
            c.cell.task,
            c.cell.algorithm,
            not c.cell.baseline,
            c.cell.tutored,
            c.cell.tutor,
            not c.cell.reuse,
        ),
    )


def steps_word(cell: CellResult, with_counts: bool = True) -> str:
    """Write the steps to convergence; ``≥`` where some trials did not converge, and how many did."""
    if cell.steps is None:
        return NONE
    censored = cell.num_converged < len(cell.trials)
    suffix = f" ({cell.num_converged}/{len(cell.trials)})" if censored and with_counts and len(cell.trials) > 1 else ""
    return f"{'≥ ' if censored else ''}{cell.steps:,.0f}{suffix}"


def speed_word(cell: CellResult, with_ends: bool = True) -> str:
    """Write the speed-up, with its interval."""
    return times(cell.speed_up, with_ends)


def times(value: Interval | None, with_ends: bool = True) -> str:
    """Write a ratio: ``1.23 [1.01, 1.50]×``."""
    return NONE if value is None else f"{interval(value, with_ends=with_ends)}×"


def interval(value: Interval | None, *, sign: bool = False, with_ends: bool = True) -> str:
    """Write ``1.23 [1.01, 1.50]``, or the value alone where there is no interval."""
    if value is None or not math.isfinite(value.value):
        return NONE
    form = "+.3g" if sign else ".3g"
    text = f"{value.value:{form}}"
    return text + (f" [{value.low:{form}}, {value.high:{form}}]" if value.has_interval and with_ends else "")


def probability(p: float) -> str:
    """Write a p-value."""
    return NONE if math.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}")


def count(value: float) -> str:
    """Write a mean count."""
    return NONE if math.isnan(value) else f"{value:,.0f}"
