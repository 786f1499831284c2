"""Implement ``tutor compare``: two sweeps side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from tune_sweeps.cli.options import JsonOption, ResultsOption


def compare(
    first: Annotated[str, typer.Argument(help="Name of the sweep that the other is compared with.")],
    second: Annotated[str, typer.Argument(help="Name of the other sweep.")],
    results: ResultsOption = "runs",
    as_json: JsonOption = False,
) -> None:
    """Compare two sweeps cell by cell: final returns, speed-ups, and the difference with its interval.

    Everything is read from MLflow ($MLFLOW_TRACKING_URI, else the database in --results). The last column says how many
    times sooner the second sweep's trials converge, at the first one's threshold.

    Example: `tutor compare demo demo-2`
    """
    from tune_sweeps.console.rows import print_json, print_rows
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.definition.loading import difference
    from tune_sweeps.report.analysis import analyse
    from tune_sweeps.report.compare import compare as pair
    from tune_sweeps.report.compare import values, words
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri
    from tune_sweeps.tracking.reader import read_sweep
    from tutor_service.errors import UserError

    if first == second:
        raise UserError(f"'{first}' and '{second}' are one sweep: name two. `tutor report {first}` shows one.")
    uri = tracking_uri(open_results(results))
    check_uri(uri)
    analyses = [analyse(read_sweep(uri, name)) for name in (first, second)]
    for name, analysis in zip((first, second), analyses, strict=True):
        if not analysis.cells:
            raise UserError(f"sweep '{name}' has no finished trial yet: there is nothing to compare.")
    pairs, changed = pair(*analyses), difference(*(analysis.sweep.config for analysis in analyses))
    if as_json:
        print_json({"first": first, "second": second, "settings": changed, "cells": values(pairs)})
        return
    console = make_console()
    for line in changed or ["both sweeps have the same settings"]:
        console.print(line)
    print_rows(console, words(pairs, (first, second)), as_json=False)
