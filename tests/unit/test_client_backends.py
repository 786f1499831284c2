"""Backends: what each failure of a transport becomes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutor_service.client import serve_handle
from tutor_service.client.backend import BackendError
from tutor_service.client.breaker import BreakerState
from tutor_service.client.http import HttpBackend
from tutor_service.client.serve_handle import ServeHandleBackend
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.sharding import gateway_of

ADVICE = {
    "probabilities": [0.25, 0.75],
    "legal_mass": 0.5,
    "source": "model",
    "latency_ms": 3.0,
    "invalid": 1,
    "tokens": 9,
}


def ask(*states: str, rules: str = "Rules.") -> list[AdviceRequest]:
    return [AdviceRequest(rules, state, ("a", "b")) for state in states]


class Service(ThreadingHTTPServer):
    """Answers every POST by ``status`` and ``reply``, where None echoes advice per request; notes what came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status, self.reply = 200, None
        self.posts: list[tuple[str, str | None, dict]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.posts.append((self.path, self.headers.get("Authorization"), body))
                reply = outer.reply if outer.reply is not None else {"advice": [ADVICE] * len(body["requests"])}
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tutor"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_http_sends_the_requests_and_reads_the_answers(service: Service) -> None:
    service.reply = {"advice": [ADVICE, {"reason": "state: is empty", "retry": False}]}
    answers = HttpBackend(service.url + "/", "secret").advise(ask("x", "é"), 5.0)
    assert answers == [Advice((0.25, 0.75), 0.5, "model", 3.0, 1, 9), AdviceError("state: is empty")]
    path, authorization, body = service.posts[0]
    assert (path, authorization) == ("/tutor/advise", "Bearer secret")
    assert body["requests"][1] == {"rules": "Rules.", "state": "é", "actions": ["a", "b"]}


@pytest.mark.parametrize(("status", "retry"), [(401, False), (404, False), (429, True), (500, True), (503, True)])
def test_http_says_whether_a_refused_call_is_worth_another(service: Service, status: int, retry: bool) -> None:
    service.status, service.reply = status, {"detail": "because"}
    with pytest.raises(BackendError, match=rf"{status}.*because") as caught:
        HttpBackend(service.url, "secret").advise(ask("x"), 5.0)
    assert caught.value.retry is retry and "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_http_lays_faulty_requests_to_the_requests(service: Service, status: int) -> None:
    service.status, service.reply = status, {"detail": "labels are not distinct"}
    answers = HttpBackend(service.url).advise(ask("x", "y"), 5.0)
    assert len(answers) == 2 and all(isinstance(item, AdviceError) and not item.retry for item in answers)
    assert "labels are not distinct" in answers[0].reason


@pytest.mark.parametrize(
    "reply",
    ["no json", {}, {"advice": [{"source": "oracle"}]}, {"advice": [3]}, [1], {"advice": [{**ADVICE, "tokens": "x"}]}],
)
def test_http_believes_no_other_form(service: Service, reply: object) -> None:
    service.reply = reply
    with pytest.raises(BackendError, match="no advice"):
        HttpBackend(service.url).advise(ask("x"), 5.0)


def test_http_cuts_long_texts_into_several_bodies(service: Service) -> None:
    answers = HttpBackend(service.url).advise(ask(*map(str, range(5)), rules="x" * 400_000), 5.0)
    assert len(answers) == 5
    assert [len(body["requests"]) for _, _, body in service.posts] == [2, 2, 1]
    assert [item["state"] for _, _, body in service.posts for item in body["requests"]] == list("01234")


def test_http_names_an_address_that_nobody_listens_on() -> None:
    with pytest.raises(BackendError, match="cannot be reached") as caught:
        HttpBackend("http://127.0.0.1:9").advise(ask("x"), 5.0)
    assert caught.value.retry


class FakeResponse:
    def __init__(self, result: object) -> None:
        self._result = result
        self.cancelled = False
        self.hangs = False

    def result(self, timeout_s: float) -> object:
        if self.hangs:
            time.sleep(timeout_s)
            raise TimeoutError
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def cancel(self) -> None:
        self.cancelled = True


class FakeHandle:
    """A gateway: each call of ``advise`` gives the next result, the last one again and again."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.asked: list[list[str]] = []
        self.responses: list[FakeResponse] = []

    @property
    def advise(self) -> FakeHandle:
        return self

    def remote(self, requests: list[AdviceRequest], within_s: float) -> FakeResponse:
        self.asked.append([request.state for request in requests])
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        answers = [Advice((0.5, 0.5), 0.5) for _ in requests] if result == "answers" else result
        self.responses.append(FakeResponse(answers))
        return self.responses[-1]


def handle_backend(monkeypatch: pytest.MonkeyPatch, *handles: FakeHandle) -> ServeHandleBackend:
    monkeypatch.setattr(serve_handle, "gateway_handles", lambda app_name, timeout_s: list(handles))
    return ServeHandleBackend("tutor-x")


def test_a_serve_call_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = FakeHandle(TimeoutError())
    with pytest.raises(BackendError, match=r"within 1\.5 s") as caught:
        handle_backend(monkeypatch, handle).advise(ask("x"), 1.5)
    assert handle.responses[0].cancelled and caught.value.retry


def test_a_serve_call_that_fails_is_retried_with_a_new_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = handle_backend(monkeypatch, FakeHandle(RuntimeError("replica died")))
    with pytest.raises(BackendError, match="replica died") as caught:
        backend.advise(ask("x"), 1.5)
    assert caught.value.retry
    again = FakeHandle("answers")
    monkeypatch.setattr(serve_handle, "gateway_handles", lambda app_name, timeout_s: [again])
    assert len(backend.advise(ask("x"), 1.5)) == 1 and again.asked == [["x"]]


STATES = [f"state {number}" for number in range(40)]


def test_a_list_is_divided_among_gateways_and_comes_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [FakeHandle("answers") for _ in range(4)]
    backend = handle_backend(monkeypatch, *handles)
    assert all(isinstance(answer, Advice) for answer in backend.advise(ask(*STATES), 5.0))
    asked = [states for handle in handles for (states,) in [handle.asked]]
    assert sorted(state for states in asked for state in states) == sorted(STATES)
    assert [states for states in asked if not states] == [] and len(asked) == 4
    for number, handle in enumerate(handles):
        handle.results = [[Advice((number / 10, 1 - number / 10), 0.5)] * len(handle.asked[0])]
    for state, answer in zip(STATES, backend.advise(ask(*STATES), 5.0), strict=True):
        assert isinstance(answer, Advice) and answer.probabilities[0] * 10 == gateway_of(state, 4)


@pytest.mark.parametrize("failure", [RuntimeError("died"), TimeoutError()])
def test_a_gateway_that_fails_costs_its_own_questions_alone(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again by a probe beside the callers, and asked as before once that is answered."""
    handles = [FakeHandle("answers"), FakeHandle("answers"), FakeHandle(failure)]
    backend = handle_backend(monkeypatch, *handles)
    for _ in range(4):
        answers = backend.advise(ask(*STATES), 0.5)
        for state, answer in zip(STATES, answers, strict=True):
            expected = AdviceError if gateway_of(state, 3) == 2 else Advice
            assert isinstance(answer, expected) and (expected is Advice or answer.retry)
    assert len(handles[2].asked) == (1 if isinstance(failure, TimeoutError) else 3), "then it is left alone"
    assert len(handles[0].asked) == 4
    breaker = backend._breakers[2]
    monkeypatch.setattr(breaker, "_open_until", 0.0)
    handles[2].results = ["answers"]
    assert any(isinstance(answer, AdviceError) for answer in backend.advise(ask(*STATES), 0.5)), "beside the probe"
    limit = time.monotonic() + 10
    while breaker.state is not BreakerState.CLOSED:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert all(isinstance(answer, Advice) for answer in backend.advise(ask(*STATES), 0.5))


def test_without_any_gateway_the_call_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = handle_backend(monkeypatch, *(FakeHandle(RuntimeError("died")) for _ in range(2)))
    with pytest.raises(BackendError, match=r"gateway \d of 'tutor-x' failed: RuntimeError: died") as caught:
        backend.advise(ask(*STATES), 0.5)
    assert caught.value.retry


class Hanging(FakeHandle):
    """A gateway that was taken down: no answer ever comes."""

    def remote(self, requests: list[AdviceRequest], within_s: float) -> FakeResponse:
        super().remote(requests, within_s)
        self.responses[-1].hangs = True
        return self.responses[-1]


def test_a_gateway_that_is_no_longer_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_handle, "_LOOK_S", 0.05)
    first = FakeHandle("answers")
    backend = handle_backend(monkeypatch, first, Hanging("answers"))
    backend._connected(1.0)
    time.sleep(0.06)
    monkeypatch.setattr(serve_handle, "gateway_handles", lambda app_name, timeout_s: [first])
    started = time.monotonic()
    answers = backend.advise(ask(*STATES), 30.0)
    assert time.monotonic() - started < 10
    assert {isinstance(answer, Advice) for answer in answers} == {True, False}
    assert all(isinstance(answer, Advice) for answer in backend.advise(ask(*STATES), 30.0))
    assert first.asked[-1] == STATES
