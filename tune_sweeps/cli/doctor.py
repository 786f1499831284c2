"""Implement ``tutor doctor``: what of this machine is fit for sweeps."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from tune_sweeps.cli.options import AddressOption, JsonOption, ResultsOption

EXIT_UNFIT = 1


def doctor(results: ResultsOption = "runs", address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Check machine, Python, Ray, vLLM, GPU, MLflow, cache, disk and package index; name a remedy for what is unfit.

    Nothing is started or changed. The status is 1 if something is unfit, so that a sweep would not run.

    Example: `tutor doctor`
    """
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console, quiet
    from tune_sweeps.run.doctor import examine
    from tune_sweeps.storage.results import open_results

    place = open_results(results)
    with quiet(Path(os.devnull)):
        findings = examine(place, address)
    print_rows(make_console(), [finding._asdict() for finding in findings], as_json=as_json)
    if any(finding.state == "unfit" for finding in findings):
        raise typer.Exit(EXIT_UNFIT)
