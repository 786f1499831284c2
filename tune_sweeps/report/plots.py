"""A report's figures, as PNG and SVG. Knows results and matplotlib; computes nothing that a table does not have.

Colours are Okabe and Ito's, which colour-blind readers tell apart; the untutored student is always grey. Reuse on is a
solid line, reuse off a dashed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tune_sweeps.definition.grid import REUSE_WORDS
from tune_sweeps.report.analysis import Analysis, CellResult
from tune_sweeps.report.statistics import band, survival_curve
from tune_sweeps.report.tables import by_task, tutor_word

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#7F7F7F"
FAINT = "#BFBFBF"
_CUT = 0.03
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.edgecolor": "#999999",
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "svg.fonttype": "none",
}


def draw_all(analysis: Analysis, folder: Path) -> list[Path]:
    """Draws every figure that there is data for.

    Args:
        analysis: The results.
        folder: An existing folder.

    Returns:
        The files, PNG and SVG of each figure.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures: dict[str, Callable[[Analysis], Any]] = {
        "learning_curves": learning_curves,
        "speed_up": forest,
        "survival": survival,
        "effect_and_trust": effect_and_trust,
        "quality_and_speed_up": quality,
    }
    files = []
    with plt.rc_context(_STYLE):
        for name, draw in figures.items():
            figure = draw(analysis)
            if figure is None:
                continue
            for suffix in ("png", "svg"):
                files.append(folder / f"{name}.{suffix}")
                figure.savefig(files[-1], bbox_inches="tight", facecolor="white")
            plt.close(figure)
    return files


def learning_curves(analysis: Analysis) -> Any:
    """Greedy return over env steps: tasks down, algorithms across; bands are ± one standard error over seeds."""
    figure, axes = _grid(analysis, "Greedy return over training, tutor off")
    colours = _colours(analysis)
    ends: dict[tuple[str, str], list[tuple[float, str, str]]] = {key: [] for key in axes}
    drawn: dict[str, list[np.ndarray]] = {}
    for (task, algorithm), ax in axes.items():
        for cell in _cells(analysis, task, algorithm):
            steps, curves = _aligned([trial.run.curve for trial in cell.trials])
            if not len(steps):
                continue
            mean, low, high = band(curves)
            colour = colours[cell.cell.tutor]
            ax.plot(steps, mean, color=colour, linestyle=_line(cell), zorder=2 if cell.cell.tutored else 3)
            if len(curves) > 1:
                ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            ends[task, algorithm].append((float(mean[-1]), _label(cell, analysis), colour))
            drawn.setdefault(task, []).append(mean)
            if not cell.cell.tutored and cell.threshold is not None:
                _threshold(ax, cell.threshold)
        _steps_axis(ax)
        ax.set_ylabel("greedy return")
    for (task, algorithm), ax in axes.items():  # once the scale is known: a row of axes shares it
        if task in drawn:
            cut = _scale(ax, np.concatenate(drawn[task]))
            ax.set_ylabel("greedy return" + (f"\n(cut below {ax.get_ylim()[0]:.2g})" if cut else ""))
        _label_ends(ax, ends[task, algorithm])
    return figure


