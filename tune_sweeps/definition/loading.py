"""From a preset's name or a YAML file, and ``key=value`` settings, to a checked ``SweepConfig``. Knows no Ray."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tune_sweeps.definition.config import SCHEMA_VERSION, SweepConfig
from tutor_service.errors import UserError, did_you_mean, unknown_name

PRESETS_DIR = Path(__file__).parent.parent / "presets"


def preset_names() -> list[str]:
    """Names of the presets that ship."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def load_sweep(name_or_path: str, settings: Sequence[str] = ()) -> SweepConfig:
    """Reads a sweep by preset name or from a user's YAML file.

    Args:
        name_or_path: A preset's name, or a path that ends in .yaml or .yml.
        settings: Changes as ``key=value``: dotted keys, values in YAML, e.g. ``advice.theta_frac=0.3``.

    Raises:
        UserError: No such preset or file, broken YAML, a newer format, or an invalid or unknown field.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        path = PRESETS_DIR / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("preset", name_or_path, preset_names())
    fields = _read(path)
    fields.setdefault("name", path.stem)
    for setting in settings:
        apply_setting(fields, setting)
    version = fields.get("version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"'{path}' has version = {version}, written for a newer release; this one reads up to {SCHEMA_VERSION}. "
            "Upgrade llm-tutors, or use a preset of this release."
        )
    return validate_sweep(fields, f"{path.name} with --set" if settings else str(path))


def validate_sweep(fields: Mapping[str, Any], source: str) -> SweepConfig:
    """Checks the fields of a sweep.

    Args:
        fields: By name, as read from YAML.
        source: What the errors call them, e.g. the file's path.

    Raises:
        UserError: A field is unknown, missing or invalid; all such fields are named with their values.
    """
    try:
        return SweepConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: " + "; ".join(problems(error, SweepConfig))) from error


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong with the fields of a model, each with its value and, where the name is unknown, the valid ones."""
    return [_problem(item, model) for item in error.errors()]


def apply_setting(fields: dict[str, Any], setting: str, model: type[BaseModel] = SweepConfig) -> None:
    """Sets one field from ``key=value``; the key is dotted, the value is YAML.

    Args:
        fields: Changed in place.
        setting: The text.
        model: Whose fields they are.

    Raises:
        UserError: No ``=``, an unknown key, or a value that is not YAML.
    """
    key, separator, text = setting.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise UserError(f"--set '{setting}' has no form key=value, e.g. --set seeds=3 or --set advice.theta_frac=0.3.")
    if parts[0] not in model.model_fields:
        raise unknown_name("key in --set", parts[0], model.model_fields)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {key}: '{text}' is not a YAML value ({error.__class__.__name__}).") from error
    target = fields
    for part in parts[:-1]:
        inner = target.get(part)
        target[part] = dict(inner) if isinstance(inner, Mapping) else {}
        target = target[part]
    target[parts[-1]] = value


def dump_sweep(config: SweepConfig) -> str:
    """The whole configuration as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def difference(old: SweepConfig, new: SweepConfig) -> list[str]:
    """What differs in two sweeps, as lines ``key: old → new``; the name and the description do not count."""
    return [
        f"{key}: {before!r} → {after!r}"
        for key, before, after in _compare(old.model_dump(mode="json"), new.model_dump(mode="json"), "")
        if key not in {"name", "description", "numbered"}
    ]


def _compare(old: Any, new: Any, prefix: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _compare(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield prefix, old, new


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"sweep file '{path}' does not exist. Valid presets: {', '.join(preset_names())}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"sweep file '{path}' cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"sweep file '{path}' is not valid YAML: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"sweep file '{path}' must hold a mapping of fields, e.g. 'tutors: [oracle]'.")
    return fields


def _problem(item: Mapping[str, Any], root: type[BaseModel]) -> str:
    location = list(item["loc"])
    field = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        names = _fields_at(location[:-1], root)
        return f"unknown field '{field}'.{did_you_mean(str(location[-1]), names)} Valid: {', '.join(names)}"
    if item["type"] == "missing":
        return f"field '{field}' is missing"
    said = f"{field} = {item.get('input')!r}: {item['msg'].removeprefix('Value error, ')}"
    if item["type"] == "literal_error":
        names = re.findall(r"'([^']+)'", item["ctx"]["expected"])
        return f"{said}.{did_you_mean(str(item.get('input')), names)}"
    return said


def _fields_at(location: Sequence[Any], root: type[BaseModel]) -> list[str]:
    """Names of the fields of the model that is nested there."""
    model: Any = root
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return sorted(model.model_fields)
