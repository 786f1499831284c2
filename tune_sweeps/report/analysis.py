"""From the runs of a sweep to its results, cell by cell and by axis: pure functions. Knows no MLflow, draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.grid import REUSE_WORDS, Cell
from tune_sweeps.report.convergence import (
    Convergence,
    area_under_curve,
    convergence,
    final_return,
    stability,
    threshold,
)
from tune_sweeps.report.statistics import (
    Interval,
    Survival,
    holm,
    log_rank,
    mean_difference,
    mean_interval,
    restricted_mean,
    speed_up,
    stratified_interquartile_mean,
)
from tune_sweeps.tracking.reader import RunRecord, SweepRecord

COUNTERS = ("consultations", "reused", "store_hits", "model_evaluations", "missed", "invalid", "tokens")


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    Attributes:
        run: The trial.
        final: Final return; the mean of the last evaluations.
        auc: Mean return over training.
        convergence: When it converged; None where no threshold is known.
        stability: Share of later evaluations at or above the threshold; None where it does not apply.
    """

    run: RunRecord
    final: float
    auc: float
    convergence: Convergence | None
    stability: float | None


@dataclass(frozen=True)
class CellResult:
    """What a cell came to, over its seeds.

    Attributes:
        cell: The cell.
        trials: Its trials that were evaluated at least once.
        threshold: Return that counts as converged; None where it is not known.
        horizon: Env steps up to which convergence was looked for.
        final: Mean final return.
        final_difference: Final return minus the untutored student's.
        auc_difference: Mean return over training minus the untutored student's.
        steps: Restricted mean of the steps to convergence; None where no threshold is known.
        num_converged: Trials that converged.
        speed_up: Untutored over tutored restricted mean; None for baselines and where no threshold is known.
        p: p-value of the log-rank test; NaN where there is none.
        p_holm: The same after Holm's correction over all cells.
        stability: Mean stability of the trials that converged; None where none did.
        totals: Mean per trial of each advice counter.
        wall_s: Mean seconds per trial.
    """

    cell: Cell
    trials: list[TrialResult]
    threshold: float | None
    horizon: float
    final: Interval
    final_difference: Interval | None
    auc_difference: Interval | None
    steps: float | None
    num_converged: int
    speed_up: Interval | None
    p: float
    p_holm: float
    stability: float | None
    totals: dict[str, float]
    wall_s: float

    @property
    def survival(self) -> Survival | None:
        """Steps to convergence of the trials."""
        found = [trial.convergence for trial in self.trials]
        if not found or any(item is None for item in found):
            return None
        return Survival.of([item.steps for item in found if item], [item.converged for item in found if item])


@dataclass(frozen=True)
class Aggregate:
    """The speed-up over all cells that share a value of an axis.

    Attributes:
        axis: algorithm, tutor, task or reuse.
        value: The value.
        speed_up: Interquartile mean over trials.
        num_trials: Trials in it.
        num_cells: Cells in it.
    """

    axis: str
    value: str
    speed_up: Interval
    num_trials: int
    num_cells: int


@dataclass(frozen=True)
class Analysis:
    """All results of a sweep.

    Attributes:
        sweep: What was read.
        cells: By cell, baselines first.
        aggregates: By axis and value.
        counts: Trials by MLflow's status.
    """

    sweep: SweepRecord
    cells: list[CellResult]
    aggregates: list[Aggregate]
    counts: dict[str, int]

    @property
    def num_seeds(self) -> int:
        """Fewest trials of any cell that was evaluated."""
        return min((len(cell.trials) for cell in self.cells), default=0)


def analyse(sweep: SweepRecord) -> Analysis:
    """Computes all results; the same sweep gives the same numbers.

    Args:
        sweep: What was read from MLflow, possibly of a sweep that is still running.
    """
    rng = np.random.default_rng(0)
    groups: dict[Cell, list[RunRecord]] = {}
    for run in sweep.runs:
        if len(run.curve):
            groups.setdefault(run.cell, []).append(run)
    baselines: dict[tuple[str, str], CellResult] = {}
    cells: list[CellResult] = []
    for cell in sorted(groups, key=_order):
        baseline = baselines.get((cell.algorithm, cell.task))
        known = baseline.threshold if baseline else None
        level = known if cell.tutored else _threshold(groups[cell], sweep)
        result = _cell_result(cell, groups[cell], level, baseline, sweep.config, rng)
        if not cell.tutored:
            baselines[(cell.algorithm, cell.task)] = result
        cells.append(result)
    cells = [
        CellResult(**{**vars(cell), "p_holm": adjusted})
        for cell, adjusted in zip(cells, holm([cell.p for cell in cells]), strict=True)
    ]
    counts: dict[str, int] = {}
    for run in sweep.runs:
        counts[run.status] = counts.get(run.status, 0) + 1
    return Analysis(sweep, cells, _aggregates(cells, baselines, sweep.config, rng), counts)


