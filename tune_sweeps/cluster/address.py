"""Find a cluster's dashboard, and the token that opens it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from tutor_service.errors import UserError
from tutor_service.ray_probe import TOKEN_VARIABLE

DEFAULT_PORT = 8265


def dashboard_url(address: str) -> str:
    """Return the dashboard's base address from what a person types: a URL, ``host:port`` or ``host``.

    Raises:
        UserError: Another kind of address (Ray Client's, a GCS address), a user name or password in it, or no host.
    """
    text = address.strip()
    if text.startswith("ray://"):
        raise UserError(
            f"--address '{address}' is Ray Client's. Jobs go to the dashboard, e.g. http://HOST:{DEFAULT_PORT}."
        )
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"--address '{address}' is no address ({error}). Give http://HOST:{DEFAULT_PORT}.") from error
    if parts.username or parts.password:
        raise UserError(f"--address holds a user name or password; the token belongs in ${TOKEN_VARIABLE}.")
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise UserError(f"--address '{address}' is no dashboard address. Give http://HOST:{DEFAULT_PORT}.")
    shown_host = f"[{host}]" if ":" in host else host
    if port is None and parts.scheme == "http":
        port = DEFAULT_PORT
    return f"{parts.scheme}://{shown_host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def keeps_secrets(url: str) -> bool:
    """Whether a token sent there can be read by nobody on the way: TLS, or this machine's loopback."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
