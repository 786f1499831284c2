"""A tutor that several commands share is taken down by the last of them, and by none before."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.serving import leases
from tutor_service.serving.leases import LEASE_S, Grant, LeaseBook, LeaseKeeper, lease_holders, tutor_identity


def test_the_last_holder_takes_the_tutor_down() -> None:
    book = LeaseBook()
    assert book.acquire("t", "i", "a", 0.0).deploy
    assert not book.acquire("t", "i", "b", 0.0).deploy
    assert not book.release("t", "a")
    assert book.release("t", "b")
    assert book.acquire("t", "i", "c", 0.0).deploy


def test_another_identity_of_the_name_is_refused_and_the_holders_named() -> None:
    book = LeaseBook()
    book.acquire("t", "one", "a", 0.0)
    assert book.acquire("t", "another", "b", 0.0).conflict == "a"
    assert not book.release("t", "b")
    assert book.release("t", "a")
    assert book.acquire("t", "another", "b", 0.0).deploy


def test_a_lease_that_is_not_renewed_ends() -> None:
    book = LeaseBook()
    book.acquire("t", "i", "killed", 0.0, lease_s=10)
    book.acquire("t", "i", "alive", 0.0, lease_s=10)
    book.renew("t", "i", "alive", 8.0)
    assert book.expire(11.0) == []
    assert book.holders() == {"t": ["alive"]}
    assert book.expire(9.0 + LEASE_S) == ["t"]
    assert not book.renew("t", "i", "alive", 10.0 + LEASE_S), "who comes back late is told that its tutor has gone"
    assert book.acquire("t", "i", "alive", 10.0 + LEASE_S).deploy


def test_a_keeper_that_was_started_again_learns_its_leases_from_renewals() -> None:
    book = LeaseBook()
    assert book.learn("t", "i", "a", 0.0)
    assert not book.acquire("t", "i", "b", 1.0).deploy


def test_a_holder_takes_over_from_a_deployer_that_has_gone_and_from_no_other() -> None:
    book = LeaseBook()
    book.acquire("t", "i", "a", 0.0)
    book.acquire("t", "i", "b", 0.0)
    book.acquire("t", "i", "c", 0.0)
    assert not book.take_over("t", "b"), "a prepares it still"
    book.release("t", "a")
    assert book.take_over("t", "b") and not book.take_over("t", "c")
    assert not book.take_over("t", "a"), "it holds the tutor no longer"


def test_a_keeper_that_was_started_again_has_any_holder_deploy_what_is_not_there() -> None:
    book = LeaseBook()
    book.learn("t", "i", "a", 0.0)
    book.acquire("t", "i", "b", 1.0)
    assert book.take_over("t", "b") and not book.take_over("t", "a")


def test_a_tutor_that_is_being_taken_down_keeps_nobody_waiting_but_who_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going, gone = threading.Event(), threading.Event()

    def delete(names: Sequence[str]) -> None:
        going.set()
        gone.wait(30)

    monkeypatch.setattr(leases, "delete", delete)
    keeper = LeaseKeeper()
    keeper.acquire("t", "i", "a")
    with ThreadPoolExecutor(4) as pool:
        try:
            ending = pool.submit(keeper.release, "t", "a")
            assert going.wait(10)
            assert pool.submit(keeper.holders).result(10) == {"t": []}, "it is not an operator's"
            assert pool.submit(keeper.acquire, "other", "i", "b").result(10).deploy
            assert not keeper.renew("t", "i", "a")
            waiting = pool.submit(keeper.acquire, "t", "another", "b")
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            assert not ending.done()
        finally:
            gone.set()
        assert waiting.result(10) == Grant(deploy=True)
        ending.result(10)


def test_a_keeper_that_was_started_again_answers_when_it_has_heard_of_all_holders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "_is_started_again", lambda: True, raising=False)
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    keeper = LeaseKeeper()
    with ThreadPoolExecutor(2) as pool:
        asked, coming = pool.submit(keeper.holders), pool.submit(keeper.acquire, "t", "i", "b")
        time.sleep(0.1)
        assert keeper.renew("t", "i", "a")
        assert "a" in asked.result(10)["t"], "else it would pass for an operator's"
        assert not coming.result(10).deploy


def test_a_tutor_that_serve_does_not_take_down_at_once_is_taken_down_later(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def delete(names: Sequence[str]) -> None:
        tried.extend(names)
        if len(tried) == 1:
            raise TimeoutError("the controller is being started again")

    monkeypatch.setattr(leases, "delete", delete)
    monkeypatch.setattr(leases, "_AGAIN_S", 0.01)
    keeper = LeaseKeeper()
    keeper.acquire("t", "i", "a")
    keeper.release("t", "a")
    assert tried == ["t", "t"] and keeper.holders() == {}


def test_a_keeper_that_does_not_answer_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(call: Any, timeout: float) -> None:
        raise ray.exceptions.GetTimeoutError("busy")

    keeper = SimpleNamespace(holders=SimpleNamespace(remote=lambda: None))
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: keeper)
    monkeypatch.setattr(ray, "get", silent)
    with pytest.raises(UserError, match="does not answer"):
        lease_holders()

    def no_keeper(name: str, namespace: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(ray, "get_actor", no_keeper)
    assert lease_holders() == {}


def test_who_asks_an_operators_tutors_alone_starts_no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    def started() -> None:
        raise AssertionError("a keeper, for nothing")

    monkeypatch.setattr(leases, "lease_keeper", started)
    leases.Lease("a command").release()
    assert not ray.is_initialized(), "nor a Ray of its own"


HOLDERS, ACTIONS = st.sampled_from("abc"), st.sampled_from(["acquire", "release", "renew"])


@given(st.lists(st.tuples(ACTIONS, HOLDERS)))
def test_a_tutor_is_deployed_exactly_while_somebody_holds_it(events: list[tuple[str, str]]) -> None:
    book, holding, is_up = LeaseBook(), set[str](), False
    for action, holder in events:
        if action == "acquire":
            granted = book.acquire("t", "i", holder, 0.0)
            assert granted.deploy == (not holding)
            holding.add(holder)
            is_up = True
        elif action == "release":
            holding.discard(holder)
            if book.release("t", holder):
                is_up = False
        elif holder in holding:
            assert book.renew("t", "i", holder, 0.0)
        assert is_up == bool(holding)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"scaling": {"max_replicas": 4}}, True),
        ({"calibration": "batch"}, True),
        ({"model": "other"}, False),
        ({"revision": "v2"}, False),
        ({"decoding": "reasoned"}, False),
        ({"briefing": "Hit below 17."}, False),
    ],
)
def test_the_identity_is_what_can_change_an_answer(changed: dict[str, object], same: bool) -> None:
    fields = {"name": "t", "model": "m"}
    first, second = TutorConfig.model_validate(fields), TutorConfig.model_validate(fields | changed)
    assert (tutor_identity(first) == tutor_identity(second)) is same
