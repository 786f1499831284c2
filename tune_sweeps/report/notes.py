"""Say what a reader must know before believing a report's numbers."""

from __future__ import annotations

from collections.abc import Callable

from tune_sweeps.report.analysis import trivial
from tune_sweeps.report.results import Analysis, CellResult
from tune_sweeps.report.statistics import spent_shares

EMBEDDED_MODEL = "embedded:smollm2"
FEW_INTERVALS = 20
"""Evaluation intervals to the threshold below which a speed-up is coarse."""

COMPETENT_TUTOR = (
    "To see what a competent LLM does, point the same command at one: on a GPU `--set 'tutors=[llama]'`, or any "
    "OpenAI-compatible endpoint by a copy of the catalog's openai.yaml, `--set 'tutors=[mine.yaml]'`."
)


def notes(analysis: Analysis) -> list[str]:
    """Return the notes of a report, the most important one first."""
    parts: tuple[Callable[[Analysis], list[str]], ...] = (
        *(_unfinished, _tuning, _no_threshold, _refused, _doubted, _weak_tutor, _small_sample, _looks, _twins),
        *(_coarse, _missed, _censored),
    )
    return [note for part in parts for note in part(analysis)]


def _unfinished(analysis: Analysis) -> list[str]:
    counts, total = analysis.counts, sum(analysis.counts.values())
    done, failed = counts.get("FINISHED", 0), counts.get("FAILED", 0)
    found = []
    if done + failed < total or analysis.sweep.status not in {"FINISHED", "FAILED"}:
        found.append(
            f"The sweep is not finished: {done} of {total} started trials are done, and only they count. These numbers "
            "will change."
        )
    if failed:
        found.append(
            f"{failed} trials failed and do not count; `tutor sweep --resume {analysis.sweep.name}`, with the "
            "--results that the sweep was given, tries them again."
        )
    return found


def _tuning(analysis: Analysis) -> list[str]:
    if not analysis.sweep.config.tuning:
        return []
    return ["These are tuning seeds: choose settings by them, and report results on others (tuning: false)."]


def _no_threshold(analysis: Analysis) -> list[str]:
    found, baselines = [], [cell for cell in analysis.cells if cell.cell.baseline]
    unknown = sorted({cell.cell.task for cell in baselines if cell.scale is None})
    if unknown:
        found.append(f"No threshold on {', '.join(unknown)} yet: the reference players have not been measured.")
    flat = [cell for cell in baselines if cell.scale and cell.scale.level(1.0) is None]
    if flat:
        names = ", ".join(f"{cell.cell.algorithm} on {cell.cell.task}" for cell in flat)
        found.append(
            f"No threshold for {names}: the untutored student ended no better than trivial play "
            f"({', '.join(sorted({_best_trivial(analysis, cell) for cell in flat}))}), so that there is nothing to "
            "compare the speed with. Train for longer."
        )
    return found


def _refused(analysis: Analysis) -> list[str]:
    return [
        f"The threshold of {cell.cell.algorithm} on {cell.cell.task} is refused: {_best_trivial(analysis, cell)} "
        "reaches it without learning anything. Measure the way by convergence.scale: task, or raise threshold_frac."
        for cell in analysis.cells
        if cell.cell.baseline and cell.threshold.refused
    ]


def _best_trivial(analysis: Analysis, cell: CellResult) -> str:
    name, value = max(trivial(analysis.sweep.references[cell.cell.task]).items(), key=lambda item: item[1])
    return f"'{name}' at {value:.3g}"


def _doubted(analysis: Analysis) -> list[str]:
    return [f"{name}: {doubt}" for name, doubt in sorted(analysis.sweep.doubts.items())]


def _weak_tutor(analysis: Analysis) -> list[str]:
    weak = sorted(
        {
            run.cell.tutor
            for run in analysis.sweep.runs
            if run.tags.get("tutor_model") == EMBEDDED_MODEL or run.cell.tutor == "smollm2"
        }
    )
    return [
        f"The advice of {name} is no better than a constant answer: it is a 135-million-parameter model that shows the "
        f"path working on a laptop, and nothing here says that tutoring by an LLM helps or harms. The oracle is what "
        f"good advice does. {COMPETENT_TUTOR}"
        for name in weak
    ]


def _small_sample(analysis: Analysis) -> list[str]:
    few, seeds = analysis.sweep.config.statistics.few_seeds, analysis.num_seeds
    if not analysis.cells or seeds >= few:
        return []
    if seeds == 1:
        return [
            "One seed per cell: no interval and no test is possible, and a difference between two cells may be luck. "
            f"`tutor sweep {analysis.sweep.name} --more-seeds 4` makes them five."
        ]
    return [
        f"Small sample: {seeds} seeds per cell. Intervals are wide, and no test can show much; from {few} seeds on the "
        "report stops saying so."
    ]


def _looks(analysis: Analysis) -> list[str]:
    constants = analysis.sweep.config.statistics
    if len(analysis.looks) == 1 and constants.max_seeds is None:
        return []
    shares = spent_shares(analysis.looks, constants.max_seeds)
    plan = "unplanned" if constants.max_seeds is None else f"planned up to {constants.max_seeds} seeds"
    spent = ", ".join(f"{constants.alpha * share:.3f}" for share in shares)
    return [
        f"Results were looked at with {', '.join(map(str, analysis.looks))} seeds ({plan}): of the error rate "
        f"{constants.alpha:g} these looks may spend {spent}, and p (corrected) accounts for it. Intervals do not."
    ]


def _twins(analysis: Analysis) -> list[str]:
    twins = [cell.cell for cell in analysis.cells if cell.versus and cell.versus.twin]
    if not twins:
        return []
    tutors = ", ".join(sorted({cell.tutor for cell in twins}))
    return [
        f"{len(twins)} cells without reuse are identical to those with it, trial by trial: the advice of {tutors} does "
        "not vary. Each pair counts once in corrections and by axis."
    ]


def _coarse(analysis: Analysis) -> list[str]:
    interval = analysis.sweep.config.evaluation.interval_steps
    coarse = [
        f"{cell.cell.algorithm} on {cell.cell.task}"
        for cell in analysis.cells
        if cell.cell.baseline and cell.steps is not None and cell.steps < FEW_INTERVALS * interval
    ]
    if not coarse:
        return []
    return [
        f"Coarse: untutored, {', '.join(coarse)} converged within {FEW_INTERVALS} evaluation intervals; a speed-up "
        "there cannot be large, whatever the tutor. Evaluate more often, or take a harder task."
    ]


def _missed(analysis: Analysis) -> list[str]:
    missed = sum(cell.totals["missed"] * len(cell.trials) for cell in analysis.cells)
    if not missed:
        return []
    return [f"{missed:,.0f} consultations brought no advice in time; the students acted by themselves there."]


def _censored(analysis: Analysis) -> list[str]:
    cells = [cell for cell in analysis.cells if cell.steps is not None]
    runs = sum(len(cell.trials) - cell.num_converged for cell in cells)
    if not runs:
        return []
    return [
        f"{runs} of {sum(len(cell.trials) for cell in cells)} trials did not reach the threshold for good. They count "
        "as needing longer than they were trained (≥), and are not dropped."
    ]
