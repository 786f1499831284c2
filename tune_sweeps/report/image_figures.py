"""Draw a report's figures, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tune_sweeps.report import figure_style
from tune_sweeps.report.figure_style import GREY, LineEnd
from tune_sweeps.report.results import Analysis
from tune_sweeps.report.statistics import band
from tune_sweeps.report.tables import by_task

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
    """Draw every figure that there is data for.

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
        "speed_up_by_threshold": thresholds,
        "survival": survival,
        "performance_profiles": profiles,
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
    """Draw greedy returns over env steps: tasks down, algorithms across; bands are ± one standard error over seeds."""
    figure, axes = figure_style.grid(analysis, "Greedy return over training, tutor off")
    colours = figure_style.colours(analysis)
    ends: dict[tuple[str, str], list[LineEnd]] = {key: [] for key in axes}
    drawn: dict[str, list[np.ndarray]] = {}
    for (task, algorithm), ax in axes.items():
        for cell in figure_style.cells(analysis, task, algorithm):
            steps, curves = figure_style.aligned([trial.run.curve for trial in cell.trials])
            if not len(steps):
                continue
            mean, low, high = band(curves)
            colour = colours[cell.cell.tutor]
            ax.plot(steps, mean, color=colour, linestyle=figure_style.line(cell), zorder=2 if cell.cell.tutored else 3)
            if len(curves) > 1:
                ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            ends[task, algorithm].append(LineEnd(float(mean[-1]), figure_style.label(cell, analysis), colour))
            drawn.setdefault(task, []).append(mean)
            if cell.cell.baseline and cell.threshold.level is not None:
                figure_style.threshold(ax, cell.threshold.level)
        figure_style.steps_axis(ax)
        ax.set_ylabel("greedy return")
    for (task, algorithm), ax in axes.items():  # once the scale is known: a row of axes shares it
        if task in drawn:
            cut = figure_style.scale(ax, np.concatenate(drawn[task]))
            ax.set_ylabel("greedy return" + (f"\n(cut below {ax.get_ylim()[0]:.2g})" if cut else ""))
        figure_style.label_ends(ax, ends[task, algorithm])
    return figure


