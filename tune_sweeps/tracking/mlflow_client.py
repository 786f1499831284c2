"""Find MLflow, check its address, and make a client for it that fails fast."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tutor_service.errors import UserError

URI_VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"
PAGE = "/#/experiments?workflowType=machine_learning"
"""Page of MLflow's UI that lists sweeps; without the parameter it opens each on an empty page about LLM traces."""

_PROBE_S = 5.0
_PAGE_SIZE = 1_000
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DATABASES = frozenset({"postgresql", "mysql", "sqlite", "mssql"})
"""What MLflow takes, each with the suffix ``+DRIVER`` of one of SQLAlchemy's drivers or without."""


def tracking_uri(results: Path) -> str:
    """Return ``$MLFLOW_TRACKING_URI``, else an SQLite database in the results folder."""
    return os.environ.get(URI_VARIABLE, "").strip() or f"sqlite:///{(results / DATABASE).resolve()}"


def artifact_location(results: Path, uri: str) -> str | None:
    """Return where artifacts of a new experiment go: beside the default database; None where a server decides."""
    return (results / "artifacts").resolve().as_uri() if uri.startswith("sqlite:") else None


def check_uri(uri: str) -> None:
    """Refuse a tracking URI that cannot be used, without importing MLflow.

    Raises:
        UserError: Its server does not answer, or it is no URI.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        try:
            urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=_PROBE_S).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise _no_answer(uri, f"it answers {error.code}") from error
        except (OSError, ValueError) as error:
            raise _no_answer(uri, str(getattr(error, "reason", error))) from error
        return
    database, _, driver = parts.scheme.partition("+")
    if parts.scheme in {"", "file"} or (database == "sqlite" and not driver):
        return
    if database not in _DATABASES or "+" in driver:
        raise UserError(f"{URI_VARIABLE}: MLflow knows no '{parts.scheme}:'. Use http(s), sqlite or postgresql.")
    _check_driver(uri, parts.scheme)
    _check_database(uri)


def _check_database(uri: str) -> None:
    """Check that something listens at a database server's address; a URI without host leaves it to the driver."""
    import sqlalchemy

    address = sqlalchemy.make_url(uri)
    database = address.get_backend_name()
    if not address.host or database not in _PORTS:
        return
    try:
        socket.create_connection((address.host, address.port or _PORTS[database]), _PROBE_S).close()
    except OSError as error:
        raise _no_answer(uri, error.strerror or str(error), f"database ({database})") from error


def _check_driver(uri: str, scheme: str) -> None:
    """Check that SQLAlchemy, by which MLflow reaches a database, has the driver that a URI names or implies."""
    import sqlalchemy

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except sqlalchemy.exc.NoSuchModuleError:
        raise UserError(
            f"{URI_VARIABLE}: SQLAlchemy knows no driver '{scheme}:'. Use e.g. postgresql+psycopg:."
        ) from None
    except sqlalchemy.exc.ArgumentError:
        raise UserError(f"{URI_VARIABLE} is no address of a database: {scheme}://USER@HOST/NAME.") from None
    except ModuleNotFoundError as error:
        raise UserError(
            f"{URI_VARIABLE}: the driver of '{scheme}:' is not installed (package '{error.name}'). Install it, or name "
            "an installed one, e.g. postgresql+psycopg:."
        ) from None


def _no_answer(uri: str, reason: str, what: str = "server") -> UserError:
    shown = urllib.parse.urlsplit(uri)
    where = f"{shown.scheme}://{shown.hostname}" + (f":{shown.port}" if shown.port else "")
    return UserError(
        f"the MLflow {what} at {where} does not answer ({reason}). Start it, correct {URI_VARIABLE}, or unset "
        f"{URI_VARIABLE} for an SQLite database in the results folder."
    )


def make_client(uri: str) -> Any:
    """Make an ``MlflowClient`` that neither waits for minutes nor tells anybody of its use."""
    quiet_environment()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def search_runs(client: Any, experiment_id: str, query: str) -> list[Any]:
    """Return all runs of an experiment that a query selects."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=_PAGE_SIZE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def quiet_environment() -> None:
    """Set environment variables for MLflow, here and in child processes: no telemetry, no long waits, no bars."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # processes of `tutor ui` that nobody needs
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
