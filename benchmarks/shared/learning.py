"""What the learning benchmarks share: many trials on all cores, and how two groups of seeds are compared.

Convergence and statistics are the sweeps' own (``tune_sweeps.report.convergence``, ``tune_sweeps.report.statistics``).
Trials run as Ray tasks with one core each, in the order given; workers keep their imports.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Curve:
    """Greedy returns of one trial on its evaluation grid."""

    steps: list[float]
    returns: list[float]
    last: dict[str, Any]

    @property
    def final(self) -> float:
        from tune_sweeps.report.convergence import final_return

        return final_return(self.steps, self.returns, window_steps(self))

    @property
    def area(self) -> float:
        from tune_sweeps.report.convergence import area_under_curve

        return area_under_curve(self.steps, self.returns)


def train_ours(config: Any) -> Curve:
    """One trial of ours."""
    from rllib_plugins.metrics import STEP_AXIS
    from rllib_plugins.trial import train

    results = train(config)
    return Curve([r[STEP_AXIS] for r in results], [r["eval/return_mean"] for r in results], results[-1])


def run_all(jobs: Sequence[tuple[Callable[..., Curve], tuple[Any, ...]]], cores: int) -> list[Curve]:
    """Runs functions with arguments as Ray tasks, one per core; results in the order of the jobs."""
    import ray

    from rllib_plugins.trial import ensure_ray

    ensure_ray(cores)
    remote = ray.remote(num_cpus=1)(_call)
    asked = [remote.remote(function, arguments) for function, arguments in jobs]
    left, started = list(asked), time.monotonic()
    while left:
        _, left = ray.wait(left, num_returns=min(len(left), max(1, len(jobs) // 20)))
        print(f"{len(jobs) - len(left)}/{len(jobs)} trials, {time.monotonic() - started:.0f} s", flush=True)
    return ray.get(asked)


def told(students: Sequence[tuple[str, Any]], cores: int) -> tuple[list[Any], dict[str, Any]]:
    """Let tutors play by themselves, and tell their students what a sweep would tell them of it.

    Args:
        students: Names of places and configs of students there.
        cores: Cores that may be used.

    Returns:
        The configs in the same order, and by place and tutor what was played.
    """
    from rllib_plugins.trial import ensure_ray
    from tune_sweeps.definition.config import EvaluationConfig
    from tune_sweeps.definition.grid import Cell, Trial
    from tune_sweeps.run.own_play import Playing, as_record, play_tutors, with_level

    ensure_ray(cores)
    trials = [Trial(Cell(s.algorithm, s.tutor, place, None), s.seed, s) for place, s in students]
    with tempfile.TemporaryDirectory() as folder:
        playing = Playing(EvaluationConfig().tutor_episodes, num_cpus=1.0)
        played = play_tutors(trials, (), Path(folder) / "own_play.json", playing, print)
    return [with_level(trial, played) for trial in trials], as_record(played)


def _call(function: Callable[..., Curve], arguments: tuple[Any, ...]) -> Curve:
    return function(*arguments)


def window_steps(curve: Curve) -> float:
    """Env steps that a trailing mean looks back: the sweeps' default."""
    from tune_sweeps.report.analysis import DEFAULT_WINDOW_FRAC

    return DEFAULT_WINDOW_FRAC * curve.steps[-1]


def short_window_steps(curve: Curve) -> float:
    """Env steps of five evaluations, or the sweeps' default where that is less."""
    return min(window_steps(curve), 5.0 * (curve.steps[1] - curve.steps[0]))


def difference(first: Sequence[float], second: Sequence[float]) -> Any:
    """Mean of ``first`` minus mean of ``second`` with its 95 % interval."""
    from tune_sweeps.report.statistics import mean_difference

    return mean_difference(first, second, CONFIDENCE)


