"""Ask a Ray address whether a cluster answers there and lets us in, within seconds.

Ray itself takes 20 s and more to give up on an address, and does not say that it was the token.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tune_sweeps.cluster.address import find_token
from tutor_service.errors import UserError

TIMEOUT_S = 4.0
"""For each of two steps."""

_METHOD = "/ray.rpc.InternalKVGcsService/InternalKVKeys"


def check_ray_address(address: str) -> None:
    """Refuse an address where no Ray cluster can be joined.

    Args:
        address: As ``ray.init`` takes it. ``auto`` is Ray's own to find; of ``ray://`` the token is.

    Raises:
        UserError: Nobody answers, somebody else does, or the token is missing or wrong.
    """
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


def _check_token(address: str) -> None:
    """Ask the cluster's head for the names of its settings, as every Ray process does first."""
    import grpc

    token = find_token(os.environ, Path.home()) if os.environ.get("RAY_AUTH_MODE") == "token" else None
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()  # type: ignore[attr-defined]
        else:
            return
    if code == grpc.StatusCode.UNAUTHENTICATED:
        raise UserError(
            f"the Ray at '{address}' "
            + ("refuses the token: it is another cluster's, or has been changed." if token else "asks for a token.")
            + " Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it into ~/.ray/auth_token."
        )
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        raise UserError(
            f"something answers at '{address}', but it is no Ray cluster. --address is the head's own, by default port "
            "6379; a dashboard's address belongs to `tutor submit`."
        )
