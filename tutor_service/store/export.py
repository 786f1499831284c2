"""Write answers to files that other tools read. Knows their columns; must not know the database."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tutor_service.errors import UserError
from tutor_service.store.answer import Entry

_ROWS_PER_GROUP = 10_000


def write_export(items: Iterable[Entry], path: Path) -> int:
    """Write ``items`` to ``path``; the file appears whole or not at all.

    Returns:
        How many rows were written.

    Raises:
        UserError: The suffix is none of ``.parquet`` and ``.jsonl``, or the file cannot be written.
    """
    writers: dict[str, Callable[[Iterable[Entry], Path], int]] = {
        ".parquet": _write_parquet,
        ".jsonl": _write_json_lines,
    }
    write = writers.get(path.suffix.lower())
    if write is None:
        raise UserError(f"export file '{path}' must end in one of: {', '.join(sorted(writers))}.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = write(items, partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"export file '{path}' cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def row(entry: Entry) -> dict[str, Any]:
    """Return one answer by column name; the context's columns are None where it was not kept."""
    key, advice, context = entry
    return {
        "key": key.hex(),
        "identity": context.identity if context else None,
        "rules": context.rules if context else None,
        "state": context.state if context else None,
        "actions": list(context.actions) if context else None,
        "probabilities": list(advice.probabilities),
        "legal_mass": advice.legal_mass,
        "invalid": advice.invalid,
        "tokens": advice.tokens,
        "thought": advice.thought,
    }


def _write_json_lines(items: Iterable[Entry], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for entry in items:
            file.write(json.dumps(row(entry), ensure_ascii=True) + "\n")
            count += 1
    return count


def _write_parquet(items: Iterable[Entry], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, texts, numbers = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())
    schema = pa.schema(
        [
            ("key", text),
            ("identity", pa.dictionary(pa.int32(), text)),
            ("rules", pa.dictionary(pa.int32(), text)),
            ("state", text),
            ("actions", texts),
            ("probabilities", numbers),
            ("legal_mass", pa.float64()),
            ("invalid", pa.uint32()),
            ("tokens", pa.uint32()),
            ("thought", text),
        ]
    )
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(iter(items)):
            writer.write_table(pa.Table.from_pylist([_printable(row(entry)) for entry in group], schema))
            count += len(group)
    return count


def _printable(columns: dict[str, Any]) -> dict[str, Any]:
    """Write lone surrogates, which UTF-8 does not have, as escapes."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        return [clean(item) for item in value] if isinstance(value, list) else value

    return {name: clean(value) for name, value in columns.items()}


def _groups(items: Iterator[Entry]) -> Iterator[list[Entry]]:
    while group := list(islice(items, _ROWS_PER_GROUP)):
        yield group
