"""Find a cluster's dashboard, and the token that opens it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tutor_service.errors import UserError

DEFAULT_PORT = 8265
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
TOKEN_PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"


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
