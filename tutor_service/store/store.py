"""Keep answers by question key, shared by all processes that a tutor serves.

Owns what is kept and what is never trusted. It must not know how LMDB is opened or grown (``database``), nor the
bytes of an answer (``answer``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from tutor_service.schema import Advice
from tutor_service.store import answer
from tutor_service.store.answer import Context, DamagedAnswer, Entry
from tutor_service.store.database import Database, StoreError, acquire, release

logger = logging.getLogger(__name__)

_TABLES = (b"answers", b"texts", b"notes")
_MAX_KEY_BYTES = 64
_SCAN = 1000


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Describe what a store holds.

    Attributes:
        path: Its folder.
        answers: Stored answers, one per distinct question.
        file_bytes: Size of its file on disk.
        map_bytes: Size up to which it grows before its memory map is enlarged.
        damaged_seen: Damaged answers that this process met and treated as missing.
        set_aside: Where a damaged predecessor was moved when this process opened the store.
    """

    path: Path
    answers: int
    file_bytes: int
    map_bytes: int
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


class AdviceStore:
    """Keep what a tutor answered, so that nothing is asked twice.

    >>> import tempfile
    >>> from tutor_service.schema import Advice
    >>> from tutor_service.store import AdviceStore, Entry, advice_key
    >>> key = advice_key("model@revision", prompt_token_ids=[5, 17, 4], label_token_ids=[10, 11])
    >>> with AdviceStore(tempfile.mkdtemp()) as store:
    ...     kept = store.put_many([Entry(key, Advice((0.25, 0.75), legal_mass=0.9))])
    ...     store.get_many([key])[0].probabilities
    (0.25, 0.75)

    Several processes and threads may read and write one store at once, and any of them may be killed at any moment:
    an answer is then either there, whole, or not there. Opening checks the whole file; a damaged one is moved aside
    and a new one begun. Every answer carries a checksum that is checked at each reading; one that fails is reported,
    counted and treated as missing. May be pickled; it is then opened anew.

    Args:
        path: Folder of the store; made when missing. On a local disk, not on a network share.
        readonly: Refuse writing, and never make or move anything.
        max_bytes: Largest size of the file; None: as much as the disk holds.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False, max_bytes: int | None = None) -> None:
        self.path = Path(path).expanduser().resolve()
        self.readonly = readonly
        self._max_bytes = max_bytes
        self._damaged_seen = 0
        self._texts: dict[bytes, str] = {}
        self._database: Database | None = acquire(self.path, readonly, max_bytes, _TABLES)

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return the answers under ``keys``, in order; None where there is none that can be trusted.

        Raises:
            StoreError: The store cannot be read.
        """
        values = self._db().read(lambda view, tables: [_get(view, tables[0], key) for key in keys])
        answers: list[Advice | None] = []
        for key, value in zip(keys, values, strict=True):
            try:
                answers.append(None if value is None else answer.decode(key, value)[0])
            except DamagedAnswer as damage:
                self._report(key, damage)
                answers.append(None)
        return answers

    def put_many(self, entries: Iterable[Entry]) -> int:
        """Keep answers, all in one commit. An answer that is there already stays: the first one wins.

        Returns:
            How many were new.

        Raises:
            StoreError: The disk is full, the store is read-only, or a key has no right length. Nothing was written.
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
        if any(not 0 < len(entry.key) <= _MAX_KEY_BYTES for entry in entries):
            raise StoreError(f"a key of advice has 1 to {_MAX_KEY_BYTES} bytes.")
        rows = [(entry.key, answer.encode(entry)) for entry in entries]
        texts = {
            answer.text_digest(text): text
            for shared in {(entry.context.identity, entry.context.rules) for entry in entries if entry.context}
            for text in map(answer.to_bytes, shared)
        }

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> list[Advice | None]:
            for digest, text in texts.items():
                if transaction.get(digest, db=tables[1]) != text:
                    transaction.put(digest, text, db=tables[1])
            return [_put_first(transaction, tables[0], key, value) for key, value in rows]

        earlier = self._db().write(work)
        return [entry.advice if first is None else first for entry, first in zip(entries, earlier, strict=True)]

    def get_notes(self, key: bytes) -> str | None:
        """Return the notes that a tutor wrote under ``key``; None where there are none that can be trusted.

        Raises:
            StoreError: The store cannot be read.
        """
        value = self._db().read(lambda view, tables: _get(view, tables[2], key) if tables[2] else None)
        if value is None:
            return None
        try:
            return answer.decode_notes(key, value)
        except DamagedAnswer as damage:
            self._report(key, damage)
            return None

    def keep_notes(self, key: bytes, notes: str) -> str:
        """Keep notes, unless there are some already; return those that are kept.

        Raises:
            StoreError: The disk is full, or the store is read-only. Nothing was written.
        """
        value = answer.encode_notes(key, notes)

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> str:
            if not transaction.put(key, value, db=tables[2], overwrite=False):
                try:
                    return answer.decode_notes(key, _get(transaction, tables[2], key) or b"")
                except DamagedAnswer:
                    transaction.put(key, value, db=tables[2])
            return notes

        return self._db().write(work)

    def stats(self) -> StoreStats:
        """Return what the store holds now."""
        database = self._db()
        answers = database.read(lambda view, tables: int(view.stat(db=tables[0])["entries"]))
        data = self.path / "data.mdb"
        return StoreStats(
            path=self.path,
            answers=answers,
            file_bytes=data.stat().st_blocks * 512,
            map_bytes=database.map_bytes,
            damaged_seen=self._damaged_seen,
            set_aside=database.set_aside,
        )

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
            try:
                advice, context = answer.decode(key, value)
                yield Entry(key, advice, self._context(context))
            except DamagedAnswer as damage:
                self._report(key, damage)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all answers with their contexts, as Parquet (``.parquet``) or JSON lines (``.jsonl``).

        Returns:
            How many answers were written.

        Raises:
            UserError: Another suffix, or the file cannot be written.
        """
        from tutor_service.store.export import write_export

        return write_export(self.entries(), Path(path))

    def close(self) -> None:
        """Give the files back; the store is unusable afterwards. Closing twice is allowed."""
        database, self._database = self._database, None
        if database is not None and database.pid == os.getpid():
            release(database)

    def __enter__(self) -> AdviceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.readonly, self._max_bytes)

    def _db(self) -> Database:
        if self._database is None:
            raise StoreError(f"advice store '{self.path}' is closed.")
        if self._database.pid != os.getpid():
            self._database.close()
            self._database = acquire(self.path, self.readonly, self._max_bytes, _TABLES)
        return self._database

    def _scan(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and bytes of every answer, in short reads: a long one keeps old pages from reuse."""
        last = b""
        while True:
            start = last

            def work(
                view: lmdb.Transaction, tables: tuple[Any, ...], start: bytes = start
            ) -> list[tuple[bytes, bytes]]:
                cursor = view.cursor(db=tables[0])
                if not cursor.set_range(start + b"\0" if start else b"\0"):
                    return []
                return [(bytes(key), bytes(value)) for key, value in islice(cursor, _SCAN)]

            rows = self._db().read(work)
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def _context(self, encoded: answer.EncodedContext | None) -> Context | None:
        if encoded is None:
            return None
        return Context(self._text(encoded.identity), self._text(encoded.rules), encoded.state, encoded.actions)

    def _text(self, digest: bytes) -> str:
        """Return a shared text; empty where it is damaged, since no answer depends on it."""
        text = self._texts.get(digest)
        if text is None:
            data = self._db().read(lambda view, tables: _get(view, tables[1], digest))
            if data is None or answer.text_digest(data) != digest:
                return ""
            text = self._texts[digest] = answer.to_text(data)
        return text

    def _report(self, key: bytes, damage: DamagedAnswer) -> None:
        self._damaged_seen += 1
        logger.error("Advice store '%s': the answer under %s is not used: %s.", self.path, key.hex(), damage)


def _get(view: lmdb.Transaction, table: Any, key: bytes) -> bytes | None:
    value = view.get(key, db=table)
    return None if value is None else bytes(value)


def _put_first(transaction: lmdb.Transaction, table: Any, key: bytes, value: bytes) -> Advice | None:
    """Keep an answer, unless there is one that can be trusted: return that."""
    if transaction.put(key, value, db=table, overwrite=False):
        return None
    try:
        return answer.decode(key, _get(transaction, table, key) or b"")[0]
    except DamagedAnswer:
        transaction.put(key, value, db=table)
        return None


def _reopen(path: Path, readonly: bool, max_bytes: int | None) -> AdviceStore:
    return AdviceStore(path, readonly=readonly, max_bytes=max_bytes)
