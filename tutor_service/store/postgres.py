"""Keep answers in a PostgreSQL database, shared by all gateways that reach it.

Owns the tables, in a schema of their own, so that a database of MLflow's serves as well. It must not know the bytes of
an answer (``answer``), nor how a server is reached (``connections``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tutor_service.schema import Advice
from tutor_service.store import answer
from tutor_service.store.answer import DamagedAnswer
from tutor_service.store.base import Row, Store, StoreStats
from tutor_service.store.connections import Connections, Statement, TablesMissing

T = TypeVar("T")

_LOCK = 0x6C6D7475746F7273
"""Of all advisory locks of the database, ours: two gateways that begin at once make the tables one after the other."""

_ROWS = 1000
"""Most rows in one statement."""

_TABLES = (
    Statement("select pg_advisory_xact_lock(%s)", (_LOCK,)),
    Statement("create schema if not exists llm_tutors"),
    Statement("create table if not exists llm_tutors.answers (key bytea primary key, value bytea not null)"),
    Statement("create table if not exists llm_tutors.texts (digest bytea primary key, value bytea not null)"),
    Statement("create table if not exists llm_tutors.notes (key bytea primary key, value bytea not null)"),
    Statement(
        "create table if not exists llm_tutors.leases "
        "(key bytea primary key, holder bytea not null, until timestamptz not null)"
    ),
)


class PostgresStore(Store):
    """Keep what tutors answered where all clusters find it; see ``Store``.

    Nothing is contacted before the first use. Tables are made by the first that writes.

    Args:
        address: ``postgresql://user@host:port/database``, without a password.
        password: None: what libpq finds by itself.

    Raises:
        StoreError: The address is none.
    """

    def __init__(self, address: str, password: str | None = None) -> None:
        super().__init__(address)
        self._connections = Connections(address, password)
        self._making = threading.Lock()
        self._is_made = False

    def keep_notes(self, key: bytes, notes: str) -> str:
        """See ``Store``."""
        value = answer.encode_notes(key, notes)
        insert = "insert into llm_tutors.notes (key, value) values (%s, %s) on conflict do nothing"
        select = "select value from llm_tutors.notes where key = %s"
        _, ((kept,),) = self._run(Statement(insert, (key, value)), Statement(select, (key,)))
        try:
            return answer.decode_notes(key, kept)
        except DamagedAnswer as damage:
            self._report(key, damage)
            update = "update llm_tutors.notes set value = %s where key = %s and value = %s"
            _, ((kept,),) = self._run(Statement(update, (value, key, kept)), Statement(select, (key,)))
            return answer.decode_notes(key, kept)

    def stats(self) -> StoreStats:
        """See ``Store``."""
        (((answers, size),),) = self._connections.run(
            Statement("select count(*), pg_total_relation_size('llm_tutors.answers') from llm_tutors.answers")
        )
        return StoreStats(
            place=self.place,
            answers=answers,
            file_bytes=size,
            map_bytes=None,
            damaged_seen=self._damaged_seen,
            set_aside=None,
        )

    def close(self) -> None:
        """See ``Store``."""
        self._connections.close()

    def take_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> set[bytes]:
        """Lease questions, for so many seconds, that nobody else holds a lease of; return which ones.

        A question's answer has to be looked for *after* that: who evaluated it keeps the answer before the lease ends.

        Raises:
            StoreError: The server is away, or refuses.
        """
        # Rows are locked in the order of their keys, here and below: two gateways never wait for one another.
        take = """
            insert into llm_tutors.leases as held (key, holder, until)
            select key, %s, clock_timestamp() + make_interval(secs => %s)
            from (select distinct unnest(%s::bytea[]) as key order by key) as asked
            on conflict (key) do update set holder = excluded.holder, until = excluded.until
            where held.holder = excluded.holder or held.until < clock_timestamp()
            returning key
        """
        (taken,) = self._run(Statement(take, (holder, lease_s, list(keys))))
        return {key for (key,) in taken}

    def renew_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> None:
        """Prolong leases that the holder still has.

        Raises:
            StoreError: The server is away, or refuses.
        """
        renew = """
            with mine as (
                select key from llm_tutors.leases where key = any(%s) and holder = %s order by key for update
            )
            update llm_tutors.leases as held set until = clock_timestamp() + make_interval(secs => %s)
            from mine where held.key = mine.key
        """
        self._run(Statement(renew, (list(keys), holder, lease_s)))

    def end_leases(self, keys: Sequence[bytes], holder: bytes) -> None:
        """Give leases back that the holder still has.

        Raises:
            StoreError: The server is away, or refuses.
        """
        end = """
            with mine as (
                select key from llm_tutors.leases where key = any(%s) and holder = %s order by key for update
            )
            delete from llm_tutors.leases as held using mine where held.key = mine.key
        """
        self._run(Statement(end, (list(keys), holder)))

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        found = self._run(*(_select(part) for part in _parts(keys)))
        values = {key: value for rows in found for key, value in rows}
        return [values.get(key) for key in keys]

    def _keep(self, rows: Sequence[Row], texts: Mapping[bytes, bytes]) -> list[Advice | None]:
        """See ``Store``. What another gateway adds meanwhile is seen by the second statement, not by the first one."""
        statements = [
            _insert_texts(sorted(texts.items())),
            *(each for part in _parts(sorted(rows)) for each in (_insert(part), _select([row.key for row in part]))),
        ]
        _, *results = self._run(*statements)
        added = {key for keys in results[::2] for (key,) in keys}
        kept = {key: value for pairs in results[1::2] for key, value in pairs}
        earlier: list[Advice | None] = []
        for row in rows:
            if row.key in added:
                added.discard(row.key)  # of two answers to one question in one list, the first is the new one
                earlier.append(None)
                continue
            try:
                earlier.append(answer.decode(row.key, kept[row.key])[0])
            except DamagedAnswer as damage:
                self._report(row.key, damage)
                earlier.append(self._replace(row, kept[row.key]))
        return earlier

    def _replace(self, row: Row, damaged: bytes) -> Advice | None:
        """Put an answer in the place of a damaged one; return another gateway's that did so before."""
        update = "update llm_tutors.answers set value = %s where key = %s and value = %s"
        _, ((_, kept),) = self._run(Statement(update, (row.value, row.key, damaged)), _select([row.key]))
        return None if kept == row.value else answer.decode(row.key, kept)[0]

    def _notes(self, key: bytes) -> bytes | None:
        (rows,) = self._run(Statement("select value from llm_tutors.notes where key = %s", (key,)))
        return rows[0][0] if rows else None

    def _shared_text(self, digest: bytes) -> bytes | None:
        (rows,) = self._connections.run(Statement("select value from llm_tutors.texts where digest = %s", (digest,)))
        return rows[0][0] if rows else None

    def _scan(self) -> Iterator[Row]:
        select = "select key, value from llm_tutors.answers where key > %s order by key limit %s"
        last = b""
        while rows := self._connections.run(Statement(select, (last, _ROWS)))[0]:
            yield from (Row(key, value) for key, value in rows)
            last = rows[-1][0]

    def _run(self, *statements: Statement) -> list[list[tuple[Any, ...]]]:
        """Run statements on tables that are made where they are missing, also where somebody drops them meanwhile."""
        self._make_tables()
        try:
            return self._connections.run(*statements)
        except TablesMissing:
            self._is_made = False
            self._make_tables()
            return self._connections.run(*statements)

    def _make_tables(self) -> None:
        """Make the tables where they are missing; who may not make any can use those that are there."""
        with self._making:
            if not self._is_made:
                ((found,),) = self._connections.run(Statement("select to_regclass('llm_tutors.leases') is not null"))
                if not found[0]:
                    self._connections.run(*_TABLES)
                self._is_made = True


def _insert(rows: Sequence[Row]) -> Statement:
    insert = """
        insert into llm_tutors.answers (key, value) select * from unnest(%s::bytea[], %s::bytea[])
        on conflict do nothing returning key
    """
    return Statement(insert, ([row.key for row in rows], [row.value for row in rows]))


def _insert_texts(texts: Sequence[tuple[bytes, bytes]]) -> Statement:
    insert = """
        insert into llm_tutors.texts (digest, value) select * from unnest(%s::bytea[], %s::bytea[])
        on conflict do nothing
    """
    return Statement(insert, ([digest for digest, _ in texts], [text for _, text in texts]))


def _select(keys: Sequence[bytes]) -> Statement:
    return Statement("select key, value from llm_tutors.answers where key = any(%s)", (list(keys),))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))
