"""Draw what the figures of a report share: grids of axes, colours, labels at the ends of lines.

Colours are Okabe and Ito's, which colour-blind readers tell apart; the untutored student is always grey. Reuse on is a
solid line, reuse off a dashed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tune_sweeps.definition.config import CONTROLS
from tune_sweeps.report.results import Analysis, CellResult
from tune_sweeps.report.statistics import Interval
from tune_sweeps.report.tables import by_task
from tune_sweeps.tracking.reader import Series

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#7F7F7F"
FAINT = "#BFBFBF"
CUT = 0.03
_BEYOND = 4.0
"""How many times beyond the largest and below the smallest ratio an axis of ratios goes for an interval's sake."""


class LineEnd(NamedTuple):
    """The label of a line and where it belongs."""

    value: float
    text: str
    colour: str


def grid(analysis: Analysis, title: str) -> tuple[Any, dict[tuple[str, str], Any]]:
    """Return a figure and its axes by task and algorithm."""
    import matplotlib.pyplot as plt

    tasks = sorted({cell.cell.task for cell in analysis.cells})
    algorithms = sorted({cell.cell.algorithm for cell in analysis.cells})
    figure, rows = plt.subplots(
        len(tasks), len(algorithms), figsize=(3.8 * len(algorithms) + 0.8, 2.7 * len(tasks) + 0.4), squeeze=False,
        sharey="row", layout="constrained",
    )  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    axes = {(t, a): rows[i][j] for i, t in enumerate(tasks) for j, a in enumerate(algorithms)}
    for (task, algorithm), ax in axes.items():
        ax.set_title(f"{algorithm} · {task}")
    return figure, axes


def cells(analysis: Analysis, task: str, algorithm: str) -> list[CellResult]:
    """Return the cells of one axes, for reading."""
    return [c for c in by_task(analysis.cells) if (c.cell.task, c.cell.algorithm) == (task, algorithm)]


def colours(analysis: Analysis) -> dict[str, str]:
    """Return a colour per tutor; a tutor's clones have its own."""
    tutors = sorted({cell.cell.tutor for cell in analysis.cells if cell.cell.tutored})
    found = dict.fromkeys(("none", *CONTROLS), GREY) | {
        tutor: PALETTE[i % len(PALETTE)] for i, tutor in enumerate(tutors)
    }
    return {cell.cell.tutor: found.get(cell.cell.asks, GREY) for cell in analysis.cells} | found


def line(cell: CellResult) -> str:
    """Return a cell's line style."""
    if not cell.cell.tutored and not cell.cell.baseline:
        return ":"
    return "--" if cell.cell.reuse is False else "-"


def label(cell: CellResult, analysis: Analysis) -> str:
    """Name the tutor, and the reuse where the sweep has both."""
    both = len({c.cell.reuse for c in analysis.cells if c.cell.tutored}) > 1
    return cell.cell.arm + (f", {cell.cell.reuse_word}" if both and cell.cell.tutored else "")


def steps_axis(ax: Any) -> None:
    """Make a horizontal axis one of env steps, to the end of the longest line."""
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    ax.set_xlabel("env steps")
    right = max((line.get_xdata()[-1] for line in ax.lines if len(line.get_xdata()) > 2), default=None)
    ax.set_xlim(0, right)


def ratio_limits(estimates: Sequence[Interval]) -> tuple[float, float]:
    """Return the ends of an axis of ratios: all values, and of their intervals no more than a few times beyond these.

    An interval that goes on is drawn to the end of the axis, with an arrow, so that it does not squeeze the others.
    """
    values = [found.value for found in estimates if found.value > 0]
    lowest, highest = min([0.5, *values]), max([2.0, *values])
    low = min([lowest, *(found.low for found in estimates if found.low > 0)])
    high = max([highest, *(found.high for found in estimates if math.isfinite(found.high))])
    return max(low, lowest / _BEYOND), min(high, highest * _BEYOND)


def ratio_axis(axis: Any) -> None:
    """Label a logarithmic axis of ratios."""
    from matplotlib.ticker import NullLocator

    low, high = axis.get_view_interval()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}×" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def aligned(curves: Sequence[Series]) -> tuple[np.ndarray, np.ndarray]:
    """Return curves on the steps that all of them have: ``(points,)`` and ``(n, points)``."""
    common = curves[0].steps
    for curve in curves[1:]:
        common = np.intersect1d(common, curve.steps)
    return common, np.array([curve.values[np.isin(curve.steps, common)] for curve in curves])


def series(cell: CellResult, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean over trials of one metric, on common steps; None where no trial has it."""
    found = [trial.run.series[name] for trial in cell.trials if len(trial.run.series.get(name, ()))]
    if not found:
        return None
    steps, values = aligned(found)
    return (steps, values.mean(axis=0)) if len(steps) else None


def effect(ax: Any, cell: CellResult, colour: str) -> None:
    """Draw the measured effect of a cell's advice with its standard error."""
    effect, error = series(cell, "advice/effect"), series(cell, "advice/effect_se")
    if effect is None:
        return
    ax.plot(*effect, color=colour, linestyle=line(cell))
    if error is not None and len(error[0]) == len(effect[0]):
        ax.fill_between(effect[0], effect[1] - error[1], effect[1] + error[1], color=colour, alpha=0.15, linewidth=0)


def threshold(ax: Any, level: float) -> None:
    """Draw a threshold."""
    ax.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate(
        "threshold", (1.0, level), xycoords=("axes fraction", "data"), xytext=(-2, -2), textcoords="offset points",
        color=GREY, fontsize=7, ha="right", va="top",
    )  # fmt: skip


def scale(ax: Any, values: np.ndarray) -> bool:
    """Fit the axis to the curves; a few very low points at the start must not flatten the rest. Say if some are cut."""
    low, high = float(np.quantile(values, CUT)), float(values.max())
    margin = 0.12 * max(high - low, 1e-9)
    lowest = float(values.min())
    cut = lowest < low - (high - low)
    ax.set_ylim((low if cut else lowest) - margin, high + margin)
    return cut


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Return positions near ascending ``values`` that are at least ``gap`` apart and, as a whole, not shifted."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + i * gap for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)


def label_ends(ax: Any, ends: Sequence[LineEnd]) -> None:
    """Name each line at its right end; labels that would overlap are pushed apart."""
    low, high = ax.get_ylim()
    ordered = sorted(end._replace(value=min(max(end.value, low), high)) for end in ends)
    places = spread([end.value for end in ordered], 0.085 * (high - low))
    lift = max(0.0, low - places[0]) if places else 0.0  # below the axis are its own numbers
    for end, y in zip(ordered, [place + lift for place in places], strict=True):
        ax.annotate(
            end.text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            color=end.colour,
            va="center", fontsize=8, annotation_clip=False,
        )  # fmt: skip
