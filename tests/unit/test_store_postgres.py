"""A shared store on a database that is another one from one moment to the next; PostgreSQL itself is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'cluster' is not installed")

from tutor_service.store.connections import Connections, Statement  # noqa: E402
from tutor_service.store.postgres import PostgresStore  # noqa: E402


class Server:
    """Has tables once they are made; forgets them when it is told to."""

    has_tables = False
    renewed = 0

    def run(self, connections: Connections, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        text = " ".join(statement.sql for statement in statements)
        if "to_regclass" in text:
            return [[(self.has_tables,)]]
        if "create table" in text:
            self.has_tables = True
        elif not self.has_tables:
            raise psycopg.errors.UndefinedTable('relation "llm_tutors.leases" does not exist')
        else:
            self.renewed += 1
        return [[] for _ in statements]


def test_tables_that_are_dropped_under_a_gateway_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    monkeypatch.setattr(Connections, "_run", lambda connections, statements: server.run(connections, statements))
    store = PostgresStore("postgresql://me@host/advice")
    for _ in range(2):
        store.renew_leases([b"key"], b"holder", 30.0)
        server.has_tables = False
    assert server.renewed == 2
