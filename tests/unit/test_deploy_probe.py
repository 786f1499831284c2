"""What is said of a Ray address, and how soon, before Ray is asked to join it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tune_sweeps.cluster.session import _cannot_start
from tutor_service import ray_probe
from tutor_service.errors import UserError
from tutor_service.ray_probe import check_ray_address, noted_address

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
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "RAY_AUTH_MODE=token, which is 'disabled'" in refused(head), "what is said by hand stays"
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
    monkeypatch.setattr(ray_probe, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert f"it is no {what}" in refused(f"{scheme}127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_of_ray_client_is_taken_for_one(head: str) -> None:
    check_ray_address(f"ray://{head}")


@pytest.mark.parametrize("kept", ["variable", "file"])
def test_a_token_that_ray_keeps_is_used_where_no_mode_is_set(
    kept: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_on = []
    monkeypatch.setattr(ray_probe, "_turn_token_on", lambda: turned_on.append(kept))
    if kept == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    else:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    check_ray_address(head)
    assert turned_on == [kept]


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_without_a_note_the_cluster_is_rays_to_find(note: Path) -> None:
    check_ray_address("auto")
    note.write_text("")
    check_ray_address("auto")


def test_a_note_that_names_a_killed_ray_is_to_be_removed(note: Path) -> None:
    note.write_text("127.0.0.1:9\n")
    assert noted_address({"RAY_TMPDIR": str(note.parents[1])}) == ("127.0.0.1:9", note)
    text = refused("auto")
    assert "'127.0.0.1:9', where nobody answers" in text and f"`rm {note}`" in text


def test_a_note_that_names_a_running_ray_is_followed(note: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note.write_text(head)
    assert "asks for a token" in refused("auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    check_ray_address("auto")


def test_other_versions_are_named() -> None:
    error = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis…")
    text = str(_cannot_start("head:6379", error))
    assert "Ray: 2.9.0 Python: 3.10.1" in text
