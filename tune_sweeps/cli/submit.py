"""Implement ``tutor submit`` and ``tutor jobs``: sweeps on a Ray cluster that runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tune_sweeps.cli.options import JsonOption, SetOption, takes

AddressOption = Annotated[
    str,
    typer.Option(
        envvar="LLM_TUTORS_CLUSTER",
        help="The cluster's dashboard, e.g. http://127.0.0.1:8265 through an SSH tunnel. Ray's token is taken from "
        "$RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.",
    ),
]
SweepArgument = Annotated[str, typer.Argument(help="Name of a sweep that was submitted.")]

jobs_app = typer.Typer(help="List, follow and stop sweeps that were submitted to a cluster.", no_args_is_help=True)


@dataclass(frozen=True)
class SubmitOptions:
    """The options of ``tutor submit``."""

    preset: Annotated[str, typer.Argument(help="A preset (see `tutor presets`) or the path of a YAML file.")]
    address: AddressOption
    name: Annotated[str | None, typer.Option(help="Name of the sweep. Default: the preset's.")] = None
    set_: SetOption = None
    results: Annotated[
        str, typer.Option(metavar="FOLDER|URL", help="Folder that the cluster's nodes share, or s3://BUCKET/PATH.")
    ] = "/shared/runs"
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow's address as the cluster sees it, without password. Default: $MLFLOW_TRACKING_URI."),
    ] = None
    code: Annotated[
        Path | None, typer.Option(help="Checkout whose code replaces that of the cluster's image, e.g. '.'.")
    ] = None
    nodes_on_demand: Annotated[
        bool,
        typer.Option("--nodes-on-demand", help="An autoscaler adds nodes: do not require that GPUs are there now."),
    ] = False
    follow: Annotated[bool, typer.Option(help="Stay and show the sweep's output until it ends.")] = True


@takes(SubmitOptions)
def submit(options: SubmitOptions) -> None:
    """Run a sweep as a job on a Ray cluster.

    Refused before the job starts: an address where no cluster answers, a wrong token, another Ray or Python, too few
    GPUs, a results folder that the nodes do not share. Submitting a sweep again continues it.

    Examples:

    - `tutor submit paper --address http://127.0.0.1:8265 --results /shared/runs`

    - `tutor submit my.yaml --address https://ray.example.com --set seeds=5 --name mine --no-follow`
    """
    from tune_sweeps.cluster.submit import Submission
    from tune_sweeps.cluster.submit import submit as send
    from tune_sweeps.console.terminal import make_console

    submission = Submission(
        preset=options.preset,
        settings=options.set_ or [],
        name=options.name,
        results=options.results,
        tracking_uri=options.tracking_uri,
        code=options.code,
        nodes_on_demand=options.nodes_on_demand,
    )
    raise typer.Exit(send(options.address, submission, options.follow, make_console().print, _write))


@jobs_app.command("list")
def list_(address: AddressOption, as_json: JsonOption = False) -> None:
    """List the jobs of sweeps, oldest first."""
    from datetime import datetime

    from tune_sweeps.cluster.submit import list_jobs
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console

    said = make_console()
    said.quiet = as_json
    rows = [
        {
            "sweep": job.sweep,
            "job": job.id,
            "status": job.status.lower(),
            "started": datetime.fromtimestamp(job.start_ms / 1000).strftime("%Y-%m-%d %H:%M") if job.start_ms else None,
        }
        for job in list_jobs(address, said.print)
    ]
    print_rows(said, rows, as_json=as_json)


@jobs_app.command("logs")
def logs(sweep: SweepArgument, address: AddressOption) -> None:
    """Follow the latest job of a sweep to its end."""
    from tune_sweeps.cluster.submit import logs as follow
    from tune_sweeps.console.terminal import make_console

    raise typer.Exit(follow(address, sweep, make_console().print, _write))


@jobs_app.command("stop")
def stop(sweep: SweepArgument, address: AddressOption) -> None:
    """End the latest job of a sweep. What it finished stays; submitting the sweep again continues it."""
    from tune_sweeps.cluster.submit import stop as end
    from tune_sweeps.console.terminal import make_console

    end(address, sweep, make_console().print)


def _write(text: str) -> None:
    typer.echo(text, nl=False)