def _order(cell: Cell) -> tuple[object, ...]:
    return (cell.tutored, cell.task, cell.algorithm, cell.tutor, not cell.reuse)


def _threshold(baseline: Sequence[RunRecord], sweep: SweepRecord) -> float | None:
    """From the untutored trials of an algorithm and a task; they must be finished, or R* is not known."""
    finished = [run for run in baseline if run.status == "FINISHED"]
    task = baseline[0].cell.task
    if not finished or task not in sweep.random_returns:
        return None
    settings = sweep.config.convergence
    reference = fmean(final_return(run.curve.values, settings.final_window) for run in finished)
    return threshold(sweep.random_returns[task], reference, settings.threshold_frac)


def _cell_result(
    cell: Cell,
    runs: Sequence[RunRecord],
    level: float | None,
    baseline: CellResult | None,
    config: SweepConfig,
    rng: np.random.Generator,
) -> CellResult:
    trials = [_trial_result(run, level, config) for run in runs]
    constants: dict[str, Any] = {"resamples": config.statistics.resamples, "confidence": config.statistics.confidence}
    horizon = max(float(run.curve.steps[-1]) for run in runs)
    if baseline is not None:
        horizon = min(horizon, baseline.horizon)
    partial = CellResult(
        cell=cell,
        trials=trials,
        threshold=level,
        horizon=horizon,
        final=mean_interval([t.final for t in trials], **constants, rng=rng),
        final_difference=None,
        auc_difference=None,
        steps=None,
        num_converged=sum(bool(t.convergence and t.convergence.converged) for t in trials),
        speed_up=None,
        p=float("nan"),
        p_holm=float("nan"),
        stability=_mean([t.stability for t in trials if t.stability is not None]),
        totals={name: fmean(run.last.get(f"advice/{name}", 0.0) for run in runs) for name in COUNTERS},
        wall_s=fmean(run.last.get("wall_s", 0.0) for run in runs),
    )
    changes: dict[str, object] = {}
    survival = partial.survival
    if survival is not None:
        changes["steps"] = restricted_mean(survival, horizon)
    if cell.tutored and baseline is not None:
        for name in ("final", "auc"):
            own, other = ([getattr(t, name) for t in group] for group in (trials, baseline.trials))
            changes[f"{name}_difference"] = mean_difference(own, other, **constants, rng=rng)
        if survival is not None and baseline.survival is not None:
            changes["speed_up"] = speed_up(baseline.survival, survival, horizon, **constants, rng=rng)
            if min(len(survival), len(baseline.survival)) > 1:
                changes["p"] = log_rank(survival, baseline.survival)
    return CellResult(**{**vars(partial), **changes})


def _trial_result(run: RunRecord, level: float | None, config: SweepConfig) -> TrialResult:
    settings, curve = config.convergence, run.curve
    found = None if level is None else convergence(list(curve.steps), curve.values, level, settings.window)
    return TrialResult(
        run=run,
        final=final_return(curve.values, settings.final_window),
        auc=area_under_curve(curve.steps, curve.values),
        convergence=found,
        stability=None if found is None or level is None else stability(list(curve.steps), curve.values, level, found),
    )


def _aggregates(
    cells: Sequence[CellResult],
    baselines: dict[tuple[str, str], CellResult],
    config: SweepConfig,
    rng: np.random.Generator,
) -> list[Aggregate]:
    """Interquartile means of each trial's own speed-up: the baseline's restricted mean over its own steps."""
    ratios: list[tuple[Cell, list[float]]] = []
    for result in cells:
        baseline = baselines.get((result.cell.algorithm, result.cell.task))
        if result.speed_up is None or baseline is None or result.survival is None or baseline.survival is None:
            continue
        reference = restricted_mean(baseline.survival, result.horizon)
        steps = np.minimum(result.survival.times, result.horizon)
        ratios.append((result.cell, list(reference / steps)))
    axes: dict[str, Callable[[Cell], str]] = {
        "algorithm": lambda cell: cell.algorithm,
        "tutor": lambda cell: cell.tutor,
        "task": lambda cell: cell.task,
        "reuse": lambda cell: REUSE_WORDS[cell.reuse],
    }
    found = []
    for axis, value_of in axes.items():
        for value in dict.fromkeys(value_of(cell) for cell, _ in ratios):
            strata = [values for cell, values in ratios if value_of(cell) == value]
            interval = stratified_interquartile_mean(
                strata, resamples=config.statistics.resamples, confidence=config.statistics.confidence, rng=rng
            )
            found.append(Aggregate(axis, value, interval, sum(map(len, strata)), len(strata)))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
