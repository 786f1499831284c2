"""Backends: what each failure of a transport becomes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutor_service.client.backend import BackendError
from tutor_service.client.http import HttpBackend
from tutor_service.client.serve_handle import ServeHandleBackend
from tutor_service.schema import Advice, AdviceError, AdviceRequest

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

    def result(self, timeout_s: float) -> object:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def cancel(self) -> None:
        self.cancelled = True


def handle_backend(result: object) -> tuple[ServeHandleBackend, FakeResponse]:
    response = FakeResponse(result)
    backend = ServeHandleBackend("tutor-x")
    backend._handle = type(
        "Handle", (), {"advise": type("M", (), {"remote": lambda self, requests, within_s: response})()}
    )()
    return backend, response


def test_a_serve_call_that_takes_too_long_is_cancelled() -> None:
    backend, response = handle_backend(TimeoutError())
    with pytest.raises(BackendError, match=r"within 1\.5 s") as caught:
        backend.advise(ask("x"), 1.5)
    assert response.cancelled and caught.value.retry and backend._handle is not None


def test_a_serve_call_that_fails_is_retried_with_a_new_handle() -> None:
    backend, _ = handle_backend(RuntimeError("replica died"))
    with pytest.raises(BackendError, match="replica died") as caught:
        backend.advise(ask("x"), 1.5)
    assert caught.value.retry and backend._handle is None
