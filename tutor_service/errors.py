"""Say what is wrong in words that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_MOST_NAMES = 40
_NEAREST = 10
_KIND = re.compile(r"int|float|bool|str|(dict|list)\[.*\]")
"""What pydantic adds to a field's name where the field takes values of several kinds."""

_FOLLOWS = {"default_factory_not_called"}
"""Errors that follow from another field's."""

_SECRET = re.compile(r"(?:^|_)(?:key|token|password|secret|authorization|headers)(?:_env)?$", re.IGNORECASE)
"""Fields that hold secrets where somebody makes them up."""

_PASSWORD = re.compile(r"(://[^/@\s:]*:|[?&]password=)[^/@\s&'\"]+")


class UserError(Exception):
    """Report a mistake in what the user asked for. The message names the field, the value and the remedy."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """Return an error that shows the nearest spelling and the valid names, of a long list the nearest.

    Args:
        kind: What the name should be, e.g. ``tutor``.
        name: What was given.
        known: The valid names.
        where: Where it was looked for, e.g. ``in MLflow``.
    """
    names = sorted(set(known))
    hint = did_you_mean(name, names)
    unknown = f"unknown {kind} '{name}'" + (f" {where}" if where else "")
    if len(names) > _MOST_NAMES:
        some = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.0)
        return UserError(f"{unknown}.{hint} The nearest of {len(names)}: {', '.join(some)}.")
    return UserError(f"{unknown}.{hint} Valid: {', '.join(names)}.")


def without_password(text: str) -> str:
    """Return a text with the password of each address in it replaced by asterisks."""
    return re.sub(_PASSWORD, r"\1***", text)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the nearest spelling, after a space; empty where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def field_problems(error: ValidationError, model: type[BaseModel] | None = None, prefix: str = "") -> str:
    """Return all that is wrong with a model's fields, each with its value, separated by semicolons.

    Args:
        error: What pydantic raised.
        model: Whose fields they are: unknown names are then answered with the valid ones.
        prefix: Put before each field's name, e.g. ``rule_options.``.
    """
    problems: dict[str, list[str]] = {}
    valid: dict[str, None] = {}
    for item in error.errors():
        if item["type"] in _FOLLOWS:
            continue
        location = [part for part in item["loc"] if not _KIND.fullmatch(str(part))]
        problem, message = _problem(item, location, model, prefix)
        problems.setdefault(problem, []).append(message)
        if item["type"] == "extra_forbidden" and (names := _fields_at(location[:-1], model)):
            valid[f"Valid: {', '.join(names)}"] = None
    said = "; ".join(problem + ", or: ".join(messages) for problem, messages in problems.items())
    return " ".join([said + ("." if valid and not said.endswith((".", "?")) else ""), *valid])


def _problem(
    item: Mapping[str, Any], location: Sequence[Any], root: type[BaseModel] | None, prefix: str
) -> tuple[str, str]:
    """Return what is wrong, as the field with its value and what is said about them."""
    field = prefix + ".".join(map(str, location))
    hidden = bool(location) and _SECRET.search(str(location[-1])) is not None
    given = "***" if hidden else without_password(repr(item.get("input")))
    if item["type"] == "extra_forbidden":
        near = did_you_mean(str(location[-1]), _fields_at(location[:-1], root))
        return f"unknown field '{field}' = {given}", f".{near}" if near else ""
    if item["type"] == "missing":
        return f"field '{field}' is missing", ""
    said = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_type" and isinstance(item.get("input"), bool | int | float | date):
        said = f"{said}, and YAML reads this as another kind: put it in quotes"
    if item["type"] == "literal_error":
        names = re.findall(r"'([^']+)'", item["ctx"]["expected"])
        said = f"{said}.{did_you_mean(str(item.get('input')), names)}"
    return (f"{field} = {given}: " if field else ""), said


def _fields_at(location: Sequence[Any], root: type[BaseModel] | None) -> list[str]:
    """Return the names of the fields of the model that is nested there."""
    model: Any = root
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in inner if hasattr(kind, "model_fields")), model)
    return sorted(model.model_fields) if model is not None else []
