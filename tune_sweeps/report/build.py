"""Write a sweep's report from MLflow: terminal, Markdown, numbers and figures."""

from __future__ import annotations

from pathlib import Path

import rich.table
from rich.console import Console

from tune_sweeps.report.analysis import DEFAULT_WINDOW_FRAC, analyse
from tune_sweeps.report.export import write_numbers
from tune_sweeps.report.notes import notes
from tune_sweeps.report.page import to_page
from tune_sweeps.report.results import Analysis
from tune_sweeps.report.tables import (
    Table,
    aggregate_table,
    effort_table,
    main_table,
    reference_table,
    terminal_table,
    threshold_table,
    versus_table,
)
from tune_sweeps.tracking.prepared_view import FINAL_RETURN, SPEED_UP
from tune_sweeps.tracking.reader import Follow, RunRecord, read_sweep
from tune_sweeps.tracking.summary import put_summary, put_trial_results
from tutor_service.errors import UserError

PAGE = "report.html"
_LEFT = {"task", "student", "tutor", "reuse", "axis", "value"}


def make_report(
    uri: str, name: str, folder: Path, *, follow: Follow = lambda items, _: items
) -> tuple[Analysis, list[Path]]:
    """Read a sweep from MLflow, write its report, and put it on the parent run.

    Args:
        uri: Tracking URI.
        name: Name of the sweep.
        folder: Where the files go; made when missing.
        follow: Shows how far the reading of its trials is.

    Returns:
        The results, and the files: the report as Markdown, as a page of HTML, then figures.

    Raises:
        UserError: MLflow has no such sweep, or no trial of it has finished yet.
    """
    from tune_sweeps.report.image_figures import draw_all

    analysis = analyse(read_sweep(uri, name, follow))
    if not analysis.cells:
        raise UserError(f"sweep '{name}' has no finished trial yet: there is nothing to report.")
    folder.mkdir(parents=True, exist_ok=True)
    write_numbers(analysis, folder)
    figures = draw_all(analysis, folder)
    report = folder / "report.md"
    report.write_text(to_markdown(analysis, figures), encoding="utf-8")
    page = folder / PAGE
    page.write_text(to_page(analysis, to_markdown(analysis, []), figures), encoding="utf-8")
    put_summary(uri, analysis.sweep.parent_id, folder, to_description(analysis), to_metrics(analysis))
    put_trial_results(uri, trial_metrics(analysis))
    return analysis, [report, page, *figures]


def show(analysis: Analysis, console: Console) -> None:
    """Print the main table and the notes."""
    console.print(_for_terminal(terminal_table(analysis, console.width)))
    aggregates = aggregate_table(analysis)
    if analysis.num_seeds > 1 or len(aggregates.rows) > 4:
        console.print(_for_terminal(aggregates))
    for note in notes(analysis):
        console.print(f"note: {note}")


def to_description(analysis: Analysis) -> str:
    """Return the results in short, as Markdown: the main tables and the notes."""
    parts = [
        analysis.sweep.config.description,
        main_table(analysis).markdown(),
        versus_table(analysis).markdown(),
        "\n".join(f"- {note}" for note in notes(analysis)),
    ]
    return "\n\n".join(part for part in parts if part)


def to_metrics(analysis: Analysis) -> dict[str, float]:
    """Return the results as numbers by which sweeps compare: per cell the final return and the speed-up."""
    metrics = {}
    for result in analysis.cells:
        cell = result.cell
        reuse = "" if cell.reuse is None else "/reuse" if cell.reuse else "/no_reuse"
        where = f"{cell.task}/{cell.algorithm}/{cell.tutor}{reuse}"
        metrics[f"{FINAL_RETURN}/{where}"] = result.final.value
        if result.speed_up is not None:
            metrics[f"{SPEED_UP}/{where}"] = result.speed_up.value
    return metrics


def trial_metrics(analysis: Analysis) -> list[tuple[RunRecord, dict[str, float]]]:
    """Return each finished trial's final return and, tutored, how many times sooner than the untutored it converged.

    A trial's own speed-up is the geometric mean of the untutored students' env steps over its own.
    """
    untutored = {(c.cell.algorithm, c.cell.task): c.steps for c in analysis.cells if c.cell.baseline}
    found = []
    for result in analysis.cells:
        steps = untutored.get((result.cell.algorithm, result.cell.task)) if result.cell.tutored else None
        for index, trial in enumerate(result.trials):
            metrics = {FINAL_RETURN: trial.final}
            if steps is not None and result.convergences:
                metrics[SPEED_UP] = steps / max(1.0, result.convergences[index].steps)
            found.append((trial.run, metrics))
    return found


def to_markdown(analysis: Analysis, figures: list[Path]) -> str:
    """Return the report as Markdown.

    Args:
        analysis: The results.
        figures: PNG files in the folder of the report; others are left out.
    """
    config = analysis.sweep.config
    constants, frac = config.statistics, config.convergence.threshold_frac
    level = f"{constants.confidence:.0%}"
    window = (
        f"{config.convergence.window_steps:,} env steps"
        if config.convergence.window_steps
        else f"{DEFAULT_WINDOW_FRAC:.0%} of a trial's env steps"
    )
    way = {
        "task": "from the best trivial player of the task to the mean final return of its best untutored student",
        "oracle": "from the best trivial player of the task to its oracle",
        "own": "from uniformly random play to the mean final return of the untutored student of the same algorithm",
    }[config.convergence.scale]
    parts = [
        f"# Sweep {analysis.sweep.name}",
        config.description,
        "\n".join(f"- {note}" for note in notes(analysis)),
        "## Results",
        main_table(analysis).markdown(),
        f"Finished trials only. Final return: greedy, tutor off, mean of the evaluations in the last {window}. Counts "
        f"are means per trial. Brackets: {level} intervals over seeds.",
        "## Against the untutored student",
        versus_table(analysis).markdown(),
        "Speed-up: geometric mean of the env steps to convergence, untutored over tutored, with a jackknife-t interval "
        "in which the level is estimated anew; – where no trial of either converged. p: permutation test of it; "
        "corrected for all cells (Holm) and looks. "
        f"Final return: not worse than the untutored by more than {constants.margin_frac:.0%} of the way. P(improved): "
        "probability that a tutored trial ends above an untutored one. Mean return: over all of training. Stability: "
        "share of the evaluations after the first hit that are at or above the threshold.",
        "## Speed-up by threshold",
        threshold_table(analysis).markdown(),
        f"Columns: shares of the way {way}.",
        "## What each arm took",
        effort_table(analysis).markdown(),
        "Means per trial. Updates: gradient steps, those on remembered advice included.",
        "## References and thresholds",
        reference_table(analysis).markdown(),
        "## By axis",
        aggregate_table(analysis).markdown(),
        "Score: final return as a share of the way; `scores.npz` has the matrices. A cell that is identical to another "
        "counts once.",
        "## Figures" if figures else "",
        "\n\n".join(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in figures if path.suffix == ".png"),
        "## How convergence is defined",
        f"The threshold is {frac:g} of the way {way}. A trial has converged at the first evaluation from which the "
        f"mean over the last {window} stays at or above it until the end of training; one that is below it at its end "
        "is right-censored there and counts with all its env steps. By first hit: the first evaluation at which that "
        "mean reaches the threshold at all.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _for_terminal(table: Table) -> rich.table.Table:
    shown = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    for column in table.header:
        shown.add_column(column, justify="left" if column in _LEFT else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
