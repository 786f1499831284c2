"""Read exported answers back from files. Knows the export's columns; must not know the database.

The inverse of ``export``: each row is checked where it enters, and a row that is no answer names its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutor_service.errors import UserError
from tutor_service.schema import Advice
from tutor_service.store.answer import Context, Entry
from tutor_service.store.keys import KEY_BYTES, advice_key


@dataclass(frozen=True, slots=True)
class ExportedAnswer:
    """Hold one row of an export.

    Attributes:
        key: The store's key; None where the file has none: no live tutor would find the answer by it.
        advice: The answer.
        context: Its question in words.
    """

    key: bytes | None
    advice: Advice
    context: Context

    @property
    def entry(self) -> Entry:
        """Return the answer as a store keeps it; without a key of its own, under one that no live tutor looks up."""
        return Entry(self.key or _words_key(self.context), self.advice, self.context)


@dataclass(frozen=True, slots=True)
class Merged:
    """Answers of several sources.

    Attributes:
        entries: In the sources' order.
        conflicts: How many were left out because an earlier source answers the same question otherwise.
    """

    entries: list[Entry]
    conflicts: int


def merged(sources: Iterable[Iterable[Entry]]) -> Merged:
    """Put answers of several sources together; of two to the same question the first one counts."""
    entries: dict[bytes, Entry] = {}
    conflicts = 0
    for source in sources:
        for entry in source:
            known = entries.setdefault(entry.key, entry)
            conflicts += known.advice.probabilities != entry.advice.probabilities
    return Merged(list(entries.values()), conflicts)


def read_export(path: Path) -> list[ExportedAnswer]:
    """Read all answers of an exported file.

    Args:
        path: ``.jsonl`` or ``.parquet``, as ``tutor store export`` writes them; further columns are ignored.

    Raises:
        UserError: The file cannot be read, is empty, or a row is no answer; the row and its field are named.
    """
    readers = {".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"file of answers '{path}' must end in one of: {', '.join(readers)}.")
    try:
        rows = [_answer(columns, f"'{path}', row {number}") for number, columns in reader(path)]
    except OSError as error:
        raise UserError(f"file of answers '{path}' cannot be read: {error.strerror or error}.") from error
    answers = [row for row in rows if row is not None]
    if not answers:
        raise UserError(f"file of answers '{path}' holds none. Write one with `tutor store export TUTOR {path.name}`.")
    return answers


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise UserError(f"'{path}', row {number} is no JSON ({error}). Was the file cut off?") from error


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"file of answers '{path}' is no Parquet ({error}). Was it cut off?") from error
    yield from enumerate(rows, start=1)


def _answer(columns: Any, where: str) -> ExportedAnswer | None:
    """Check one row; None where nothing was read from the model's answer, which is a miss."""
    if not isinstance(columns, dict):
        raise UserError(f"{where} is no answer: an object with 'state', 'actions' and 'probabilities' is expected.")
    texts = {name: columns.get(name) or "" for name in ("identity", "rules", "state", "thought")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} = {value!r:.80} must be text.")
    if not texts["state"]:
        raise UserError(f"{where}: state is empty: an answer is of use with its question in words only.")
    actions = columns.get("actions")
    if not (isinstance(actions, list) and len(actions) > 1 and all(isinstance(label, str) for label in actions)):
        raise UserError(f"{where}: actions = {actions!r:.80} must be a list of at least two labels.")
    if len(set(actions)) < len(actions):
        raise UserError(f"{where}: actions = {actions!r:.80} are not distinct.")
    try:
        probabilities = tuple(float(value) for value in columns["probabilities"])
        mass = float(columns.get("legal_mass", 1.0))
        invalid, tokens = int(columns.get("invalid") or 0), int(columns.get("tokens") or 0)
        key = bytes.fromhex(columns["key"]) if columns.get("key") else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is no answer: {error!r}.") from error
    if key is not None and len(key) != KEY_BYTES:
        raise UserError(f"{where}: key has {len(key)} bytes, not {KEY_BYTES}.")
    if mass == 0:
        return None
    if len(probabilities) != len(actions):
        raise UserError(f"{where}: {len(probabilities)} probabilities for {len(actions)} actions.")
    try:
        advice = Advice(probabilities, mass, "store", invalid=invalid, tokens=tokens, thought=texts["thought"])
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    return ExportedAnswer(key, advice, Context(texts["identity"], texts["rules"], texts["state"], tuple(actions)))


def _words_key(context: Context) -> bytes:
    words = json.dumps([context.rules, context.state]).encode()
    return advice_key(context.identity, words, json.dumps(context.actions).encode())
