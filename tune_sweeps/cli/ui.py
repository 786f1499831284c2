"""Implement ``tutor ui``: MLflow's pages over the sweeps, on this machine only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import ResultsOption

if TYPE_CHECKING:
    from tune_sweeps.storage.results import Results
    from tune_sweeps.tracking.reader import SweepRecord

HOST = "127.0.0.1"
PORT = 5000


def where_to_look(sweep: SweepRecord, uri: str, results: Results) -> str:
    """Say where MLflow shows a sweep; nothing where another product's pages show it."""
    from tune_sweeps.tracking.mlflow_client import database_file, without_login
    from tune_sweeps.tracking.prepared_view import view_page

    page = view_page(sweep.experiment_id, sweep.parent_id)
    if uri.startswith(("http://", "https://")):
        return f"all runs in MLflow: {without_login(uri).rstrip('/')}{page}"
    if database_file(uri):
        return f"all runs in MLflow: tutor ui{results.option}   (then open http://{HOST}:{PORT}{page})"
    return ""


def ui(
    results: ResultsOption = "runs",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback interface.")] = PORT,
) -> None:
    """Serve MLflow's UI over the sweeps of a results folder, until Ctrl-C.

    Example: `tutor ui`; then open the address that it shows in a browser
    """
    import os
    import sys

    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import (
        PAGE,
        database_file,
        quiet_environment,
        tracking_uri,
        without_login,
    )
    from tutor_service.errors import UserError

    place = open_results(results)
    uri = tracking_uri(place)
    console = make_console()
    if uri.startswith(("http://", "https://")):
        console.print(f"$MLFLOW_TRACKING_URI names a server: its pages are at {without_login(uri).rstrip('/')}{PAGE}")
        return
    file = database_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"no sweep has run here: '{file}' does not exist. Run `tutor sweep demo{place.option}` first.")
    _check_port(port)
    quiet_environment()
    console.print(f"MLflow's UI is coming up; Ctrl-C ends it. Open http://{HOST}:{port}{PAGE}")
    sys.stdout.flush()
    os.environ["PYTHONWARNINGS"] = "ignore"
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--registry-store-uri", uri]
    where = ["--host", HOST, "--port", str(port), "--allowed-hosts", f"{HOST}:{port},localhost:{port}"]
    os.execv(sys.executable, [*server, *where, "--workers", "1", "--uvicorn-opts", "--log-level warning"])


def _check_port(port: int) -> None:
    import socket

    from tutor_service.errors import UserError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {HOST} cannot be used ({error.strerror}). Choose another, e.g. --port {port + 1}."
            ) from error
