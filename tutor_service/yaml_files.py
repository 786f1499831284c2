"""Read the YAML that users write, and write it so that it reads back as the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tutor_service.errors import UserError

_FLOAT_TAG = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""A number with an exponent as YAML 1.2 has it; PyYAML's version 1.1 reads 1e-4 as text."""


class _Loader(yaml.SafeLoader):
    """Read safe YAML, numbers such as 1e-4 as such, and no key twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Read a mapping as it is written, before what it merges (``<<``) is in it."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key.value}' stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make the value of a node, and say where one is that is none, e.g. the date 2026-13-01."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            said = f"{node.value!r} is no value of the kind {kind}: put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error


class _Dumper(yaml.SafeDumper):
    """Write safe YAML, and quote text that the loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: It is none, or a mapping in it has a key twice.
    """
    return yaml.load(text, _Loader)  # a safe loader of our own


def write_yaml(fields: Mapping[str, Any]) -> str:
    """Write fields, in their order."""
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def is_yaml(path: str | Path) -> bool:
    """Tell whether a file is YAML by its name."""
    return Path(path).suffix.lower() in (".yaml", ".yml")


def name_of(path: Path) -> str:
    """Return the name that a file gives to what it describes: its own, of plain letters, digits, '.', '_' and '-'."""
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")


def read_fields(path: Path, kind: str, example: str, remedy: str) -> dict[str, Any]:
    """Read a file of fields.

    Args:
        path: The file.
        kind: What the file describes, e.g. ``tutor``.
        example: A field that it could hold.
        remedy: What to give in its place where it does not exist.

    Raises:
        UserError: No such file, no text, broken YAML, or no fields.
    """
    file = f"{kind} file '{path}'"
    if path.is_dir():
        raise UserError(f"{file} is a folder. {remedy}")
    try:
        fields = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist. {remedy}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{file} must hold a mapping of fields, e.g. '{example}'.")
    wrong = next((key for key in fields if not isinstance(key, str)), None)
    if wrong is not None or None in fields:
        raise UserError(f"{file} has a field named {wrong!r}, which YAML does not read as text. Put it in quotes.")
    return fields
