"""Put two sweeps side by side: each cell's results in both, and the difference with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tune_sweeps.definition.grid import Cell
from tune_sweeps.report.analysis import comparison
from tune_sweeps.report.results import Analysis, CellResult
from tune_sweeps.report.statistics import Interval, mean_difference, speed_up
from tune_sweeps.report.tables import by_task, interval, speed_word, times


class Pair(NamedTuple):
    """One cell in two sweeps.

    Attributes:
        cell: The cell.
        first: Its results in the first sweep; None where that has no finished trial of it.
        second: Its results in the second one.
        final: Final return of the second minus that of the first, with Welch's t interval.
        sooner: How many times sooner the second's trials converge than the first's, at the first's threshold.
    """

    cell: Cell
    first: CellResult | None
    second: CellResult | None
    final: Interval | None
    sooner: Interval | None


def compare(first: Analysis, second: Analysis) -> list[Pair]:
    """Pair the cells of two sweeps, those that both have first.

    Args:
        first: The sweep that the other is compared with; its confidence and its thresholds count.
        second: The other sweep.
    """
    ours, theirs = ({result.cell: result for result in analysis.cells} for analysis in (first, second))
    shared = [result.cell for result in by_task(first.cells) if result.cell in theirs]
    alone = [
        result.cell
        for result in by_task([*first.cells, *second.cells])
        if (result.cell in ours) != (result.cell in theirs)
    ]
    return [_pair(cell, ours.get(cell), theirs.get(cell), first) for cell in [*shared, *alone]]


def _pair(cell: Cell, first: CellResult | None, second: CellResult | None, analysis: Analysis) -> Pair:
    if first is None or second is None:
        return Pair(cell, first, second, None, None)
    config = analysis.sweep.config
    final = mean_difference(
        [trial.final for trial in second.trials], [trial.final for trial in first.trials], config.statistics.confidence
    )
    sooner = None
    if first.scale is not None and first.threshold.level is not None:
        fixed = replace(first.scale, fixed=first.scale.upper)
        both = comparison(first.trials, second.trials, fixed)
        sooner = speed_up(both, config.convergence.threshold_frac, config.statistics.confidence)
    return Pair(cell, first, second, final, sooner)


def words(pairs: Sequence[Pair], names: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the pairs as rows for a person.

    Args:
        pairs: At least one.
        names: Names of the sweeps, of the columns.
    """
    first, second = names
    return [
        {
            "task": pair.cell.task,
            "student": pair.cell.algorithm,
            "tutor": pair.cell.arm,
            "reuse": pair.cell.reuse_word,
            f"return {first}": pair.first and interval(pair.first.final, with_ends=False),
            f"return {second}": pair.second and interval(pair.second.final, with_ends=False),
            "Δ return": interval(pair.final, sign=True),
            f"speed-up {first}": pair.first and speed_word(pair.first, with_ends=False),
            f"speed-up {second}": pair.second and speed_word(pair.second, with_ends=False),
            f"{second} sooner": times(pair.sooner),
        }
        for pair in pairs
    ]


def values(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as numbers for a program."""
    return [
        {
            **pair.cell.axes,
            "first": _results(pair.first),
            "second": _results(pair.second),
            "final_return_difference": _ends(pair.final),
            "times_sooner": _ends(pair.sooner),
        }
        for pair in pairs
    ]


def _results(result: CellResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    found = {"final_return": _ends(result.final), "speed_up": _ends(result.speed_up), "steps": result.steps}
    return found | {"num_trials": len(result.trials)}


def _ends(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
