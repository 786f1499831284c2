"""Say where a service listens and who may ask. Loads no web framework."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tutor_service.secrets import read_secret


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Say what the HTTP side of a gateway lets in.

    Attributes:
        token_sha256: SHA-256 of the bearer token, so that the token itself is kept nowhere; None: no token needed.
        max_body_bytes: Largest request body.
    """

    token_sha256: bytes | None = None
    max_body_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Say where a service listens, and who may ask.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        token_env: Environment variable that holds the bearer token.
        token_file: File that holds it. At most one of the two; none: everybody who reaches the port may ask.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_env: str | None = None
    token_file: Path | None = None

    def access(self) -> AccessSettings:
        """Return what is let in, with the digest of the token that this node holds.

        Raises:
            UserError: The token cannot be read.
        """
        token = read_secret("bearer token", self.token_env, self.token_file)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest() if token else None
        return AccessSettings(token_sha256=digest)
