"""Implement ``tutor report``: tables and figures of a sweep, from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_sweeps.cli.options import JsonOption, ResultsOption
from tune_sweeps.cli.ui import where_to_look


def report(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    results: ResultsOption = "runs",
    output: Annotated[Path | None, typer.Option(help="Folder of the report. Default: RESULTS/NAME/report.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a sweep, also on one that is still running: tables, learning curves, speed-ups with intervals.

    Everything is read from MLflow ($MLFLOW_TRACKING_URI, else the database in --results). The report is attached to the
    sweep's parent run there.

    Example: `tutor report demo`
    """
    from tune_sweeps.console.counting import counting
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.report.build import make_report, show
    from tune_sweeps.report.export import to_json
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri

    place = open_results(results)
    uri = tracking_uri(place)
    check_uri(uri)
    console = make_console()
    console.quiet = as_json
    with counting(console, "reading trials", "read {} trials") as count:
        analysis, files = make_report(uri, name, output or place.folder / name / "report", follow=count.follow)
    if output is None:
        place.publish(place.folder / name / "report")
    if as_json:
        print_json(to_json(analysis) | {"files": [place.shown(path) for path in files]})
        return
    show(analysis, console)
    for path in files:
        if path.suffix in {".md", ".html", ".png"}:
            console.print(f"wrote {place.shown(path)}")
    if page := where_to_look(analysis.sweep, uri, place):
        console.print(page)
