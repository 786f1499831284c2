"""Post a question to an endpoint and return what came back. Owns the connection; knows nothing of what is asked."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from tutor_service.engines.endpoint.reply import Received, error_words
from tutor_service.proxies import open_client, proxy_words

MAX_BODY_BYTES = 4 * 2**20
_MAX_CONNECT_S = 20.0
_MAX_REDIRECTS = 5
_LAST_PORT = 65_535
_PATH = "/chat/completions"


class Unanswered(Exception):
    """Say that no reply came.

    Args:
        reason: Why, for a person.
        late: Whether the time was up; the provider may have done the work all the same.
        paused: Whether nothing was sent, since the endpoint asks for a longer pause than an answer may take.
    """

    def __init__(self, reason: str, *, late: bool = False, paused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.late = late
        self.paused = paused


class Transport:
    """Call one endpoint's chat completions.

    Args:
        base_url: Its address, to whose path ``/chat/completions`` is added unless it is there.
        key: Its API key, or the scheme and the credentials of another ``Authorization``; shown nowhere.
        timeout_s: Seconds for a whole reply.
        max_connections: Most requests at a time.

    Raises:
        UserError: The environment names a proxy that cannot be used.
    """

    def __init__(self, base_url: str, key: str | None, timeout_s: float, max_connections: int) -> None:
        parts = urlsplit(base_url)
        self.url = urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix(_PATH) + _PATH, fragment=""))
        self._key = key.split()[-1] if key else None
        self._timeout_s = timeout_s
        self._client = open_client(
            httpx.AsyncClient,
            self.url,
            headers={"Authorization": _authorization(key)} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        )

    async def post(self, body: dict[str, Any]) -> Received:
        """Post one body as JSON.

        Raises:
            Unanswered: The endpoint cannot be reached, breaks off, or takes longer than it may.
        """
        try:
            return await asyncio.wait_for(self._post(body), self._timeout_s)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise Unanswered(
                f"no answer within timeout_s = {self._timeout_s:g}{proxy_words(self.url)}", late=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            cause = str(error).strip() or type(error).__name__
            raise Unanswered(f"{cause}{_tls_words(error)}{self._redirected(error)}{proxy_words(self.url)}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, body: dict[str, Any]) -> Received:
        """Post, and post again where the server redirects to: a GET, which browsers would send, asks for nothing."""
        request = self._client.build_request("POST", self.url, json=body)
        for _ in range(1 + _MAX_REDIRECTS):
            response = await self._client.send(request, stream=True)
            try:
                content = await _content(response)
            finally:
                await response.aclose()
            if response.next_request is None:
                break
            if (response.next_request.url.port or 0) > _LAST_PORT:
                raise httpx.ConnectError(f"the last port is {_LAST_PORT}", request=response.next_request)
            request = self._client.build_request("POST", response.next_request.url, json=body)
            if "Authorization" not in response.next_request.headers:  # another host's business
                request.headers.pop("Authorization", None)
        if response.status_code == 200:
            return Received(200, content)
        return Received(
            response.status_code,
            content,
            (error_words(content, self._key) or response.reason_phrase) + _elsewhere(response.url, self.url),
            retry_after(response.headers.get("retry-after-ms"), response.headers.get("retry-after"), time.time()),
        )

    def _redirected(self, error: Exception) -> str:
        return _elsewhere(error.request.url, self.url) if isinstance(error, httpx.RequestError) else ""


async def _content(response: httpx.Response) -> bytes:
    """Return the body, of an endless one the beginning."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk[: MAX_BODY_BYTES - len(content)]
        if len(content) >= MAX_BODY_BYTES:
            break
    return bytes(content)


def _authorization(key: str) -> str:
    scheme = key.split()[0].casefold()
    return key if scheme in ("basic", "bearer") else f"Bearer {key}"


def _elsewhere(url: httpx.URL, asked: str) -> str:
    """Name the address that a request was redirected to, after a space; empty where it was not."""
    return f" after a redirect to {url}" if url != httpx.URL(asked) else ""


def _tls_words(error: BaseException | None) -> str:
    """Say what may help where two machines cannot agree on TLS; empty for other errors."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "; SSL_CERT_FILE names a file of certificates to trust"
        if isinstance(error, ssl.SSLError):
            return "; is it http instead of https?"
        error = error.__cause__ or error.__context__
    return ""


def retry_after(milliseconds: str | None, value: str | None, now: float) -> float | None:
    """Return the seconds that a server asks to wait, from its headers: a number, or the date of RFC 9110.

    Args:
        milliseconds: ``retry-after-ms``, which some servers add.
        value: ``Retry-After``.
        now: Seconds since the epoch.
    """
    for text, factor in ((milliseconds, 1e-3), (value, 1.0)):
        try:
            seconds = float(text or "nan") * factor
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
