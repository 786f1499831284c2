"""Compute a sweep's results from its runs, cell by cell and by axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from tune_sweeps.definition.config import CLONING, UNTUTORED, SweepConfig
from tune_sweeps.definition.grid import NO_REUSE_WORD, Cell
from tune_sweeps.report.convergence import Progress, Scale, area_under_curve, final_return, progress, stability
from tune_sweeps.report.results import (
    COUNTERS,
    THRESHOLD_FRACS,
    Aggregate,
    Analysis,
    CellResult,
    SpeedUp,
    Threshold,
    TrialResult,
    Versus,
)
from tune_sweeps.report.statistics import (
    Bootstrap,
    Comparison,
    Interval,
    holm,
    improvement,
    interquartile_mean,
    mean_difference,
    mean_interval,
    not_worse,
    over_looks,
    permutation_test,
    pooled_speed_up,
    speed_up,
    spent_shares,
)
from tune_sweeps.tracking.reader import ORACLE, RANDOM, RunRecord, SweepRecord

MORE_UPDATES = "more_updates"
DEFAULT_WINDOW_FRAC = 0.1
"""Window of a trial's trailing mean as a share of its env steps, where the sweep names none."""

Groups = Mapping[Cell, Sequence[TrialResult]]


def analyse(sweep: SweepRecord) -> Analysis:
    """Compute all results; the same sweep gives the same numbers.

    Args:
        sweep: What was read from MLflow, possibly of a sweep that is still running; finished trials count.
    """
    groups: dict[Cell, list[TrialResult]] = {}
    for run in sweep.runs:
        if run.status == "FINISHED" and len(run.curve):
            groups.setdefault(run.cell, []).append(_trial_result(run, sweep.config))
    order = sorted(groups, key=_order)
    twins = _twins(order, groups)
    cells = []
    for cell in order:
        scale = _scale(cell, groups, sweep)
        result = _cell_result(cell, groups[cell], scale, sweep)
        if not cell.baseline and _baseline(cell) in groups:
            versus = _versus(result, groups, sweep)
            result = replace(result, versus=replace(versus, twin=twins.get(cell)))
        cells.append(result)
    looks = _looks(sweep.config)
    cells = _with_p_values(cells, groups, looks, sweep.config)
    return Analysis(
        sweep=sweep,
        cells=cells,
        aggregates=_aggregates(cells, groups, sweep.config),
        counts=dict(Counter(run.status for run in sweep.runs)),
        looks=[len(seeds) for seeds in looks],
    )


def _order(cell: Cell) -> tuple[bool, list[str]]:
    return not cell.baseline, [cell.task, cell.algorithm, cell.tutor, str(not cell.reuse)]


def _baseline(cell: Cell) -> Cell:
    return Cell(cell.algorithm, UNTUTORED, cell.task, None)


def _trial_result(run: RunRecord, config: SweepConfig) -> TrialResult:
    steps, returns = run.curve.steps, run.curve.values
    window = config.convergence.window_steps or float(steps[-1]) * DEFAULT_WINDOW_FRAC
    return TrialResult(
        run=run,
        final=final_return(steps, returns, window),
        area=area_under_curve(steps, returns),
        sustained=progress(steps, returns, window),
        first_hits=progress(steps, returns, window, sustained=False),
    )


def _scale(cell: Cell, groups: Groups, sweep: SweepRecord) -> Scale | None:
    """Return the way of a cell's threshold; None where a reference or the untutored student is missing."""
    kind, known = sweep.config.convergence.scale, sweep.references.get(cell.task, {})
    own = _baseline(cell)
    if RANDOM not in known or own not in groups or (kind == "oracle" and ORACLE not in known):
        return None
    others = [other for other in groups if other.baseline and other.task == cell.task and other != own]
    peers = [own, *(others if kind == "task" else [])]
    return Scale(
        lower=known[RANDOM] if kind == "own" else max(trivial(known).values()),
        peers=tuple(np.array([trial.final for trial in groups[peer]]) for peer in peers),
        fixed=known[ORACLE] if kind == "oracle" else None,
    )


def trivial(references: Mapping[str, float]) -> dict[str, float]:
    """Return the references that a student must beat to have learnt anything."""
    return {name: value for name, value in references.items() if name != ORACLE}


def _threshold(scale: Scale | None, frac: float, references: Mapping[str, float]) -> Threshold:
    level = None if scale is None else scale.level(frac)
    if level is None:
        return Threshold(frac, None)
    best = max(trivial(references).items(), key=lambda item: item[1])
    return Threshold(frac, None, best[0]) if best[1] >= level else Threshold(frac, level)


