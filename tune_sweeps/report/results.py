"""Hold what a sweep came to: results of trials, of cells, of cells against the untutored student, and by axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rllib_plugins import metrics
from tune_sweeps.definition.grid import Cell
from tune_sweeps.report.convergence import Convergence, Progress, Scale
from tune_sweeps.report.statistics import Interval
from tune_sweeps.tracking.reader import RunRecord, SweepRecord

COUNTERS = tuple(name.removeprefix("advice/") for name in metrics.COUNTERS)
THRESHOLD_FRACS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    Attributes:
        run: The trial.
        final: Final return: the mean of the evaluations in the last window.
        area: Mean return over training.
        sustained: What its trailing mean held to the end.
        first_hits: What its trailing mean reached at all.
    """

    run: RunRecord
    final: float
    area: float
    sustained: Progress
    first_hits: Progress


class Threshold(NamedTuple):
    """The return that counts as converged.

    Attributes:
        frac: Share of the way.
        level: The return; None where there is no way to go, or the level is refused.
        refused: The trivial player that reaches the level; empty where none does.
    """

    frac: float
    level: float | None
    refused: str = ""


class SpeedUp(NamedTuple):
    """A speed-up at a share of the way; None where that has no level."""

    frac: float
    sustained: Interval | None
    first_hit: Interval | None


@dataclass(frozen=True)
class Versus:
    """A cell against the untutored student of its algorithm and task.

    Attributes:
        final: Final return minus the untutored student's.
        area: Mean return over training minus the untutored student's.
        improvement: Probability that a trial's final return exceeds an untutored one's.
        not_worse: Whether the final return is within the margin: True, False, or None where it is undecided.
        at_threshold: The speed-up at the sweep's threshold.
        curve: The speed-up at every share of the way.
        over_control: The speed-up over the untutored student of more updates; None where there is none.
        over_cloning: The speed-up over the student that imitates the same tutor and learns nothing from reward; None
            where there is none.
        p: p-value at the last look; NaN where there is none.
        p_corrected: The same after correction for cells and looks.
        twin: The cell whose trials are identical and that counts in its place; None: it counts itself.
    """

    final: Interval
    area: Interval
    improvement: Interval
    not_worse: bool | None
    at_threshold: SpeedUp
    curve: list[SpeedUp]
    over_control: Interval | None = None
    over_cloning: Interval | None = None
    p: float = float("nan")
    p_corrected: float = float("nan")
    twin: Cell | None = None


@dataclass(frozen=True)
class CellResult:
    """What a cell came to, over its finished trials.

    Attributes:
        cell: The cell.
        trials: Its finished trials.
        scale: From which return the threshold is counted, and to which; None where that is not known.
        threshold: The return that counts as converged.
        horizon: Env steps up to which convergence was looked for.
        final: Mean final return.
        convergences: When each trial converged; empty where there is no level.
        steps: Geometric mean of the env steps to convergence; None where there is no level.
        first_hit_steps: The same to the first hit.
        stability: Mean share of the evaluations after the first hit that stay at or above the level; None where none.
        totals: Mean per trial of each advice counter.
        updates: Mean gradient steps per trial; NaN where unknown.
        wall_s: Mean seconds per trial.
        versus: The comparison with the untutored student; None for that one itself.
    """

    cell: Cell
    trials: list[TrialResult]
    scale: Scale | None
    threshold: Threshold
    horizon: float
    final: Interval
    convergences: list[Convergence]
    steps: float | None
    first_hit_steps: float | None
    stability: float | None
    totals: dict[str, float]
    updates: float
    wall_s: float
    versus: Versus | None = None

    @property
    def scores(self) -> list[float]:
        """Final returns as shares of the way: 0 where it begins, 1 where it ends; empty where there is no way."""
        scale = self.scale
        if scale is None or scale.upper <= scale.lower:
            return []
        return [(trial.final - scale.lower) / (scale.upper - scale.lower) for trial in self.trials]

    @property
    def num_converged(self) -> int:
        """Trials that converged."""
        return sum(found.converged for found in self.convergences)

    @property
    def speed_up(self) -> Interval | None:
        """The speed-up at the sweep's threshold; None for baselines and where there is no level."""
        return None if self.versus is None else self.versus.at_threshold.sustained

    @property
    def speed_ups(self) -> list[SpeedUp]:
        """The speed-up at every share of the way; empty for baselines."""
        return [] if self.versus is None else self.versus.curve


class Aggregate(NamedTuple):
    """All cells that share a value of an axis.

    Attributes:
        axis: algorithm, tutor, task or reuse.
        value: The value.
        speed_up: Interquartile mean over trials.
        score: Interquartile mean of the normalised final returns.
        num_trials: Trials in it.
        num_cells: Cells in it.
    """

    axis: str
    value: str
    speed_up: Interval
    score: Interval
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
        looks: Seeds that every cell had at each look.
    """

    sweep: SweepRecord
    cells: list[CellResult]
    aggregates: list[Aggregate]
    counts: dict[str, int]
    looks: list[int]

    @property
    def num_seeds(self) -> int:
        """Fewest finished trials of any cell."""
        return min((len(cell.trials) for cell in self.cells), default=0)

    def undecided(self) -> list[Cell]:
        """List the cells with a threshold that are not significantly faster or slower after correction."""
        alpha = self.sweep.config.statistics.alpha
        return [
            result.cell
            for result in self.cells
            if result.cell.tutored
            and result.versus is not None
            and result.versus.twin is None
            and result.threshold.level is not None
            and not result.versus.p_corrected <= alpha
        ]
