"""Print rows of values: as a table for a person, as JSON for a program."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

NONE = "–"


def print_rows(console: Console, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows that have the same columns.

    Args:
        console: Where to.
        rows: Values by column, as a person reads its name. In JSON they are objects with snake-case keys, in the table
            None is a dash and a list is joined by commas.
        as_json: Print JSON and no table.
    """
    if as_json:
        print_json([{key(name): value for name, value in row.items()} for row in rows])
        return
    console.print(table(rows) if rows else "none")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows as a table for a person."""
    shown = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        numbers = all(isinstance(row[name], int | float | None) and not isinstance(row[name], bool) for row in rows)
        shown.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(word(value) for value in row.values()))
    return shown


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, numbers that JSON does not have as null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str))


def key(name: str) -> str:
    """Return a column's name as a key: ``size (MiB)`` as ``size_mib``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def word(value: Any) -> str:
    """Write a value for a person."""
    match value:
        case None | "":
            return NONE
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.1f}" if math.isfinite(value) else NONE
        case list() | tuple():
            return ", ".join(map(str, value)) or NONE
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