def forest(analysis: Analysis) -> Any:
    """Draw speed-ups with their intervals, one line per tutored cell, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    cells = [cell for cell in by_task(analysis.cells) if cell.speed_up is not None][::-1]
    if not cells:
        return None
    figure, ax = plt.subplots(figsize=(7.0, 1.2 + 0.26 * len(cells)))
    colours = figure_style.colours(analysis)
    left, right = figure_style.ratio_limits([cell.speed_up for cell in cells if cell.speed_up is not None])
    for row, cell in enumerate(cells):
        estimate = cell.speed_up
        assert estimate is not None
        colour = colours[cell.cell.tutor]
        if estimate.has_interval:
            ends = (max(estimate.low, left), min(estimate.high, right))
            ax.plot(ends, [row, row], color=colour, linewidth=1.4)
            for goes_on, end, arrow in ((estimate.low < left, left, "<"), (estimate.high > right, right, ">")):
                if goes_on:
                    ax.plot(end, row, arrow, color=colour, markersize=5)
        censored = cell.num_converged < len(cell.trials)
        ax.plot(estimate.value, row, "o", color=colour, markersize=5, markerfacecolor="white" if censored else colour)
        ax.annotate(
            f"{estimate.value:.2g}×", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            color=colour,
        )  # fmt: skip
    ax.axvline(1.0, color=GREY, linewidth=1.0)
    ax.set_xscale("log")
    ax.set_xlim(left * 0.9, right * 1.1)
    figure_style.ratio_axis(ax.xaxis)
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


def thresholds(analysis: Analysis) -> Any:
    """Draw the speed-up over the share of the way at which a trial counts as converged, with intervals."""
    if not any(point.sustained for cell in analysis.cells for point in cell.speed_ups):
        return None
    figure, axes = figure_style.grid(analysis, "Speed-up by threshold")
    colours = figure_style.colours(analysis)
    for (task, algorithm), ax in axes.items():
        for cell in figure_style.cells(analysis, task, algorithm):
            points = [(p.frac, p.sustained) for p in cell.speed_ups if p.sustained]
            if not points or (cell.versus and cell.versus.twin is not None):
                continue
            colour = colours[cell.cell.tutor]
            fracs, found = zip(*points, strict=True)
            ax.plot(fracs, [estimate.value for estimate in found], color=colour, linestyle=figure_style.line(cell))
            if all(estimate.has_interval for estimate in found):
                low, high = zip(*((estimate.low, estimate.high) for estimate in found), strict=True)
                ax.fill_between(fracs, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.annotate(
                figure_style.label(cell, analysis), (fracs[-1], found[-1].value), xytext=(4, 0),
                textcoords="offset points", color=colour, va="center", fontsize=8, annotation_clip=False,
            )  # fmt: skip
        ax.axhline(1.0, color=GREY, linewidth=0.8)
        ax.set_yscale("log")
        ax.set_xlabel("share of the way")
        ax.set_ylabel("speed-up")
    for ax in axes.values():
        figure_style.ratio_axis(ax.yaxis)
    return figure


def survival(analysis: Analysis) -> Any:
    """Draw the share of trials that have not converged yet, over env steps (Kaplan–Meier)."""
    from scipy import stats

    if not any(cell.convergences for cell in analysis.cells):
        return None
    figure, axes = figure_style.grid(analysis, "Share of trials that have not reached the threshold for good")
    colours = figure_style.colours(analysis)
    for (task, algorithm), ax in axes.items():
        ends = []
        for cell in figure_style.cells(analysis, task, algorithm):
            if not cell.convergences:
                continue
            times = [found.steps for found in cell.convergences]
            censored = [not found.converged for found in cell.convergences]
            curve = stats.ecdf(stats.CensoredData.right_censored(times, censored)).sf
            steps = np.concatenate([[0.0], curve.quantiles, [cell.horizon]])
            share = np.concatenate([[1.0], curve.probabilities, curve.probabilities[-1:]])
            ax.step(steps, share, where="post", color=colours[cell.cell.tutor], linestyle=figure_style.line(cell))
            ends.append(LineEnd(float(share[-1]), figure_style.label(cell, analysis), colours[cell.cell.tutor]))
        ax.set_ylim(-0.03, 1.05)
        figure_style.label_ends(ax, ends)
        figure_style.steps_axis(ax)
        ax.set_ylabel("not converged")
    return figure


def profiles(analysis: Analysis) -> Any:
    """Draw performance profiles: the share of trials whose score is at least a value, per arm over all tasks."""
    import matplotlib.pyplot as plt

    scores = {c.cell: c.scores for c in analysis.cells if c.scores and not (c.versus and c.versus.twin)}
    if not scores:
        return None
    algorithms = sorted({cell.algorithm for cell in scores})
    figure, axes = plt.subplots(
        1, len(algorithms), figsize=(3.8 * len(algorithms) + 0.8, 3.0), squeeze=False, sharey=True, layout="constrained"
    )
    colours = figure_style.colours(analysis)
    values = np.concatenate(list(scores.values()))
    points = np.linspace(float(np.quantile(values, figure_style.CUT)), float(values.max()), 201)
    for algorithm, ax in zip(algorithms, axes[0], strict=True):
        for arm in dict.fromkeys(replace(cell, task="") for cell in scores if cell.algorithm == algorithm):
            own = [found for cell, found in scores.items() if replace(cell, task="") == arm]
            share = (np.concatenate(own)[:, None] >= points).mean(axis=0)
            name = arm.named(arm.arm)
            style = "--" if arm.reuse is False else "-"
            ax.plot(points, share, color=colours[arm.tutor], linestyle=style, label=name)
        ax.set(title=algorithm, xlabel="score: 0 trivial, 1 best untutored", ylim=(-0.03, 1.05))
        ax.legend(frameon=False, fontsize=7)
    axes[0][0].set_ylabel("share of trials at or above")
    figure.suptitle("Performance profiles of final returns over all tasks", x=0.01, ha="left", fontsize=11)
    return figure


def effect_and_trust(analysis: Analysis) -> Any:
    """Draw what advice was measured to be worth, and the trust that it earned, over training."""
    import matplotlib.pyplot as plt

    cells = [c for c in analysis.cells if c.cell.tutored and figure_style.series(c, "advice/trust") is not None]
    if not cells:
        return None
    keys = sorted({(c.cell.task, c.cell.algorithm) for c in cells})
    tasks, algorithms = sorted({k[0] for k in keys}), sorted({k[1] for k in keys})
    figure, grid = plt.subplots(
        2 * len(tasks), len(algorithms), figsize=(3.6 * len(algorithms) + 1, 3.8 * len(tasks)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colours = figure_style.colours(analysis)
    for row, task in enumerate(tasks):
        for column, algorithm in enumerate(algorithms):
            effect_ax, trust_ax = grid[2 * row][column], grid[2 * row + 1][column]
            ends = []
            for cell in cells:
                if (cell.cell.task, cell.cell.algorithm) != (task, algorithm):
                    continue
                colour = colours[cell.cell.tutor]
                figure_style.effect(effect_ax, cell, colour)
                trust = figure_style.series(cell, "advice/trust")
                assert trust is not None
                trust_ax.plot(*trust, color=colour, linestyle=figure_style.line(cell))
                ends.append(LineEnd(float(trust[1][-1]), figure_style.label(cell, analysis), colour))
            effect_ax.axhline(0, color=GREY, linewidth=0.8)
            effect_ax.set_title(f"{algorithm} · {task}")
            effect_ax.set_ylabel("effect of advice")
            trust_ax.set_ylabel("trust")
            trust_ax.set_ylim(-0.03, 1.08)
            figure_style.label_ends(trust_ax, ends)
            for ax in (effect_ax, trust_ax):
                figure_style.steps_axis(ax)
    figure.suptitle(
        "Effect of advice (± 1 standard error) and the trust that it earned", x=0.01, ha="left", fontsize=11
    )
    return figure


def quality(analysis: Analysis) -> Any:
    """Draw tutor quality, as the measured effect of its advice early in training, against the speed-up."""
    import matplotlib.pyplot as plt

    points = []
    for cell in analysis.cells:
        effect = figure_style.series(cell, "advice/effect")
        if cell.speed_up is not None and effect is not None:
            steps, values = effect
            points.append((float(values[steps <= steps[-1] / 2].mean()), cell.speed_up.value, cell))
    if len(points) < 2:
        return None
    figure, ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
    colours, markers = figure_style.colours(analysis), dict(zip(("dqn", "ppo", "a2c"), "so^", strict=True))
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
    figure_style.ratio_axis(ax.yaxis)
    ax.set_xlabel("measured effect of advice, mean over the first half of training (return)")
    ax.set_ylabel("speed-up")
    ax.set_title("Tutor quality and speed-up")
    return figure
