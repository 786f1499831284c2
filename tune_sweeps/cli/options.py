"""Define the options that several subcommands share, and commands that take their options as one record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Record = TypeVar("Record")

TutorArgument = Annotated[str, typer.Argument(help="A tutor's name (see `tutor tutors`) or the path of a YAML file.")]
TaskArgument = Annotated[str, typer.Argument(help="A task's name (see `tutor tasks`) or module:object.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a field by its dotted name, in YAML (docs/fields.md). May be repeated."
    ),
]
ResultsOption = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|URL", help="Folder of all sweeps and MLflow's database, or an object store, s3://BUCKET/PATH."
    ),
]
AddressOption = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster. Default: $RAY_ADDRESS, else a local Ray.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]


def takes(record: type[Record]) -> Callable[[Callable[[Record], None]], Callable[..., None]]:
    """Turn a function of one record into a command with an option per field.

    Args:
        record: A dataclass whose fields are annotated as typer's parameters are.
    """
    hints = get_type_hints(record, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(record)  # type: ignore[arg-type]
    ]

    def decorate(function: Callable[[Record], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(record(**values))

        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__module__, command.__wrapped__ = function.__module__, function  # type: ignore[attr-defined]
        command.__annotations__ = {}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
