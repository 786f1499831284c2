"""Read what a Serve config file says of one tutor under ``args``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutor_service.config import StoreConfig, TutorConfig
from tutor_service.errors import UserError, field_problems
from tutor_service.tutor_files import load_tutor

BUILDER = "tutor_service.serve_config:build"


class BuildArguments(BaseModel):
    """Hold what a Serve config file says of one tutor."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tutor: str = Field(description="Catalog name, or path of a YAML file on every node.")
    scaling: dict[str, Any] = Field(default_factory=dict, description="Fields of `scaling` that differ here.")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM engine options that differ here.")
    store: StoreConfig | None = Field(None, description="Where its answers are kept, where that differs here.")
    token_env: str | None = Field(
        None, description="Environment variable with HTTP's bearer token; none: HTTP is not served at all."
    )


def resolve(args: dict[str, Any]) -> tuple[TutorConfig, BuildArguments]:
    """Return the tutor that a config file describes.

    Raises:
        UserError: An unknown argument, tutor or field.
    """
    try:
        given = BuildArguments.model_validate(args)
        tutor = load_tutor(given.tutor)
        fields = tutor.model_dump(exclude_unset=True)  # a default may depend on what is given here
        fields["scaling"] = fields.get("scaling", {}) | given.scaling
        fields["engine"] = fields.get("engine", {}) | given.engine
        if given.store:
            fields["store"] = given.store
        return TutorConfig.model_validate(fields), given
    except ValidationError as error:
        problems = field_problems(error, BuildArguments if error.title == BuildArguments.__name__ else TutorConfig)
        raise UserError(f"args of {args.get('tutor', 'a tutor')}: {problems}") from error