def forest(analysis: Analysis) -> Any:
    """Speed-ups with their intervals, one line per tutored cell, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    cells = [cell for cell in by_task(analysis.cells) if cell.speed_up is not None][::-1]
    if not cells:
        return None
    figure, ax = plt.subplots(figsize=(7.0, 1.2 + 0.26 * len(cells)))
    colours = _colours(analysis)
    for row, cell in enumerate(cells):
        estimate = cell.speed_up
        assert estimate is not None
        colour = colours[cell.cell.tutor]
        if estimate.has_interval:
            ax.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=1.4)
        censored = cell.num_converged < len(cell.trials)
        ax.plot(estimate.value, row, "o", color=colour, markersize=5, markerfacecolor="white" if censored else colour)
        ax.annotate(
            f"{estimate.value:.2g}×", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            color=colour,
        )  # fmt: skip
    ax.axvline(1.0, color=GREY, linewidth=1.0)
    ax.set_xscale("log")
    ends = [v for c in cells if c.speed_up for v in (c.speed_up.value, c.speed_up.low, c.speed_up.high) if v > 0]
    low, high = min([0.5, *ends]) * 0.9, max([2.0, *ends]) * 1.1
    ax.set_xlim(low, high)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    ax.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(cells)), [cell.cell.label for cell in cells])
    ax.set_ylim(-0.7, len(cells) - 0.3)
    hollow = any(cell.num_converged < len(cell.trials) for cell in cells)
    legend = ["speed-up in env steps to the threshold; right of 1: faster than the untutored student"]
    legend += [f"lines: {analysis.sweep.config.statistics.confidence:.0%} intervals"] if analysis.num_seeds > 1 else []
    legend += ["no intervals: one seed per cell"] if analysis.num_seeds == 1 else []
    legend += ["hollow: some trials never reached the threshold"] if hollow else []
    ax.set_xlabel("\n".join(legend))
    ax.set_title("Speed-up over the untutored student")
    return figure


def survival(analysis: Analysis) -> Any:
    """Share of trials that have not converged yet, over env steps (Kaplan–Meier)."""
    if not any(cell.survival is not None for cell in analysis.cells):
        return None
    figure, axes = _grid(analysis, "Share of trials that have not reached the threshold yet")
    colours = _colours(analysis)
    for (task, algorithm), ax in axes.items():
        ends = []
        for cell in _cells(analysis, task, algorithm):
            sample = cell.survival
            if sample is None:
                continue
            times, share = survival_curve(sample)
            times, share = np.append(times, cell.horizon), np.append(share, share[-1])
            ax.step(times, share, where="post", color=colours[cell.cell.tutor], linestyle=_line(cell))
            ends.append((float(share[-1]), _label(cell, analysis), colours[cell.cell.tutor]))
        ax.set_ylim(-0.03, 1.05)
        _label_ends(ax, ends)
        _steps_axis(ax)
        ax.set_ylabel("not converged")
    return figure


def effect_and_trust(analysis: Analysis) -> Any:
    """What advice was measured to be worth, and the trust that it earned, over training."""
    import matplotlib.pyplot as plt

    cells = [c for c in analysis.cells if c.cell.tutored and _series(c, "advice/trust") is not None]
    if not cells:
        return None
    keys = sorted({(c.cell.task, c.cell.algorithm) for c in cells})
    tasks, algorithms = sorted({k[0] for k in keys}), sorted({k[1] for k in keys})
    figure, grid = plt.subplots(
        2 * len(tasks), len(algorithms), figsize=(3.6 * len(algorithms) + 1, 3.8 * len(tasks)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colours = _colours(analysis)
    for row, task in enumerate(tasks):
        for column, algorithm in enumerate(algorithms):
            effect_ax, trust_ax = grid[2 * row][column], grid[2 * row + 1][column]
            ends = []
            for cell in cells:
                if (cell.cell.task, cell.cell.algorithm) != (task, algorithm):
                    continue
                colour = colours[cell.cell.tutor]
                _effect(effect_ax, cell, colour)
                trust = _series(cell, "advice/trust")
                assert trust is not None
                trust_ax.plot(*trust, color=colour, linestyle=_line(cell))
                ends.append((float(trust[1][-1]), _label(cell, analysis), colour))
            effect_ax.axhline(0, color=GREY, linewidth=0.8)
            effect_ax.set_title(f"{algorithm} · {task}")
            effect_ax.set_ylabel("effect of advice")
            trust_ax.set_ylabel("trust")
            trust_ax.set_ylim(-0.03, 1.08)
            _label_ends(trust_ax, ends)
            for ax in (effect_ax, trust_ax):
                _steps_axis(ax)
    figure.suptitle(
        "Effect of advice (± 1 standard error) and the trust that it earned", x=0.01, ha="left", fontsize=11
    )
    return figure


def quality(analysis: Analysis) -> Any:
    """Tutor quality, as the measured effect of its advice early in training, against the speed-up."""
    import matplotlib.pyplot as plt

    points = []
    for cell in analysis.cells:
        effect = _series(cell, "advice/effect")
        if cell.speed_up is not None and effect is not None:
            steps, values = effect
            points.append((float(values[steps <= steps[-1] / 2].mean()), cell.speed_up.value, cell))
    if len(points) < 2:
        return None
    figure, ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
    colours, markers = _colours(analysis), dict(zip(("dqn", "ppo", "a2c"), "so^", strict=True))
    for x, y, cell in points:
        ax.plot(x, y, markers.get(cell.cell.algorithm, "D"), color=colours[cell.cell.tutor], markersize=7, alpha=0.9)
    for tutor in dict.fromkeys(cell.cell.tutor for _, _, cell in points):
        own = [(x, y) for x, y, cell in points if cell.cell.tutor == tutor]
        ax.annotate(
            tutor, max(own, key=lambda p: p[1]), xytext=(6, 5), textcoords="offset points", color=colours[tutor]
        )
    for algorithm in sorted({cell.cell.algorithm for _, _, cell in points}):
        ax.plot([], [], markers.get(algorithm, "D"), color=GREY, label=algorithm)
    ax.legend(frameon=False, loc="best", fontsize=8)
    ax.axhline(1.0, color=GREY, linewidth=0.8)
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    ax.set_yscale("log")
    ax.set_yticks([t for t in (0.2, 0.5, 1, 2, 5, 10, 20) if ax.get_ylim()[0] <= t <= ax.get_ylim()[1]])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.minorticks_off()
    ax.set_xlabel("measured effect of advice, mean over the first half of training (return)")
    ax.set_ylabel("speed-up")
    ax.set_title("Tutor quality and speed-up")
    return figure


def _grid(analysis: Analysis, title: str) -> tuple[Any, dict[tuple[str, str], Any]]:
    import matplotlib.pyplot as plt

    tasks = sorted({cell.cell.task for cell in analysis.cells})
    algorithms = sorted({cell.cell.algorithm for cell in analysis.cells})
    figure, grid = plt.subplots(
        len(tasks), len(algorithms), figsize=(3.8 * len(algorithms) + 0.8, 2.7 * len(tasks) + 0.4), squeeze=False,
        sharey="row", layout="constrained",
    )  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    axes = {(t, a): grid[i][j] for i, t in enumerate(tasks) for j, a in enumerate(algorithms)}
    for (task, algorithm), ax in axes.items():
        ax.set_title(f"{algorithm} · {task}")
    return figure, axes


def _cells(analysis: Analysis, task: str, algorithm: str) -> list[CellResult]:
    return [c for c in by_task(analysis.cells) if (c.cell.task, c.cell.algorithm) == (task, algorithm)]


def _colours(analysis: Analysis) -> dict[str, str]:
    tutors = sorted({cell.cell.tutor for cell in analysis.cells if cell.cell.tutored})
    return {"none": GREY} | {tutor: PALETTE[i % len(PALETTE)] for i, tutor in enumerate(tutors)}


def _line(cell: CellResult) -> str:
    return "--" if cell.cell.reuse is False else "-"


def _label(cell: CellResult, analysis: Analysis) -> str:
    """The tutor, and the reuse where the sweep has both."""
    both = len({c.cell.reuse for c in analysis.cells if c.cell.tutored}) > 1
    return tutor_word(cell) + (f", {REUSE_WORDS[cell.cell.reuse]}" if both and cell.cell.tutored else "")


def _steps_axis(ax: Any) -> None:
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    ax.set_xlabel("env steps")
    right = max((line.get_xdata()[-1] for line in ax.lines if len(line.get_xdata()) > 2), default=None)
    ax.set_xlim(0, right)


def _aligned(curves: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Curves on the steps that all of them have: ``(points,)`` and ``(n, points)``."""
    common = curves[0].steps
    for curve in curves[1:]:
        common = np.intersect1d(common, curve.steps)
    return common, np.array([curve.values[np.isin(curve.steps, common)] for curve in curves])


