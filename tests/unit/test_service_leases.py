"""A tutor that several commands share is taken down by the last of them, and by none before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.config import TutorConfig
from tutor_service.serving.leases import LEASE_S, LeaseBook, tutor_identity


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


def test_a_keeper_that_was_started_again_learns_its_leases_from_renewals() -> None:
    book = LeaseBook()
    book.renew("t", "i", "a", 0.0)
    assert not book.acquire("t", "i", "b", 1.0).deploy


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
            book.renew("t", "i", holder, 0.0)
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
