"""Keep answers by question key in a folder, shared by all processes of a machine that a tutor serves.

Owns the tables of a store on disk. It must not know how LMDB is opened or grown (``lmdb_file``), nor the bytes of an
answer (``answer``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from tutor_service.schema import Advice
from tutor_service.store import answer
from tutor_service.store.answer import DamagedAnswer, Entry
from tutor_service.store.base import Row, Store, StoreError, StoreStats, shared_texts, winners
from tutor_service.store.filesystem import refuse_network
from tutor_service.store.lmdb_file import Database, acquire, release

_TABLES = (b"answers", b"texts", b"notes", b"unsent")
_ANSWERS, _TEXTS, _NOTES, _UNSENT = range(len(_TABLES))
_SCAN = 1000


class AdviceStore(Store):
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
        path: Folder of the store; made when missing. A network file system is refused, except for reading.
        readonly: Refuse writing, and never make or move anything.
        max_bytes: Largest size of the file; None: as much as the disk holds.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False, max_bytes: int | None = None) -> None:
        self.path = Path(path).expanduser().resolve()
        super().__init__(str(self.path))
        if not readonly:
            refuse_network(self.path)
        self.readonly = readonly
        self._max_bytes = max_bytes
        self._database: Database | None = acquire(self.path, readonly, max_bytes, _TABLES)

    def replace_many(self, entries: Sequence[Entry]) -> None:
        """Keep answers in place of those that are there: for a store that copies what another one decides.

        Raises:
            StoreError: The disk is full, or the store is read-only. Nothing was written.
        """
        rows, texts = self._rows(entries), shared_texts(entries)

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> None:
            _put_texts(transaction, tables, texts)
            for key, value in rows:
                transaction.put(key, value, db=tables[_ANSWERS])

        self._db().write(work)

    def keep_unsent(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers as ``keep_many`` does, and note that the store of which this is a copy is to learn of them.

        Both are one commit: a process killed at any moment leaves no answer of which nobody else ever hears.

        Raises:
            StoreError: As above.
        """
        rows, texts = self._rows(entries), shared_texts(entries)

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> list[Advice | None]:
            for key, _ in rows:
                transaction.put(key, b"", db=tables[_UNSENT])
            return _put_all(transaction, tables, rows, texts)

        return winners(entries, self._db().write(work))

    def mark_sent(self, keys: Sequence[bytes]) -> None:
        """Note that the store of which this is a copy has learnt of answers.

        Raises:
            StoreError: As above.
        """

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> None:
            for key in keys:
                transaction.delete(key, db=tables[_UNSENT])

        self._db().write(work)

    def unsent(self, limit: int) -> list[bytes]:
        """Return the keys of answers that are marked so, at most so many.

        Raises:
            StoreError: The store cannot be read.
        """

        def work(view: lmdb.Transaction, tables: tuple[Any, ...]) -> list[bytes]:
            return [bytes(key) for key, _ in islice(view.cursor(db=tables[_UNSENT]), limit)] if tables[_UNSENT] else []

        return self._db().read(work)

    def num_unsent(self) -> int:
        """Return how many answers are marked so."""
        return self._db().read(
            lambda view, tables: int(view.stat(db=tables[_UNSENT])["entries"]) if tables[_UNSENT] else 0
        )

    def keep_notes(self, key: bytes, notes: str) -> str:
        """See ``Store``."""
        value = answer.encode_notes(key, notes)

        def work(transaction: lmdb.Transaction, tables: tuple[Any, ...]) -> str:
            if not transaction.put(key, value, db=tables[_NOTES], overwrite=False):
                try:
                    return answer.decode_notes(key, _get(transaction, tables[_NOTES], key) or b"")
                except DamagedAnswer:
                    transaction.put(key, value, db=tables[_NOTES])
            return notes

        return self._db().write(work)

    def stats(self) -> StoreStats:
        """See ``Store``."""
        database = self._db()
        answers = database.read(lambda view, tables: int(view.stat(db=tables[_ANSWERS])["entries"]))
        data = self.path / "data.mdb"
        return StoreStats(
            place=self.place,
            answers=answers,
            file_bytes=data.stat().st_blocks * 512,
            map_bytes=database.map_bytes,
            damaged_seen=self._damaged_seen,
            set_aside=database.set_aside,
        )

    def close(self) -> None:
        """See ``Store``."""
        database, self._database = self._database, None
        if database is not None and database.pid == os.getpid():
            release(database)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.readonly, self._max_bytes)

    def _db(self) -> Database:
        if self._database is None:
            raise StoreError(f"advice store '{self.path}' is closed.")
        if self._database.pid != os.getpid():
            self._database.close()
            self._database = acquire(self.path, self.readonly, self._max_bytes, _TABLES)
        return self._database

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._db().read(lambda view, tables: [_get(view, tables[_ANSWERS], key) for key in keys])

    def _keep(self, rows: Sequence[Row], texts: Mapping[bytes, bytes]) -> list[Advice | None]:
        return self._db().write(lambda transaction, tables: _put_all(transaction, tables, rows, texts))

    def _notes(self, key: bytes) -> bytes | None:
        return self._db().read(lambda view, tables: _get(view, tables[_NOTES], key) if tables[_NOTES] else None)

    def _shared_text(self, digest: bytes) -> bytes | None:
        return self._db().read(lambda view, tables: _get(view, tables[_TEXTS], digest))

    def _scan(self) -> Iterator[Row]:  # in short reads, since a long one keeps old pages from reuse
        last = b""

        def work(view: lmdb.Transaction, tables: tuple[Any, ...]) -> list[Row]:
            cursor = view.cursor(db=tables[_ANSWERS])
            if not cursor.set_range(last + b"\0"):
                return []
            return [Row(bytes(key), bytes(value)) for key, value in islice(cursor, _SCAN)]

        while rows := self._db().read(work):
            yield from rows
            last = rows[-1].key


def _get(view: lmdb.Transaction, table: Any, key: bytes) -> bytes | None:
    value = view.get(key, db=table)
    return None if value is None else bytes(value)


def _put_texts(transaction: lmdb.Transaction, tables: tuple[Any, ...], texts: Mapping[bytes, bytes]) -> None:
    for digest, text in texts.items():
        if transaction.get(digest, db=tables[_TEXTS]) != text:
            transaction.put(digest, text, db=tables[_TEXTS])


def _put_all(
    transaction: lmdb.Transaction, tables: tuple[Any, ...], rows: Sequence[Row], texts: Mapping[bytes, bytes]
) -> list[Advice | None]:
    _put_texts(transaction, tables, texts)
    return [_put_first(transaction, tables[_ANSWERS], key, value) for key, value in rows]


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