def _cell_result(cell: Cell, trials: Sequence[TrialResult], scale: Scale | None, sweep: SweepRecord) -> CellResult:
    config, horizon = sweep.config, min(trial.sustained.end for trial in trials)
    threshold = _threshold(scale, config.convergence.threshold_frac, sweep.references.get(cell.task, {}))
    level = threshold.level
    sustained = [] if level is None else [trial.sustained.convergence(level) for trial in trials]
    hits = [] if level is None else [trial.first_hits.convergence(level) for trial in trials]
    curves = [trial.run.curve for trial in trials]
    stable = [stability(c.steps, c.values, level, hit) for c, hit in zip(curves, hits, strict=bool(hits)) if level]
    known = [share for share in stable if share is not None]
    last = [trial.run.last for trial in trials]
    return CellResult(
        cell=cell,
        trials=list(trials),
        scale=scale,
        threshold=threshold,
        horizon=horizon,
        final=mean_interval([trial.final for trial in trials], config.statistics.confidence),
        convergences=sustained,
        steps=_geometric_mean([found.steps for found in sustained]),
        first_hit_steps=_geometric_mean([found.steps for found in hits]),
        stability=fmean(known) if known else None,
        totals={name: fmean(values.get(f"advice/{name}", 0.0) for values in last) for name in COUNTERS},
        updates=fmean(values.get("updates", float("nan")) for values in last),
        wall_s=fmean(values.get("wall_s", 0.0) for values in last),
    )


def _geometric_mean(steps: Sequence[float]) -> float | None:
    return float(np.exp(np.mean(np.log(np.maximum(steps, 1.0))))) if steps else None


def comparison(
    untutored: Sequence[TrialResult], tutored: Sequence[TrialResult], scale: Scale, *, sustained: bool = True
) -> Comparison:
    """Return two arms for a speed-up: what their trials had reached by env steps, on the first arm's scale."""

    def reached(trials: Sequence[TrialResult]) -> list[Progress]:
        return [trial.sustained if sustained else trial.first_hits for trial in trials]

    steps = tutored[0].run.curve.steps
    return Comparison(
        untutored=reached(untutored),
        tutored=reached(tutored),
        tutored_finals=np.array([trial.final for trial in tutored]),
        scale=replace(scale, peers=(np.array([trial.final for trial in untutored]), *scale.peers[1:])),
        horizon=min(trial.sustained.end for trial in (*untutored, *tutored)),
        resolution=float(steps[1] - steps[0]) if len(steps) > 1 else float(max(1.0, steps[0])),
    )


def _versus(result: CellResult, groups: Groups, sweep: SweepRecord) -> Versus:
    constants, trials, scale = sweep.config.statistics, result.trials, result.scale
    untutored = groups[_baseline(result.cell)]
    references = sweep.references.get(result.cell.task, {})
    own, other = (np.array([trial.final for trial in group]) for group in (trials, untutored))
    areas = [[trial.area for trial in group] for group in (trials, untutored)]
    final = mean_difference(own, other, constants.confidence)
    way = 0.0 if scale is None else max(0.0, scale.upper - scale.lower)

    def at(frac: float) -> SpeedUp:
        if scale is None or _threshold(scale, frac, references).level is None:
            return SpeedUp(frac, None, None)
        both = [
            speed_up(comparison(untutored, trials, scale, sustained=kind), frac, constants.confidence)
            for kind in (True, False)
        ]
        return SpeedUp(frac, *both)

    return Versus(
        final=final,
        area=mean_difference(areas[0], areas[1], constants.confidence),
        improvement=_bootstrap(sweep.config).interval([own, other], improvement),
        not_worse=not_worse(final, constants.margin_frac * way) if way else None,
        at_threshold=at(sweep.config.convergence.threshold_frac),
        curve=[at(frac) for frac in THRESHOLD_FRACS],
        over_control=_over(MORE_UPDATES, result, groups, sweep.config),
        over_cloning=_over(f"{CLONING}:{result.cell.tutor}", result, groups, sweep.config),
    )


def _over(name: str, result: CellResult, groups: Groups, config: SweepConfig) -> Interval | None:
    """Compare a tutored cell with a control, at the same level as with the baseline."""
    control = replace(result.cell, tutor=name, reuse=None)
    if not result.cell.tutored or control not in groups or result.scale is None or result.threshold.level is None:
        return None
    fixed = replace(result.scale, fixed=result.scale.upper)
    compared = comparison(groups[control], result.trials, fixed)
    return speed_up(compared, config.convergence.threshold_frac, config.statistics.confidence)