def _series(cell: CellResult, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean over trials of one metric, on common steps; None where no trial has it."""
    found = [trial.run.series[name] for trial in cell.trials if len(trial.run.series.get(name, ()))]
    if not found:
        return None
    steps, values = _aligned(found)
    return (steps, values.mean(axis=0)) if len(steps) else None


def _effect(ax: Any, cell: CellResult, colour: str) -> None:
    effect, error = _series(cell, "advice/effect"), _series(cell, "advice/effect_se")
    if effect is None:
        return
    ax.plot(*effect, color=colour, linestyle=_line(cell))
    if error is not None and len(error[0]) == len(effect[0]):
        ax.fill_between(effect[0], effect[1] - error[1], effect[1] + error[1], color=colour, alpha=0.15, linewidth=0)


def _threshold(ax: Any, level: float) -> None:
    ax.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate(
        "threshold", (1.0, level), xycoords=("axes fraction", "data"), xytext=(-2, -2), textcoords="offset points",
        color=GREY, fontsize=7, ha="right", va="top",
    )  # fmt: skip


def _scale(ax: Any, values: np.ndarray) -> bool:
    """Fits the axis to the curves; a few very low points at the start must not flatten the rest. True: some are cut."""
    low, high = float(np.quantile(values, _CUT)), float(values.max())
    margin = 0.12 * max(high - low, 1e-9)
    lowest = float(values.min())
    cut = lowest < low - (high - low)
    ax.set_ylim((low if cut else lowest) - margin, high + margin)
    return cut


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions near ascending ``values`` that are at least ``gap`` apart and, as a whole, not shifted."""
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


def _label_ends(ax: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names each line at its right end; labels that would overlap are pushed apart."""
    low, high = ax.get_ylim()
    ordered = sorted((min(max(value, low), high), text, colour) for value, text, colour in ends)
    places = spread([e[0] for e in ordered], 0.085 * (high - low))
    lift = max(0.0, low - places[0]) if places else 0.0  # below the axis are its own numbers
    for (_, text, colour), y in zip(ordered, [place + lift for place in places], strict=True):
        ax.annotate(
            text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", color=colour,
            va="center", fontsize=8, annotation_clip=False,
        )  # fmt: skip
