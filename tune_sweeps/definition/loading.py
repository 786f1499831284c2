"""Read a sweep from a preset or a YAML file and ``key=value`` settings, check it, and write it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tune_sweeps.definition.config import SCHEMA_VERSION, Extension, Match, SweepConfig, free_seeds
from tutor_service.errors import UserError, field_problems, unknown_name
from tutor_service.yaml_files import is_yaml, name_of, parse_yaml, read_fields, write_yaml

PRESETS_DIR = Path(__file__).parent.parent / "presets"


def preset_names() -> list[str]:
    """Name the presets that ship."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def load_sweep(name_or_path: str, settings: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep by preset name or from a user's YAML file.

    Args:
        name_or_path: A preset's name, or a path that ends in .yaml or .yml.
        settings: Changes as ``key=value``: dotted keys, values in YAML, e.g. ``advice.theta_frac=0.3``.

    Raises:
        UserError: No such preset or file, broken YAML, a newer format, or an invalid or unknown field.
    """
    path = Path(name_or_path).expanduser()
    if not is_yaml(path):
        path = PRESETS_DIR / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("preset", name_or_path, preset_names())
    fields = read_fields(path, "sweep", "tutors: [oracle]", f"Valid presets: {', '.join(preset_names())}.")
    fields.setdefault("name", name_of(path) or "sweep")
    for setting in settings:
        apply_setting(fields, setting)
    version = fields.get("version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"'{path}' has version = {version}, written for a newer release; this one reads up to {SCHEMA_VERSION}. "
            "Upgrade llm-tutors, or use a preset of this release."
        )
    return validate_sweep(fields, f"{path.name} with --set" if settings else str(path))


def forked(config: SweepConfig, settings: Sequence[str]) -> SweepConfig:
    """Return a sweep as another one with some settings changed; seeds that were added to that one are among its own.

    Args:
        config: The sweep that is forked.
        settings: Changes as ``key=value``.

    Raises:
        UserError: An unknown key, or a field that is invalid.
    """
    fields = _fields(config)
    if not config.tuning:
        fields |= {"seeds": config.all_seeds, "extensions": []}
    for setting in settings:
        apply_setting(fields, setting)
    return validate_sweep(fields, f"sweep '{config.name}' with --set")


def validate_sweep(fields: Mapping[str, Any], source: str) -> SweepConfig:
    """Check the fields of a sweep.

    Args:
        fields: By name, as read from YAML.
        source: What the errors call them, e.g. the file's path.

    Raises:
        UserError: A field is unknown, missing or invalid; all such fields are named with their values.
    """
    try:
        return SweepConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: " + field_problems(error, SweepConfig)) from error


def apply_setting(fields: dict[str, Any], setting: str, model: type[BaseModel] = SweepConfig) -> None:
    """Set one field from ``key=value``; the key is dotted, the value is YAML.

    Args:
        fields: Changed in place.
        setting: The text.
        model: Whose fields they are.

    Raises:
        UserError: No ``=``, an unknown key, or a value that is not YAML.
    """
    key, separator, text = setting.partition("=")
    parts = _parts(key.strip())
    if not separator or not all(parts):
        raise UserError(f"--set '{setting}' has no form key=value, e.g. --set seeds=3 or --set advice.theta_frac=0.3.")
    if parts[0] not in model.model_fields:
        raise unknown_name("key in --set", parts[0], model.model_fields)
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {key}: '{text}' is not a YAML value ({error.__class__.__name__}).") from error
    set_nested(fields, parts, value)


def _parts(key: str) -> list[str]:
    """Split a dotted key; the dots of a ``module:object`` in it belong to its name."""
    parts = key.split(".")
    last = next((index for index, part in enumerate(parts) if ":" in part), 0)
    return [parts[0], ".".join(parts[1 : last + 1]), *parts[last + 1 :]] if last else parts


def set_nested(fields: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a field of nested mappings, which are copied on the way.

    Args:
        fields: Changed in place.
        path: Keys from the outermost to the field's own.
        value: The field's value.
    """
    for part in path[:-1]:
        inner = fields.get(part)
        fields[part] = dict(inner) if isinstance(inner, Mapping) else {}
        fields = fields[part]
    fields[path[-1]] = value


def dump_sweep(config: SweepConfig) -> str:
    """Write the whole configuration as YAML, defaults included."""
    return write_yaml(_fields(config))


def _fields(config: SweepConfig) -> dict[str, Any]:
    """Return all fields; a use of advice that nobody named stays unnamed, since each cell chooses its own."""
    fields = config.model_dump(mode="json")
    if "use" not in config.advice.model_fields_set:
        del fields["advice"]["use"]
    return fields


def with_more_seeds(config: SweepConfig, count: int, cells: Sequence[Match] | None = None) -> SweepConfig:
    """Extend a sweep by seeds that it has not used.

    Args:
        config: The sweep.
        count: How many.
        cells: Which cells get them; None: all.
    """
    seeds = free_seeds(count, {*config.all_seeds, *config.tuning_seeds, *config.seeds})
    return _extended(config, Extension(seeds=seeds, cells=None if cells is None else list(cells)))


def continued(old: SweepConfig, new: SweepConfig) -> SweepConfig | None:
    """Return the sweep that ``new`` makes of ``old``: itself, or with seeds added; None where more differs."""
    if difference(old.model_copy(update={"seeds": [], "extensions": []}), new.model_copy(update={"seeds": []})):
        return None
    if old.tuning or set(new.seeds) <= set(old.all_seeds):
        return old if set(new.seeds) in ({*old.seeds}, {*old.all_seeds}) else None
    added = [seed for seed in new.seeds if seed not in old.all_seeds]
    return _extended(old, Extension(seeds=added)) if set(old.all_seeds) <= set(new.seeds) else None


def _extended(config: SweepConfig, extension: Extension) -> SweepConfig:
    return SweepConfig.model_validate({**dict(config), "extensions": [*config.extensions, extension]})


def difference(old: SweepConfig, new: SweepConfig) -> list[str]:
    """List what differs in two sweeps as ``key: old → new``; name and description do not count."""
    left_out = {"name", "description", "numbered"}
    before, after = (config.model_dump(mode="json", exclude=left_out) for config in (old, new))
    return list(_compare(before, after, ""))


def _compare(old: Any, new: Any, prefix: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _compare(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield f"{prefix}: {old!r} → {new!r}"
