"""Hold a few connections to a PostgreSQL server and run statements on them. Knows SQL as text, and no answers.

Importing it needs psycopg. A password is held here alone, and is part of no message.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tutor_service.store.base import StoreError

MAX_CONNECTIONS = 4
"""Most connections of one store: a gateway looks up, claims, keeps and renews, each one group at a time."""

_STATEMENT_S = 15
_WAIT_S = 30.0
_DEFAULTS = {
    "application_name": "llm-tutors",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""A server that is gone without a word is noticed within seconds; what an address says itself goes before."""

_REMEDY = {
    psycopg.errors.InsufficientPrivilege: "Grant the user CREATE on the database, or what the schema's tables need.",
    psycopg.errors.UndefinedTable: "It holds no advice yet: the first tutor that is served with it makes its tables.",
    psycopg.errors.ReadOnlySqlTransaction: "Name the primary server, not a standby.",
}
_CHECK = (
    "Check that the server runs, and user and password (store.password_env, store.password_file, or libpq's own "
    "PGPASSWORD and ~/.pgpass)."
)


class TablesMissing(StoreError):
    """Report that the database has not all tables that a statement names."""


class Statement(NamedTuple):
    """Name a statement and what is put into it."""

    sql: LiteralString
    parameters: Sequence[Any] = ()


class Connections:
    """Run groups of statements, each group in one transaction and one round trip. Safe to use from several threads.

    Args:
        address: ``postgresql://user@host:port/database``, without a password.
        password: None: what libpq finds by itself.
    """

    def __init__(self, address: str, password: str | None) -> None:
        self._address = address
        try:
            given = conninfo_to_dict(address)
        except psycopg.ProgrammingError as error:
            raise StoreError(f"advice store '{address}' is no address of a database: {_said(error)}.") from None
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **given, **({"password": password} if password else {})})
        self._idle: list[psycopg.Connection[Any]] = []
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._closed = False

    def run(self, *statements: Statement) -> list[list[tuple[Any, ...]]]:
        """Run statements and commit them whole, or not at all; return each one's rows.

        They may run twice, where a connection was found broken, and must bring the same then.

        Raises:
            TablesMissing: Nobody has made them, or somebody has dropped them.
            StoreError: The server is away, or refuses.
        """
        if self._closed:
            raise StoreError(f"advice store '{self._address}' is closed.")
        if not self._slots.acquire(timeout=_WAIT_S):
            raise StoreError(f"advice store '{self._address}': all {MAX_CONNECTIONS} connections are busy.")
        try:
            return self._run(statements)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreError(f"advice store '{self._address}' cannot be reached: {_said(error)}. {_CHECK}") from None
        except psycopg.Error as error:
            remedy = next((text for refusal, text in _REMEDY.items() if isinstance(error, refusal)), "")
            kind = TablesMissing if isinstance(error, psycopg.errors.UndefinedTable) else StoreError
            raise kind(f"advice store '{self._address}' refuses: {_said(error)}. {remedy}".strip()) from None
        finally:
            self._slots.release()

    def close(self) -> None:
        """Give the connections back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _run(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        while self._idle:
            try:
                return self._run_on(self._idle.pop(), statements)
            except psycopg.errors.QueryCanceled:
                raise
            except (psycopg.OperationalError, psycopg.InterfaceError):
                continue  # broken since its last use: the next one, and in the end a new one, tells
            except IndexError:  # another thread took the last one
                break
        # Behind a pooler that shares connections, prepared statements are not found again.
        connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        return self._run_on(connection, statements)

    def _run_on(
        self, connection: psycopg.Connection[Any], statements: Sequence[Statement]
    ) -> list[list[tuple[Any, ...]]]:
        try:
            with connection.pipeline(), connection.transaction():
                connection.execute(f"set local statement_timeout = '{_STATEMENT_S}s'")
                cursors = [connection.execute(each.sql, each.parameters, binary=True) for each in statements]
            rows = [cursor.fetchall() if cursor.description else [] for cursor in cursors]
        except BaseException:
            connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)
        return rows


def _said(error: psycopg.Error) -> str:
    return " ".join(str(error).split()).rstrip(".?") or type(error).__name__
