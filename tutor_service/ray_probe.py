"""Ask a Ray address whether a cluster answers there and lets us in, within seconds.

Ray itself takes 20 s and more to give up on an address, and does not say that it was the token.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutor_service.errors import UserError

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
TOKEN_PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"

TIMEOUT_S = 4.0
"""For each of two steps."""

_METHOD = "/ray.rpc.InternalKVGcsService/InternalKVKeys"


def check_ray_address(address: str) -> None:
    """Refuse an address where no Ray cluster can be joined.

    Args:
        address: As ``ray.init`` takes it. ``auto``: what Ray has noted as this machine's cluster, if anything. Of
            ``ray://`` the token is Ray's own to check.

    Where the cluster asks for a token and ``$RAY_AUTH_MODE`` says nothing, the token that Ray keeps is tried, and this
    process uses it from then on: a cluster of plain ``ray start --head`` turns its token on by itself.

    Raises:
        UserError: Nobody answers, somebody else does, or the token is missing or wrong.
    """
    if address == "auto":
        _check_noted()
        return
    where = address.removeprefix("ray://")
    host, _, port = where.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise UserError(
            f"no Ray answers at '{address}': {reason}. Check --address and $RAY_ADDRESS; without both Ray runs here."
        ) from error
    if where == address:
        _check_token(address)
    else:
        _check_client_server(address, where)


def _check_client_server(address: str, where: str) -> None:
    """Wait for the greeting of a gRPC server: Ray Client itself tries it three times, for half a minute in all."""
    import grpc

    with grpc.insecure_channel(where) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            raise UserError(
                f"something answers at '{address}', but it is no Ray Client server, which has by default port 10001."
            ) from None


def noted_address(environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the cluster that Ray has noted as this machine's, and the file that says so; None where none is."""
    folder = environ.get("RAY_TMPDIR") or (environ.get("TMPDIR") if sys.platform == "linux" else None) or "/tmp"
    note = Path(folder) / "ray" / "ray_current_cluster"
    try:
        address = note.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return (address, note) if address else None


def _check_noted() -> None:
    found = noted_address(os.environ)
    if found is None:
        return
    address, note = found
    try:
        check_ray_address(address)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(
            f"Ray's note of this machine's cluster, '{note}', names '{address}', where nobody answers: that Ray was "
            f"killed. Remove the file (`rm {note}`)."
        ) from error


def _check_token(address: str) -> None:
    """Ask the cluster's head for the names of its settings, as every Ray process does first."""
    import grpc

    mode = os.environ.get(MODE_VARIABLE)
    token = find_token(os.environ, Path.home()) if mode == "token" else None
    code = _status(address, token)
    if code == grpc.StatusCode.UNAUTHENTICATED and mode is None:
        token = find_token(os.environ, Path.home())
        if token is not None:
            code = _status(address, token)
            if code is None:
                _turn_token_on()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        raise UserError(
            f"the Ray at '{address}' "
            + ("refuses the token: it is another cluster's, or has been changed." if token else "asks for a token.")
            + f" Set {TOKEN_VARIABLE} or {TOKEN_PATH_VARIABLE}, or put it into ~/.ray/auth_token"
            + ("." if mode in (None, "token") else f", and {MODE_VARIABLE}=token, which is '{mode}'.")
        )
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        raise UserError(
            f"something answers at '{address}', but it is no Ray cluster. --address is the head's own, by default port "
            "6379; a dashboard's address belongs to `tutor submit`."
        )


def _status(address: str, token: str | None) -> Any:
    """Return the status of one call to a cluster's head; None where it was answered."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
    return None


def _turn_token_on() -> None:
    """Have Ray send its token, in this process and in those that it starts."""
    os.environ[MODE_VARIABLE] = "token"
    if "ray" in sys.modules:
        from ray._raylet import Config  # type: ignore[attr-defined]

        Config.initialize("")  # Ray has read the variable when it was imported


def find_token(environ: Mapping[str, str], home: Path) -> str | None:
    """The token where Ray itself looks for it: ``$RAY_AUTH_TOKEN``, ``$RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``.

    Raises:
        UserError: ``$RAY_AUTH_TOKEN_PATH`` names a file that cannot be read or is empty.
    """
    if token := environ.get(TOKEN_VARIABLE, "").strip():
        return token
    named = environ.get(TOKEN_PATH_VARIABLE)
    path = Path(named).expanduser() if named else home / ".ray" / "auth_token"
    if not named and not path.is_file():
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the token file '{path}' cannot be read: {error}") from error
    if not token:
        raise UserError(f"the token file '{path}' is empty. Make one with `ray get-auth-token --generate`.")
    return token
