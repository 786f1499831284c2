"""Read a Serve config file of tutors, as ``serve deploy`` takes it, and deploy it until its tutors answer.

Owns which of Serve's files are ours; what stands under ``args`` in them is ``arguments``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tutor_service.client import app_name
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, field_problems
from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.arguments import BUILDER, resolve
from tutor_service.serving.lifecycle import deploy
from tutor_service.yaml_files import is_yaml, parse_yaml


@dataclass(frozen=True, slots=True)
class ServeFile:
    """Hold a Serve config file.

    Attributes:
        path: Where it was read from.
        tutors: The tutors that it describes, scaling and engine options as it has them.
        http: Where Serve listens.
        token_variables: Environment variables that hold its tutors' bearer tokens, on their nodes.
        content: All that it says, for Serve.
    """

    path: Path
    tutors: tuple[TutorConfig, ...]
    http: HttpConfig
    token_variables: frozenset[str]
    content: dict[str, Any]


def is_serve_file(name: str) -> bool:
    """Return whether a name is a Serve config file rather than a tutor's; False for what cannot be read."""
    path = Path(name)
    if not is_yaml(path):
        return False
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "applications" in content


def read_serve_file(name: str) -> ServeFile:
    """Read a file of which ``is_serve_file`` holds.

    Raises:
        UserError: Serve would refuse it, or an application in it is no tutor of ours under its own name.
    """
    path = Path(name)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = _validated(path, content)
    tutors, variables = [], set()
    for application in config.applications:
        if application.import_path != BUILDER:
            raise UserError(
                f"Serve file '{path}': application '{application.name}' is built by '{application.import_path}', no "
                "tutor. Deploy it with `serve deploy`."
            )
        tutor, given = resolve(application.args)
        if application.name != app_name(tutor.name):
            raise UserError(
                f"Serve file '{path}': application '{application.name}' must be named '{app_name(tutor.name)}', where "
                "students look for it."
            )
        tutors.append(tutor)
        if given.token_env:
            variables.add(given.token_env)
    if not tutors:
        raise UserError(f"Serve file '{path}' has no applications. There is nothing to serve.")
    http = HttpConfig(host=config.http_options.host, port=config.http_options.port)
    return ServeFile(path, tuple(tutors), http, frozenset(variables), content)


def deploy_serve_file(file: ServeFile, progress: Callable[[str], None] | None = None) -> list[str]:
    """Have Serve bring the cluster to what a file says, and return when its tutors answer: see ``serving.deploy``.

    As with ``serve deploy``, applications of an earlier file that this one does not name are taken down.
    """

    def launch() -> None:
        from ray.serve.context import _get_global_client

        client: Any = _get_global_client()
        client.deploy_apps(_validated(file.path, file.content))

    return deploy(file.tutors, http=file.http, progress=progress, launch=launch)


def _validated(path: Path, content: dict[str, Any]) -> Any:
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    try:
        return ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Serve file '{path}': {field_problems(error)}") from error
