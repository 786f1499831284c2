"""What a reader must know before believing a report's numbers, in plain words. Pure functions of an analysis."""

from __future__ import annotations

from tune_sweeps.report.analysis import Analysis

EMBEDDED_MODEL = "embedded:smollm2"
COMPETENT_TUTOR = (
    "To see what a competent LLM does, point the same command at one: on a GPU `--set 'tutors=[llama]'`, or any "
    "OpenAI-compatible endpoint by a copy of the catalog's openai.yaml, `--set 'tutors=[mine.yaml]'`."
)


def notes(analysis: Analysis) -> list[str]:
    """The notes of a report, the most important one first."""
    found = [*_unfinished(analysis), *_weak_tutor(analysis), *_small_sample(analysis), *_no_threshold(analysis)]
    missed = sum(cell.totals["missed"] * len(cell.trials) for cell in analysis.cells)
    if missed:
        found.append(f"{missed:,.0f} consultations brought no advice in time; the students acted by themselves there.")
    censored = [cell for cell in analysis.cells if cell.steps is not None and cell.num_converged < len(cell.trials)]
    if censored:
        runs = sum(len(cell.trials) - cell.num_converged for cell in censored)
        found.append(
            f"{runs} of {sum(len(cell.trials) for cell in analysis.cells)} trials did not reach the threshold. They "
            "count as needing longer than they were trained (≥), and are not dropped."
        )
    return found


def _unfinished(analysis: Analysis) -> list[str]:
    total = sum(analysis.counts.values())
    open_ = total - analysis.counts.get("FINISHED", 0) - analysis.counts.get("FAILED", 0)
    found = []
    if open_ or analysis.sweep.status not in {"FINISHED", "FAILED"}:
        found.append(
            f"The sweep is not finished: {analysis.counts.get('FINISHED', 0)} of {total} started trials are done. "
            "These numbers will change."
        )
    if failed := analysis.counts.get("FAILED", 0):
        found.append(
            f"{failed} trials failed; `tutor sweep --resume {analysis.sweep.name}`, with the --results that the sweep "
            "was given, tries them again."
        )
    return found


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
            "`--set seeds=5` gives five."
        ]
    return [
        f"Small sample: {seeds} seeds per cell. Intervals are wide, and no test can show much; from {few} seeds on the "
        "report stops saying so."
    ]


def _no_threshold(analysis: Analysis) -> list[str]:
    missing = sorted(
        f"{cell.cell.algorithm} on {cell.cell.task}"
        for cell in analysis.cells
        if not cell.cell.tutored and cell.threshold is None and cell.trials[0].run.status == "FINISHED"
    )
    if not missing:
        return []
    return [
        f"No threshold for {', '.join(missing)}: the untutored student ended no better than random play, so that there "
        "is nothing to compare the speed with. Train for longer."
    ]
