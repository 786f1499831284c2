"""Find MLflow, ask it whether it takes its address, and make a client for it that fails fast."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from tune_sweeps.storage.results import Results
from tutor_service.errors import UserError
from tutor_service.paths import nearest

logger = logging.getLogger(__name__)

URI_VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"
PAGE = "/#/experiments?workflowType=machine_learning"
"""Page of MLflow's UI that lists sweeps; without the parameter it opens each on an empty page about LLM traces."""

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""MLflow's own tag of an experiment, and the kind whose page compares runs and draws their curves."""

_TOO_MANY = 429
_KNOCK_S = 5.0
_PAGE_SIZE = 1_000
_LONGEST_REASON = 700
_SQLITE = "sqlite:///"
_LOGIN = re.compile(r"(://)[^/@\s]+@")
_NAMES = frozenset({"databricks", "databricks-uc", "uc"})
"""Addresses of MLflow's without a scheme that are no folders."""

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow takes and that listen at a port, each with the suffix ``+DRIVER`` or without."""


def tracking_uri(results: Results) -> str:
    """Return ``$MLFLOW_TRACKING_URI``, else an SQLite database in the results folder.

    Raises:
        UserError: The variable is not set, and an object store can hold no database.
    """
    given = os.environ.get(URI_VARIABLE, "").strip()
    if not given and results.remote is not None:
        raise UserError(
            f"--results '{results}' holds files, and MLflow needs a database: set {URI_VARIABLE}, e.g. to "
            "http://127.0.0.1:5000, where `mlflow server` runs (deploy/README.md)."
        )
    return given or f"{_SQLITE}{(results.folder / DATABASE).resolve()}"


def artifact_location(results: Path, uri: str) -> str | None:
    """Return where artifacts of a new experiment go: beside the default database; None where a server decides."""
    return (results / "artifacts").resolve().as_uri() if database_file(uri) else None


def check_uri(uri: str) -> None:
    """Refuse a tracking URI that MLflow does not take: MLflow itself is asked, and its reason is shown.

    A database file that does not exist yet is not made for that.

    Raises:
        UserError: MLflow does not know it, refuses it, or finds nothing there; the message has the remedy.
    """
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise UserError(f"{URI_VARIABLE} = '{uri}' does not say how the server is spoken to: write http://{uri}.")
    check_database(uri)
    file = database_file(uri)
    if file is not None and nearest(file) != file.resolve():
        _check_folder(file)
        return
    try:
        make_client(uri).search_experiments(max_results=1)
    except Exception as error:  # whatever a store, a plugin or a driver raises is its reason
        raise _refused(uri, error) from error


def check_database(uri: str) -> None:
    """Refuse a database that cannot be opened, which MLflow would try again for hours.

    Raises:
        UserError: Its driver is missing, nothing listens there, or it lets nobody in.
    """
    scheme = urllib.parse.urlsplit(uri).scheme
    database = scheme.partition("+")[0]
    if database not in _PORTS and not scheme.startswith("sqlite+"):
        return
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(uri)
        address.get_dialect().import_dbapi()
    except (sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.ArgumentError, ValueError):  # ValueError: two drivers
        raise UserError(
            f"{URI_VARIABLE} is no address of a database that SQLAlchemy can open: {scheme}: is to be e.g. "
            "postgresql+psycopg://USER@HOST/NAME."
        ) from None
    except ModuleNotFoundError as error:
        raise UserError(
            f"{URI_VARIABLE}: the driver of '{scheme}:' is not installed (package '{error.name}'). Install it, or name "
            "an installed one, e.g. postgresql+psycopg:."
        ) from None
    if database not in _PORTS:
        return
    try:
        if address.host:
            socket.create_connection((address.host, address.port or _PORTS[database]), _KNOCK_S).close()
        sqlalchemy.create_engine(address).connect().close()
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _refused(uri, error) from error


def _check_folder(file: Path) -> None:
    folder = nearest(file)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"{URI_VARIABLE}: {file} cannot be made: '{folder}' is no folder that can be written to.")


def _refused(uri: str, error: Exception) -> UserError:
    """Say why a tracking URI cannot be used, in the words of who refused it and without its password."""
    reason = masked(" ".join(str(error).split()) or type(error).__name__)
    if len(reason) > _LONGEST_REASON:
        reason = reason[:_LONGEST_REASON] + " …"
    scheme, elsewhere = urllib.parse.urlsplit(uri).scheme, "unset it for an SQLite database in the results folder"
    if scheme in {"http", "https"}:
        remedy = f"Start the server, correct {URI_VARIABLE}, or {elsewhere}."
    elif scheme == "file" or not (scheme or uri in _NAMES):
        remedy = f"Set {URI_VARIABLE}={_SQLITE}{DATABASE} or another database, or {elsewhere}."
    else:
        remedy = f"Correct {URI_VARIABLE} (other products' schemes need their MLflow plugin installed), or {elsewhere}."
    return UserError(f"{URI_VARIABLE}: MLflow cannot use {masked(uri)}: {reason.rstrip('.')}. {remedy}")


def masked(text: str) -> str:
    """Return a text with user and password of each address in it replaced by asterisks."""
    return re.sub(_LOGIN, r"\1***@", text)


def without_login(uri: str) -> str:
    """Return an address without user and password, as a browser may open it."""
    return re.sub(_LOGIN, r"\1", uri)


def make_client(uri: str) -> Any:
    """Make an ``MlflowClient`` that neither waits for minutes nor tells anybody of its use."""
    quiet_environment()
    from mlflow import MlflowClient

    with _alone(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Let one process at a time open a database file: the first one makes its tables, which two would spoil."""
    file = database_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        yield


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite database; None for any other address."""
    scheme, _, path = uri.partition(":///")
    return Path(path.partition("?")[0]) if scheme.partition("+")[0] == "sqlite" and path else None


def open_experiment(client: Any, name: str, location: str | None) -> str:
    """Return the id of an experiment: found, restored where it was deleted, or made.

    Args:
        client: MLflow's client.
        name: Name of the experiment.
        location: Folder of the artifacts of all experiments, for a new one; None: as the server decides.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            made = client.create_experiment(name, artifact_location=location and f"{location}/{name}")
        except MlflowException:  # another process made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
        else:
            set_experiment_tag(client, made, KIND_TAG, KIND)
            return str(made)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if KIND_TAG not in found.tags:
        set_experiment_tag(client, found.experiment_id, KIND_TAG, KIND)
    return str(found.experiment_id)


def set_experiment_tag(client: Any, experiment_id: str, key: str, value: str) -> None:
    """Set a tag of an experiment, by which MLflow's pages show it; where the server refuses that, say so and go on.

    Raises:
        MlflowException: The server is away or broken.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.set_experiment_tag(experiment_id, key, value)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        logger.warning(
            "MLflow takes no tag %s of experiment %s, so its page is as MLflow makes it: %s", key, experiment_id, error
        )


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


def is_refusal(error: Exception) -> bool:
    """Say whether MLflow answered that it does not take what it was sent; else it is away, broken or busy."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    status = error.get_http_status_code()
    return 400 <= status < 500 and status != _TOO_MANY


def is_gone(error: Exception) -> bool:
    """Say whether MLflow answered that it has no such run or experiment."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def quiet_environment() -> None:
    """Set environment variables for MLflow, here and in child processes: no telemetry, no long waits, no bars."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which asks for each run that ends first
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # processes of `tutor ui` that nobody needs
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
