"""A store that gateways share: what it copies, who it lets evaluate, and what happens while its database is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.service_fakes import FakeDatabase
from tutor_service.schema import Advice
from tutor_service.store import Context, Entry, advice_key
from tutor_service.store.best_effort import BestEffortStore
from tutor_service.store.lmdb_file import Database
from tutor_service.store.shared import Claim, SharedStore

CONTEXT = Context("model@1", "Rules.", "You hold 12.", ("stick", "hit"))
Open = Callable[..., SharedStore]


def key_of(number: int) -> bytes:
    return advice_key("model@1", [number], [1, 2])


def entry(number: int, first: float = 0.25) -> Entry:
    return Entry(key_of(number), Advice((first, 1 - first), 0.5, "store"), CONTEXT)


def wait(condition: Callable[[], object], limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
def failures() -> list[int]:
    return []


@pytest.fixture
def open_store(
    database: FakeDatabase, tmp_path: Path, failures: list[int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    monkeypatch.setattr("tutor_service.store.shared.AWAY_S", 0.05)
    opened: list[SharedStore] = []

    def opening(name: str = "one", lease_s: float = 30) -> SharedStore:
        store = SharedStore(BestEffortStore(tmp_path / name), database, lease_s, lambda: failures.append(1))
        opened.append(store)
        return store

    yield opening
    for store in opened:
        store.close()


def test_what_the_database_has_is_copied_with_its_question(open_store: Open, database: FakeDatabase) -> None:
    database.keep_many([entry(1)])
    store = open_store()
    assert store.get_many([key_of(1)]) == [None], "this machine has not seen it yet"
    assert store.fetch_many([key_of(2), key_of(1)]) == [None, entry(1).advice]
    database.away = True
    assert store.get_many([key_of(1)]) == [entry(1).advice]
    assert store._local.find_many([key_of(1)]) == [entry(1)]


def test_of_two_answers_the_first_wins_everywhere(open_store: Open) -> None:
    one, two = open_store("one"), open_store("two")
    assert one.keep_many([entry(1, 0.25)]) == [entry(1, 0.25).advice]
    assert two.keep_many([entry(1, 0.75), entry(2, 0.5)]) == [entry(1, 0.25).advice, entry(2, 0.5).advice]
    assert two.get_many([key_of(1)]) == [entry(1, 0.25).advice]


def test_a_question_is_one_gateways_at_a_time(open_store: Open, database: FakeDatabase) -> None:
    one, two = open_store("one"), open_store("two")
    database.keep_many([entry(3)])
    assert one.claim_many([key_of(1), key_of(3)]) == [Claim.MINE, entry(3).advice]
    wait(lambda: key_of(3) not in database.leases)
    assert two.claim_many([key_of(1), key_of(2)]) == [Claim.ELSEWHERE, Claim.MINE]
    one.keep_many([entry(1)])
    one.let_go([key_of(1)])
    assert two.claim_many([key_of(1)]) == [entry(1).advice]
    two.let_go([key_of(2)])
    wait(lambda: not database.leases)
    assert one.claim_many([key_of(2)]) == [Claim.MINE]


def test_a_claim_lives_as_long_as_it_is_held(open_store: Open) -> None:
    one, two = open_store("one", lease_s=0.3), open_store("two", lease_s=0.3)
    assert one.claim_many([key_of(1), key_of(2)]) == [Claim.MINE, Claim.MINE]
    one.hold([key_of(1)])
    wait(lambda: two.claim_many([key_of(2)]) == [Claim.MINE])
    time.sleep(0.6)
    assert two.claim_many([key_of(1)]) == [Claim.ELSEWHERE]


def test_a_gateway_that_ends_gives_its_claims_back(open_store: Open) -> None:
    one, two = open_store("one"), open_store("two")
    one.hold([key_of(1)] if one.claim_many([key_of(1)]) == [Claim.MINE] else [])
    assert two.claim_many([key_of(1)]) == [Claim.ELSEWHERE]
    one.close()
    assert two.claim_many([key_of(1)]) == [Claim.MINE]


def test_without_its_database_a_gateway_goes_on_alone_and_says_so_once(
    open_store: Open, database: FakeDatabase, failures: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.keep_many([entry(1)])
    database.away = True
    assert store.fetch_many([key_of(2)]) == [None]
    assert store.claim_many([key_of(2), key_of(3)]) == [Claim.MINE, Claim.MINE]
    assert store.keep_many([entry(2), entry(3)]) == [entry(2).advice, entry(3).advice]
    assert store.get_many([key_of(1), key_of(2)]) == [entry(1).advice, entry(2).advice]
    assert store.num_unsent() == 2 and len(failures) == 1 and "the fake is away" in store.trouble
    assert caplog.text.count("as long as the database is away") == 1
    asked = len(database.calls)
    store.fetch_many([key_of(4)])
    assert database.calls[asked:] in ([], ["renew"]), "callers do not wait for it; one look in a while is enough"


def test_what_a_database_missed_is_sent_and_its_own_answers_count(
    open_store: Open, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = open_store("one"), open_store("two")
    database.away = True
    one.keep_many([entry(1, 0.25), entry(2, 0.25)])
    with caplog.at_level(logging.WARNING):
        two.keep_many([entry(2, 0.75), entry(3, 0.75)])
        database.away = False
        wait(lambda: not one.num_unsent() and not two.num_unsent())
        wait(lambda: caplog.text.count("were sent") == 2)
    assert not one.trouble and len(database.kept) == 3
    winner = database.kept[key_of(2)].advice
    assert one.get_many([key_of(2)]) == two.get_many([key_of(2)]) == [winner]
    assert "had others to 1 of them" in caplog.text and "is back" in caplog.text


def test_a_restarted_gateway_sends_what_was_left(open_store: Open, database: FakeDatabase) -> None:
    store = open_store()
    database.away = True
    store.keep_many([entry(1)])
    store.close()
    database.away = False
    again = open_store()
    wait(lambda: not again.num_unsent())
    assert database.kept[key_of(1)] == entry(1)


def test_a_gateway_that_is_killed_at_any_commit_sends_what_it_kept(
    open_store: Open, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    database.away = True
    write = Database.write

    def killed_after(opened: Database, work: Callable[..., object]) -> None:
        write(opened, work)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", killed_after)
        with pytest.raises(KeyboardInterrupt):
            store.keep_many([entry(1)])
    database.away = False
    again = open_store()
    assert again.get_many([key_of(1)]) == [entry(1).advice]
    wait(lambda: not again.num_unsent())
    assert database.kept[key_of(1)] == entry(1)


def test_an_answer_that_is_damaged_meanwhile_is_not_sent_for_ever(
    open_store: Open, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    database.away = True
    store.keep_many([entry(1)])
    monkeypatch.setattr(BestEffortStore, "find_many", lambda self, keys: [None] * len(keys))
    database.away = False
    wait(lambda: not store.num_unsent())
    assert not database.kept


def test_notes_are_the_databases(open_store: Open, database: FakeDatabase) -> None:
    one, two = open_store("one"), open_store("two")
    assert one.get_notes(b"notes") is None
    assert one.keep_notes(b"notes", "first") == "first"
    assert two.keep_notes(b"notes", "second") == two.get_notes(b"notes") == "first"
    database.away = True
    assert two.get_notes(b"notes") == "first", "from this machine"
    assert two.keep_notes(b"others", "mine") == "mine"
    database.away = False
    wait(lambda: not two.trouble)
    assert two.get_notes(b"others") == database.notes[b"others"] == "mine"
