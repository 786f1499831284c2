"""The client: one question per state, never longer than the deadline, None when there is no advice."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tutor_service.client import ClientSettings, TutorClient, connect, service_url
from tutor_service.client.backend import BackendError
from tutor_service.client.breaker import BreakerState
from tutor_service.client.serve_handle import ServeHandleBackend
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.paths import home
from tutor_service.schema import Advice, AdviceError, AdviceRequest

Answer = Advice | AdviceError


def ask(*states: object) -> list[AdviceRequest]:
    return [AdviceRequest("Rules.", f"State {state}.", ("a", "b")) for state in states]


def advice(first: float = 0.25) -> Advice:
    return Advice((first, 1 - first), 0.9, "model", 12.0, invalid=1, tokens=30)


class Scripted:
    """A backend that plays a list of behaviours, the last one for ever, and notes what it was asked."""

    def __init__(self, *plays: Callable[[Sequence[AdviceRequest]], list[Answer]]) -> None:
        self.plays = list(plays) or [lambda requests: [advice() for _ in requests]]
        self.seen: list[list[AdviceRequest]] = []
        self.timeouts: list[float] = []

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Answer]:
        self.seen.append(list(requests))
        self.timeouts.append(timeout_s)
        return self.plays.pop(0)(requests) if len(self.plays) > 1 else self.plays[0](requests)


def answering(requests: Sequence[AdviceRequest]) -> list[Answer]:
    return [advice() for _ in requests]


def away(requests: Sequence[AdviceRequest]) -> list[Answer]:
    raise BackendError("away", retry=True)


def forbidden(requests: Sequence[AdviceRequest]) -> list[Answer]:
    raise BackendError("401", retry=False)


def client_of(backend: Scripted, **settings) -> TutorClient:
    return TutorClient(backend, ClientSettings(**{"deadline_s": 5.0, "backoff_s": 0.001, **settings}))


def test_each_state_is_asked_once_and_comes_from_the_map_ever_after() -> None:
    backend = Scripted()
    client = client_of(backend)
    first = client.advise(ask(1, 2, 1))
    assert first[0] == first[1] == advice()
    assert first[2] == Advice((0.25, 0.75), 0.9, "store", 0.0)
    assert [request.state for request in backend.seen[0]] == ["State 1.", "State 2."]
    again = client.advise(ask(2, 3))
    assert [item.source for item in again if item] == ["store", "model"]
    assert [request.state for request in backend.seen[1]] == ["State 3."]
    assert client.advise(ask(3, 2, 1)) == [Advice((0.25, 0.75), 0.9, "store", 0.0)] * 3
    assert len(backend.seen) == 2
    stats = client.stats
    assert (stats.requests, stats.local_hits, stats.missed, stats.calls) == (8, 5, 0, 2)
    assert client.advise([]) == []


def test_rules_state_and_actions_all_make_the_question() -> None:
    backend = Scripted()
    client = client_of(backend)
    base = AdviceRequest("Rules.", "State.", ("a", "b"))
    others = [
        AdviceRequest("Other.", "State.", ("a", "b")),
        AdviceRequest("Rules.", "Other.", ("a", "b")),
        AdviceRequest("Rules.", "State.", ("b", "a")),
    ]
    client.advise([base])
    client.advise([base, *others])
    assert backend.seen[1] == others


def test_a_failed_call_is_made_again() -> None:
    backend = Scripted(away, away, answering)
    assert client_of(backend).advise(ask(1)) == [advice()]
    assert len(backend.seen) == 3


def test_retries_are_bounded_and_a_miss_is_not_kept() -> None:
    backend = Scripted(away, away, away, answering)
    client = client_of(backend, breaker_failures=10)
    assert client.advise(ask(1)) == [None]
    assert len(backend.seen) == 3 and client.stats.missed == 1 and client.stats.last_error == "away"
    assert client.advise(ask(1)) == [advice()]


def test_what_cannot_be_mended_is_not_asked_again() -> None:
    backend = Scripted(forbidden)
    assert client_of(backend).advise(ask(1)) == [None]
    assert len(backend.seen) == 1


def test_only_what_was_refused_for_the_moment_is_asked_again() -> None:
    backend = Scripted(
        lambda _: [advice(), AdviceError("state: is empty"), AdviceError("overloaded", retry=True)], answering
    )
    assert client_of(backend).advise(ask(1, 2, 3)) == [advice(), None, advice()]
    assert [request.state for request in backend.seen[1]] == ["State 3."]


def test_the_deadline_holds_whatever_the_backend_does() -> None:
    released = threading.Event()

    def hang(requests: Sequence[AdviceRequest]) -> list[Answer]:
        released.wait(60)
        return answering(requests)

    client = client_of(Scripted(hang), deadline_s=0.1, retries=5)
    started = time.monotonic()
    assert client.advise(ask(1)) == [None]
    assert time.monotonic() - started < 30, "it waited for the call that hangs"
    released.set()


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def test_attempts_and_pauses_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr("tutor_service.client.client.time", clock)

    def slow(requests: Sequence[AdviceRequest]) -> list[Answer]:
        clock.now += 3.0
        raise BackendError("slow", retry=True)

    backend = Scripted(slow)
    client = client_of(backend, deadline_s=9.3, retries=100, backoff_s=0.1, breaker_failures=1000)
    assert client.advise(ask(1)) == [None]
    assert len(backend.seen) == 3
    assert len(clock.pauses) == 2, "no pause that would outlast the deadline"
    assert backend.timeouts[0] == pytest.approx(9.3)
    assert backend.timeouts[1] == pytest.approx(9.3 - 3 - 0.1, abs=0.051), "a pause of 0.1 s, ±50 %"
    assert backend.timeouts[2] == pytest.approx(backend.timeouts[1] - 3 - 0.2, abs=0.101), "twice as long"


def test_calls_that_hang_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(requests: Sequence[AdviceRequest]) -> list[Answer]:
        released.wait(30)
        return answering(requests)

    backend = Scripted(hang)
    client = client_of(backend, deadline_s=0.02, retries=0)
    monkeypatch.setattr(client._breaker, "allow", lambda: True)
    assert [client.advise(ask(state)) for state in range(12)] == [[None]] * 12
    assert len(backend.seen) == 8 and "hang" in client.stats.last_error
    released.set()


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_one_call_that_hung_is_enough_and_a_probe_hangs_no_longer_than_the_circuit_was_open() -> None:
    released = threading.Event()

    def hang(requests: Sequence[AdviceRequest]) -> list[Answer]:
        released.wait(60)
        return answering(requests)

    backend = Scripted(hang, hang, answering)
    client = client_of(backend, deadline_s=0.5, breaker_failures=3, breaker_open_s=0.1)
    assert client.advise(ask(1)) == [None]
    assert client.breaker_state is BreakerState.OPEN
    wait_for(lambda: client.advise(ask(2)) == [None] and client.stats.failed_calls == 2)
    assert backend.timeouts == pytest.approx([0.5, 0.1], abs=0.05)
    wait_for(lambda: client.advise(ask(3)) != [None])
    assert backend.timeouts[2] == pytest.approx(0.2, abs=0.05), "a slow tutor gets twice the time"
    assert client.advise(ask(4)) == [advice()]
    assert backend.timeouts[-1] == pytest.approx(0.5, abs=0.05), "and all of it, once it has answered"
    released.set()


def test_a_tutor_that_is_down_is_left_alone_and_then_probed() -> None:
    backend = Scripted(away)
    client = client_of(backend, retries=0, breaker_failures=2, breaker_open_s=0.1)
    for state in range(10):
        assert client.advise(ask(state)) == [None]
    assert len(backend.seen) == 2 and client.breaker_state is BreakerState.OPEN and client.stats.skipped_calls == 8
    backend.plays = [answering]
    wait_for(lambda: client.breaker_state is BreakerState.HALF_OPEN)
    client.advise(ask(1))
    wait_for(lambda: client.breaker_state is BreakerState.CLOSED)
    assert client.advise(ask(1, 2)) == [Advice((0.25, 0.75), 0.9, "store", 0.0), advice()]
    assert [len(seen) for seen in backend.seen] == [1, 1, 1, 1], "what the probe asked is not asked again"


def test_nobody_waits_for_a_probe_and_there_is_one_at_a_time() -> None:
    released = threading.Event()

    def slow(requests: Sequence[AdviceRequest]) -> list[Answer]:
        released.wait(60)
        return answering(requests)

    backend = Scripted(away, slow)
    client = client_of(backend, retries=0, breaker_failures=1, breaker_open_s=20.0)
    client.advise(ask(1))
    client._breaker._open_until = 0.0
    for state in range(5):
        assert client.advise(ask(state)) == [None]
    wait_for(lambda: len(backend.seen) == 2)
    assert client.breaker_state is BreakerState.HALF_OPEN
    released.set()
    wait_for(lambda: client.breaker_state is BreakerState.CLOSED)
    assert len(backend.seen) == 2


def test_an_open_circuit_still_answers_from_the_map() -> None:
    backend = Scripted(answering, away)
    client = client_of(backend, retries=0, breaker_failures=1)
    client.advise(ask(1))
    client.advise(ask(2))
    assert client.breaker_state is BreakerState.OPEN
    kept, missing = client.advise(ask(1, 2))
    assert kept is not None and kept.source == "store" and missing is None


def test_an_overloaded_tutor_opens_the_circuit_an_invalid_request_does_not() -> None:
    overloaded = client_of(Scripted(lambda r: [AdviceError("full", retry=True) for _ in r]), breaker_failures=2)
    overloaded.advise(ask(1))
    assert overloaded.breaker_state is BreakerState.OPEN
    invalid = client_of(Scripted(lambda r: [AdviceError("state: is empty") for _ in r]), breaker_failures=1)
    invalid.advise(ask(1))
    assert invalid.breaker_state is BreakerState.CLOSED


def test_what_the_service_had_by_the_deadline_is_used_and_the_rest_is_not_asked_again() -> None:
    def partly(requests: Sequence[AdviceRequest]) -> list[Answer]:
        time.sleep(0.1)
        return [advice(), *(AdviceError("late", retry=True) for _ in requests[1:])]

    backend = Scripted(partly)
    client = client_of(backend, deadline_s=0.12, retries=5)
    assert client.advise(ask(1, 2)) == [advice(), None]
    assert len(backend.seen) == 1 and client.breaker_state is BreakerState.CLOSED


@pytest.mark.parametrize("deadline_s", [5.0, math.inf], ids=["a call's time is over", "it waits"])
def test_what_was_late_is_asked_again_while_there_is_time(deadline_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.client.client.MAX_CALL_S", 1.0)

    def late(requests: Sequence[AdviceRequest]) -> list[Answer]:
        time.sleep(0.9)
        return [AdviceError("late", retry=True) for _ in requests]

    client = client_of(Scripted(late, late, answering), deadline_s=deadline_s)
    assert client.advise(ask(1)) == [advice()]


def test_answers_that_do_not_match_the_questions_are_dropped() -> None:
    client = client_of(Scripted(lambda _: [advice()]), retries=0)
    assert client.advise(ask(1, 2)) == [None, None]
    assert "1 answers to 2 requests" in client.stats.last_error


def test_long_lists_travel_in_batches_and_keep_what_came_before_a_failure() -> None:
    backend = Scripted(answering, answering, forbidden)
    answers = client_of(backend, batch_size=4).advise(ask(*range(10)))
    assert [len(batch) for batch in backend.seen] == [4, 4, 2]
    assert [item is not None for item in answers] == [True] * 8 + [False] * 2


def test_the_map_is_bounded_and_drops_the_oldest() -> None:
    backend = Scripted()
    client = client_of(backend, capacity=2)
    client.advise(ask(1, 2, 3))
    client.advise(ask(2, 3))
    assert len(backend.seen) == 1
    client.advise(ask(1))
    assert len(backend.seen) == 2


def test_threads_may_share_a_client() -> None:
    client = client_of(Scripted())
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda start: client.advise(ask(*range(start % 7, start % 7 + 9))), range(60)))
    assert all(item is not None and item.probabilities == (0.25, 0.75) for row in answers for item in row)
    assert client.stats.requests == 540


def test_a_pickled_client_keeps_its_settings_and_nothing_else() -> None:
    client = TutorClient(ServeHandleBackend("tutor-x"), ClientSettings(deadline_s=3.5, retries=0))
    client.backend._gateways = [lambda: None]  # handles cannot be pickled
    copy = pickle.loads(pickle.dumps(client))
    assert copy.settings.deadline_s == 3.5 and copy.backend.app_name == "tutor-x" and copy.stats.requests == 0
    assert copy.backend._gateways == []


@pytest.mark.parametrize("settings", [{"deadline_s": 0}, {"retries": -1}, {"capacity": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="client"):
        ClientSettings(**settings)


def test_connect_reaches_the_cluster_or_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    tutor = TutorConfig(name="llama")
    monkeypatch.delenv("LLM_TUTORS_URL", raising=False)
    assert connect(tutor).backend.app_name == "tutor-llama"
    monkeypatch.setenv("LLM_TUTORS_URL", "http://host:1/")
    monkeypatch.setenv("LLM_TUTORS_TOKEN", "secret")
    client = connect(tutor, deadline_s=2.0)
    assert client.backend.url == "http://host:1/llama" and client.settings.deadline_s == 2.0
    assert "secret" not in repr(client.backend)
    with pytest.raises(UserError, match="http"):
        connect(tutor, url="host:1")
    with pytest.raises(UserError, match="reference"):
        connect(TutorConfig(name="oracle", backend="reference"))


def test_a_student_that_is_told_to_wait_waits_as_long_as_an_answer_may_come() -> None:
    backend = Scripted(*[away] * 12, answering)
    client = client_of(backend, deadline_s=math.inf, retries=0, backoff_s=0, breaker_failures=1)
    assert client.advise(ask(1)) == [advice()]
    assert len(backend.seen) == 13 and client.stats.skipped_calls == 0


def test_a_student_that_waits_does_not_wait_for_what_will_not_come() -> None:
    assert client_of(Scripted(forbidden), deadline_s=math.inf).advise(ask(1)) == [None]


def test_a_tutor_may_end_its_students() -> None:
    def spent(requests: Sequence[AdviceRequest]) -> list[Advice | AdviceError]:
        return [AdviceError("budget.max_requests = 5 is used up", fatal=True) for _ in requests]

    client = client_of(Scripted(answering, spent, answering))
    client.advise(ask(1))
    with pytest.raises(UserError, match=r"ends its students: budget\.max_requests = 5 is used up"):
        client.advise(ask(2))
    assert client.advise(ask(1, 3)) == [Advice((0.25, 0.75), 0.9, "store", 0.0), advice()]


def test_white_space_around_what_the_environment_says_means_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a file or a copied line leaves it."""
    monkeypatch.setenv("LLM_TUTORS_URL", " http://host:1/\n")
    assert service_url() == "http://host:1/"
    monkeypatch.setenv("LLM_TUTORS_URL", " ")
    assert service_url() is None
    monkeypatch.setenv("LLM_TUTORS_HOME", f"{tmp_path}/ \n")
    assert home() == tmp_path
