"""What is said of a Ray address, and how soon, before Ray is asked to join it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tune_sweeps.cluster import probe
from tune_sweeps.cluster.probe import check_ray_address
from tune_sweeps.cluster.session import _cannot_start
from tutor_service.errors import UserError

TOKEN = "a" * 64


class Head(grpc.GenericRpcHandler):
    """Answers any method to whoever has the token, as Ray's head does."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        given = dict(details.invocation_metadata).get("authorization")

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if given != f"Bearer {TOKEN}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def head() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def refused(address: str) -> str:
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_ray_address(address)
    assert time.monotonic() - started < 10
    return str(caught.value)


def test_the_right_token_lets_in(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    check_ray_address(head)


def test_a_missing_and_a_wrong_token_are_told_apart(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "asks for a token" in refused(head)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert "RAY_AUTH_MODE=token" in refused(head), "without the mode Ray sends no token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    text = refused(head)
    assert "refuses the token" in text and "bbb" not in text


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_at_the_address(scheme: str) -> None:
    assert f"no Ray answers at '{scheme}127.0.0.1:9'" in refused(f"{scheme}127.0.0.1:9")
    assert "no Ray answers" in refused(f"{scheme}no-such-host.invalid:6379")


@pytest.mark.parametrize(("scheme", "what"), [("", "Ray cluster"), ("ray://", "Ray Client server")])
def test_somebody_who_says_nothing(scheme: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert f"it is no {what}" in refused(f"{scheme}127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_of_ray_client_is_taken_for_one(head: str) -> None:
    check_ray_address(f"ray://{head}")


def test_what_ray_finds_itself_is_left_to_it() -> None:
    check_ray_address("auto")


def test_other_versions_are_named() -> None:
    error = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis…")
    text = str(_cannot_start("head:6379", error))
    assert "Ray: 2.9.0 Python: 3.10.1" in text
