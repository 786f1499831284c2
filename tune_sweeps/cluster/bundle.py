"""Pack what travels to the cluster with a job: the sweep, its tutors' files and the user's own modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tune_sweeps.cluster.user_code import pack_modules
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.loading import dump_sweep
from tutor_service.errors import UserError
from tutor_service.serving import ON_DEMAND_VARIABLE
from tutor_service.tutor_files import is_tutor_file, load_tutor
from tutor_service.yaml_files import is_yaml, parse_yaml, write_yaml

SWEEP_FILE = "sweep.yaml"
TUTORS = "tutors"
"""Folder of the tutor files, apart from the sweep's: one may be called sweep.yaml."""
PACKAGES = ("tutor_service", "rllib_plugins", "tune_sweeps")
FORWARDED = ("LLM_TUTORS_URL", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")
"""Settings that are no secrets. Secrets are in the nodes' own environment: a job's is shown to all who see the job."""


def write_bundle(folder: Path, config: SweepConfig) -> None:
    """Write the sweep with all settings resolved, the tutor files and modules that it names, and what those name.

    Args:
        folder: An empty folder: the job's working directory, so that modules in it can be imported.
        config: The sweep; paths and modules are found from the working directory.

    Raises:
        UserError: A file cannot be read, or a module cannot be found.
    """
    tutors = []
    for tutor in config.tutors:
        if not is_tutor_file(tutor):
            tutors.append(tutor)
            continue
        path = Path(tutor).expanduser()
        sent = Path(TUTORS) / path.name
        (folder / sent).parent.mkdir(exist_ok=True)
        if is_yaml(path):
            _write_tutor(path, folder, sent)
        else:
            _copy(path, folder / sent)
        tutors.append(str(sent))
    pack_modules(config, folder)
    (folder / SWEEP_FILE).write_text(dump_sweep(config.model_copy(update={"tutors": tutors})), encoding="utf-8")


def _write_tutor(path: Path, folder: Path, sent: Path) -> None:
    """Write a tutor file whose template, answers and notes travel with it.

    Args:
        path: The user's file.
        folder: The bundle.
        sent: Where the file lies in it.
    """
    try:
        tutor = load_tutor(str(path))
        fields = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UserError) as error:
        raise UserError(f"tutors: the file '{path}' cannot be read: {error}") from error
    files = Path(TUTORS) / f"{path.stem}.files"
    template = Path(tutor.chat_template or "").expanduser()
    if tutor.chat_template and template.is_file():
        _copy(template, folder / files / template.name)
        fields["chat_template"] = str(files / template.name)
    if tutor.file is not None:
        _copy(tutor.file, folder / files / tutor.file.name)
        fields["file"] = str(files.relative_to(sent.parent) / tutor.file.name)
    if "briefing" in fields:
        fields["briefing"] = tutor.briefing
    (folder / sent).write_text(write_yaml(fields), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a file that a sweep or a tutor file names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise UserError(f"tutors: the file '{source}' cannot be read: {error.strerror}.") from error


def runtime_env(
    folder: Path,
    code: Path | None,
    environ: Mapping[str, str],
    tracking_uri: str | None,
    nodes_on_demand: bool = False,
) -> dict[str, object]:
    """Return Ray's runtime environment of the job.

    Args:
        folder: The bundle.
        code: Checkout whose packages replace the image's; None: the image's own.
        environ: This process's environment; what ``FORWARDED`` names goes along.
        tracking_uri: MLflow's address as the cluster sees it; None: as ``environ`` says.
        nodes_on_demand: Whether the job waits for nodes that an autoscaler adds.

    Raises:
        UserError: An address holds a password, or the checkout lacks the packages.
    """
    variables = {name: environ[name] for name in FORWARDED if environ.get(name)}
    if tracking_uri:
        variables["MLFLOW_TRACKING_URI"] = tracking_uri
    for name, value in variables.items():
        parts = urlsplit(value)
        if parts.password or parts.username:
            raise UserError(
                f"{name} holds a user name or password, which everyone who sees the job would see. Give the address "
                "alone; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD belong in the nodes' environment "
                "(deploy/README.md)."
            )
    if nodes_on_demand:
        variables[ON_DEMAND_VARIABLE] = "1"
    result: dict[str, object] = {"working_dir": str(folder), "env_vars": variables}
    if code is not None:
        missing = [package for package in PACKAGES if not (code / package / "__init__.py").is_file()]
        if missing:
            raise UserError(f"--code '{code}' is no checkout of this project: it lacks {', '.join(missing)}.")
        result["py_modules"] = [str((code / package).resolve()) for package in PACKAGES]
    return result


def entrypoint(name: str, results: str) -> str:
    """Return the job's command: it checks the nodes, then runs the sweep."""
    import shlex

    sweep = ["sweep", SWEEP_FILE, "--name", name, "--results", results]
    return shlex.join(["python", "-m", "tune_sweeps.cluster.job_entry", "--results", results, "--", *sweep])


def submission_id(sweep: str, taken: Sequence[str]) -> str:
    """Return the next free job id of a sweep: ``sweep-NAME``, then ``sweep-NAME.2`` and so on."""
    base = f"sweep-{sweep}"
    number = 1
    while (candidate := base if number == 1 else f"{base}.{number}") in taken:
        number += 1
    return candidate