def compared(
    untutored: Sequence[Curve],
    tutored: Sequence[Curve],
    lower: float,
    others: Sequence[Sequence[Curve]] = (),
    *,
    sustained: bool = True,
    window: Callable[[Curve], float] = window_steps,
) -> Any:
    """Two arms as the sweeps compare them.

    Args:
        untutored: One curve per seed.
        tutored: The same with a tutor.
        lower: Return at which the way to the threshold begins: that of the best trivial player.
        others: Untutored students of other algorithms on the task; the way ends at the best one's final return.
        sustained: Whether a level must be held to the end; else its first hit counts.
        window: Env steps that a curve's trailing mean looks back.
    """
    from tune_sweeps.report.convergence import Scale, progress
    from tune_sweeps.report.statistics import Comparison

    def reached(curves: Sequence[Curve]) -> list[Any]:
        return [progress(c.steps, c.returns, window(c), sustained=sustained) for c in curves]

    peers = tuple(np.array([curve.final for curve in group]) for group in (untutored, *others))
    return Comparison(
        untutored=reached(untutored),
        tutored=reached(tutored),
        tutored_finals=np.array([curve.final for curve in tutored]),
        scale=Scale(lower, peers),
        horizon=min(curve.steps[-1] for curve in (*untutored, *tutored)),
        resolution=untutored[0].steps[1] - untutored[0].steps[0],
    )


def faster(comparison: Any, frac: float) -> Any:
    """How many times fewer env steps to a share of the way, with the 95 % interval; None where there is no way."""
    from tune_sweeps.report.statistics import speed_up

    return speed_up(comparison, frac, CONFIDENCE)


def ends(interval: Any) -> list[float] | None:
    """Return value, low and high end of an interval, as a result file keeps them; None where there is none."""
    return None if interval is None else [interval.value, interval.low, interval.high]


def against_control(comparison: Any, control: Sequence[Curve]) -> Any:
    """Return a comparison with other untutored students in the place of the first, at the same level.

    Args:
        comparison: Of sustained levels.
        control: One curve per seed.
    """
    from tune_sweeps.report.convergence import progress

    scale = comparison.scale
    return replace(
        comparison,
        untutored=[progress(c.steps, c.returns, window_steps(c)) for c in control],
        scale=replace(scale, peers=(np.array([c.final for c in control]), *scale.peers[1:]), fixed=scale.upper),
    )


def random_return(task: Any, episodes: int = 2_000) -> float:
    """The return of uniformly random legal play on a task, which may be given by its name."""
    from rllib_plugins.evaluation import evaluate
    from rllib_plugins.tasks import load_task

    made = load_task(task) if isinstance(task, str) else task
    return evaluate(made, made.uniform_policy, episodes=episodes, seed=1).return_mean


def as_record(curves: Sequence[Curve]) -> dict[str, Any]:
    """Curves as a result file keeps them."""
    return {"steps": curves[0].steps, "returns": [[round(r, 5) for r in curve.returns] for curve in curves]}


def draw(path: Path, panels: Mapping[str, Mapping[str, Sequence[Curve]]], columns: int = 3) -> None:
    """Writes a figure of greedy return over env steps: a panel per cell, means over seeds ± one standard error.

    Args:
        path: PNG file to write.
        panels: By title, curves by label; the first of each panel is the untutored or peer's, drawn grey.
        columns: Panels per row.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE, steps_axis
    from tune_sweeps.report.statistics import band

    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 2.8 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (title, groups) in zip(axes.flat, panels.items(), strict=False):
        for (label, curves), colour in zip(groups.items(), (GREY, *PALETTE), strict=False):
            length = min(len(curve.steps) for curve in curves)
            mean, low, high = band(np.array([curve.returns[:length] for curve in curves]))
            ax.plot(curves[0].steps[:length], mean, color=colour, label=label)
            ax.fill_between(curves[0].steps[:length], low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set(title=title, ylabel="greedy return, tutor off")
        steps_axis(ax)
        ax.spines[["top", "right"]].set_visible(False)
    lines = {line.get_label(): line for ax in figure.axes for line in ax.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
