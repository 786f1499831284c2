"""The builder that Serve's config files name: ``import_path: tutor_service.serve_config:build``.

Owns what stands under ``args`` in such a file. It runs on the cluster, where ``serve deploy`` has it called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutor_service.config import TutorConfig, load_tutor
from tutor_service.errors import UserError

if TYPE_CHECKING:
    from ray.serve import Application

BUILDER = "tutor_service.serve_config:build"


class BuildArguments(BaseModel):
    """What a Serve config file says of one tutor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tutor: str = Field(description="Catalog name, or path of a YAML file on every node.")
    scaling: dict[str, Any] = Field(default_factory=dict, description="Fields of `scaling` that differ here.")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM engine options that differ here.")
    token_env: str | None = Field(
        None, description="Environment variable with HTTP's bearer token; none: HTTP is not served at all."
    )


def resolve(args: dict[str, Any]) -> tuple[TutorConfig, BuildArguments]:
    """The tutor that a config file describes.

    Raises:
        UserError: An unknown argument, tutor or field.
    """
    try:
        given = BuildArguments.model_validate(args)
        tutor = load_tutor(given.tutor)
        fields = tutor.model_dump()
        fields["scaling"] |= given.scaling
        fields["engine"] |= given.engine
        return TutorConfig.model_validate(fields), given
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))} = {item.get('input')!r}: {item['msg']}" for item in error.errors()
        )
        raise UserError(f"args of {args.get('tutor', 'a tutor')}: {problems}") from error


def build(args: dict[str, Any]) -> Application:
    """The Serve application of a tutor.

    Args:
        args: See ``BuildArguments``.

    Raises:
        UserError: An argument is wrong, or the token's variable is not set on this node.
    """
    from tutor_service import app, deployment

    tutor, given = resolve(args)
    access = app._access(app.HttpConfig(token_env=given.token_env)) if given.token_env else None
    return deployment.build(tutor, access)
