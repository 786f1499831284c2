"""A sweep's report: terminal, Markdown, CSV and figures, from MLflow alone. Owns what is written where."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tune_sweeps.report.analysis import Analysis, analyse
from tune_sweeps.report.notes import notes
from tune_sweeps.report.tables import Rows, aggregate_table, main_table, markdown, terminal_table, test_table, write_csv
from tune_sweeps.tracking.mlflow_client import make_client
from tune_sweeps.tracking.reader import read_sweep

ARTIFACT_FOLDER = "report"
_RIGHT = {"final return", "steps to threshold", "speed-up", "consulted", "LLM evals", "missed", "wall time"}


def make_report(uri: str, name: str, folder: Path, *, log: bool = True) -> tuple[Analysis, list[Path]]:
    """Reads a sweep from MLflow, writes its report, and puts it on the parent run.

    Args:
        uri: Tracking URI.
        name: Name of the sweep.
        folder: Where the files go; made when missing.
        log: Whether to put them on the parent run.

    Returns:
        The results, and the files: the report first, then figures.

    Raises:
        UserError: MLflow has no such sweep, or no trial of it has been evaluated yet.
    """
    from tune_sweeps.report.plots import draw_all
    from tutor_service.errors import UserError

    analysis = analyse(read_sweep(uri, name))
    if not analysis.cells:
        raise UserError(f"sweep '{name}' has no evaluated trial yet: there is nothing to report.")
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(analysis, folder)
    figures = draw_all(analysis, folder)
    report = folder / "report.md"
    report.write_text(to_markdown(analysis, figures), encoding="utf-8")
    if log:
        make_client(uri).log_artifacts(analysis.sweep.parent_id, str(folder), ARTIFACT_FOLDER)
    return analysis, [report, *figures]


def show(analysis: Analysis, console: Console) -> None:
    """Prints the main table and the notes."""
    console.print(_table(*terminal_table(analysis, console.width)))
    header, rows = aggregate_table(analysis)
    if analysis.num_seeds > 1 or len(rows) > 4:
        console.print(_table(header, rows))
    for note in notes(analysis):
        console.print(f"note: {note}")


def to_markdown(analysis: Analysis, figures: list[Path]) -> str:
    """The report as Markdown.

    Args:
        analysis: The results.
        figures: PNG files in the folder of the report; others are left out.
    """
    config = analysis.sweep.config
    settings, constants = config.convergence, config.statistics
    level = f"{constants.confidence:.0%}"
    parts = [
        f"# Sweep {analysis.sweep.name}",
        config.description,
        "\n".join(f"- {note}" for note in notes(analysis)),
        "## Results",
        markdown(*main_table(analysis)),
        f"Final return: greedy, tutor off, mean of the last {settings.final_window} evaluations. Counts and wall time "
        f"are means per trial. Brackets: {level} bootstrap intervals over seeds.",
        "## Against the untutored student",
        markdown(*test_table(analysis)),
        "Speed-up: restricted mean (Kaplan–Meier) of the env steps to convergence, untutored over tutored. p: log-rank "
        "test by permutation; Holm's correction over all tutored cells. Mean return: over all of training. Stability: "
        "share of the evaluations after convergence that stay at or above the threshold.",
        "## By axis",
        markdown(*aggregate_table(analysis)),
        "## Figures",
        "\n\n".join(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in figures if path.suffix == ".png"),
        "## How convergence is defined",
        f"Threshold = R₀ + {settings.threshold_frac:g} · (R* − R₀), with R₀ the return of uniformly random play and R* "
        "the mean final return of the untutored student of the same algorithm and task. A trial has converged at the "
        f"first evaluation at which the mean of the last {settings.window} evaluations is at or above it; one that "
        "never gets there is right-censored at its last evaluation.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: list[str], rows: Rows) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in header:
        table.add_column(column, justify="right" if column in _RIGHT else "left")
    for row in rows:
        table.add_row(*row)
    return table