def _bootstrap(config: SweepConfig) -> Bootstrap:
    return Bootstrap(config.statistics.resamples, config.statistics.confidence)


def _twins(order: Sequence[Cell], groups: Groups) -> dict[Cell, Cell]:
    """Find cells whose trials are those of an earlier cell that differs in reuse alone.

    Reuse changes nothing where a tutor always gives the same advice: counting both cells would count one twice.
    """
    found: dict[Cell, Cell] = {}
    for cell in order:
        other = replace(cell, reuse=True)
        if cell.reuse is False and other in groups:
            curves = {trial.run.seed: trial.run.curve.values for trial in groups[other]}
            mine = [(trial.run.curve.values, curves.get(trial.run.seed)) for trial in groups[cell]]
            if all(theirs is not None and np.array_equal(own, theirs) for own, theirs in mine):
                found[cell] = other
    return found


def _looks(config: SweepConfig) -> list[set[int]]:
    """Return the seeds that were there at each look: the first ones, and each time that some were added."""
    looks = [set(config.first_seeds)]
    for extension in config.extensions:
        looks.append(looks[-1] | set(extension.seeds))
    return looks


def _with_p_values(
    cells: Sequence[CellResult], groups: Groups, looks: Sequence[set[int]], config: SweepConfig
) -> list[CellResult]:
    """Test every cell at every look at which it had new trials, and correct for cells and looks."""
    tested = [result for result in cells if result.versus is not None and result.versus.twin is None]
    table = np.array([[_p_value(result, groups, looks, k, config) for result in tested] for k in range(len(looks))])
    shares = spent_shares([len(seeds) for seeds in looks], config.statistics.max_seeds)
    corrected = holm(over_looks(table.reshape(len(looks), -1), shares))
    known = {
        result.cell: (float(column[~np.isnan(column)][-1]) if (~np.isnan(column)).any() else float("nan"), adjusted)
        for result, column, adjusted in zip(tested, table.reshape(len(looks), -1).T, corrected, strict=True)
    }
    found = []
    for result in cells:
        if result.versus is None:
            found.append(result)
            continue
        p, adjusted = known[result.versus.twin or result.cell]
        found.append(replace(result, versus=replace(result.versus, p=p, p_corrected=adjusted)))
    return found


def _p_value(result: CellResult, groups: Groups, looks: Sequence[set[int]], look: int, config: SweepConfig) -> float:
    before = looks[look - 1] if look else set()
    tutored = [trial for trial in result.trials if trial.run.seed in looks[look]]
    untutored = [trial for trial in groups[_baseline(result.cell)] if trial.run.seed in looks[look]]
    new = any(trial.run.seed not in before for trial in tutored)
    if not new or min(len(tutored), len(untutored)) < 2 or result.scale is None or result.threshold.level is None:
        return float("nan")
    return permutation_test(comparison(untutored, tutored, result.scale), config.convergence.threshold_frac)


def _aggregates(cells: Sequence[CellResult], groups: Groups, config: SweepConfig) -> list[Aggregate]:
    """Pool the cells that share a value of an axis; a cell with a twin counts once."""
    counted = [
        c for c in cells if c.cell.tutored and c.versus is not None and c.versus.twin is None and c.speed_up is not None
    ]
    axes: dict[str, Callable[[Cell], str]] = {
        "algorithm": lambda cell: cell.algorithm,
        "tutor": lambda cell: cell.tutor,
        "task": lambda cell: cell.task,
        "reuse": lambda cell: cell.reuse_word,
    }
    bootstrap, found = _bootstrap(config), []
    for axis, value_of in axes.items():
        values = dict.fromkeys(value_of(result.cell) for result in counted)
        values.pop(NO_REUSE_WORD, None)
        for value in values:
            members = [result for result in counted if value_of(result.cell) == value]
            comparisons = [
                comparison(groups[_baseline(result.cell)], result.trials, result.scale)
                for result in members
                if result.scale is not None
            ]
            found.append(
                Aggregate(
                    axis=axis,
                    value=value,
                    speed_up=pooled_speed_up(comparisons, config.convergence.threshold_frac, bootstrap),
                    score=bootstrap.interval([result.scores for result in members], interquartile_mean),
                    num_trials=sum(len(result.trials) for result in members),
                    num_cells=len(members),
                )
            )
    return found
