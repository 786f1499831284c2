"""Say what every advice store does, wherever it keeps its bytes, and never trust what does not hold its checksum.

Owns the way from bytes to answers. It must not know LMDB nor SQL: a store reads and writes tables of bytes for it.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tutor_service.errors import UserError
from tutor_service.schema import Advice
from tutor_service.store import answer
from tutor_service.store.answer import Context, DamagedAnswer, Entry

logger = logging.getLogger(__name__)

MAX_KEY_BYTES = 64


class StoreError(UserError):
    """Report that the advice store cannot be read or written. The message says why, and what to do."""


class Row(NamedTuple):
    """Name the bytes that are kept under a key."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Describe what a store holds.

    Attributes:
        place: Its folder, or the address of its database.
        answers: Stored answers, one per distinct question.
        file_bytes: Its size on disk.
        map_bytes: Size up to which it grows before its memory map is enlarged; None where it has none.
        damaged_seen: Damaged answers that this process met and treated as missing.
        set_aside: Where a damaged predecessor was moved when this process opened the store.
    """

    place: str
    answers: int
    file_bytes: int
    map_bytes: int | None
    damaged_seen: int
    set_aside: Path | None


@dataclass(frozen=True, slots=True)
class StoreVerification:
    """Hold what a full reading found.

    Attributes:
        answers: Answers read.
        damaged: Key and flaw of each answer that cannot be trusted.
    """

    answers: int
    damaged: tuple[tuple[bytes, str], ...]

    @property
    def ok(self) -> bool:
        """Return whether every answer can be trusted."""
        return not self.damaged


class Store(ABC):
    """Keep what a tutor answered, so that nothing is asked twice. Safe to use from several threads.

    Args:
        place: What messages call it: its folder, or the address of its database, without a password.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._damaged_seen = 0
        self._texts: dict[bytes, str] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return the answers under ``keys``, in order; None where there is none that can be trusted.

        Raises:
            StoreError: The store cannot be read.
        """
        return [self._decoded(key, value)[0] for key, value in zip(keys, self._values(keys), strict=True)]

    def find_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the answers under ``keys`` as ``get_many`` does, with their questions in words.

        Raises:
            StoreError: The store cannot be read.
        """
        entries: list[Entry | None] = []
        for key, value in zip(keys, self._values(keys), strict=True):
            advice, context = self._decoded(key, value)
            entries.append(None if advice is None else Entry(key, advice, self._context(context)))
        return entries

    def put_many(self, entries: Iterable[Entry]) -> int:
        """Keep answers, all in one commit. An answer that is there already stays: the first one wins.

        Returns:
            How many were new.

        Raises:
            StoreError: The disk is full, the store is read-only or away, or a key has no right length. Nothing was
                written.
        """
        kept = list(entries)
        return sum(mine is one.advice for mine, one in zip(self.keep_many(kept), kept, strict=True))

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers as ``put_many`` does, and return what is kept under their keys.

        Returns:
            In order, the answer that was given where it is kept now, else the one that was there first.

        Raises:
            StoreError: As above.
        """
        if not entries:
            return []
        return winners(entries, self._keep(self._rows(entries), shared_texts(entries)))

    def get_notes(self, key: bytes) -> str | None:
        """Return the notes that a tutor wrote under ``key``; None where there are none that can be trusted.

        Raises:
            StoreError: The store cannot be read.
        """
        value = self._notes(key)
        if value is None:
            return None
        try:
            return answer.decode_notes(key, value)
        except DamagedAnswer as damage:
            self._report(key, damage)
            return None

    @abstractmethod
    def keep_notes(self, key: bytes, notes: str) -> str:
        """Keep notes, unless there are some already; return those that are kept.

        Raises:
            StoreError: The disk is full, or the store is read-only or away. Nothing was written.
        """

    @abstractmethod
    def stats(self) -> StoreStats:
        """Return what the store holds now.

        Raises:
            StoreError: The store cannot be read.
        """

    def verify(self, on_answer: Callable[[], object] = lambda: None) -> StoreVerification:
        """Read every answer and check its checksum and its numbers.

        Args:
            on_answer: Called after each of them.
        """
        count, damaged = 0, []
        for key, value in self._scan():
            count += 1
            on_answer()
            try:
                answer.decode(key, value)
            except DamagedAnswer as damage:
                damaged.append((key, str(damage)))
        return StoreVerification(count, tuple(damaged))

    def entries(self) -> Iterator[Entry]:
        """Yield all answers that can be trusted, by ascending key; answers that come while it runs may be missed."""
        for key, value in self._scan():
            advice, context = self._decoded(key, value)
            if advice is not None:
                yield Entry(key, advice, self._context(context))

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all answers with their contexts, as Parquet (``.parquet``) or JSON lines (``.jsonl``).

        Returns:
            How many answers were written.

        Raises:
            UserError: Another suffix, or the file cannot be written.
        """
        from tutor_service.store.export import write_export

        return write_export(self.entries(), Path(path))

    @abstractmethod
    def close(self) -> None:
        """Give files or connections back; the store is unusable afterwards. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is kept under keys, in order."""

    @abstractmethod
    def _keep(self, rows: Sequence[Row], texts: Mapping[bytes, bytes]) -> list[Advice | None]:
        """Write answers and shared texts whole, or not at all; return what was there before and can be trusted."""

    @abstractmethod
    def _notes(self, key: bytes) -> bytes | None:
        """Return the bytes of notes."""

    @abstractmethod
    def _shared_text(self, digest: bytes) -> bytes | None:
        """Return a text that many answers share."""

    @abstractmethod
    def _scan(self) -> Iterator[Row]:
        """Yield all answers by ascending key, in short reads."""

    def _rows(self, entries: Sequence[Entry]) -> list[Row]:
        if any(not 0 < len(entry.key) <= MAX_KEY_BYTES for entry in entries):
            raise StoreError(f"a key of advice has 1 to {MAX_KEY_BYTES} bytes.")
        return [Row(entry.key, answer.encode(entry)) for entry in entries]

    def _decoded(self, key: bytes, value: bytes | None) -> tuple[Advice | None, answer.EncodedContext | None]:
        if value is None:
            return None, None
        try:
            return answer.decode(key, value)
        except DamagedAnswer as damage:
            self._report(key, damage)
            return None, None

    def _context(self, encoded: answer.EncodedContext | None) -> Context | None:
        if encoded is None:
            return None
        return Context(self._text(encoded.identity), self._text(encoded.rules), encoded.state, encoded.actions)

    def _text(self, digest: bytes) -> str:
        """Return a shared text; empty where it is damaged, since no answer depends on it."""
        text = self._texts.get(digest)
        if text is None:
            data = self._shared_text(digest)
            if data is None or answer.text_digest(data) != digest:
                return ""
            text = self._texts[digest] = answer.to_text(data)
        return text

    def _report(self, key: bytes, damage: DamagedAnswer) -> None:
        self._damaged_seen += 1
        logger.error("Advice store '%s': the answer under %s is not used: %s.", self.place, key.hex(), damage)


def winners(entries: Sequence[Entry], earlier: Sequence[Advice | None]) -> list[Advice]:
    """Return what is kept of answers, given those that were there before; None where there was none."""
    return [entry.advice if first is None else first for entry, first in zip(entries, earlier, strict=True)]


def shared_texts(entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """Return the identities and rules of answers by their digests, each once."""
    return {
        answer.text_digest(text): text
        for shared in {(entry.context.identity, entry.context.rules) for entry in entries if entry.context}
        for text in map(answer.to_bytes, shared)
    }
